"""Local average treatment effect from cross-fitted scores: the effect on compliers (Imbens and Angrist 1994; Frölich 2007)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.doubly_robust import CLIP
from e2i.causal.iv.two_stage import both_intervals, choose_interval, choose_p, first_stage_diagnostics
from e2i.causal.iv.weak import BIAS_TOLERATED, ConfidenceSet, Strength, anderson_rubin, anderson_rubin_p
from e2i.errors import NotIdentified

_FEWEST_WRONG = 50


@dataclass(frozen=True, kw_only=True)
class EncouragementMeans:
    """Cross-fitted nuisances of the instrument's two values, per repetition; row 0 is the lower value, row 1 the higher one."""

    propensity: FloatArray
    """probability of the higher value, shape (repetitions, n), not clipped"""
    outcome: FloatArray
    """shape (2, repetitions, n)"""
    treatment: FloatArray
    """shape (2, repetitions, n)"""


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Doubly robust scores times the row's sampling weight (mean 1), shape (n,) each."""

    outcome: FloatArray
    """of the instrument's effect on the outcome"""
    treatment: FloatArray
    """of the instrument's effect on the treatment"""
    treated_without: FloatArray
    """of treatment at the instrument's lower value"""
    weights: FloatArray
    """shape (n,), mean 1"""

    @property
    def ratio(self) -> float:
        """Effect on compliers."""
        return float(self.outcome.mean() / self.treatment.mean())


def late_estimate(means: EncouragementMeans, *, data: Sample, encouraged: FloatArray) -> Estimate:
    """Effect on compliers, interval by Anderson and Rubin's test of the score where few units comply.

    Parameters
    ----------
    data : of n rows, treatment 0/1
    encouraged : shape (n,), 1 where the instrument has its higher value

    Raises
    ------
    NotIdentified
        No unit complies: the instrument moves nobody's treatment.
    """
    averaged = EncouragementMeans(
        propensity=means.propensity.mean(axis=0, keepdims=True),
        outcome=means.outcome.mean(axis=1, keepdims=True),
        treatment=means.treatment.mean(axis=1, keepdims=True),
    )
    scores = _scores(averaged, 0, data=data, encouraged=encouraged)
    share = float(scores.treatment.mean())
    if abs(share) < 1e-9:
        raise NotIdentified("no unit's treatment follows the instrument.", where="effect.instruments", advice="Find one that moves it.")
    effect = scores.ratio
    told = from_influence(
        effect,
        (scores.outcome - effect * scores.treatment) / share,
        estimator="DML-IV, interactive (compliers), stacked nuisances",
        estimand="LATE",
        clusters=data.cluster,
        n_treated=int(data.treatment.sum()),
        n_untreated=int((1.0 - data.treatment).sum()),
    )
    single = [_scores(means, r, data=data, encouraged=encouraged).ratio for r in range(len(means.propensity))]
    diagnostics = {
        **_compliance(scores, averaged, data),
        "fold_spread": float(np.std(single)) / told.standard_error,
        "share_outside": float(((averaged.propensity < CLIP) | (averaged.propensity > 1.0 - CLIP)).mean()),
    }
    return _with_robust_interval(told, scores, data, diagnostics)


def _scores(means: EncouragementMeans, repetition: int, *, data: Sample, encouraged: FloatArray) -> _Scores:
    """Augmented inverse propensity scores with normalised weights, the instrument in the role of the treatment."""
    propensity = np.clip(means.propensity[repetition], CLIP, 1.0 - CLIP)
    up, down = encouraged / propensity, (1.0 - encouraged) / (1.0 - propensity)
    weights = np.ones(len(encouraged)) if data.weights is None else data.weights / data.weights.mean()
    up, down = up / np.mean(weights * up), down / np.mean(weights * down)

    def arms(target: FloatArray, fitted: FloatArray) -> tuple[FloatArray, FloatArray]:
        low, high = fitted[0, repetition], fitted[1, repetition]
        return weights * (low + down * (target - low)), weights * (high + up * (target - high))

    outcome, treatment = arms(data.outcome, means.outcome), arms(data.treatment, means.treatment)
    return _Scores(outcome=outcome[1] - outcome[0], treatment=treatment[1] - treatment[0], treated_without=treatment[0], weights=weights)


