"""The causal question of a file that is too large to load, from sufficient statistics: linear adjustment, or a double difference.

What needs every row at once (cross-fitted nuisances, overlap, balance, most refuters) is not to be had, so the verdict is at most
`review`, and says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from e2i.causal.design import MINIMUM_PER_ARM, Identification, require_roles
from e2i.causal.designs.controls import LEVEL, told_placebo, untested
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import as_effect, refused
from e2i.causal.gate import Evidence, weigh
from e2i.causal.panel.compressed import fit_moments, fit_rows, two_way
from e2i.causal.panel.compressed_paths import Adoption, PeriodCells, Profile, event_path
from e2i.causal.panel.hazards import ALWAYS_REVIEW
from e2i.domain.disclosure import counted, visible
from e2i.domain.evidence import CausalFinding, Hazard, PeriodEffect, Refutation
from e2i.errors import CausalError, DataError, NotIdentified, NoVariation, SchemaMismatch, TooFewRows

if TYPE_CHECKING:
    from e2i.domain.study import EffectSpec, Study
    from e2i.ports.compute import Executor
    from e2i.ports.data import LargeTable

_FEW_COMBINATIONS = 100_000
"""different rows up to which equal rows are kept once; beyond it cross products are smaller"""
_INCOMPLETE = 0.05
_SAMPLE = "Draw a random sample of units into a smaller file and run the same study on it."


@dataclass(frozen=True, kw_only=True)
class LargeAnswer:
    """The finding, and the table that it was found in."""

    finding: CausalFinding
    """verdict `review` or `block`; `refusal` says why where the question needs the rows themselves"""
    rows: int
    columns: tuple[str, ...]
    is_synthetic: bool


async def large_effect(study: Study, table: LargeTable, *, compute: Executor) -> LargeAnswer:
    """Estimate and judge an effect without loading the file; memory is bounded by the table's own limit.

    Raises
    ------
    SchemaMismatch, TooFewRows, DataError, NotFound, BackendRejected, BackendUnavailable
        The file itself is unfit; see `ports.data.LargeTable`.
    """
    return await compute.run(answer_large, table, study)


def answer_large(table: LargeTable, study: Study) -> LargeAnswer:
    """`large_effect` where it stands. Raises the same."""
    effect = study.effect
    assert effect is not None
    reason = _unanswerable(effect)
    if reason is not None:
        return _answer(refused(reason), table.profile(outcome=effect.outcome, treatment=effect.outcome))
    adjustment = tuple(dict.fromkeys((*effect.confounders, *effect.modifiers)))
    cluster = (effect.cluster,) if effect.cluster is not None else ()
    profile = table.profile(outcome=effect.outcome, treatment=effect.treatment, others=cluster, unit=study.unit, time=study.time)
    is_panel = study.unit is not None and study.time is not None and profile.most_rows_of_a_unit > 1 and profile.periods > 1
    if not is_panel and adjustment:
        others = (*adjustment, *cluster)
        profile = table.profile(outcome=effect.outcome, treatment=effect.treatment, others=others, unit=study.unit, time=study.time)
    try:
        require_roles(effect, profile.columns, unit=study.unit, time=study.time)
        _require_variation(profile, effect)
        return _answer((_panel if is_panel else _cross_section)(table, study, effect, profile), profile)
    except CausalError as error:
        return _answer(refused(error), profile)


def _answer(finding: CausalFinding, profile: Profile) -> LargeAnswer:
    return LargeAnswer(finding=finding, rows=profile.rows, columns=profile.columns, is_synthetic=profile.is_synthetic)


def _unanswerable(effect: EffectSpec) -> NotIdentified | None:
    """What a linear model on sums cannot take into account."""
    found = (
        (effect.design not in ("auto", "cross_section", "did"), f"design `{effect.design}`"),
        (bool(effect.instruments), "an instrument"),
        (effect.weights is not None, "sampling weights"),
        (effect.cohort is not None, "`cohort`, unlike a 0/1 treatment per unit and period,"),
        (effect.reference is not None, "a treatment with several levels"),
        (effect.anticipation > 0, "`anticipation`"),
        (bool(effect.edges), "a causal graph"),
        (bool(effect.randomised_within), "a lottery within strata"),
        (effect.assigned_share is not None, "the planned share of arms"),
        (effect.estimand in ("ATO", "LATE"), f"estimand {effect.estimand}"),
    )
    what = next((what for is_asked, what in found if is_asked), None)
    if what is None:
        return None
    return NotIdentified(f"the file is too large to load, and {what} needs its rows.", where="effect", advice=f"{_SAMPLE} Or leave it out.")


def _require_variation(profile: Profile, effect: EffectSpec) -> None:
    where = f"column {effect.treatment}"
    if profile.complete == 0:
        raise TooFewRows("no row has all of the columns.", where="effect", advice="Check for columns that are empty.")
    if profile.low == profile.high:
        raise NoVariation(f"the treatment is {profile.low:g} in every row.", where=where, advice="An effect needs rows that differ in it.")
    if profile.doses <= 2 and (profile.low, profile.high) != (0.0, 1.0):
        what = f"treatment `{effect.treatment}` has the values {profile.low:g} and {profile.high:g}, not 0/1."
        raise SchemaMismatch(what, where=where, advice="Recode it: 1 = treated, 0 = not treated.")


def _cross_section(table: LargeTable, study: Study, effect: EffectSpec, profile: Profile) -> CausalFinding:
    if effect.design == "did":
        raise NotIdentified("design `did` does not fit: every unit has one row.", where="effect.design", advice="Name `unit` and `time`.")
    if profile.most_rows_of_a_unit > 1:
        what = f"units have up to {profile.most_rows_of_a_unit} rows; a cross-section has one row per unit."
        raise SchemaMismatch(what, where=f"column {study.unit}", advice="Aggregate to one row per unit, or name `time`.")
    adjustment = tuple(dict.fromkeys((*effect.confounders, *effect.modifiers)))
    if not adjustment and not effect.randomised:
        raise NotIdentified(
            "no confounders are named, so nothing separates the effect from the reasons for treatment.",
            where="effect.confounders",
            advice="Name the common causes of treatment and outcome, or say `randomised: true` when chance decided who was treated.",
        )
    is_dose = profile.treated + profile.untreated < profile.complete
    if not is_dose and min(profile.treated, profile.untreated) < MINIMUM_PER_ARM:
        what = f"{profile.treated} treated and {profile.untreated} untreated rows; each arm needs {MINIMUM_PER_ARM}."
        raise TooFewRows(what, where="treatment", advice="Collect more rows or widen the definition of treatment.")
    spec = _identification(effect, study, "cross_section", estimand="APE" if is_dose else effect.estimand or "ATE", adjustment=adjustment)
    found = _linear(table, effect.outcome, spec, few=profile.combinations <= _FEW_COMBINATIONS)
    estimate = replace(found, n_treated=profile.complete - profile.untreated, n_untreated=profile.untreated)
    line = Hazard(
        code="linear_adjustment_only",
        action="review",
        text="the file is too large to load: one straight line per confounder and the same effect for everybody were assumed; overlap, "
        "balance and curvature were not checked.",
        remedy=_SAMPLE,
    )
    controls = _controls(table, effect, spec, few=profile.combinations <= _FEW_COMBINATIONS)
    reason = "one row per unit, too many to load: least squares on sufficient statistics of all rows."
    return _finding(estimate, spec, profile, hazards=(line, *_incomplete(profile)), refutations=controls, reason=reason)


def _linear(table: LargeTable, outcome: str, spec: Identification, *, few: bool) -> Estimate:
    """The coefficient of treatment, clustered or HC1; exactly that of all rows."""
    regressors = (spec.treatment, *spec.adjustment)
    if few:
        fit = fit_rows(
            table.rows(outcome=outcome, regressors=regressors, cluster=spec.cluster), variance="HC1" if spec.cluster is None else "cluster"
        )
    else:
        moments = table.moments(outcome=outcome, regressors=regressors, cluster=spec.cluster)
        fit = fit_moments(moments)
        if spec.cluster is None:
            fit = fit_moments(moments, squares=table.squares(outcome=outcome, regressors=regressors, fit=fit))
    return fit.effect(spec.treatment, estimand=spec.estimand)


def _controls(table: LargeTable, effect: EffectSpec, spec: Identification, *, few: bool) -> tuple[Refutation, ...]:
    """The same regression on outcomes that treatment cannot move."""
    tests = {f"negative_control:{name}": name for name in effect.negative_controls}
    tests |= {f"pre_period_placebo:{name}": name for name in effect.pre_outcomes}
    found = []
    for test, name in tests.items():
        try:
            found.append(told_placebo(test, _linear(table, name, spec, few=few), level=LEVEL / len(tests)))
        except (CausalError, DataError) as error:  # the control cannot be used; the effect stands without it
            found.append(untested(test, str(error)))
    return tuple(found)


def _panel(table: LargeTable, study: Study, effect: EffectSpec, profile: Profile) -> CausalFinding:
    if effect.design == "cross_section":
        raise NotIdentified("design `cross_section` does not fit: units have several rows.", where="effect.design", advice="Use `did`.")
    if effect.estimand not in (None, "ATT"):
        raise NotIdentified(f"design `did` estimates ATT, not {effect.estimand}.", where="effect.estimand", advice="Leave it out.")
    if adjusted := tuple(dict.fromkeys((*effect.confounders, *effect.modifiers))):
        raise NotIdentified(
            f"the file is too large to load, and trends that differ by {', '.join(f'`{name}`' for name in adjusted)} need its rows.",
            where="effect.confounders",
            advice=f"{_SAMPLE} Or leave them out, if they stay the same within units and move no trend.",
        )
    assert study.unit is not None
    assert study.time is not None
    is_dose = profile.treated + profile.untreated < profile.complete
    spec = _identification(effect, study, "did", estimand="APE" if is_dose else "ATT", adjustment=())
    roles = {"unit": study.unit, "time": study.time, "treatment": effect.treatment, "cluster": effect.cluster}
    cells = table.period_cells(outcome=effect.outcome, **roles)  # type: ignore[arg-type]
    if not is_dose and cells.adoption.treated_from_start == cells.adoption.treated:
        raise NotIdentified(
            "no pre-period: every treated unit is treated in its first period.",
            where=f"column {effect.treatment}",
            advice="Add earlier periods.",
        )
    every = is_dose or cells.adoption.switches
    estimate = two_way(table.two_way(outcome=effect.outcome, always_treated=every, **roles))  # type: ignore[arg-type]
    path, refutations = _event_study(cells)
    controls = _panel_controls(table, effect, roles, every=every)
    if effect.place is not None:
        controls = (*controls, untested(f"spill_over:{effect.place}", "the file is too large to load."))
    hazards = (*_about_the_panel(cells.adoption, is_dose=is_dose), *_incomplete(profile))
    reason = "units over time, too many rows to load: two-way fixed effects on sufficient statistics of all rows."
    found = replace(estimate, estimand=spec.estimand)
    return _finding(found, spec, profile, hazards=hazards, refutations=(*refutations, *controls), reason=reason, event_study=path)


def _event_study(cells: PeriodCells) -> tuple[tuple[PeriodEffect, ...], tuple[Refutation, ...]]:
    """Only where all start together; else the pieces would be weighted wrongly (Sun & Abraham 2021)."""
    if len(cells.event_time) == 0:
        return (), ()
    path = event_path(cells)
    tested = path.pre_trend()
    return path.points(), () if tested is None else (tested,)


def _panel_controls(table: LargeTable, effect: EffectSpec, roles: dict[str, str | None], *, every: bool) -> tuple[Refutation, ...]:
    found = []
    for name in effect.negative_controls:
        test = f"negative_control:{name}"
        try:
            estimate = two_way(table.two_way(outcome=name, always_treated=every, **roles))  # type: ignore[arg-type]
            found.append(told_placebo(test, estimate, level=LEVEL / len(effect.negative_controls)))
        except (CausalError, DataError) as error:  # the control cannot be used; the effect stands without it
            found.append(untested(test, str(error)))
    return tuple(found)


def _about_the_panel(adoption: Adoption, *, is_dose: bool) -> tuple[Hazard, ...]:
    text = "the file is too large to load: one effect for all units and periods was assumed."
    found = [Hazard(code="two_way_only", action="review", text=text, remedy=_SAMPLE)]
    if adoption.starts > 1 and not adoption.switches and not is_dose:
        text = f"treatment begins at {adoption.starts} different times: two-way fixed effects may weigh some effects with the wrong sign."
        found.append(Hazard(code="staggered_two_way", action="review", text=text, remedy=_SAMPLE, measured=float(adoption.starts)))
    if adoption.switches and not is_dose:
        text = "treatment switches off again: effects that outlast it are taken for the outcome without treatment."
        found.append(Hazard(code="switching_two_way", action="review", text=text, remedy=_SAMPLE))
    always = int(adoption.treated_from_start)
    if always and not adoption.switches and not is_dose:
        share = always / adoption.treated
        action, rest = ("review", ": the effect is that of the others") if share > ALWAYS_REVIEW else ("warn", "")
        text = f"{counted(always, 'units')} are treated from their first period on and left out{rest}."
        remedy = "Nothing shows them before treatment; add earlier periods to keep them."
        measured = None if visible(always) is None else float(always)
        found.append(Hazard(code="always_treated", action=action, text=text, remedy=remedy, measured=measured, threshold=ALWAYS_REVIEW))  # type: ignore[arg-type]
    return tuple(found)


def _incomplete(profile: Profile) -> tuple[Hazard, ...]:
    share = 1.0 - profile.complete / profile.rows
    if share == 0:
        return ()
    text = f"{share:.2%} of the rows lack a value that is needed, and were left out."
    action = "review" if share > _INCOMPLETE else "warn"
    return (Hazard(code="incomplete_rows", action=action, text=text, measured=share, threshold=_INCOMPLETE),)  # type: ignore[arg-type]


def _identification(effect: EffectSpec, study: Study, design: str, *, estimand: str, adjustment: tuple[str, ...]) -> Identification:
    return Identification(
        design=design,
        estimand=estimand,
        treatment=effect.treatment,
        outcome=effect.outcome,
        adjustment=adjustment,
        unit=study.unit,
        time=study.time if design == "did" else None,
        cluster=effect.cluster,
        is_randomised=effect.randomised,
    )


def _finding(
    estimate: Estimate,
    spec: Identification,
    profile: Profile,
    *,
    hazards: tuple[Hazard, ...],
    refutations: tuple[Refutation, ...],
    reason: str,
    event_study: tuple[PeriodEffect, ...] = (),
) -> CausalFinding:
    naive = None
    if spec.estimand != "APE" and profile.mean_treated is not None and profile.mean_untreated is not None:
        naive = profile.mean_treated - profile.mean_untreated
    effect = as_effect(estimate, spec, naive_difference=naive, outcome_mean_untreated=profile.mean_untreated)
    # The gate asks a loaded cross-section for tests on halves of its rows; these hazards say already what was not tested.
    verdict = weigh(
        replace(effect, design="sufficient_statistics"),
        Evidence(hazards=hazards, refutations=refutations, is_randomised=spec.is_randomised),
    )
    return CausalFinding(
        effect=effect, verdict=verdict, refutations=refutations, hazards=hazards, reasons=(reason,), event_study=event_study
    )
