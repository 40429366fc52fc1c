"""Few treated units or a single series: the path without treatment is rebuilt from donors, or from the series' own past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.design import Identification
from e2i.causal.designs.over_time import about_days, raw_difference, seen_before
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, certificate_of_panel, refused_by, told_reasons
from e2i.causal.panel.data import Panel
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.interrupted import InterruptedFit, InterruptedSeries
from e2i.causal.panel.partial_start import without_partial_period
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.synthetic_control import SyntheticControl
from e2i.causal.panel.synthetic_did import SyntheticDiD
from e2i.causal.panel.synthetic_fit import SyntheticFit
from e2i.domain.evidence import CausalFinding, Effect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, DataError

_LEVEL = 0.05
SERIES = "series"
"""unit of a study that names none"""


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect, the rebuilt path and the donors. Raises CausalError, and DataError when the table is unfit."""
    panel, identification = _panel(frame, identification)
    hazards = (*about_days(frame, effect), *panel_hazards(panel, identification))
    if (refusal := refused_by(hazards, identification)) is not None:
        return refusal
    panel = seen_before(panel, identification)
    found = _study(panel, identification, seed=seed)
    others, missed = _others(panel, identification, seed=seed)
    naive, untreated = raw_difference(panel, identification)
    return Estimation(
        effect=as_effect(
            found.estimate,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_panel(found.estimate, panel),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *found.hazards, *as_warnings((*found.estimate.notes, *missed))),
        alternatives=others,
        event_study=found.event_study if isinstance(found, SyntheticFit) else (),
        path=found.path,
        weights=found.weights if isinstance(found, SyntheticFit) else {},
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """Fit before treatment, placebos in space and time, stability against single donors, negative controls."""
    del estimation
    panel, identification = _panel(frame, identification)
    panel = seen_before(panel, identification)
    return (*_study(panel, identification, seed=seed).refutations, *_negative_controls(panel, identification, seed=seed))


def _panel(frame: pl.DataFrame, identification: Identification) -> tuple[Panel, Identification]:
    """A single series has no unit column: it is one unit. A period that is treated in part is no fair example of those before."""
    if identification.unit is None:
        frame = frame.with_columns(pl.lit(SERIES).alias(SERIES))
        identification = replace(identification, unit=SERIES)
    panel = make_panel(frame, identification)
    return panel, without_partial_period(panel, identification)


def _study(panel: Panel, identification: Identification, *, seed: int) -> SyntheticFit | InterruptedFit:
    if identification.design == "interrupted_time_series":
        return InterruptedSeries().study(panel, identification, seed=seed)
    if identification.design == "synthetic_did":
        return SyntheticDiD().study(panel, identification, seed=seed)
    return SyntheticControl().study(panel, identification, seed=seed)


def _others(panel: Panel, identification: Identification, *, seed: int) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """The neighbouring methods; those that these data do not allow are named."""
    if identification.design == "interrupted_time_series":
        return (), ()
    candidates: dict[str, Callable[[], Estimate]] = {
        "ridge augmented synthetic control": lambda: SyntheticControl(augmented=True).fit(panel, identification, seed=seed)
    }
    if identification.design == "synthetic_did":
        candidates["synthetic control"] = lambda: SyntheticControl().fit(panel, identification, seed=seed)
    else:
        candidates["synthetic difference in differences"] = lambda: SyntheticDiD().fit(panel, identification, seed=seed)
        if panel.covariates.shape[1]:
            candidates["outcomes alone"] = lambda: SyntheticControl(predictors=()).fit(panel, identification, seed=seed)
    return beside(candidates, identification)


def _negative_controls(panel: Panel, identification: Identification, *, seed: int) -> list[Refutation]:
    """The same method on outcomes that treatment cannot move; together they raise a false alarm in 5 % of sound studies at most.

    Where so many ranks cannot give a p-value below 5 % over the number of controls, the first rank alone is an alarm.
    """
    found = []
    for name, values in panel.negative_controls.items():
        known = ~np.isnan(values)
        try:
            told = _study(replace(panel, outcome=np.where(known, values, 0.0)).of_rows(known), identification, seed=seed).estimate
        except (CausalError, DataError) as error:
            detail = f"could not be tested: {error}"
            found.append(Refutation(test=f"untested_negative_control:{name}", passed=True, detail=detail, is_reported_only=True))
            continue
        found.append(_told_control(name, told, number=len(panel.negative_controls)))
    return found


def _told_control(name: str, told: Estimate, *, number: int) -> Refutation:
    """One of `number` controls in words, its p-value by Bonferroni's rule."""
    low, high = told.interval
    if told.p_value is None:
        p_value, smallest, passed = None, None, low <= 0.0 <= high
    else:
        p_value, smallest = (min(1.0, number * value) for value in (told.p_value, told.diagnostics.get("smallest_p", 0.0)))
        passed = p_value > max(_LEVEL, smallest) or told.p_value > _LEVEL
    ending = "zero is allowed, as it must be." if passed else "it should be zero: the treated move differently for other reasons."
    shown = "" if p_value is None else f", p = {p_value:.3g}" + (f" for {number} controls together" if number > 1 else "")
    return Refutation(
        test=f"negative_control:{name}",
        passed=passed,
        detail=f"The effect on `{name}` is {told.estimate:.3g} (95 % {low:.3g} to {high:.3g}{shown}); {ending}",
        p_value=p_value,
        smallest_p=smallest if smallest is not None and smallest <= _LEVEL else None,
        estimate=told.estimate,
    )
