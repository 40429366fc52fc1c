"""Units over time: changes of the treated against changes of the others; treatments that last, that switch on and off, and doses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from e2i.causal.design import Identification
from e2i.causal.designs import cross_over
from e2i.causal.designs.controls import untested
from e2i.causal.designs.over_time import (
    Fitter,
    about_days,
    bounds_on_drift,
    by_bootstrap,
    negative_controls,
    raw_difference,
    require_chance,
    seen_before,
)
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, certificate_of_panel, refused_by, told_reasons
from e2i.causal.panel import few_treated, on_off
from e2i.causal.panel.cross_over import is_cross_over
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes, event_times
from e2i.causal.panel.fixed_confounders import by_period, is_fixed
from e2i.causal.panel.group_time import EXTRAPOLATED, GroupTime
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.jackknife import with_jackknife
from e2i.causal.panel.partial_start import without_partial_period
from e2i.causal.panel.pre_trend import placebo_in_time, pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.spill_over import spill_over
from e2i.causal.panel.switchers import switchers_placebo
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.domain.evidence import CausalFinding, Effect, Hazard, PeriodEffect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, TooFewRows

_FEW_CLUSTERS = 40
_LAGS = 2
_SOUND = ("group-time", "imputation")
"""estimators that must agree with the chosen one also where effects differ between starts, or carry over; the others show what would not"""
_FEWEST_UNITS = 10
"""with a negative control, below which its clustered error says nothing"""
_MOST_UNITS_IMPUTED = 200_000


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect with other estimators beside it and the event study. Raises CausalError, and DataError when the table is unfit."""
    panel = make_panel(frame, identification)
    identification = without_partial_period(panel, identification)
    hazards = (*about_days(frame, effect), *panel_hazards(panel, identification))
    if (refusal := refused_by(hazards, identification)) is not None:
        return refusal
    if is_cross_over(panel, identification):
        return cross_over.estimate(panel, identification, hazards)
    panel = seen_before(panel, identification)
    main = _honest(panel, identification, seed=seed)
    require_chance(main, panel)
    others, missed = _others(panel, identification, seed=seed)
    periods, pathless = _periods(panel, identification, seed=seed)
    naive, untreated = raw_difference(panel, identification)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_panel(main, panel),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *_extrapolated(main), *as_warnings((*main.notes, *missed, *pathless))),
        alternatives=others,
        event_study=periods,
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """What parallel trends, no carry-over and negative controls must show."""
    assert estimation.effect is not None
    everybody = make_panel(frame, identification)
    identification = without_partial_period(everybody, identification)
    if is_cross_over(everybody, identification):
        return cross_over.refute(everybody, identification)
    panel = seen_before(everybody, identification)
    kind = identification.treatment_kind
    if kind in ("on_off", "continuous"):
        found = _tests_of_changing_treatment(panel, identification)
    else:
        found = _tests_before(panel, identification, estimation.effect.interval(), seed=seed)
    return (*found, spill_over(everybody, identification), *_negative_controls(panel, identification, seed=seed))


def _fitter(identification: Identification, *, seed: int) -> Fitter:
    """The estimator that the kind of treatment calls for."""
    if identification.treatment_kind in ("on_off", "continuous"):
        return lambda panel: on_off.fit(by_period(panel), identification, seed=seed)
    if identification.treatment_kind == "staggered":
        return lambda panel: GroupTime().fit(panel, identification, seed=seed)
    return lambda panel: _of_one_start(panel).fit(by_period(panel), identification, seed=seed)


def _extrapolated(main: Estimate) -> tuple[Hazard, ...]:
    """A person looks where controls were made to resemble a cohort by a straight line alone."""
    cells = int(main.diagnostics.get(EXTRAPOLATED, 0.0))
    if not cells:
        return ()
    text = (
        f"in {cells} of {int(main.diagnostics['cells'])} cells of cohort and period no control resembles the treated in the confounders: "
        "the line fitted to the controls is carried on to them."
    )
    return (Hazard(code="confounder_without_controls", action="review", text=text, remedy="Name fewer confounders, or add controls."),)


def _honest(panel: Panel, identification: Identification, *, seed: int) -> Estimate:
    """The estimate with an interval that few clusters do not make too narrow."""
    fit = _fitter(identification, seed=seed)
    found = fit(panel)
    if few_treated.has_few_treated(panel):
        return few_treated.with_honest_interval(found, panel, identification)
    return with_jackknife(found, panel, fit)


