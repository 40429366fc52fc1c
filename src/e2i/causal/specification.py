"""The same question in every defensible way: estimator by sample by adjustment (Simonsohn, Simmons and Nelson 2020).

Fast: the fitted nuisances are reused, and every point is closed-form; nothing is fitted by learners again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.hazards import Concern
from e2i.causal.refute.ground import Ground, bent, functional, quick_propensity, sums_by
from e2i.domain.evidence import Effect, SpecificationPoint

TRIMS = (0.0, 0.01, 0.05, 0.10)
ALL_ROWS, ALL_COVARIATES = "all rows", "all confounders"
_Z95 = 1.959963984540054
_DISAGREEMENT = 3.0
_MOST_GROUPS = 12
_FEWEST = 30
_CHOSEN = "doubly robust, stacked learners"
_WEIGHTS_ALONE, _MEANS_ALONE = "inverse propensity weighting", "outcome models alone, stacked learners"
_BY_LINES = ("regression adjustment", "weighted regression")
_COMPARED = (_CHOSEN, _WEIGHTS_ALONE, _MEANS_ALONE, *_BY_LINES)
"""estimators of one estimand; overlap weights answer another question and are shown only"""
_REFUTED = ", refuted by the data"
"""after the name of an estimator whose own model the data reject: shown, and not asked to agree"""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What one specification works with."""

    outcome: FloatArray
    treatment: FloatArray
    chance: FloatArray
    design: FloatArray
    base: FloatArray
    clusters: IntArray | None


_Result = tuple[float, FloatArray]
"""estimate and influence values"""


def specification_curve(sample: Sample, fit: Fit, propensity: Propensity) -> tuple[SpecificationPoint, ...]:
    """All points, the chosen one first.

    Parameters
    ----------
    sample, fit, propensity : one estimation of a yes/no treatment

    Returns
    -------
    tuple of SpecificationPoint
        Estimators on all rows; weighting and regression after trimming at 0.01, 0.05 and 0.1 (`sample` says that fewer rows are
        another population); the weighted regression without each group of confounders (columns of one source; at most the
        12 sources that differ most between the arms).
    """
    ground = Ground(sample=sample, fit=fit, propensity=propensity)
    chosen = SpecificationPoint(
        estimator=_CHOSEN,
        sample=ALL_ROWS,
        adjustment=ALL_COVARIATES,
        estimate=fit.estimate,
        low=fit.estimate - _Z95 * fit.standard_error,
        high=fit.estimate + _Z95 * fit.standard_error,
        is_chosen=True,
    )
    everything = _rows(ground, np.ones(len(sample.outcome), dtype=np.bool_), ground.chance, ground.simple.design)
    points = [chosen, *(_point(name, everything, fit.estimand) for name in _ESTIMATORS), _means_alone(ground)]
    refuted = _refuted(ground, everything)
    named = (replace(point, estimator=f"{point.estimator}{_REFUTED}") if point.estimator in refuted else point for point in points)
    return (*named, *_trimmed(ground), *_without_each(ground))


@dataclass(frozen=True, kw_only=True)
class Halves:
    """What weights and outcome models of a doubly robust estimate correct in each other, in standard errors of the correction.

    The estimate is consistent when either is right (Robins, Rotnitzky and Zhao 1994). Where the weights are right, they leave no
    imbalance of any function of the covariates, so none of the fitted means; where the means are right, the weights find nothing in
    the residuals (tests of Robins and Rotnitzky 2001). Cross-fitted means are fixed functions for the rows they are judged on.
    """

    of_weights: float
    """doubly robust estimate less weighting alone"""
    of_means: float
    """doubly robust estimate less the outcome models alone"""


def halves(sample: Sample, fit: Fit, propensity: Propensity) -> Halves:
    """How far each half of the estimate is refuted by the other."""
    ground = Ground(sample=sample, fit=fit, propensity=propensity)
    return _halves(ground, _rows(ground, np.ones(len(sample.outcome), dtype=np.bool_), ground.chance, ground.simple.design))


