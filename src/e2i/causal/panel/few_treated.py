"""A handful of treated clusters: how much changes vary is learned from the untreated ones (Donald & Lang 2007).

Clustered standard errors learn the treated clusters' variation from the treated clusters; with one to four of them they are far too
small. Here each cluster gives one number, its change, and the untreated clusters tell how such changes scatter. Exact for
independent normal changes of equal variance; it needs a common start of treatment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.domain.evidence import Refutation

FEW = 5
_FEWEST_CONTROLS = 5
_PLACEBO_LEVEL = 0.05
METHOD = "t on changes per cluster, scatter from the untreated (Donald & Lang 2007)"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The treated clusters' mean change beyond the others', and how far chance carries it."""

    estimate: float
    standard_error: float
    degrees: int

    @property
    def p_value(self) -> float:
        """Two-sided."""
        from scipy.stats import t

        return float(2.0 * t.sf(abs(self.estimate) / self.standard_error, self.degrees)) if self.standard_error > 0 else 1.0

    def around(self, centre: float) -> tuple[float, float]:
        """95 % interval of this width."""
        from scipy.stats import t

        half = float(t.ppf(0.5 + LEVEL / 2, self.degrees)) * self.standard_error
        return centre - half, centre + half


def has_few_treated(panel: Panel) -> bool:
    """Fewer than five treated clusters with a common start, five or more that are never treated, nothing adjusted for."""
    treated = np.unique(panel.cluster[panel.cohort != NEVER])
    never = np.setdiff1d(np.unique(panel.cluster), treated)
    starts = np.unique(panel.cohort[panel.cohort != NEVER])
    is_plain = panel.covariates.shape[1] == 0 and panel.is_absorbing and len(starts) == 1
    return bool(is_plain and 0 < len(treated) < FEW and len(never) >= _FEWEST_CONTROLS and starts[0] > 0)


def with_honest_interval(estimate: Estimate, panel: Panel, spec: Identification) -> Estimate:
    """The estimate with an interval whose width the untreated clusters give; its standard error stays the clustered one."""
    start = int(panel.cohort[panel.cohort != NEVER].min()) - spec.anticipation
    found = changes(panel, start, np.ones(len(panel.unit), dtype=np.bool_))
    if found is None:
        return estimate
    note = f"fewer than {FEW} treated clusters: the interval takes its width from the changes of the untreated ones"
    return replace(
        estimate,
        interval=found.around(estimate.estimate),
        interval_method=METHOD,
        p_value=found.p_value,
        diagnostics=estimate.diagnostics | {"change_standard_error": found.standard_error},
        notes=(*estimate.notes, note),
    )


def placebo_in_time(panel: Panel, spec: Identification) -> Refutation | None:
    """Treatment pretended in the middle of the periods before it; None with fewer than two such periods."""
    start = int(panel.cohort[panel.cohort != NEVER].min()) - spec.anticipation
    if start < 2:
        return None
    pretended = (start + 1) // 2
    found = changes(panel, pretended, panel.time < start)
    if found is None:
        return None
    passed = found.p_value >= _PLACEBO_LEVEL
    low, high = found.around(found.estimate)
    return Refutation(
        test="placebo_in_time",
        passed=passed,
        detail=(
            f"Treatment pretended {start - pretended} period{'s' if start - pretended > 1 else ''} earlier has an effect of "
            f"{found.estimate:.3g} ({low:.3g} to {high:.3g}, p = {found.p_value:.3g}, scatter from the untreated); "
            + ("none, as it must be." if passed else "there should be none.")
        ),
        statistic=found.estimate / found.standard_error if found.standard_error > 0 else None,
        p_value=found.p_value,
        estimate=found.estimate,
    )


def changes(panel: Panel, start: int, rows: BoolArray) -> Changes | None:
    """Mean change per cluster from the periods before `start` to those from it on, treated against untreated clusters.

    Parameters
    ----------
    start : period, 0 … T-1
    rows : shape (n,), which rows count

    Returns
    -------
    None where no treated cluster, or fewer than five untreated ones, have rows on both sides.
    """
    count = int(panel.cluster.max()) + 1
    treated = np.zeros(count, dtype=np.bool_)
    treated[panel.cluster[panel.cohort != NEVER]] = True
    cluster = panel.cluster[panel.unit]
    weights = np.where(rows, np.ones(len(rows)) if panel.weights is None else panel.weights, 0.0)
    usual = _period_means(panel, weights * ~treated[cluster])
    after, before = (_mean_of(panel, cluster, usual, weights * side) for side in (panel.time >= start, panel.time < start))
    change = after - before
    known = np.isfinite(change)
    up, down = change[known & treated], change[known & ~treated]
    if len(up) == 0 or len(down) < _FEWEST_CONTROLS:
        return None
    scatter = float(down.std(ddof=1))
    error = scatter * float(np.sqrt(1.0 / len(up) + 1.0 / len(down)))
    return Changes(estimate=float(up.mean() - down.mean()), standard_error=error, degrees=len(down) - 1)


def _period_means(panel: Panel, weights: FloatArray) -> FloatArray:
    """Weighted mean outcome per period, shape (T,), NaN where no row counts."""
    total = np.bincount(panel.time, weights=weights, minlength=panel.n_periods)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.bincount(panel.time, weights=weights * panel.outcome, minlength=panel.n_periods) / total
    return out


def _mean_of(panel: Panel, cluster: IntArray, usual: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean distance from the usual outcome of the period, per cluster, NaN where no row counts."""
    distance = np.nan_to_num(panel.outcome - usual[panel.time])
    counted = np.where(np.isfinite(usual[panel.time]), weights, 0.0)
    groups = int(panel.cluster.max()) + 1
    total = np.bincount(cluster, weights=counted, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.bincount(cluster, weights=counted * distance, minlength=groups) / total
    return out
