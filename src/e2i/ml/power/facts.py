"""What the user's own table says about a planned experiment: spread, clusters, covariates, time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.trials import Analysis, ExperimentSpec, OutcomeType
from e2i.ml.power.repeated import fit_time_covariance
from e2i.ml.power.sample import adjusters, fitted, pairs_order

if TYPE_CHECKING:
    from e2i.ml.columns import FloatArray, IntArray
    from e2i.ml.power.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Measured, or given by the user under `baseline`; None where neither is known. `kept` is 1 - adjusted R² of the planned analysis."""

    outcome_type: OutcomeType
    mean: float | None = None
    sd: float | None = None
    dispersion: float | None = None
    event_share: float | None = None
    kept: float = 1.0
    adjusters: int = 0
    icc: float | None = None
    icc_upper: float | None = None
    """what is planned with, where few clusters measured the ICC: the upper end of its one-sided 80 % interval"""
    cluster_size: float | None = None
    cluster_cv: float = 0.0
    clusters: int | None = None
    pair_correlation: float | None = None
    units: int | None = None
    missing_outcome: float = 0.0
    missing_covariates: float = 0.0
    lost_units: float | None = None
    """panel: share of units seen early and not in the last periods"""
    trend: float | None = None
    """panel: slope of the mean over the whole span, in standard deviations"""
    last_jump: float | None = None
    """panel: z of the last quarter's mean against the trend before it"""
    zero_share: float | None = None
    shared: dict[str, float] = field(default_factory=dict)
    windows: tuple[int, int] | None = None
    asked_windows: tuple[int, int] | None = None
    pre_post_correlation: float | None = None
    serial: dict[str, float] = field(default_factory=dict)
    period_weeks: float | None = None
    smallest_stratum: int | None = None
    concentration: float | None = None
    """share of the outcome that the top 1 % of units hold"""


_MANY_CLUSTERS = 40
"""from so many on a measured ICC is planned with as it is"""
_ICC_LEVEL = 0.8


def measure(sample: Sample, spec: ExperimentSpec, *, analysis: Analysis) -> Facts:
    """Facts of the planned analysis on the user's own units. Values under `spec.baseline` overrule measured ones."""
    residual, kept, count = _adjusted(sample, analysis)
    mean, sd = float(sample.y.mean()), float(sample.y.std(ddof=1))
    stretched, kept, serial = _stretch(sample, spec, analysis, kept)
    # a count is summed over the follow-up
    longer = spec.follow_up / sample.window[1] if sample.window is not None and sample.outcome_type == "count" else 1.0
    given = spec.baseline
    clusters = _clusters(sample.cluster, residual)
    known = clusters or (None, None, 0.0, None, None)
    return Facts(
        outcome_type=sample.outcome_type,
        mean=given.mean if given.mean is not None else mean * longer,
        sd=given.sd if given.sd is not None else sd * stretched,
        dispersion=given.dispersion if given.dispersion is not None else _dispersion(sample),
        event_share=given.event_share if given.event_share is not None else (None if sample.event is None else float(sample.event.mean())),
        kept=1.0 - given.r2 if given.r2 is not None else kept,
        adjusters=count,
        icc=given.icc if given.icc is not None else known[0],
        icc_upper=known[4] if given.icc is None else None,
        cluster_size=given.cluster_size if given.cluster_size is not None else known[1],
        cluster_cv=given.cluster_cv if given.cluster_cv is not None else known[2],
        clusters=known[3],
        pair_correlation=_pair_correlation(sample) if spec.design == "matched_pairs" else None,
        units=sample.n,
        missing_outcome=sample.missing_outcome,
        missing_covariates=sample.missing_covariates,
        lost_units=sample.lost_units,
        zero_share=float((sample.y == 0).mean()),
        shared=sample.shared,
        windows=sample.window,
        asked_windows=None if sample.window is None else (spec.pre_periods, spec.follow_up),
        pre_post_correlation=_correlation(sample),
        serial=serial,
        period_weeks=sample.period_weeks,
        smallest_stratum=None if sample.strata is None else int(np.bincount(sample.strata).min()),
        concentration=_concentration(sample.y),
        **_over_time(sample),
    )


def given_facts(spec: ExperimentSpec) -> Facts:
    """Facts without a table: what the user says."""
    given = spec.baseline
    kind: OutcomeType = "continuous" if spec.outcome_type == "auto" else spec.outcome_type
    return Facts(
        outcome_type=kind,
        mean=given.mean,
        sd=given.sd,
        dispersion=given.dispersion,
        event_share=given.event_share,
        kept=1.0 - (given.r2 or 0.0),
        icc=given.icc,
        cluster_size=given.cluster_size,
        cluster_cv=given.cluster_cv or 0.0,
        pair_correlation=given.r2,
        units=None,
    )


def intraclass_correlation(values: FloatArray, cluster: IntArray) -> float:
    """One-way ANOVA estimator for unequal clusters (Donner & Klar 2000, chapter 1), not below 0; NaN with a single cluster."""
    return max(0.0, _icc_of(*_analysis_of_variance(values, cluster)[:2]))


def upper_intraclass_correlation(values: FloatArray, cluster: IntArray, *, level: float = _ICC_LEVEL) -> float:
    """Upper end of the ICC's one-sided interval (Searle 1971, from the F ratio), not below 0; NaN with a single cluster.

    Few clusters tell little of the ICC: planned with the estimate, half of the trials would have less power than told, many far
    less. Browne (1995) plans with an upper 80 % limit of what a small sample measures.
    """
    from scipy import special

    ratio, size, between, within = _analysis_of_variance(values, cluster)
    if not np.isfinite(ratio):
        return _icc_of(ratio, size)
    return max(0.0, _icc_of(ratio / float(special.fdtri(between, within, 1.0 - level)), size))


