"""All refuters of a cross-section, in the order in which they are told."""

from __future__ import annotations

from e2i.causal.design import Sample
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.refute.controls import hidden_bias_tests
from e2i.causal.refute.ground import Ground
from e2i.causal.refute.left_out import confounder_benchmarks, covariates_after_treatment, leave_one_out
from e2i.causal.refute.neighbours import spill_over
from e2i.causal.refute.simulations import DRAWS, bootstrap, dummy_outcomes, placebo_treatments, random_common_causes, subsets
from e2i.causal.sensitivity import hidden_confounder_bound
from e2i.domain.evidence import Refutation


def refute_all(
    sample: Sample, fit: Fit, propensity: Propensity, *, seed: int, draws: int = DRAWS, confirm: bool = True
) -> tuple[Refutation, ...]:
    """Put one estimate of a yes/no treatment on trial.

    Parameters
    ----------
    draws : simulations per refuter
    confirm : let the full estimator confirm an alarm of the fast one before it counts (seconds, only on alarm)

    Returns
    -------
    tuple of Refutation
        Placebo treatment, random common cause, dummy outcome, halves and subsets (where rows allow), bootstrap, earlier outcomes,
        negative controls (where the sample has them), spill-over (in clusters), timing of covariates; reported only: benchmarks and
        hidden-confounder bound.
    """
    return refute_ground(Ground(sample=sample, fit=fit, propensity=propensity), seed=seed, draws=draws, confirm=confirm)


def refute_ground(ground: Ground, *, seed: int, draws: int = DRAWS, confirm: bool = True) -> tuple[Refutation, ...]:
    """`refute_all` on an estimation that is laid out already."""
    sample, fit = ground.sample, ground.fit
    # Not the fit's own influence values: the claimed standard error is made of those, and would vouch for itself.
    influence = ground.full.influence(sample.outcome[:, None])[:, 0]
    halves = subsets(ground, influence, seed=seed + 3, draws=draws)
    around = spill_over(ground)
    found = [
        placebo_treatments(ground, seed=seed, draws=draws),
        random_common_causes(ground, seed=seed + 1, draws=draws),
        dummy_outcomes(ground, seed=seed + 2, draws=draws),
        *(() if halves is None else (halves,)),
        bootstrap(ground, influence, seed=seed + 4, draws=draws),
        *hidden_bias_tests(ground, seed=seed + 5, confirm=confirm),
        *(() if around is None else (around,)),
    ]
    if sample.covariates.matrix.shape[1] > 0:
        left = leave_one_out(ground)
        found += [
            covariates_after_treatment(ground, left),
            confounder_benchmarks(ground, left),
            hidden_confounder_bound(sample, fit, ground.propensity),
        ]
    return tuple(found)
