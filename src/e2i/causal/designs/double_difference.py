"""Units over time: changes of the treated against changes of the others; treatments that last, that switch on and off, and doses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification
from e2i.causal.designs.controls import told_placebo, untested
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, certificate_of_panel, refused_by, told_reasons
from e2i.causal.panel import few_treated, on_off
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes, event_times
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.honest import as_refutation, drift_robustness, relative_magnitudes, smoothness
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.pre_trend import placebo_in_time, pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.switchers import switchers_placebo
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.causal.panel.wild import as_estimate, wild_two_way
from e2i.domain.evidence import CausalFinding, Effect, PeriodEffect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, DataError, TooFewRows

Fitter = Callable[[Panel], Estimate]
_FEW_CLUSTERS = 40
_LAGS = 2
_LEVEL = 0.05
_SOUND = ("group-time", "imputation")
"""estimators that must agree with the chosen one also where effects differ between starts, or carry over; the others show what would not"""
_FEWEST_UNITS = 10
"""with a negative control, below which its clustered error says nothing"""
_MOST_UNITS_IMPUTED = 200_000


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,  # noqa: ARG001 - cross-sections check the table by it
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect with other estimators beside it and the event study. Raises CausalError, and DataError when the table is unfit."""
    panel = make_panel(frame, identification)
    hazards = panel_hazards(panel, identification)
    if (refusal := refused_by(hazards, identification)) is not None:
        return refusal
    main = _fitter(identification, seed=seed)(panel)
    if few_treated.has_few_treated(panel):
        main = few_treated.with_honest_interval(main, panel, identification)
    others, missed = _others(panel, identification, seed=seed)
    naive, untreated = _raw(panel, identification)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_panel(main, panel),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *missed))),
        alternatives=others,
        event_study=_periods(panel, identification, seed=seed),
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """What parallel trends, no carry-over and negative controls must show."""
    assert estimation.effect is not None
    panel = make_panel(frame, identification)
    kind = identification.treatment_kind
    if kind in ("on_off", "continuous"):
        found = _tests_of_changing_treatment(panel, identification)
    else:
        found = _tests_before(panel, identification, estimation.effect.interval(), seed=seed)
    return (*found, *_negative_controls(panel, identification, seed=seed))


def _fitter(identification: Identification, *, seed: int) -> Fitter:
    """The estimator that the kind of treatment calls for."""
    if identification.treatment_kind in ("on_off", "continuous"):
        return lambda panel: on_off.fit(panel, identification, seed=seed)
    if identification.treatment_kind == "staggered":
        return lambda panel: GroupTime().fit(panel, identification, seed=seed)
    return lambda panel: TwoWayFixedEffects().fit(panel, identification, seed=seed)