def _compliance(scores: _Scores, means: EncouragementMeans, data: Sample) -> dict[str, float]:
    """Shares of compliers, always-takers and never-takers, and how often the predicted first stage has the wrong sign."""
    share = float(scores.treatment.mean())
    first = from_influence(share, scores.treatment - scores.weights * share, estimator="", estimand="", clusters=data.cluster)
    direction = 1.0 if first.estimate > 0 else -1.0
    low, high = sorted(direction * bound for bound in first.interval)
    always = float(scores.treated_without.mean())
    if direction < 0:
        always += first.estimate
    predicted = direction * (means.treatment[1, 0] - means.treatment[0, 0])
    wrong, p_value = _wrong_sign(direction * scores.treatment, predicted < 0, data)
    return {
        "complier_share": direction * first.estimate,
        "complier_share_low": low,
        "complier_share_high": high,
        "always_taker_share": always,
        "never_taker_share": 1.0 - always - direction * first.estimate,
        "wrong_sign_share": wrong,
        "wrong_sign_p": p_value,
    }


def _wrong_sign(scores: FloatArray, wrong: BoolArray, data: Sample) -> tuple[float, float]:
    """Share of rows for which models that did not see them predict the wrong sign, and whether their scores agree (one-sided p)."""
    if wrong.sum() < _FEWEST_WRONG:
        return float(wrong.mean()), 1.0
    told = from_influence(
        float(scores[wrong].mean()),
        scores[wrong],
        estimator="",
        estimand="",
        clusters=None if data.cluster is None else data.cluster[wrong],
    )
    p_value = 1.0 if told.p_value is None or told.estimate >= 0 else 0.5 * told.p_value
    return float(wrong.mean()), p_value


def _with_robust_interval(told: Estimate, scores: _Scores, data: Sample, diagnostics: dict[str, float]) -> Estimate:
    """Anderson and Rubin's set beside the usual interval, and instead of it below the critical value."""
    from scipy.stats import f, ncx2

    joint, degrees = _joint_variance(scores, data)
    delta, pi = np.array([scores.outcome.mean()]), np.array([scores.treatment.mean()])
    statistic = float(pi[0] ** 2 / joint[1, 1])
    first = Strength(
        instruments=1,
        first_stage_f=statistic,
        first_stage_p=float(f.sf(statistic, 1, degrees)),
        effective_f=statistic,
        critical_value=float(ncx2.ppf(0.95, 1, 1.0 / BIAS_TOLERATED)),
        partial_r2=float(np.corrcoef(data.instruments[:, 0], data.treatment)[0, 1] ** 2) if data.instruments is not None else 0.0,
    )
    robust = anderson_rubin(delta, pi, joint, degrees=degrees)
    wald = ConfidenceSet(segments=(told.interval,))
    interval, method, notes = choose_interval(wald, robust, first, method=told.interval_method)
    p_value = choose_p(told.p_value or 0.0, anderson_rubin_p(delta, pi, joint, effect=0.0, degrees=degrees), first)
    return replace(
        told,
        interval=interval,
        interval_method=method,
        p_value=p_value,
        diagnostics={**first_stage_diagnostics(first), **both_intervals(wald, robust), **diagnostics},
        notes=notes,
    )


def _joint_variance(scores: _Scores, data: Sample) -> tuple[FloatArray, int]:
    """Variance of the two mean scores, shape (2, 2), and the degrees of freedom of a test with it."""
    values = np.column_stack([scores.outcome, scores.treatment])
    values = values - scores.weights[:, None] * values.mean(axis=0)
    rows = len(values)
    if data.cluster is not None:
        index = np.unique(data.cluster, return_inverse=True)[1]
        values = np.column_stack([np.bincount(index, weights=column) for column in values.T])
    units = len(values)
    joint: FloatArray = units / (units - 1) * (values.T @ values) / rows**2
    return joint, units - 1
