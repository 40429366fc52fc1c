"""Relative effects on rates and risks: for counts with many zeros and yes/no outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.cross_fit import (
    Nuisances,
    arm_counts,
    average_of,
    cross_fit,
    joined,
    refuse_without_overlap,
    require_binary,
)
from e2i.causal.estimators.doubly_robust import arm_means
from e2i.causal.estimators.least_squares import independent_columns
from e2i.errors import NotIdentified, NoVariation, TooFewRows

_MINIMUM_EVENTS = 10
_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class RateRatio:
    """Ratio of doubly robust arm means: the risk ratio of a yes/no outcome, the rate ratio of a count; no effect is 1.

    The interval is symmetric on the log scale (delta method).
    """

    repetitions: int | None = None

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with its interval; `standard_error` is that of the ratio.

        Raises
        ------
        NotIdentified, NoVariation, TooFewRows
            As `cross_fit`; or the outcome is negative somewhere, or an arm has fewer than 10 rows with a positive outcome.
        PositivityViolated
            Treated and untreated rows do not overlap.
        """
        require_counts(data)
        estimand = average_of(spec)
        return self.estimate(data, spec, cross_fit(data, estimand=estimand, repetitions=self.repetitions, seed=seed))

    def estimate(self, sample: Sample, spec: Identification, nuisances: Nuisances) -> Estimate:
        """The ratio from nuisances at hand. Raises as `fit`."""
        require_counts(sample)
        estimand = average_of(spec)
        refuse_without_overlap(sample, nuisances.propensity, estimand)
        logs, influence, means = [], [], []
        for chance, down, up in zip(nuisances.propensity.clipped, nuisances.untreated, nuisances.treated, strict=True):
            low, high = arm_means(sample.outcome, sample.treatment, chance, (down, up), estimand=estimand, weights=sample.weights)
            if min(low[0], high[0]) <= 0:
                raise NoVariation("an arm's adjusted mean is not positive.", where="outcome", advice="Ask for the difference instead.")
            logs.append(np.log(high[0] / low[0]))
            influence.append(high[1] / high[0] - low[1] / low[0])
            means.append((low[0], high[0]))
        on_log = joined(
            sample,
            np.array(logs),
            np.stack(influence),
            estimator="ratio of doubly robust means (AIPW)",
            estimand=estimand,
            diagnostics=nuisances.diagnostics()
            | {"mean_untreated": float(np.median([m[0] for m in means])), "mean_treated": float(np.median([m[1] for m in means]))},
            **arm_counts(sample),
        )
        return as_ratio(on_log)


def as_ratio(given: Estimate) -> Estimate:
    """An estimate of a log ratio told as a ratio; the interval is carried over point by point."""
    ratio = float(np.exp(given.estimate))
    return replace(
        given,
        estimate=ratio,
        standard_error=ratio * given.standard_error,
        interval=(float(np.exp(given.interval[0])), float(np.exp(given.interval[1]))),
        interval_method=f"{given.interval_method}, on the log scale",
        scale="ratio",
        influence=None if given.influence is None else ratio * given.influence,
    )


@dataclass(frozen=True, kw_only=True)
class PoissonRegression:
    """Poisson pseudo maximum likelihood with robust variance (Gourieroux, Monfort and Trognon 1984; Santos Silva and Tenreyro 2006).

    `effect` "log" is the coefficient (log rate ratio given the covariates), "ratio" its exponential, "difference" the marginal
    rate difference by standardisation. The outcome need not be Poisson, nor whole numbers, only its mean log-linear.
    """

    effect: Literal["log", "ratio", "difference"] = "log"

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002 - nothing is drawn
        """Estimate with its interval.

        Raises
        ------
        NotIdentified
            Treatment is not 0/1, the outcome is negative somewhere, or the covariates decide treatment.
        NoVariation, TooFewRows
            Fewer than 30 rows in an arm, fewer than 10 of them with a positive outcome, or more columns than the data carry.
        """
        require_counts(data)
        estimand = average_of(spec)
        given = np.ones(len(data.outcome)) if data.weights is None else data.weights
        covariates, informative, silent = _without_silent_levels(data)
        rows = np.flatnonzero(informative)
        design = _design(data.treatment[rows], covariates[rows])
        beta = _maximise(design, data.outcome[rows], given[rows])
        rate = np.exp(design @ beta)
        score = design * (given[rows] * (data.outcome[rows] - rate))[:, None]
        bread = (design * (given[rows] * rate)[:, None]).T @ design / len(data.outcome)
        influence = np.zeros((len(data.outcome), len(beta)))
        influence[rows] = np.linalg.solve(bread, score.T).T
        if self.effect == "difference":
            target = given * (data.treatment if estimand == "ATT" else 1.0)
            estimate, values = _difference(target / target.mean(), rows, design=design, beta=beta, influence=influence)
        else:
            estimate, values = float(beta[1]), influence[:, 1]
        # HC1: the factor counts the estimated coefficients.
        values = values * np.sqrt(len(rows) / (len(rows) - len(beta)))
        found = from_influence(
            estimate,
            values,
            estimator="Poisson regression (PPML)" + (", standardised" if self.effect == "difference" else ""),
            estimand=estimand,
            clusters=data.cluster,
            scale="outcome" if self.effect == "difference" else "log",
            diagnostics={"share_of_zeros": float((data.outcome == 0).mean()), "adjusted_columns": float(len(beta) - 2)},
            notes=silent if self.effect == "difference" else (*silent, "one ratio is taken to hold for everybody"),
            **arm_counts(data),
        )
        return as_ratio(found) if self.effect == "ratio" else found


