"""What estimation hands on: the answer, and the fitted nuisances that refuters and segments reuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields

from e2i.causal.certificate import certify, shape_of_panel, shape_of_sample
from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.hazards import Concern
from e2i.causal.panel.data import Panel
from e2i.domain.evidence import Answer, CausalFinding, Effect, Hazard, Verdict
from e2i.errors import CausalError, DataError, NotIdentified


@dataclass(frozen=True, kw_only=True)
class Estimation(Answer):
    """An answer with what was fitted; nuisances only where a design has them."""

    concerns: tuple[Concern, ...] = ()
    propensity: Propensity | None = None
    fit: Fit | None = None

    @property
    def answer(self) -> Answer:
        """Without the arrays."""
        return Answer(**{each.name: getattr(self, each.name) for each in fields(Answer)})


def refused(error: CausalError, *, hazards: tuple[Hazard, ...] = (), reasons: tuple[str, ...] = ()) -> CausalFinding:
    """The finding that there is no estimate, and why."""
    return CausalFinding(
        effect=None, verdict=Verdict(name="block", reasons=(str(error),)), refusal=str(error), hazards=hazards, reasons=reasons
    )


def as_effect(
    estimate: Estimate,
    identification: Identification,
    *,
    naive_difference: float | None = None,
    outcome_mean_untreated: float | None = None,
    certificate: str | None = None,
    must_agree: bool = True,
) -> Effect:
    """An estimator's answer as people get it, without the influence values."""
    return Effect(
        estimand=estimate.estimand,
        design=identification.design,
        estimator=estimate.estimator,
        estimate=estimate.estimate,
        standard_error=estimate.standard_error,
        n_treated=estimate.n_treated,
        n_untreated=estimate.n_untreated,
        naive_difference=naive_difference,
        outcome_mean_untreated=outcome_mean_untreated,
        diagnostics=dict(estimate.diagnostics),
        bounds=None if estimate.interval_method.startswith("normal") else estimate.interval,
        interval_method=estimate.interval_method,
        p_value=estimate.p_value,
        scale=estimate.scale,
        certificate=certificate,
        must_agree=must_agree,
        outcome_kind=identification.outcome_kind,
    )


def certificate_of_sample(estimate: Estimate, sample: Sample) -> str:
    """What is known about an interval on one row per unit of this shape."""
    return certify(estimate.estimator, shape_of_sample(sample), estimand=estimate.estimand)


def certificate_of_panel(estimate: Estimate, panel: Panel) -> str:
    """What is known about an interval on a panel of this shape."""
    return certify(estimate.estimator, shape_of_panel(panel), estimand=estimate.estimand)


def beside(
    candidates: Mapping[str, Callable[[], Estimate]], identification: Identification, *, apart: Collection[str] = ()
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Other estimators of the same question, and in words those that these data do not allow: the main estimate stands on its own.

    Parameters
    ----------
    candidates : name -> fit
    apart : names of those that answer a neighbouring question, so that the gate does not ask them to agree
    """
    found, missed = [], []
    for name, fit in candidates.items():
        try:
            found.append(as_effect(fit(), identification, must_agree=name not in apart))
        except (CausalError, DataError) as error:
            missed.append(f"{name} beside it is not to be had: {error.what}")
    return tuple(found), tuple(missed)


def as_warnings(notes: tuple[str, ...]) -> tuple[Hazard, ...]:
    """What an estimator did to the data, told as hazards that judge nothing."""
    return tuple(Hazard(code="note", action="warn", text=f"{note[0].upper()}{note[1:]}.".replace("..", ".")) for note in notes if note)


def told_reasons(identification: Identification) -> tuple[str, ...]:
    """Why this design, what it left out, and why not the others."""
    by_reason: dict[str, list[str]] = {}
    for design, why in identification.refused:
        by_reason.setdefault(why.rstrip("."), []).append(design)
    refused = "; ".join(f"{', '.join(designs)}: {why}" for why, designs in by_reason.items())
    return (*identification.reasons, *identification.notes, *((f"Not chosen: {refused}.",) if refused else ()))


def refused_by(hazards: tuple[Hazard, ...], identification: Identification) -> CausalFinding | None:
    """The finding that the first hazard to refuse, or one that nobody has let pass, ends the analysis; None where none does."""
    for hazard in hazards:
        is_open = hazard.action == "override" and hazard.code not in identification.override
        if hazard.action == "refuse" or is_open:
            let = f" Or, having looked at it, let it pass: `override: [{hazard.code}]` under `effect`." if is_open else ""
            error = NotIdentified(hazard.text, where=hazard.code, advice=f"{hazard.remedy}{let}")
            return refused(error, hazards=hazards, reasons=told_reasons(identification))
    return None
