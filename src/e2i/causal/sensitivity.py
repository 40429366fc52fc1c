"""How strong an unmeasured confounder would have to be. Reported beside the estimate; judges nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.domain.evidence import Refutation

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Benchmark:
    """Partial R² of a measured confounder, in 0-1."""

    of_treatment: float
    of_outcome: float
    """given treatment"""


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """An estimate after the worst that a hidden confounder could do."""

    estimate: float
    standard_error: float
    of_treatment: float
    of_outcome: float


def benchmark_bound(estimate: float, error: float, *, freedom: int, benchmark: Benchmark, times: float) -> Bounded | None:
    """The estimate under a hidden confounder `times` as strong as a measured one (Cinelli and Hazlett 2020, section 4.4).

    Parameters
    ----------
    error, freedom : standard error and residual degrees of freedom of the estimate
    times : strength relative to the benchmark, for treatment and outcome alike

    Returns
    -------
    Bounded or None
        None when a confounder of that strength would explain all of treatment: there is no finite bound.
    """
    share = benchmark.of_treatment
    of_treatment = times * share / (1.0 - share) if share < 1.0 else 1.0
    if of_treatment >= 1.0 or times * share >= 1.0:
        return None
    shared = times * share**2 / ((1.0 - times * share) * (1.0 - share))
    if shared >= 1.0:
        return None
    ratio = (np.sqrt(times) + np.sqrt(shared)) / np.sqrt(1.0 - shared)
    of_outcome = float(min(ratio**2 * benchmark.of_outcome / (1.0 - min(benchmark.of_outcome, 1.0 - 1e-12)), 1.0))
    bias = np.sqrt(of_outcome * of_treatment / (1.0 - of_treatment)) * error * np.sqrt(freedom)
    return Bounded(
        estimate=float(estimate - np.sign(estimate) * bias),
        standard_error=float(error * np.sqrt((1.0 - of_outcome) / (1.0 - of_treatment) * freedom / (freedom - 1))),
        of_treatment=float(of_treatment),
        of_outcome=of_outcome,
    )


def hidden_confounder_bound(sample: Sample, fit: Fit, propensity: Propensity) -> Refutation:
    """Robustness value of the estimate and of its 95 % interval, beside the strongest measured confounder.

    `statistic` is the robustness value in 0-1: the share of the remaining variation of outcome and of the weighting function
    that one unmeasured confounder must explain, both at once, to bring the estimate to zero (Chernozhukov, Cinelli, Newey,
    Sharma and Syrgkanis 2022, "Long story short"; Cinelli and Hazlett 2020).
    """
    scale = _bias_scale(sample, fit, propensity)
    point = robustness_value(abs(fit.estimate) / scale)
    interval = robustness_value(max(abs(fit.estimate) - _Z95 * fit.standard_error, 0.0) / scale)
    name, of_outcome, of_treatment = strongest_measured(sample.covariates, sample.outcome, sample.treatment)
    return Refutation(
        test="hidden_confounder_bound",
        passed=True,
        detail=(
            f"Reported, not judged: one unmeasured confounder that explains {point:.1%} of what is left of both treatment and outcome "
            f"would bring the estimate to zero, {interval:.1%} would bring the interval to zero. The strongest measured one, `{name}`, "
            f"explains {of_outcome:.1%} of the outcome and {of_treatment:.1%} of treatment."
        ),
        statistic=point,
        is_reported_only=True,
    )


def robustness_value(size: float) -> float:
    """Solve size² = r²/(1-r) for r in 0-1."""
    return float((np.sqrt(size**4 + 4.0 * size**2) - size**2) / 2.0)


def e_value(estimate: float, *, untreated_mean: float, outcome_sd: float, is_binary: bool) -> float | None:
    """E-value on the risk ratio scale (VanderWeele and Ding 2017); for other outcomes by RR ≈ exp(0.91 d). None without a ratio."""
    if is_binary:
        baseline, other = untreated_mean, untreated_mean + estimate
        if min(baseline, other) <= 0:
            return None
        ratio = other / baseline
    else:
        ratio = float(np.exp(np.clip(0.91 * estimate / outcome_sd, -50, 50)))
    ratio = max(ratio, 1.0 / ratio)
    return float(ratio + np.sqrt(ratio * (ratio - 1.0)))


def strongest_measured(covariates: Covariates, outcome: FloatArray, treatment: FloatArray) -> tuple[str, float, float]:
    """Name, partial R² with outcome and partial R² with treatment of the covariate whose product is largest, by least squares."""
    n = len(outcome)
    others = np.column_stack([np.ones(n), standardised(covariates.matrix)])
    of_treatment = _partial_r2(others, treatment)[1:]
    of_outcome = _partial_r2(np.column_stack([others, treatment]), outcome - outcome.mean())[1:-1]
    best = int(np.argmax(of_treatment * of_outcome))
    return covariates.names[best], float(of_outcome[best]), float(of_treatment[best])


def standardised(matrix: FloatArray) -> FloatArray:
    """Columns with mean 0 and standard deviation 1; shares explained do not depend on units, but digits do."""
    out: FloatArray = (matrix - matrix.mean(axis=0)) / np.maximum(matrix.std(axis=0), 1e-300)
    return out


def _partial_r2(design: FloatArray, target: FloatArray) -> FloatArray:
    """Partial R² of every column: t² / (t² + degrees of freedom)."""
    inverse = np.linalg.pinv(design.T @ design)
    beta = inverse @ (design.T @ target)
    residual = target - design @ beta
    freedom = max(len(target) - design.shape[1], 1)
    variance = float(residual @ residual) / freedom
    squared_t = beta**2 / np.maximum(variance * np.diag(inverse), 1e-300)
    out: FloatArray = squared_t / (squared_t + freedom)
    return out


def _bias_scale(sample: Sample, fit: Fit, propensity: Propensity) -> float:
    """Root of E[(Y - g)²] E[a²], a the Riesz representer of the estimand."""
    chance = np.clip(propensity.mean, 0.01, 0.99)
    treatment = sample.treatment
    untreated = fit.untreated_mean.mean(axis=0)
    treated = fit.treated_mean.mean(axis=0)
    if fit.estimand == "ATE":
        representer = treatment / chance - (1 - treatment) / (1 - chance)
    elif fit.estimand == "ATO":
        sure = np.clip(propensity.mean, 0.0, 1.0)
        representer = (treatment - sure) / float(np.mean(sure * (1.0 - sure)))
    else:
        treated = untreated + fit.estimate
        representer = (treatment - (1 - treatment) * chance / (1 - chance)) / treatment.mean()
    residual = sample.outcome - np.where(treatment == 1, treated, untreated)
    return float(np.sqrt(np.mean(residual**2) * np.mean(representer**2)))
