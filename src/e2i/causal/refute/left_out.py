"""What each measured confounder does to the estimate, and what a hidden one of the same strength would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.refute.ground import Ground
from e2i.causal.sensitivity import Benchmark, benchmark_bound, robustness_value, standardised
from e2i.domain.evidence import Refutation

_TOLD = 3
_SUSPECT_MOVE = 3.0
_SUSPECT_OUTCOME = 0.05
_EARLIER_SHARE = 0.1
_DOMINANT = 0.15


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One source column left out of the adjustment, by least squares of the outcome on treatment and covariates."""

    source: str
    estimate: float
    """the estimate without it: ours plus the move of least squares"""
    of_treatment: float
    """partial R² with treatment, in 0-1"""
    of_outcome: float
    """partial R² with the outcome given treatment, in 0-1"""


def leave_one_out(ground: Ground) -> tuple[LeftOut, ...]:
    """Every source column left out, largest move first; exact for least squares by one inverse of the Gram matrix."""
    sources = np.array(ground.sample.covariates.sources)
    treatment = ground.sample.treatment
    design = np.column_stack([treatment, np.ones(len(treatment)), standardised(ground.sample.covariates.matrix)])
    outcome = regress(design, ground.sample.outcome - ground.sample.outcome.mean())
    assignment = regress(design[:, 1:], treatment)
    found = []
    for source in dict.fromkeys(ground.sample.covariates.sources):
        places = np.flatnonzero(sources == source) + 2
        move = outcome.move(0, places)
        found.append(
            LeftOut(
                source=source,
                estimate=ground.fit.estimate + move,
                of_treatment=assignment.partial_r2(places - 1),
                of_outcome=outcome.partial_r2(places),
            )
        )
    return tuple(sorted(found, key=lambda left: -abs(left.estimate - ground.fit.estimate)))


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Least squares with what is needed to leave columns out."""

    inverse: FloatArray
    beta: FloatArray
    residual_sum: float

    def move(self, column: int, places: IntArray) -> float:
        """By how much the coefficient of `column` moves when the columns at `places` are left out."""
        block = self.inverse[np.ix_(places, places)]
        return float(-self.inverse[column, places] @ np.linalg.solve(block, self.beta[places]))

    def partial_r2(self, places: IntArray) -> float:
        """Share of what the others leave that the columns at `places` explain."""
        block = self.inverse[np.ix_(places, places)]
        gained = float(self.beta[places] @ np.linalg.solve(block, self.beta[places]))
        return gained / max(gained + self.residual_sum, 1e-300)


def regress(design: FloatArray, target: FloatArray) -> Regression:
    """Least squares on standardised columns' Gram matrix, with a trace of ridge against exact collinearity."""
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] *= 1.0 + 1e-10
    inverse: FloatArray = np.linalg.pinv(gram, hermitian=True).astype(np.float64)
    beta = inverse @ (design.T @ target)
    residual = target - design @ beta
    return Regression(inverse=inverse, beta=beta, residual_sum=float(residual @ residual))


def confounder_benchmarks(ground: Ground, left: tuple[LeftOut, ...]) -> Refutation:
    """Reported, not judged: moves when measured confounders are left out, and the bound for a hidden one 1, 2 or 3 times as strong."""
    strongest = max(left, key=lambda one: one.of_treatment * one.of_outcome)
    freedom = len(ground.sample.outcome) - ground.sample.covariates.matrix.shape[1] - 2
    error, estimate = ground.fit.standard_error, ground.fit.estimate
    bounds = [
        benchmark_bound(estimate, error, freedom=freedom, benchmark=Benchmark(strongest.of_treatment, strongest.of_outcome), times=times)
        for times in (1.0, 2.0, 3.0)
    ]
    value = robustness_value(abs(estimate) / error / np.sqrt(freedom))
    moves = "; ".join(f"without `{one.source}` {one.estimate:.4g}" for one in left[:_TOLD])
    told = ", ".join("no finite bound" if bound is None else f"{bound.estimate:.4g}" for bound in bounds)
    return Refutation(
        test="confounder_benchmarks",
        passed=True,
        is_reported_only=True,
        detail=(
            f"Reported, not judged: {moves}. A hidden confounder 1, 2, 3 times as strong as `{strongest.source}` would bring the estimate "
            f"to {told}; by least squares the robustness value is {value:.1%} (Cinelli and Hazlett 2020)."
        ),
        statistic=value,
        estimate=None if bounds[0] is None else bounds[0].estimate,
    )


def covariates_after_treatment(ground: Ground, left: tuple[LeftOut, ...]) -> Refutation | None:
    """Does a covariate look as if it were measured after treatment? None when there is none to look at.

    A confounder that moves the outcome moves earlier outcomes too. One that carries much of the estimate and says much about the
    outcome but next to nothing about the outcomes before treatment is a mediator or a collider. Without earlier outcomes only
    a covariate that dominates treatment (partial R² of 0.15 and more) is suspected, unless it goes with a negative control: what
    treatment brings about does not.
    """
    moved = [one for one in left if abs(one.estimate - ground.fit.estimate) > _SUSPECT_MOVE * ground.fit.standard_error]
    suspects = [one.source for one in moved if one.of_outcome > _SUSPECT_OUTCOME and _is_new(ground, one)]
    return Refutation(
        test="covariate_timing",
        passed=not suspects,
        detail=(
            f"`{'`, `'.join(suspects)}` moves the outcome and carries much of the estimate, "
            f"but {_as_seen_in(ground)} as a confounder would: was it measured after treatment?"
            if suspects
            else "No covariate looks as if it were measured after treatment."
        ),
        statistic=float(len(suspects)),
    )


def _as_seen_in(ground: Ground) -> str:
    if ground.sample.pre_outcomes:
        return "does not go with the outcome before treatment"
    if ground.sample.negative_controls:
        return "does not go with what treatment cannot move"
    return "decides much of treatment without showing in an earlier outcome"


def _is_new(ground: Ground, one: LeftOut) -> bool:
    sample = ground.sample
    if one.source in sample.pre_outcomes:
        return False
    sources = np.array(sample.covariates.sources)
    unmoved = sample.pre_outcomes or sample.negative_controls
    if not sample.pre_outcomes and one.of_treatment <= _DOMINANT:
        return False
    earlier = {name: values for name, values in unmoved.items() if name != one.source and (~np.isnan(values)).sum() >= 200}
    if not earlier:
        return not sample.pre_outcomes
    for name, values in earlier.items():
        known = ~np.isnan(values)
        kept = sources != name
        matrix = standardised(sample.covariates.matrix[known][:, kept])
        design = np.column_stack([sample.treatment[known], np.ones(int(known.sum())), matrix])
        share = regress(design, values[known] - values[known].mean()).partial_r2(np.flatnonzero(sources[kept] == one.source) + 2)
        noise = 10.0 / known.sum()
        if share > max(_EARLIER_SHARE * one.of_outcome, noise):
            return False
    return True
