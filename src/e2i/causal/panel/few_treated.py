"""A handful of clusters in an arm: how much changes vary is learned from the other arm, or from both together (Donald & Lang 2007).

Clustered standard errors learn an arm's variation from its own clusters; with one to four of them they are far too small. Here each
cluster gives one number, its change, and the untreated clusters tell how such changes scatter, about what confounders explain of them;
where these are few as well, both arms tell it together. Exact for independent normal changes of equal variance; it needs a common start
of treatment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.fixed_confounders import is_fixed
from e2i.domain.evidence import Refutation

FEW = 5
_FEWEST_CONTROLS = 5
_PLACEBO_LEVEL = 0.05
METHOD = "t on changes per cluster, scatter from the untreated (Donald & Lang 2007)"
_POOLED = "t on changes per cluster, scatter from both arms (Donald & Lang 2007)"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The treated clusters' mean change beyond the others', and how far chance carries it."""

    estimate: float
    standard_error: float
    degrees: int
    is_pooled: bool
    """the treated clusters tell of the scatter, too"""

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
    """Fewer than five treated or untreated clusters, a common start, and enough clusters in all to tell how they scatter."""
    treated = np.unique(panel.cluster[panel.cohort != NEVER])
    never = np.setdiff1d(np.unique(panel.cluster), treated)
    starts = np.unique(panel.cohort[panel.cohort != NEVER])
    is_plain = panel.is_absorbing and len(starts) == 1 and starts[0] > 0
    if not is_plain or not len(treated) or not len(never) or min(len(treated), len(never)) >= FEW:
        return False
    explained = 1 + panel.covariates.shape[1]
    if len(treated) < FEW and len(never) >= _FEWEST_CONTROLS * explained:
        return True
    is_mixed = np.isin(panel.cluster[panel.cohort == NEVER], treated).any()  # one number per cluster needs clusters of one arm each
    return bool(not is_mixed and len(treated) + len(never) > 1 + explained)


def with_honest_interval(estimate: Estimate, panel: Panel, spec: Identification) -> Estimate:
    """The estimate with an interval whose width the changes of whole clusters give; its standard error stays the clustered one."""
    start = int(panel.cohort[panel.cohort != NEVER].min()) - spec.anticipation
    found = changes(panel, start, np.ones(len(panel.unit), dtype=np.bool_))
    if found is None:
        return estimate
    arm, others = ("treated or untreated", "all of them") if found.is_pooled else ("treated", "the untreated ones")
    note = f"fewer than {FEW} {arm} clusters: the interval takes its width from the changes of {others}"
    return replace(
        estimate,
        interval=found.around(estimate.estimate),
        interval_method=_POOLED if found.is_pooled else METHOD,
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
            f"{found.estimate:.3g} ({low:.3g} to {high:.3g}, p = {found.p_value:.3g}, scatter from "
            f"{'both arms' if found.is_pooled else 'the untreated'}); " + ("none, as it must be." if passed else "there should be none.")
        ),
        statistic=found.estimate / found.standard_error if found.standard_error > 0 else None,
        p_value=found.p_value,
        estimate=found.estimate,
    )


def changes(panel: Panel, start: int, rows: BoolArray) -> Changes | None:
    """Mean change per cluster from the periods before `start` to those from it on, treated against untreated clusters.

    Confounders explain changes as they do among the untreated: those that stay the same by their level, others by their own change.
    The error is that of a prediction by least squares.

    Parameters
    ----------
    start : period, 0 … T-1
    rows : shape (n,), which rows count

    Returns
    -------
    None where no treated cluster, or too few untreated ones, have rows on both sides.
    """
    count = int(panel.cluster.max()) + 1
    treated = np.zeros(count, dtype=np.bool_)
    treated[panel.cluster[panel.cohort != NEVER]] = True
    cluster = panel.cluster[panel.unit]
    weights = np.where(rows, np.ones(len(rows)) if panel.weights is None else panel.weights, 0.0)
    usual = _period_means(panel, weights * ~treated[cluster])
    sides = [weights * (panel.time >= start), weights * (panel.time < start)]
    after, before = (_mean_of(panel.outcome - usual[panel.time], cluster, side) for side in sides)
    change = after - before
    fixed = is_fixed(panel)
    columns = [np.ones(count)]
    for values, stays in zip(panel.covariates.T, fixed, strict=True):
        late, early = (_mean_of(values, cluster, side) for side in sides)
        columns.append(early if stays else late - early)
    design = np.column_stack(columns)
    known = np.isfinite(change) & np.isfinite(design).all(axis=1)
    up, down = known & treated, known & ~treated
    if not up.any() or not down.any():
        return None
    if down.sum() >= _FEWEST_CONTROLS * design.shape[1]:
        return _predicted(change, design, up=up, down=down)
    return _pooled(change, np.column_stack([up, design]), rows=known)


def _predicted(change: FloatArray, design: FloatArray, *, up: BoolArray, down: BoolArray) -> Changes:
    """The treated clusters' mean change against what the untreated ones predict for them."""
    inverse = np.linalg.pinv(design[down])
    slopes = inverse @ change[down]
    left = change[down] - design[down] @ slopes
    degrees = int(down.sum()) - int(np.linalg.matrix_rank(design[down]))
    aim = design[up].mean(axis=0)
    factor = 1.0 / float(up.sum()) + float(np.sum((aim @ inverse) ** 2))
    error = float(np.sqrt(left @ left / degrees * factor))
    return Changes(estimate=float(change[up].mean() - aim @ slopes), standard_error=error, degrees=degrees, is_pooled=False)


def _pooled(change: FloatArray, design: FloatArray, *, rows: BoolArray) -> Changes | None:
    """The coefficient of the first column by least squares; None where nothing is left to tell the scatter."""
    inverse = np.linalg.pinv(design[rows])
    slopes = inverse @ change[rows]
    left = change[rows] - design[rows] @ slopes
    rank = int(np.linalg.matrix_rank(design[rows]))
    degrees = int(rows.sum()) - rank
    if degrees < 1 or rank < design.shape[1]:
        return None
    error = float(np.sqrt(left @ left / degrees * np.sum(inverse[0] ** 2)))
    return Changes(estimate=float(slopes[0]), standard_error=error, degrees=degrees, is_pooled=True)


def _period_means(panel: Panel, weights: FloatArray) -> FloatArray:
    """Weighted mean outcome per period, shape (T,), NaN where no row counts."""
    total = np.bincount(panel.time, weights=weights, minlength=panel.n_periods)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.bincount(panel.time, weights=weights * panel.outcome, minlength=panel.n_periods) / total
    return out


def _mean_of(values: FloatArray, cluster: IntArray, weights: FloatArray) -> FloatArray:
    """Weighted mean per cluster of the values that are known, NaN where no row counts."""
    counted = np.where(np.isfinite(values), weights, 0.0)
    groups = int(cluster.max()) + 1
    total = np.bincount(cluster, weights=counted, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.bincount(cluster, weights=counted * np.nan_to_num(values), minlength=groups) / total
    return out
