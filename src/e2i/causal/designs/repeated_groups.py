"""Groups over time, other people in each period: changes of treated groups against changes of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from e2i.causal.certificate import certify, shape_of_people
from e2i.causal.design import Identification
from e2i.causal.designs.over_time import (
    about_days,
    bounds_on_drift,
    by_bootstrap,
    negative_controls,
    raw_difference,
    require_chance,
    seen_before,
)
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, refused_by, told_reasons
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.hazard_people import about_people
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.jackknife import with_jackknife
from e2i.causal.panel.on_off import distributed_lags
from e2i.causal.panel.partial_start import without_partial_period
from e2i.causal.panel.pre_trend import pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.repeated import (
    MANY_GROUPS,
    RepeatedCrossSections,
    before_treatment,
    cell_means,
    composition,
    with_clusters_of_rows,
)
from e2i.domain.evidence import CausalFinding, Effect, Hazard, PeriodEffect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, TooFewRows

_FEW_GROUPS, _FEW_TREATED, _FEW_CLUSTERS = 4, 5, 40
_FEWEST_ROWS = 60
_OF_GROUPS = frozenset(
    (
        "outcome_constant",
        "extreme_outcome",
        "extreme_value",
        "units_mixed",
        "two_scales",
        "missing_code",
        "treatment_switched_off",
        "always_treated",
        "treated_before_entry",
        "no_pre_period",
        "short_pre_period",
        "unbalanced_panel",
        "gaps",
        "copies_treatment",
        "copies_outcome",
        "missing_outcome",
        "units_alike",
        "zero_for_missing",
        "one_row_decides",
        "one_weight_decides",
        "leak",
        "last_periods_incomplete",
    )
)
"""checks of a panel that hold for groups too; the others are about units that are followed, or are made anew here"""


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect with its event study. Raises CausalError, and DataError when the table is unfit."""
    panel = make_panel(frame, identification)
    identification = without_partial_period(panel, identification)
    of_groups = (hazard for hazard in panel_hazards(panel, identification) if hazard.code in _OF_GROUPS)
    hazards = (*about_days(frame, effect), *of_groups, *_hazards(panel, identification), *about_people(panel))
    if (refusal := refused_by(hazards, identification)) is not None:
        return refusal
    panel = seen_before(panel, identification)
    main = _honest(panel, identification, seed=seed)
    require_chance(main, panel)
    others, missed = _others(panel, identification, seed=seed)
    naive, untreated = raw_difference(panel, identification)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certify(main.estimator, shape_of_people(panel, clusters=int(main.diagnostics["clusters"])), estimand=main.estimand),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *missed))),
        alternatives=others,
        event_study=_periods(panel, identification, seed=seed),
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """What parallel trends, an unchanged mix of people and negative controls must show."""
    assert estimation.effect is not None
    panel = make_panel(frame, identification)
    identification = without_partial_period(panel, identification)
    panel = seen_before(panel, identification)
    mix = composition(panel, identification)
    return (
        *_tests_before(panel, identification, estimation.effect.interval()),
        *_tests_of_changing_treatment(panel),
        *(() if mix is None else (mix,)),
        *_negative_controls(panel, identification, seed=seed),
    )


def _honest(panel: Panel, identification: Identification, *, seed: int) -> Estimate:
    """The estimate with an interval that few clusters do not make too narrow; where people count as independent, as it is."""

    def fit(part: Panel) -> Estimate:
        return RepeatedCrossSections().fit(part, identification, seed=seed)

    found = fit(panel)
    return with_jackknife(found, panel, fit) if found.diagnostics["clusters"] else found


