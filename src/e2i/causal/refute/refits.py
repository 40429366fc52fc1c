"""Tests that a wrong estimate should fail, over one small estimator protocol.

Many draws go through influence values and reused nuisances (milliseconds); where the nuisances themselves are on trial, the
estimator is fitted again. The bound on hidden confounding is reported and judges nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.hazards import dependent_rows
from e2i.causal.refute.normal import two_sided
from e2i.domain.evidence import Refutation

_STRATA = 20
_DRAWS = 200
_REFITS = 2
_RANDOM_COLUMNS = 3
_LEVEL = 0.01
_SUBSET_SHARE = 0.8
_MINIMUM_HALF_ARM = 30
_MAXIMUM_REFIT_ARM = 5_000
"""more rows cost time and do not make a wrong estimator more visible"""
MINIMUM_CONTROL_ROWS = 200


class Estimator(Protocol):
    """Estimates an average effect from arrays; what the refuters put on trial."""

    def __call__(self, outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        """Fit from scratch; shapes (n,), (n,), (n, k), (n,)."""
        ...


def placebo_treatment(sample: Sample, fit: Fit, propensity: Propensity, *, estimator: Estimator, seed: int) -> Refutation:
    """Permute treatment among rows of like propensity: the effect must vanish.

    200 draws reuse the nuisances; 2 draws fit everything again. Fails when the refits' pooled z-test rejects zero at 1 %, or
    when zero lies outside the middle 99 % of the reused draws.
    """
    rng = np.random.default_rng(seed)
    score = propensity.mean
    strata = _strata(score)
    draws = np.array([_reused_placebo(sample, fit, propensity, permute_within(sample.treatment, strata, rng)) for _ in range(_DRAWS)])
    tail = float(min((draws >= 0).mean(), (draws <= 0).mean()))
    rows = _some_rows(sample, np.arange(len(sample.outcome)), rng)
    fits = [
        _refit(estimator, replace(sample, treatment=permute_within(sample.treatment, strata, rng)), rows, seed=seed + k + 1)
        for k in range(_REFITS)
    ]
    z = float(sum(refit.estimate / refit.standard_error for refit in fits) / np.sqrt(_REFITS))
    p_value = two_sided(z)
    passed = p_value >= _LEVEL and tail >= _LEVEL / 2
    shown = ", ".join(f"{refit.estimate:.3g}" for refit in fits)
    return Refutation(
        test="placebo_treatment",
        passed=passed,
        detail=(
            f"With treatment permuted among units of like propensity the effect is {shown} (refitted, p = {p_value:.2f}) and "
            f"{draws.mean():.3g} on average over {_DRAWS} draws; {'zero, as it must be' if passed else 'it should be zero'}."
        ),
        statistic=z,
        p_value=p_value,
    )


def random_common_cause(sample: Sample, fit: Fit, *, estimator: Estimator, seed: int) -> Refutation:
    """Add columns of pure noise to the adjustment set and fit again: the estimate must stay within one standard error.

    With more than 5,000 rows in an arm both fits are made anew on a random part.
    """
    rng = np.random.default_rng(seed)
    rows = _some_rows(sample, np.arange(len(sample.outcome)), rng)
    given = fit if len(rows) == len(sample.outcome) else _refit(estimator, sample, rows, seed=seed)
    noise = rng.normal(size=(len(sample.outcome), _RANDOM_COLUMNS))
    refit = _refit(estimator, sample, rows, seed=seed, extra=noise)
    shift = (refit.estimate - given.estimate) / given.standard_error
    passed = abs(shift) <= 1.0
    return Refutation(
        test="random_common_cause",
        passed=passed,
        detail=(
            f"With {_RANDOM_COLUMNS} random covariates added the estimate moves from {given.estimate:.4g} to {refit.estimate:.4g} "
            f"({abs(shift):.2f} standard errors; at most 1 may be)."
        ),
        statistic=float(shift),
    )


def subset_stability(sample: Sample, fit: Fit, *, estimator: Estimator, seed: int) -> Refutation | None:
    """Do two random halves agree within their own standard errors? None when a half would have fewer than 30 rows in an arm.

    The halves (at most 5,000 rows an arm) are fitted from scratch and keep copies of a row together; 1,000 subsets of 80 %
    through influence values tell how far the estimate wanders.
    """
    rng = np.random.default_rng(seed)
    groups = dependent_rows(sample)
    first = rng.permutation(int(groups.max()) + 1)[groups] % 2 == 0
    arms = [float((sample.treatment[half] == arm).sum()) for half in (first, ~first) for arm in (0.0, 1.0)]
    if min(arms) < _MINIMUM_HALF_ARM:
        return None
    halves = [_refit(estimator, sample, _some_rows(sample, np.flatnonzero(half), rng), seed=seed) for half in (first, ~first)]
    z = (halves[0].estimate - halves[1].estimate) / float(np.hypot(halves[0].standard_error, halves[1].standard_error))
    p_value = two_sided(z)
    low, high = _subset_range(fit, rng)
    return Refutation(
        test="subset_stability",
        passed=p_value >= _LEVEL,
        detail=(
            f"Two random halves give {halves[0].estimate:.4g} and {halves[1].estimate:.4g} (p = {p_value:.2f} for equal); "
            f"random subsets of 80 % range from {low:.4g} to {high:.4g} (95 %)."
        ),
        statistic=float(z),
        p_value=p_value,
    )


def negative_control(name: str, values: FloatArray, fit: Fit, *, rows: int, level: float) -> Refutation:
    """The effect on an outcome that treatment cannot move, with the same adjustment, must include zero at `level`.

    Parameters
    ----------
    values : the control's recorded values, for the scale in the message
    fit : the fit of the control
    rows : rows with a recorded control
    level : significance, already divided by the number of controls
    """
    z = fit.estimate / fit.standard_error
    p_value = two_sided(z)
    passed = p_value >= level
    size = abs(fit.estimate) / max(float(np.nanstd(values)), 1e-300)
    ending = "includes zero, as it must." if passed else "should be zero: treated units differ in ways that were not measured."
    return Refutation(
        test=f"negative_control:{name}",
        passed=passed,
        detail=(
            f"The effect on `{name}`, which treatment cannot move, is {fit.estimate:.4g} "
            f"({size:.2f} standard deviations, p = {p_value:.2g}, {rows} rows); {ending}"
        ),
        statistic=float(z),
        p_value=p_value,
    )


def enough_for_control(values: FloatArray, treatment: FloatArray) -> bool:
    """At least 200 recorded rows, 30 in each arm, and some variation."""
    known = ~np.isnan(values)
    treated = float(treatment[known].sum())
    enough = bool(known.sum() >= MINIMUM_CONTROL_ROWS and min(treated, float(known.sum()) - treated) >= _MINIMUM_HALF_ARM)
    return enough and float(np.nanmin(values)) < float(np.nanmax(values))


def permute_within(treatment: FloatArray, strata: IntArray, rng: np.random.Generator) -> FloatArray:
    """A random permutation inside each stratum."""
    shuffled = np.lexsort((rng.random(len(strata)), strata))
    ordered = np.argsort(strata, kind="stable")
    out = np.empty_like(treatment)
    out[ordered] = treatment[shuffled]
    return out


def _some_rows(sample: Sample, rows: IntArray, rng: np.random.Generator) -> IntArray:
    """Of `rows` at most 5,000 of each arm, at random; all of them when there are no more."""
    arms = [rows[sample.treatment[rows] == arm] for arm in (0.0, 1.0)]
    kept = [arm if len(arm) <= _MAXIMUM_REFIT_ARM else rng.choice(arm, _MAXIMUM_REFIT_ARM, replace=False) for arm in arms]
    return np.sort(np.concatenate(kept))


def _refit(estimator: Estimator, sample: Sample, rows: IntArray, *, seed: int, extra: FloatArray | None = None) -> Fit:
    """Fit again on some rows, with `extra` covariates beside those of the sample."""
    matrix = sample.covariates.matrix if extra is None else np.column_stack([sample.covariates.matrix, extra])
    covariates = matrix[rows]
    varying = covariates.std(axis=0) > 0
    return estimator(sample.outcome[rows], sample.treatment[rows], covariates[:, varying], groups=dependent_rows(sample)[rows], seed=seed)


def _strata(score: FloatArray) -> IntArray:
    cuts = np.quantile(score, np.linspace(0, 1, _STRATA + 1)[1:-1])
    return np.searchsorted(cuts, score, side="right").astype(np.int64)


def _reused_placebo(sample: Sample, fit: Fit, propensity: Propensity, placebo: FloatArray) -> float:
    """Placebo effect with the estimate's own nuisances of the first repetition; the outcome mean is that of both arms together."""
    chance = propensity.clipped[0]
    untreated, treated = fit.untreated_mean[0], fit.treated_mean[0]
    if fit.estimand == "ATE":
        residual = sample.outcome - (chance * treated + (1 - chance) * untreated)
        up, down = placebo / chance, (1 - placebo) / (1 - chance)
        return float((up / up.mean() * residual).mean() - (down / down.mean() * residual).mean())
    residual = sample.outcome - untreated - sample.treatment * fit.estimate
    odds = (1 - placebo) * chance / (1 - chance)
    return float((placebo * residual).mean() / placebo.mean() - (odds / odds.mean() * residual).mean())


def _subset_range(fit: Fit, rng: np.random.Generator) -> tuple[float, float]:
    middle = int(np.argmin(np.abs(fit.estimates - fit.estimate)))
    values = fit.influence[middle]
    keep = int(_SUBSET_SHARE * len(values))
    means = [float(values[rng.permutation(len(values))[:keep]].mean()) for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return fit.estimate + float(low), fit.estimate + float(high)
