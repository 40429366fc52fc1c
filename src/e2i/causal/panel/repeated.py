"""Double difference where each period shows other people of the same groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import MINIMUM_PER_ARM, Identification
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.panel.absorb import sum_by
from e2i.causal.panel.clusters import clustered_estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes, event_times
from e2i.causal.panel.on_off import fixed_effects
from e2i.causal.panel.two_way import influence_of
from e2i.domain.disclosure import counted
from e2i.domain.evidence import Refutation
from e2i.errors import CausalError, NotIdentified, TooFewRows

MANY_GROUPS = 10
"""groups from which rows of one group count as not independent, unless the study names other clusters"""
_LEVEL = 0.05
_NOTHING = 1e-9
"""share of a column's size below which an error is rounding"""


@dataclass(frozen=True, kw_only=True)
class RepeatedCrossSections:
    """Outcome of a person on treatment beside group effects, period effects and the person's covariates.

    With two groups and two periods this is the difference of differences of four means (Card & Krueger 1994). People must not
    change groups because of treatment, and the mix of people must not move with it.
    """

    def fit(self, panel: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The coefficient of treatment.

        Clustered by group, t(G - 1), from 10 groups on or as the study names clusters; else heteroskedasticity-robust (HC1,
        MacKinnon & White 1985), which takes people as independent and knows no shock to a group in a period (Donald & Lang 2007).
        `conventional_se` among the diagnostics is the error if people were also equally noisy. `n_treated` and `n_untreated`
        count rows under treatment and without it. Periods of anticipation are left out of the treated groups.

        Raises
        ------
        NotIdentified
            The named clusters leave no variation: there is one effect per cluster.
        NoVariation
            Treatment is explained by group and period effects and the covariates.
        TooFewRows
            Fewer than 30 rows with or without treatment, or one cluster.
        """
        del seed
        panel = with_clusters_of_rows(panel.without_anticipation(spec.anticipation))
        on = panel.treatment > 0
        _require_rows(on, spec)
        found = fixed_effects(panel, panel.treatment[:, None], ("treatment",))
        influence, conventional = influence_of(found)[:, 0], float(found.conventional[0])
        if conventional > 0 and np.sqrt(found.covariance[0, 0]) < 1e-6 * conventional:
            raise NotIdentified(
                f"clusters of `{spec.cluster}` have no variation left beside group and period effects, so there is no interval.",
                where="effect.cluster",
                advice="Leave `cluster` out, or name finer clusters.",
            )
        is_plain = found.clusters == found.rows
        estimate = (from_influence if is_plain else clustered_estimate)(
            float(found.coefficients[0]),
            influence,
            estimator="repeated cross-sections, group and period effects",
            estimand="ATT",
            n_treated=int(on.sum()),
            n_untreated=int((~on).sum()),
            diagnostics={
                "conventional_se": conventional,
                "groups": float(panel.n_units),
                "clusters": float(0 if is_plain else found.clusters),
            },
            notes=panel.notes,
        )
        by = "normal, heteroskedasticity-robust (HC1)" if is_plain else f"{estimate.interval_method} by {spec.cluster or spec.unit}"
        return replace(estimate, interval_method=by)


def with_clusters_of_rows(panel: Panel) -> Panel:
    """The panel with every row its own cluster, where the study names none and groups are too few to be clusters."""
    if panel.row_cluster is not None or panel.n_units >= MANY_GROUPS:
        return panel
    return replace(panel, row_cluster=np.arange(len(panel.unit), dtype=np.int64))


def composition(panel: Panel, spec: Identification) -> Refutation | None:
    """The same estimator on every covariate: who is seen must not change with treatment; p-values by Bonferroni's rule.

    None without a covariate that varies within groups and periods.
    """
    tests = []
    for name, values in zip(panel.covariate_names, panel.covariates.T, strict=True):
        found = _effect_on(values, panel, spec)
        if found is not None and found.p_value is not None:
            tests.append((found.p_value, name, found))
    if not tests:
        return None
    smallest, name, worst = min(tests, key=lambda test: test[:2])
    p_value = min(smallest * len(tests), 1.0)
    passed = p_value >= _LEVEL
    ending = "the mix of people moves no more than chance allows." if passed else "the mix of people changes together with treatment."
    return Refutation(
        test="composition",
        passed=passed,
        detail=f"Largest double difference among {len(tests)} covariates: `{name}` by {worst.estimate:+.3g} "
        f"(p = {p_value:.3g}, adjusted for their number); {ending}",
        statistic=worst.estimate / worst.standard_error,
        p_value=p_value,
        estimate=worst.estimate,
    )


def _effect_on(values: FloatArray, panel: Panel, spec: Identification) -> Estimate | None:
    """None where group and period effects explain the values."""
    bare = replace(panel, outcome=values, covariates=np.empty((len(values), 0)), covariate_names=())
    try:
        found = RepeatedCrossSections().fit(bare, spec, seed=0)
    except (CausalError, TooFewRows):  # nothing varies, so nothing can have moved
        return None
    return found if found.standard_error > _NOTHING * float(np.abs(values).max()) else None


def before_treatment(panel: Panel, spec: Identification) -> EventTimes | None:
    """Event-time effects that the periods before treatment are tested by; None where none can be had.

    With one start they are those of `event_times` by regression. With several, rows under treatment are left out, so that
    effects that differ between groups do not look like earlier ones (Borusyak, Jaravel & Spiess 2024, section 4.4).
    """
    panel = with_clusters_of_rows(panel)
    if not panel.is_absorbing:
        return None
    begun = panel.cohort[panel.cohort != NEVER]
    try:
        if len(np.unique(begun)) == 1 and len(begun) < panel.n_units:
            return event_times(panel, spec, source="two_way")
        return _leads(panel, spec)
    except (CausalError, TooFewRows):  # too few periods for a path; the effect itself stands
        return None


def _leads(panel: Panel, spec: Identification) -> EventTimes | None:
    begun = panel.cohort[panel.unit]
    reference = -1 - spec.anticipation
    rows = np.flatnonzero((begun == NEVER) | (panel.time <= begun + reference))
    is_treated = begun[rows] != NEVER
    since = np.where(is_treated, panel.time[rows] - begun[rows], reference)
    times = np.unique(since[since < reference])
    if len(times) == 0:
        return None
    dummies = (since[:, None] == times).astype(np.float64)
    found = fixed_effects(panel, dummies, tuple(f"event time {time}" for time in times), rows=rows)
    cluster = panel.cluster_of_rows[rows]
    return EventTimes(
        event_time=times.astype(np.int64),
        estimate=found.coefficients,
        influence=influence_of(found),
        n_treated=dummies.sum(axis=0).astype(np.int64),
        reference=reference,
        clusters_by_arm=(len(np.unique(cluster[is_treated])), len(np.unique(cluster))),
    )


def cell_means(panel: Panel) -> Panel:
    """One row per group and period: weighted means of outcome and covariates, the cell's weight as weight."""
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    first = (np.diff(panel.unit, prepend=-1) != 0) | (np.diff(panel.time, prepend=-1) != 0)
    cell = np.cumsum(first) - 1
    cells = int(cell[-1]) + 1
    mass = sum_by(cell, weights, cells)
    covariates = sum_by(cell, weights[:, None] * panel.covariates, cells) / mass[:, None]
    return replace(
        panel,
        unit=panel.unit[first],
        time=panel.time[first],
        treatment=panel.treatment[first],
        outcome=sum_by(cell, weights * panel.outcome, cells) / mass,
        covariates=covariates,
        weights=mass,
        negative_controls={},
        row_cluster=None,
    )


def _require_rows(on: BoolArray, spec: Identification) -> None:
    smaller = int(min(on.sum(), (~on).sum()))
    if smaller < MINIMUM_PER_ARM:
        raise TooFewRows(
            f"{counted(smaller, 'rows')} {'under' if on.sum() <= (~on).sum() else 'without'} treatment; {MINIMUM_PER_ARM} are needed.",
            where=f"column {spec.cohort or spec.treatment}",
            advice="Add people, or count groups and periods more coarsely.",
        )