def _hazards(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    treated = panel.cohort != NEVER
    if panel.n_units < _FEW_GROUPS:
        text = f"few groups: of {panel.n_units} groups of `{spec.unit}`, group-time shocks cannot be told from the effect."
        remedy = "Add groups, or name a negative control outcome that such a shock would move too."
        yield Hazard(
            code="few_groups", action="review", text=text, remedy=remedy, measured=float(panel.n_units), threshold=float(_FEW_GROUPS)
        )
    elif (fewer := int(min(treated.sum(), (~treated).sum()))) < _FEW_TREATED:
        who = "treated" if treated.sum() <= (~treated).sum() else "never-treated"
        text = f"fewer than {_FEW_TREATED} {who} groups: the interval cannot learn from so few how groups vary; it is too narrow."
        if fewer:
            remedy = "Add groups, or read it beside a synthetic control of group means."
            yield Hazard(code="few_treated", action="review", text=text, remedy=remedy, threshold=float(_FEW_TREATED))
    if _FEW_GROUPS <= panel.n_units < MANY_GROUPS and spec.cluster is None:
        text = f"{panel.n_units} groups of `{spec.unit}` are too few to be clusters: people are taken as independent within them."
        remedy = "Where a group has shocks of its own in a period, the interval is too narrow; add groups."
        yield Hazard(code="few_clusters", action="review", text=text, remedy=remedy, threshold=float(MANY_GROUPS))
    if panel.row_cluster is not None and (count := len(np.unique(panel.row_cluster))) < MANY_GROUPS:
        text = f"{count} clusters of `{spec.cluster}`: intervals from so few are rough."
        yield Hazard(code="few_clusters", action="review", text=text, remedy="Name finer clusters.", threshold=float(MANY_GROUPS))
    if spec.treatment_kind == "staggered":
        text = "groups start at different times: later ones are compared with earlier ones, wrongly where effects grow or differ."
        remedy = "Read the group-time estimate from group means beside it."
        yield Hazard(code="staggered_groups", action="review", text=text, remedy=remedy)


def _others(panel: Panel, identification: Identification, *, seed: int) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Estimators on group means beside it, where groups are many; those that these data do not allow are named."""
    if panel.n_units < MANY_GROUPS or panel.row_cluster is not None:
        return (), ()
    means = cell_means(panel)
    candidates: dict[str, Callable[[], Estimate]] = {}
    if identification.treatment_kind == "staggered":
        candidates["group-time from group means"] = lambda: GroupTime().fit(means, identification, seed=seed)
    if panel.n_units <= _FEW_CLUSTERS:
        candidates["wild bootstrap"] = lambda: by_bootstrap(means, identification, estimator="group means", seed=seed)
    return beside(candidates, identification, apart=("wild bootstrap",))


def _periods(panel: Panel, identification: Identification, *, seed: int) -> tuple[PeriodEffect, ...]:
    """The path of one common start; with several starts a regression would mix effects of different age."""
    if identification.treatment_kind != "binary" or (events := before_treatment(panel, identification)) is None:
        return ()
    return events.points(seed=seed)


def _tests_before(panel: Panel, identification: Identification, told: tuple[float, float]) -> list[Refutation]:
    events = before_treatment(panel, identification)
    if events is None or len(events.before) == 0:
        return []
    found = list(pre_trend_tests(events))
    if identification.treatment_kind != "binary" or events.is_flat_before:
        return found
    return [*found, *bounds_on_drift(events, told, panel, is_randomised=identification.is_randomised)]


def _tests_of_changing_treatment(panel: Panel) -> list[Refutation]:
    """Of a treatment that ends again: treatment to come, and what stays of it, in the means of groups and periods."""
    if panel.is_absorbing or panel.n_units < MANY_GROUPS:
        return []
    means = cell_means(panel)
    for lags in (2, 1):
        try:
            path = distributed_lags(means, lags=lags, leads=1)
        except (CausalError, TooFewRows):  # a shorter path may fit
            continue
        return [test for test in (path.placebo(), path.carry_over()) if test is not None]
    return []


def _negative_controls(panel: Panel, identification: Identification, *, seed: int) -> list[Refutation]:
    """The same estimator on outcomes that treatment cannot move."""
    clustered = with_clusters_of_rows(panel)
    return negative_controls(
        clustered,
        lambda part: _honest(part, identification, seed=seed),
        is_enough=lambda known: int(known.sum()) >= _FEWEST_ROWS,
    )