def require_counts(data: Sample) -> None:
    """Outcomes are zero or positive, and each arm has at least 10 positive ones. Raises NotIdentified, NoVariation or TooFewRows."""
    require_binary(data)
    if data.outcome.min() < 0:
        raise NotIdentified("a ratio needs outcomes of zero or more.", where="outcome", advice="Ask for the difference in means instead.")
    for arm, name in ((0.0, "untreated"), (1.0, "treated")):
        if (data.outcome[data.treatment == arm] > 0).sum() < _MINIMUM_EVENTS:
            raise TooFewRows(
                f"fewer than {_MINIMUM_EVENTS} {name} rows have a positive outcome.",
                where="outcome",
                advice="Ask for the difference, widen the outcome's window, or collect more rows.",
            )


def _design(treatment: FloatArray, covariates: FloatArray) -> FloatArray:
    """Constant, treatment and the covariates that are no combination of those before, standardised."""
    spread = covariates.std(axis=0)
    standard = (covariates - covariates.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    full = np.column_stack([np.ones(len(treatment)), standard, treatment])
    kept = independent_columns(full)
    if full.shape[1] - 1 not in kept:
        raise NotIdentified(
            "treatment is a combination of the covariates.", where="effect.confounders", advice="Take out what repeats the treatment."
        )
    if len(kept) * 3 > len(treatment):
        raise TooFewRows(f"{len(kept)} columns for too few rows.", where="effect.confounders", advice="Name fewer confounders.")
    return np.column_stack([full[:, 0], treatment, full[:, kept[1:-1]]])


def _without_silent_levels(data: Sample) -> tuple[FloatArray, BoolArray, tuple[str, ...]]:
    """Levels in which every outcome is zero say nothing about a ratio; their rows are set aside (Correia, Guimarães and Zylkin 2020)."""
    matrix = data.covariates.matrix
    informative = np.ones(len(data.outcome), dtype=np.bool_)
    silent: list[str] = []
    for name, column in zip(data.covariates.names, matrix.T, strict=True):
        levels = np.unique(column)
        if len(levels) != 2:
            continue
        for level in levels:
            inside = (column == level) & informative
            if inside.any() and not data.outcome[inside].any():
                informative &= ~inside
                silent.append(f"{name} = {level:g}")
    notes = (f"all outcomes are zero where {', '.join(silent)}: these rows do not inform the ratio",) if silent else ()
    return matrix, informative, notes


def _maximise(design: FloatArray, outcome: FloatArray, weights: FloatArray) -> FloatArray:
    """Newton's method with step halving, to the score's zero. Raises NoVariation when no finite maximum exists."""
    scale = float(np.average(outcome, weights=weights))
    target = outcome / scale
    beta = np.zeros(design.shape[1])

    def loss(value: FloatArray) -> float:
        score = design @ value
        return float(weights @ (np.exp(np.minimum(score, 50.0)) - target * score))

    current = loss(beta)
    for _ in range(_STEPS):
        rate = np.exp(np.minimum(design @ beta, 50.0))
        gradient = design.T @ (weights * (rate - target))
        step = np.linalg.lstsq((design * (weights * rate)[:, None]).T @ design, gradient, rcond=None)[0]
        size = 1.0
        while (new := loss(beta - size * step)) > current and size > 1e-6:
            size /= 2.0
        beta, current = beta - size * step, new
        if float(np.abs(gradient).max()) < 1e-9 * len(target):
            beta[0] += np.log(scale)
            return beta
    raise NoVariation(
        "Poisson regression does not converge: some combination of covariates has only zero outcomes.",
        where="effect.confounders",
        advice="Join rare levels or name fewer confounders, or use the ratio of doubly robust means.",
    )


def _difference(
    target: FloatArray, rows: IntArray, *, design: FloatArray, beta: FloatArray, influence: FloatArray
) -> tuple[float, FloatArray]:
    """Mean of rate(1) - rate(0) over the target's weights, with influence values; rows set aside have rate 0 in both."""
    base = design.copy()
    base[:, 1] = 0.0
    down = np.exp(base @ beta)
    gain = np.zeros(len(target))
    gain[rows] = down * np.expm1(beta[1])
    estimate = float((target * gain).mean())
    slope = base.T @ (target[rows] * gain[rows]) / len(target)
    slope[1] = float((target[rows] * down).sum() * np.exp(beta[1])) / len(target)
    return estimate, target * (gain - estimate) + influence @ slope