def doubts(found: Halves) -> list[Concern]:
    """Both halves refuted beyond 3 standard errors: neither vouches for the estimate."""
    if min(abs(found.of_weights), abs(found.of_means)) <= _DISAGREEMENT:
        return []
    text = (
        f"neither half of the doubly robust estimate stands alone: the weights leave the predicted outcomes unbalanced "
        f"({abs(found.of_weights):.1f} standard errors) and the outcome models are off where the weights look "
        f"({abs(found.of_means):.1f} standard errors)."
    )
    return [Concern(severity="review", text=text)]


def disagreement(points: Sequence[SpecificationPoint]) -> list[Concern]:
    """The estimators, on the same rows and the same adjustment, must agree.

    They are unreliable when two of them differ by more than 3 pooled standard errors, or when two significant ones (95 %) have
    opposite signs. Two estimates of one sample vary together, so 3 pooled standard errors are far beyond chance. An estimator whose
    own model the data reject, while what the chosen one rests on stands, says nothing about the chosen one: `specification_curve`
    has marked it, and it is not compared.
    """
    same = [
        point
        for point in points
        if point.sample == ALL_ROWS and point.adjustment == ALL_COVARIATES and point.estimator in _COMPARED and np.isfinite(point.estimate)
    ]
    return _first_clash(same)


def disagreement_beside(effect: Effect, alternatives: Sequence[Effect]) -> list[Concern]:
    """The same rule for the chosen estimate and those beside it that answer the same question on the outcome's scale."""
    comparable = [other for other in alternatives if other.must_agree and (other.estimand, other.scale) == (effect.estimand, effect.scale)]
    return _first_clash([point for each in (effect, *comparable) if (point := _as_point(each)) is not None])


def _as_point(effect: Effect) -> SpecificationPoint | None:
    """None where the interval has no end or no width: it says nothing about agreement."""
    low, high = effect.interval()
    if not np.isfinite((effect.estimate, low, high)).all() or high <= low:
        return None
    return SpecificationPoint(
        estimator=effect.estimator, sample=ALL_ROWS, adjustment=ALL_COVARIATES, estimate=effect.estimate, low=low, high=high
    )


def _first_clash(points: Sequence[SpecificationPoint]) -> list[Concern]:
    for place, one in enumerate(points):
        for other in points[:place]:
            pooled = float(np.hypot(_error(one), _error(other)))
            gap = abs(one.estimate - other.estimate) / pooled if pooled > 0 else 0.0
            opposite = one.low * one.high > 0 and other.low * other.high > 0 and one.estimate * other.estimate < 0
            if gap > _DISAGREEMENT or opposite:
                text = (
                    f"unreliable: {other.estimator} and {one.estimator} are {gap:.1f} pooled standard errors apart"
                    f"{', with opposite signs' if opposite else ''}."
                )
                return [Concern(severity="block", text=text)]
    return []


def _refuted(ground: Ground, rows: _Rows) -> frozenset[str]:
    """Names of the estimators whose model the data reject while another half of the chosen estimate stands."""
    found = _halves(ground, rows)
    weights, means = abs(found.of_weights) > _DISAGREEMENT, abs(found.of_means) > _DISAGREEMENT
    names = {_WEIGHTS_ALONE} if weights and not means else {_MEANS_ALONE} if means and not weights else set()
    return frozenset(names | (set(_BY_LINES) if not means and _lines_predict_worse(ground, rows) else set()))


def _halves(ground: Ground, rows: _Rows) -> Halves:
    fit = ground.fit
    estimate, influence = _weighting(rows, fit.estimand)
    own = fit.influence[int(np.argmin(np.abs(fit.estimates - fit.estimate)))]
    of_weights = (fit.estimate - estimate) / max(_spread(own - influence, rows), 1e-300)
    correction = _mean_residual(ground, rows)
    return Halves(of_weights=of_weights, of_means=float(correction.mean()) / max(_spread(correction, rows), 1e-300))


