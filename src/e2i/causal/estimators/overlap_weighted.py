"""The effect in the overlap population: units that could have gone either way count most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.balance import balance
from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.cross_fit import Nuisances, arm_counts, cross_fit, joined
from e2i.domain.evidence import BalanceRow
from e2i.errors import PositivityViolated

_MINIMUM_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class OverlapWeighted:
    """ATO: the average effect weighted by e (1 - e), augmented by outcome models (Li, Morgan and Zaslavsky 2018; Li, Thomas and Li 2019).

    Propensities near 0 and 1 need no trimming. The estimate solves the efficient score of this estimand,
    Σ (t - e)(y - m_t) + (t - e)² (m₁ - m₀ - ATO) = 0, in which small errors of e and m only meet as products (Crump et al. 2006).
    """

    repetitions: int | None = None

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with a normal interval, or Student's t over clusters.

        Raises
        ------
        NotIdentified, NoVariation, TooFewRows
            As `cross_fit`.
        PositivityViolated
            Hardly any row could have gone either way.
        """
        return self.estimate(data, spec, cross_fit(data, repetitions=self.repetitions, seed=seed))

    def estimate(self, sample: Sample, spec: Identification, nuisances: Nuisances) -> Estimate:  # noqa: ARG002 - the protocol's spec
        """The effect from nuisances at hand. Raises PositivityViolated."""
        given = np.ones(len(sample.outcome)) if sample.weights is None else sample.weights
        chance = np.clip(nuisances.propensity.raw, 0.0, 1.0)
        tilt = (given * chance * (1.0 - chance)).mean(axis=0)
        if float(np.mean(tilt)) * 4.0 < _MINIMUM_SHARE:
            raise PositivityViolated(
                f"only {float(np.mean(tilt)) * 4.0:.1%} of an even chance is left to treatment once the confounders are known.",
                where="treatment",
                advice="Drop confounders that decide treatment without moving the outcome, or change the question.",
            )
        scores = [_score(sample, given, e, down, up) for e, down, up in zip(chance, nuisances.untreated, nuisances.treated, strict=True)]
        table = balance_under_overlap(sample, nuisances)
        diagnostics = nuisances.diagnostics() | {
            "effective_rows": float(tilt.sum() ** 2 / np.sum(tilt**2)),
            "largest_smd_after": max(abs(row.smd_after) for row in table),
        }
        return joined(
            sample,
            np.array([estimate for estimate, _ in scores]),
            np.stack([values for _, values in scores]),
            estimator="overlap weighting, augmented, stacked nuisances",
            estimand="ATO",
            diagnostics=diagnostics,
            notes=("the effect among units that could have gone either way: each row counts e (1 - e)",),
            **arm_counts(sample),
        )


def _score(sample: Sample, given: FloatArray, chance: FloatArray, down: FloatArray, up: FloatArray) -> tuple[float, FloatArray]:
    surprise = sample.treatment - chance
    residual = sample.outcome - np.where(sample.treatment == 1, up, down)
    bread = given * surprise**2
    estimate = float((given * surprise * residual + bread * (up - down)).sum() / bread.sum())
    return estimate, (given * surprise * residual + bread * (up - down - estimate)) / bread.mean()


def balance_under_overlap(sample: Sample, nuisances: Nuisances) -> tuple[BalanceRow, ...]:
    """Standardised mean differences before and after overlap weighting."""
    chance = nuisances.propensity.mean
    weight = np.where(sample.treatment == 1, 1.0 - chance, chance)
    weight = weight if sample.weights is None else sample.weights * weight
    return balance(sample.covariates, sample.treatment, weight, base=sample.weights, cluster=sample.cluster)