def _others(panel: Panel, identification: Identification, *, seed: int) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Other estimators of the same effect; those that these data do not allow are named."""
    kind = identification.treatment_kind
    candidates: dict[str, Callable[[], Estimate]] = {}
    if kind == "staggered":
        candidates["two-way fixed effects"] = lambda: TwoWayFixedEffects().fit(panel, identification, seed=seed)
    elif kind == "binary":
        candidates["group-time"] = lambda: GroupTime().fit(panel, identification, seed=seed)
    else:
        candidates["distributed lags"] = lambda: on_off.distributed_lags(panel, lags=_LAGS).cumulative(
            estimand="APE" if kind == "continuous" else "ATT"
        )
    if kind in ("staggered", "binary") and panel.n_units <= _MOST_UNITS_IMPUTED:
        candidates["imputation"] = lambda: Imputation().fit(panel, identification, seed=seed)
    if kind == "on_off":
        candidates["two-way fixed effects"] = lambda: TwoWayFixedEffects().fit(panel, identification, seed=seed)
    if kind in ("staggered", "binary") and int(panel.cluster.max()) + 1 <= _FEW_CLUSTERS:
        candidates["wild bootstrap"] = lambda: _by_bootstrap(panel, seed=seed)
    return beside(candidates, identification, apart=() if kind == "binary" else tuple(set(candidates) - set(_SOUND)))


def _by_bootstrap(panel: Panel, *, seed: int) -> Estimate:
    treated = panel.cohort != NEVER
    return as_estimate(
        wild_two_way(panel, seed=seed),
        estimator="two-way fixed effects, wild cluster bootstrap",
        estimand="ATT",
        n_treated=int(treated.sum()),
        n_untreated=int((~treated).sum()),
    )


def _raw(panel: Panel, identification: Identification) -> tuple[float | None, float | None]:
    """Plain difference of rows under treatment and rows that are not, and the mean of the latter; nothing for a dose."""
    if identification.treatment_kind == "continuous":
        return None, None
    on = panel.treatment > 0
    untreated = float(panel.outcome[~on].mean())
    return float(panel.outcome[on].mean()) - untreated, untreated


def _periods(panel: Panel, identification: Identification, *, seed: int) -> tuple[PeriodEffect, ...]:
    if identification.treatment_kind in ("on_off", "continuous"):
        try:
            return on_off.distributed_lags(panel, lags=_LAGS, leads=1).paths()
        except (CausalError, TooFewRows):  # too short a panel for a path; the effect itself stands
            return ()
    return _events(panel, identification).points(seed=seed)


def _events(panel: Panel, identification: Identification) -> EventTimes:
    has_never = bool((panel.cohort == NEVER).any())
    starts = len(np.unique(panel.cohort[panel.cohort != NEVER]))
    by_regression = identification.treatment_kind == "binary" and has_never and starts == 1
    return event_times(panel, identification, source="two_way" if by_regression else "group_time")


def _tests_before(panel: Panel, identification: Identification, told: tuple[float, float], *, seed: int) -> list[Refutation]:
    if few_treated.has_few_treated(panel):
        found_earlier = few_treated.placebo_in_time(panel, identification)
        return [] if found_earlier is None else [found_earlier]
    events = _events(panel, identification)
    earlier = placebo_in_time(panel, identification, seed=seed)
    found = [*pre_trend_tests(events), *(() if earlier is None else (earlier,))]
    if not len(events.before):
        return found
    try:
        study = events.for_bounds()
    except DataError as error:  # fewer clusters than periods make no joint covariance; the effect has its own
        return [*found, untested("drift_robustness:a drift before treatment", str(error))]
    return [
        *found,
        as_refutation(relative_magnitudes(study)),
        as_refutation(smoothness(study)),
        drift_robustness(smoothness(study, grid=(0.0,)), told),
    ]


def _tests_of_changing_treatment(panel: Panel, identification: Identification) -> list[Refutation]:
    """Placebo on the period before the switch, treatment to come, and carry-over."""
    found: list[Refutation | None] = []
    if identification.treatment_kind == "on_off":
        found.append(switchers_placebo(panel))
    for lags, leads in ((_LAGS, 1), (1, 1)):
        try:
            path = on_off.distributed_lags(panel, lags=lags, leads=leads)
        except (CausalError, TooFewRows):  # a shorter path may fit the panel
            continue
        found += [path.placebo(), path.carry_over()]
        break
    return [test for test in found if test is not None]


def _negative_controls(panel: Panel, identification: Identification, *, seed: int) -> list[Refutation]:
    """The same estimator on outcomes that treatment cannot move."""
    plain = _fitter(identification, seed=seed)
    few = few_treated.has_few_treated(panel)

    def fit(part: Panel) -> Estimate:
        found = plain(part)
        return few_treated.with_honest_interval(found, part, identification) if few else found

    level = _LEVEL / max(len(panel.negative_controls), 1)
    return [_control(name, values, panel, fit, level=level) for name, values in panel.negative_controls.items()]


def _control(name: str, values: FloatArray, panel: Panel, fit: Fitter, *, level: float) -> Refutation:
    test, known = f"negative_control:{name}", ~np.isnan(values)
    seen = np.unique(panel.unit[known])
    if len(np.unique(values[known])) < 2 or len(seen) < min(_FEWEST_UNITS, panel.n_units):
        return untested(test, "it hardly varies or is known for hardly any units.")
    try:
        found = fit(replace(panel, outcome=np.where(known, values, 0.0)).of_rows(known))
    except (CausalError, DataError) as error:
        return untested(test, str(error))
    return told_placebo(test, found, level=level)