def _analysis_of_variance(values: FloatArray, cluster: IntArray) -> tuple[float, float, float, float]:
    """F ratio of clusters, their size where it is unequal, and both degrees of freedom."""
    sizes = np.bincount(cluster).astype(np.float64)
    k, n = len(sizes), float(len(values))
    if k < 2 or n <= k:
        return float("nan"), float("nan"), 0.0, 0.0
    means = np.bincount(cluster, weights=values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (k - 1)
    within = float(np.sum((values - means[cluster]) ** 2)) / (n - k)
    size = (n - float(sizes @ sizes) / n) / (k - 1)
    ratio = between / within if within > 0 else (np.inf if between > 0 else 1.0)
    return ratio, size, float(k - 1), n - k


def _icc_of(ratio: float, size: float) -> float:
    return 1.0 if np.isposinf(ratio) else (ratio - 1.0) / (ratio - 1.0 + size)


def _adjusted(sample: Sample, analysis: Analysis) -> tuple[FloatArray, float, int]:
    """Residuals of the planned analysis, the share of variance that they keep, and how many columns it used."""
    total = float(sample.y.var(ddof=1))
    y = sample.y
    if analysis == "double_difference" and sample.pre is not None:
        y = sample.y - sample.pre
        design = adjusters(sample, covariates=False)
    else:
        design = adjusters(sample, covariates=analysis == "ancova")
    k = design.shape[1]
    residual = y - fitted(y, design)
    free = sample.n - 1 - k
    if total == 0 or free <= 0:
        return residual, 1.0, k
    return residual, float(residual @ residual) / free / total, k


def _stretch(sample: Sample, spec: ExperimentSpec, analysis: Analysis, kept: float) -> tuple[float, float, dict[str, float]]:
    """Factor on the sd, share kept, and the fitted covariance, where the panel is shorter than the windows asked for."""
    if sample.wide is None or sample.window is None:
        return 1.0, kept, {}
    fit = fit_time_covariance(sample.wide)
    serial = {"between": fit.between, "serial": fit.serial, "rho": fit.rho, "noise": fit.noise}
    asked = (spec.pre_periods, spec.follow_up)
    if asked == sample.window:
        return 1.0, kept, serial
    held, wanted = (fit.windows(pre=pre, post=post) for pre, post in (sample.window, asked))
    if held.var_post <= 0 or held.variance(analysis) <= 0 or sample.outcome_type == "count":
        return 1.0, kept, serial
    sd = (wanted.var_post / held.var_post) ** 0.5
    change = (wanted.variance(analysis) / wanted.var_post) / (held.variance(analysis) / held.var_post)
    return sd, kept * change, serial


def _clusters(cluster: IntArray | None, residual: FloatArray) -> tuple[float, float, float, int, float | None] | None:
    """ICC, size, variation of the sizes, number, and the ICC to plan with where few clusters measured it."""
    if cluster is None:
        return None
    sizes = np.bincount(cluster)
    icc = intraclass_correlation(residual, cluster)
    upper = upper_intraclass_correlation(residual, cluster) if len(sizes) < _MANY_CLUSTERS else None
    return icc, float(sizes.mean()), float(sizes.std() / sizes.mean()), len(sizes), upper


def _pair_correlation(sample: Sample) -> float:
    order = np.argsort(pairs_order(sample), kind="stable")
    pairs = sample.y[order][: sample.n // 2 * 2].reshape(-1, 2)
    spread = float(np.var(pairs))
    apart = pairs[:, 0] - pairs[:, 1]
    return 0.0 if spread == 0 else max(0.0, 1.0 - float(apart @ apart) / len(apart) / (2.0 * spread))


def _dispersion(sample: Sample) -> float | None:
    """By moments: (variance - mean) / mean²; not below 0 (Poisson)."""
    mean = float(sample.y.mean())
    if sample.outcome_type != "count" or mean <= 0:
        return None
    return max(0.0, (float(sample.y.var(ddof=1)) - mean) / mean**2)


def _correlation(sample: Sample) -> float | None:
    if sample.pre is None or sample.pre.std() == 0 or sample.y.std() == 0:
        return None
    return float(np.corrcoef(sample.pre, sample.y)[0, 1])


def _concentration(y: FloatArray) -> float | None:
    total = float(np.abs(y).sum())
    top = max(1, len(y) // 100)
    return None if total == 0 or len(y) < 100 else float(np.sort(np.abs(y))[-top:].sum() / total)


def _over_time(sample: Sample) -> dict[str, float | None]:
    if sample.wide is None:
        return {}
    wide: FloatArray = np.asarray(sample.wide, dtype=np.float64)
    known = np.asarray(np.isfinite(wide), dtype=np.bool_)
    periods = sample.wide.shape[1]
    edge = max(1, periods // 4)
    use = known.any(axis=0)
    means = np.where(known, sample.wide, 0.0).sum(axis=0)[use] / known.sum(axis=0)[use]
    if len(means) < 6 or float(sample.y.std()) == 0:
        return {}
    when = np.arange(len(means), dtype=np.float64)
    slope = float(np.polyfit(when, means, 1)[0])
    before = slice(0, len(means) - edge)
    line = np.polyfit(when[before], means[before], 1)
    noise = float(np.std(means[before] - np.polyval(line, when[before]), ddof=2)) if len(means) - edge > 3 else 0.0
    gap = float(np.mean(means[-edge:] - np.polyval(line, when[-edge:])))
    jump = gap / (noise / edge**0.5) if noise > 0 else None
    return {"trend": slope * len(means) / float(sample.y.std(ddof=1)), "last_jump": jump}
