"""The cross-fitted doubly robust estimator behind the protocol, and several estimators on one set of nuisances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.cross_fit import Nuisances, arm_counts, average_of, cross_fit, joined, refuse_without_overlap
from e2i.causal.estimators.doubly_robust import arm_means


class OnNuisances(Protocol):
    """An estimator that needs no more than propensity and conditional means."""

    def estimate(self, sample: Sample, spec: Identification, nuisances: Nuisances) -> Estimate:
        """The effect from nuisances at hand, fitted for both arms unless `spec` asks for the ATT."""
        ...


@dataclass(frozen=True, kw_only=True)
class AIPW:
    """ATE or ATT by augmented inverse propensity weighting, stacked nuisances (Robins, Rotnitzky and Zhao 1994)."""

    repetitions: int | None = None

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with a normal interval, or Student's t over clusters.

        Raises
        ------
        NotIdentified, NoVariation, TooFewRows
            As `cross_fit`, or another estimand than ATE and ATT is asked for.
        PositivityViolated
            Treated and untreated rows do not overlap.
        """
        estimand = average_of(spec)
        return self.estimate(data, spec, cross_fit(data, estimand=estimand, repetitions=self.repetitions, seed=seed))

    def estimate(self, sample: Sample, spec: Identification, nuisances: Nuisances) -> Estimate:
        """The effect from nuisances at hand. Raises PositivityViolated or NotIdentified."""
        estimand = average_of(spec)
        refuse_without_overlap(sample, nuisances.propensity, estimand)
        estimates, influence = [], []
        for chance, down, up in zip(nuisances.propensity.clipped, nuisances.untreated, nuisances.treated, strict=True):
            untreated, treated = arm_means(sample.outcome, sample.treatment, chance, (down, up), estimand=estimand, weights=sample.weights)
            estimates.append(treated[0] - untreated[0])
            influence.append(treated[1] - untreated[1])
        return joined(
            sample,
            np.array(estimates),
            np.stack(influence),
            estimator="cross-fitted doubly robust (AIPW), stacked nuisances",
            estimand=estimand,
            diagnostics=nuisances.diagnostics(),
            **arm_counts(sample),
        )


def fit_many(data: Sample, spec: Identification, *, estimators: tuple[OnNuisances, ...], seed: int) -> tuple[Estimate, ...]:
    """Several estimators on nuisances fitted once, in the given order. Raises as each of them, and as `cross_fit`."""
    nuisances = cross_fit(data, seed=seed)
    return tuple(estimator.estimate(data, spec, nuisances) for estimator in estimators)