def _mean_residual(ground: Ground, rows: _Rows) -> FloatArray:
    """What weighting finds in the residuals of the outcome models; its mean is the correction, shape (n,)."""
    odds = np.where(rows.treatment == 1, 1.0 / rows.chance, 1.0 / (1.0 - rows.chance))
    given = rows.base * (odds if ground.fit.estimand == "ATE" else np.where(rows.treatment == 1, 0.0, odds * rows.chance))
    out = np.zeros(len(given))
    for arm in (0.0, 1.0):
        inside = given * (rows.treatment == arm)
        if inside.any():
            out += (1.0 if arm else -1.0) * len(given) * inside * ground.residual / inside.sum()
    return out


def _means_alone(ground: Ground) -> SpecificationPoint:
    """The fitted outcome means averaged (g-computation, Robins 1986), with the chosen estimate's standard error."""
    sample, fit = ground.sample, ground.fit
    base = np.ones(len(sample.outcome)) if sample.weights is None else sample.weights
    effects = ground.treated - ground.untreated if fit.estimand == "ATE" else sample.outcome - ground.untreated
    estimate = float(np.average(effects, weights=base if fit.estimand == "ATE" else base * sample.treatment))
    half = _Z95 * fit.standard_error
    return SpecificationPoint(
        estimator=_MEANS_ALONE, sample=ALL_ROWS, adjustment=ALL_COVARIATES, estimate=estimate, low=estimate - half, high=estimate + half
    )


def _lines_predict_worse(ground: Ground, rows: _Rows) -> bool:
    """Whether least squares by arm predicts rows left out worse than the learners do, beyond 3 standard errors of the difference.

    Leave-one-out residuals in closed form (Allen 1974) against cross-fitted ones, squared, over the rows of an arm.
    """
    for arm in (0.0, 1.0) if ground.fit.estimand == "ATE" else (0.0,):
        inside = rows.treatment == arm
        design, outcome = rows.design[inside], rows.outcome[inside] - rows.outcome[inside].mean()
        gram = design.T @ design
        gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
        hat = design @ np.linalg.inv(gram)
        left_out = (outcome - hat @ (design.T @ outcome)) / (1.0 - np.minimum(np.sum(hat * design, axis=1), 0.99))
        gap = left_out**2 - ground.residual[inside] ** 2
        if float(gap.mean()) > _DISAGREEMENT * float(gap.std(ddof=1)) / np.sqrt(len(gap)):
            return True
    return False


def _spread(influence: FloatArray, rows: _Rows) -> float:
    """Standard error of the mean of influence values, which need not be centred."""
    values = influence - influence.mean()
    sums = values if rows.clusters is None else sums_by(rows.clusters, values[:, None])[:, 0]
    return float(np.sqrt(np.sum(sums**2))) / len(influence)


def _trimmed(ground: Ground) -> list[SpecificationPoint]:
    found = []
    for trim in TRIMS[1:]:
        kept = (ground.propensity.mean >= trim) & (ground.propensity.mean <= 1.0 - trim)
        treated = float(ground.sample.treatment[kept].sum())
        if kept.all() or min(treated, float(kept.sum()) - treated) < _FEWEST:
            continue
        rows = _rows(ground, kept, ground.chance[kept], ground.simple.design[kept])
        name = f"propensity in [{trim:g}, {1 - trim:g}]: {kept.mean():.0%} of rows, another population"
        found += [_point(way, rows, ground.fit.estimand, sample=name) for way in ("inverse propensity weighting", "weighted regression")]
    return found


def _without_each(ground: Ground) -> list[SpecificationPoint]:
    """Without each source of covariates: propensity and regression fitted anew, both without learners."""
    covariates, treatment = ground.sample.covariates, ground.sample.treatment
    sources = np.array(covariates.sources)
    names = list(dict.fromkeys(covariates.sources))
    if len(names) < 2:
        return []
    spread = np.maximum(covariates.matrix.std(axis=0), 1e-300)
    gaps = np.abs(covariates.matrix[treatment == 1].mean(axis=0) - covariates.matrix[treatment == 0].mean(axis=0)) / spread
    by_gap = sorted(names, key=lambda name: -float(gaps[sources == name].max()))[:_MOST_GROUPS]
    found = []
    for name in by_gap:
        basis = bent(covariates.matrix[:, sources != name])
        rows = _rows(ground, np.ones(len(treatment), dtype=np.bool_), quick_propensity(basis, treatment), basis)
        found.append(_point("weighted regression", rows, ground.fit.estimand, adjustment=f"without {name}"))
    return found