def _of_one_start(panel: Panel) -> TwoWayFixedEffects | Imputation:
    """Where trends differ by a confounder, effects may too, and a regression would weigh them by the confounder's overlap."""
    return Imputation() if is_fixed(panel).any() and panel.n_units <= _MOST_UNITS_IMPUTED else TwoWayFixedEffects()


def _others(panel: Panel, identification: Identification, *, seed: int) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Other estimators of the same effect; those that these data do not allow are named."""
    kind = identification.treatment_kind
    regressed = by_period(panel)
    is_imputed = kind == "binary" and isinstance(_of_one_start(panel), Imputation)
    candidates: dict[str, Callable[[], Estimate]] = {}
    if kind in ("staggered", "on_off") or is_imputed:
        candidates["two-way fixed effects"] = lambda: TwoWayFixedEffects().fit(regressed, identification, seed=seed)
    if kind == "binary":
        candidates["group-time"] = lambda: GroupTime().fit(panel, identification, seed=seed)
    if kind in ("on_off", "continuous"):
        candidates["distributed lags"] = lambda: on_off.distributed_lags(regressed, lags=_LAGS).cumulative(
            estimand="APE" if kind == "continuous" else "ATT"
        )
    if kind in ("staggered", "binary") and panel.n_units <= _MOST_UNITS_IMPUTED and not is_imputed:
        candidates["imputation"] = lambda: Imputation().fit(regressed, identification, seed=seed)
    if kind in ("staggered", "binary") and int(panel.cluster.max()) + 1 <= _FEW_CLUSTERS:
        candidates["wild bootstrap"] = lambda: by_bootstrap(regressed, identification, estimator="two-way fixed effects", seed=seed)
    agreeing = set(candidates) if kind == "binary" and not is_imputed else set(_SOUND)
    if few_treated.has_few_treated(panel):  # their own errors, learned from a handful of clusters, are too small to hold them to
        agreeing = set()
    return beside(candidates, identification, apart=tuple(set(candidates) - agreeing))


def _periods(panel: Panel, identification: Identification, *, seed: int) -> tuple[tuple[PeriodEffect, ...], tuple[str, ...]]:
    """The path, or in words why there is none: the effect itself stands without it."""
    try:
        if identification.treatment_kind in ("on_off", "continuous"):
            return on_off.distributed_lags(by_period(panel), lags=_LAGS, leads=1).paths(), ()
        return _events(panel, identification).points(seed=seed), ()
    except (CausalError, TooFewRows) as error:
        return (), (f"effects by period are not to be had: {error}",)


def _events(panel: Panel, identification: Identification) -> EventTimes:
    has_never = bool((panel.cohort == NEVER).any())
    starts = len(np.unique(panel.cohort[panel.cohort != NEVER]))
    by_regression = identification.treatment_kind == "binary" and has_never and starts == 1
    if by_regression:
        return event_times(by_period(panel), identification, source="two_way")
    return event_times(panel, identification, source="group_time")


def _tests_before(panel: Panel, identification: Identification, told: tuple[float, float], *, seed: int) -> list[Refutation]:
    if few_treated.has_few_treated(panel):
        found_earlier = few_treated.placebo_in_time(panel, identification)
        return [] if found_earlier is None else [found_earlier]
    try:
        events = _events(panel, identification)
    except (CausalError, TooFewRows) as error:
        return [untested("pre_trend:effects by period", str(error))]
    try:
        earlier = placebo_in_time(panel, identification, seed=seed)
    except CausalError as error:  # the doubly robust comparison needs confounders that do not separate the arms
        earlier = untested("placebo_in_time:treatment pretended earlier", str(error))
    found = [*pre_trend_tests(events), *(() if earlier is None else (earlier,))]
    if not len(events.before) or events.is_flat_before:
        return found
    return [*found, *bounds_on_drift(events, told, panel, is_randomised=identification.is_randomised)]


def _tests_of_changing_treatment(panel: Panel, identification: Identification) -> list[Refutation]:
    """Placebo on the period before the switch, treatment to come, and carry-over."""
    found: list[Refutation | None] = []
    panel = by_period(panel)
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
    fewest = min(_FEWEST_UNITS, panel.n_units)
    return negative_controls(
        panel,
        lambda part: _honest(part, identification, seed=seed),
        is_enough=lambda known: len(np.unique(panel.unit[known])) >= fewest,
    )
