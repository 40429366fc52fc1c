"""Effect through the front door: by mediators that carry all of it and are themselves not confounded (Pearl 1995).

Efficient, doubly robust scores of Fulcher, Shpitser, Marealle and Tchetgen Tchetgen (2020), "Robust inference on population indirect causal
effects: the generalized front door criterion", with cross-fitted, stacked nuisances; the ratio of mediator densities comes from the
probability of treatment given the mediators (Bayes), so no density is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification, Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.doubly_robust import doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.hazards import dependent_rows
from e2i.errors import NotIdentified, NoVariation, PositivityViolated, SchemaMismatch

_OUTSIDE = 0.10


@dataclass(frozen=True, kw_only=True)
class FrontDoor:
    """Average effect of a 0/1 treatment by way of its mediators; no confounder is adjusted for."""

    mediators: Covariates
    """encoded, of the sample's n rows; see `graph.identify_by_graph`"""

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with a normal (clustered: t) interval from influence values.

        Raises
        ------
        SchemaMismatch
            The treatment is not 0/1, or mediators and sample have different rows.
        NotIdentified
            Another estimand than ATE, or sampling weights.
        NoVariation
            No mediator varies.
        PositivityViolated
            The mediators give the treatment away: none of their values is seen in both arms.
        """
        _require(data, spec, self.mediators)
        features = make_features(self.mediators.matrix)
        groups = dependent_rows(data) if data.cluster is None else data.cluster
        propensity = fit_propensity(features, data.treatment, groups, repetitions=repetitions_for(len(groups)), seed=seed)
        low, high = propensity.bounds
        outside = float(((propensity.mean < low) | (propensity.mean > high)).mean())
        if outside > _OUTSIDE:
            raise PositivityViolated(
                f"for {outside:.0%} of rows the mediators give the treatment away.",
                where="mediators",
                advice="The front door needs mediator values that are seen with and without treatment.",
            )
        means = doubly_robust(features, data.outcome, data.treatment, propensity=propensity, estimand="ATE", seed=seed)
        single = [
            _scores(data, chance, low, high).mean()
            for chance, low, high in zip(propensity.clipped, means.untreated_mean, means.treated_mean, strict=True)
        ]
        chance = np.clip(propensity.mean, low, high)
        scores = _scores(data, chance, means.untreated_mean.mean(axis=0), means.treated_mean.mean(axis=0))
        told = from_influence(
            float(scores.mean()),
            scores,
            estimator="Front door, doubly robust, stacked nuisances",
            estimand="ATE",
            clusters=data.cluster,
            n_treated=int(data.treatment.sum()),
            n_untreated=int((1.0 - data.treatment).sum()),
            notes=(f"by way of {', '.join(dict.fromkeys(self.mediators.sources))}, which must carry the whole effect",),
        )
        return replace(told, diagnostics={"fold_spread": float(np.std(single)) / told.standard_error, "share_outside": outside})


def _scores(data: Sample, chance: FloatArray, untreated: FloatArray, treated: FloatArray) -> FloatArray:
    """Uncentred efficient scores, shape (n,): their mean is the effect.

    Parameters
    ----------
    chance : shape (n,), probability of treatment given the mediators
    untreated, treated : shape (n,), mean outcome given the mediators in each arm
    """
    treatment, share = data.treatment, float(data.treatment.mean())
    densities = chance / (1.0 - chance) * (1.0 - share) / share  # of the mediators: treated over untreated
    ratio = np.where(treatment == 1.0, 1.0 - 1.0 / densities, densities - 1.0)
    residual = data.outcome - np.where(treatment == 1.0, treated, untreated)
    standardised = share * treated + (1.0 - share) * untreated
    arms = [treatment == arm for arm in (0.0, 1.0)]
    by_mediator = (standardised - standardised[arms[1]].mean()) * arms[1] / share
    by_mediator -= (standardised - standardised[arms[0]].mean()) * arms[0] / (1.0 - share)
    shift = [float(mean[arms[1]].mean() - mean[arms[0]].mean()) for mean in (untreated, treated)]
    out: FloatArray = ratio * residual + by_mediator + np.where(arms[1], shift[1], shift[0])
    return out


def _require(data: Sample, spec: Identification, mediators: Covariates) -> None:
    if not np.isin(data.treatment, (0.0, 1.0)).all() or len(mediators.matrix) != len(data.treatment):
        raise SchemaMismatch(
            "the front door takes a 0/1 treatment, and mediators of the same rows.", where="effect.treatment", advice="Recode it as 0/1."
        )
    if spec.estimand != "ATE" or data.weights is not None:
        raise NotIdentified(
            "the front door gives the ATE, without sampling weights.", where="effect", advice="Leave `estimand` and `weights` out."
        )
    if mediators.matrix.shape[1] == 0:
        raise NoVariation("no mediator varies.", where="mediators", advice="Name the columns through which the treatment works.")