def _rows(ground: Ground, kept: BoolArray, chance: FloatArray, design: FloatArray) -> _Rows:
    sample = ground.sample
    base = np.ones(int(kept.sum())) if sample.weights is None else sample.weights[kept]
    clusters = None if ground.clusters is None else np.unique(ground.clusters[kept], return_inverse=True)[1].astype(np.int64)
    return _Rows(
        outcome=sample.outcome[kept] - sample.outcome[kept].mean(),
        treatment=sample.treatment[kept],
        chance=chance,
        design=design,
        base=base / base.mean(),
        clusters=clusters,
    )


def _point(estimator: str, rows: _Rows, estimand: str, *, sample: str = ALL_ROWS, adjustment: str = ALL_COVARIATES) -> SpecificationPoint:
    estimate, influence = _ESTIMATORS[estimator](rows, estimand)
    sums = influence if rows.clusters is None else sums_by(rows.clusters, influence[:, None])[:, 0]
    error = float(np.sqrt(np.sum(sums**2))) / len(influence)
    return SpecificationPoint(
        estimator=estimator,
        sample=sample,
        adjustment=adjustment,
        estimate=estimate,
        low=estimate - _Z95 * error,
        high=estimate + _Z95 * error,
    )


def _weighting(rows: _Rows, estimand: str) -> _Result:
    odds = np.where(rows.treatment == 1, 1.0 / rows.chance, 1.0 / (1.0 - rows.chance))
    return _difference(rows, odds if estimand == "ATE" else odds * rows.chance)


def _overlap_weighting(rows: _Rows, estimand: str) -> _Result:  # noqa: ARG001 - one signature for all
    """Effect in the population of overlap (Li, Morgan and Zaslavsky 2018)."""
    return _difference(rows, np.where(rows.treatment == 1, 1.0 - rows.chance, rows.chance))


def _difference(rows: _Rows, weights: FloatArray) -> _Result:
    """Weighted means apart, with the outcome's regression on the design taken out of the influence values.

    To estimate the propensity makes weighting sharper than with a known one; the correction is the projection on its scores.
    """
    given = weights * rows.base
    influence = np.zeros(len(given))
    means = []
    for arm in (0.0, 1.0):
        inside = given * (rows.treatment == arm)
        mean = float(inside @ rows.outcome / inside.sum())
        influence += (1.0 if arm else -1.0) * len(given) * inside * (rows.outcome - mean) / inside.sum()
        means.append(mean)
    scores = rows.design * (rows.treatment - rows.chance)[:, None]
    slope = np.linalg.lstsq(scores.T @ scores + 1e-9 * np.eye(scores.shape[1]), scores.T @ influence, rcond=None)[0]
    return means[1] - means[0], influence - scores @ slope


def _regression(rows: _Rows, estimand: str) -> _Result:
    return _by_arm(rows, np.full(len(rows.chance), 0.5), estimand)


def _weighted_regression(rows: _Rows, estimand: str) -> _Result:
    return _by_arm(rows, rows.chance, estimand)


def _by_arm(rows: _Rows, chance: FloatArray, estimand: str) -> _Result:
    fast = functional(rows.treatment, chance, rows.design, estimand="ATT" if estimand == "ATT" else "ATE", base=rows.base)
    return float(fast.estimates(rows.outcome)), fast.influence(rows.outcome[:, None])[:, 0]


def _error(point: SpecificationPoint) -> float:
    return (point.high - point.low) / (2.0 * _Z95)


_ESTIMATORS: dict[str, Callable[[_Rows, str], _Result]] = {
    "inverse propensity weighting": _weighting,
    "regression adjustment": _regression,
    "weighted regression": _weighted_regression,
    "overlap weighting": _overlap_weighting,
}
