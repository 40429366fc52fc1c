"""The field's matched test and control: pairs of alike units, and the double difference between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import MINIMUM_PER_ARM, Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.cross_fit import fold_groups, require_binary, require_covariates, with_error
from e2i.causal.estimators.doubly_robust import fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.matching import Distance, Pairs, balance_of_pairs, match_pairs
from e2i.errors import NotIdentified, PositivityViolated, TooFewRows

_SMALL_CELL = 10
_MAXIMUM_SMD = 0.1


def double_difference(test: FloatArray, test_pre: FloatArray, control: FloatArray, control_pre: FloatArray) -> FloatArray:
    """I_j = (T_j - T_pre) - (C_j - C_pre), the field's formula, for pairs, periods or both (shapes are broadcast).

    Parameters
    ----------
    test, control : outcome of the test and the control side, for instance TRx per month
    test_pre, control_pre : the same before the program, in the same unit (a monthly mean beside a month)

    >>> double_difference(np.array([12.0, 14.0]), np.array(10.0), np.array([9.0, 8.0]), np.array(8.0)).tolist()
    [1.0, 4.0]
    """
    out: FloatArray = np.asarray((np.asarray(test) - test_pre) - (np.asarray(control) - control_pre), dtype=np.float64)
    return out


@dataclass(frozen=True, kw_only=True)
class Matched:
    """ATT of matched treated units: mean double difference over pairs, or mean difference where no pre-period is given.

    `is_bias_adjusted` takes off what the covariates' remaining differences within pairs predict, by a regression among the matched
    controls (Abadie and Imbens 2011); otherwise that figure stands in `diagnostics`.
    """

    distance: Distance = "mahalanobis"
    is_bias_adjusted: bool = False

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with the paired interval, Student's t; with clusters both the pair and the cluster count as dependent.

        Raises
        ------
        NotIdentified
            Treatment is not 0/1, nothing is adjusted for, or rows carry sampling weights.
        NoVariation, TooFewRows
            Fewer than 30 rows in an arm, or fewer than 10 clusters.
        PositivityViolated
            Fewer than 30 pairs, or fewer than half of the treated found a partner.
        """
        pairs, change, _ = self.pair(data, seed=seed)
        adjusted = _bias_adjusted(change, data.covariates.matrix, pairs)
        plain = change[pairs.treated] - change[pairs.untreated]
        table = balance_of_pairs(data.covariates, data.treatment, pairs)
        worst = max(abs(row.smd_after) for row in table)
        diagnostics = {
            "pairs": float(len(pairs.treated)),
            "share_of_treated_matched": float(len(pairs.treated) / data.treatment.sum()),
            "caliper_logit": pairs.caliper,
            "largest_smd_before": max(abs(row.smd_before) for row in table),
            "largest_smd_after": worst,
            "bias_adjusted_estimate": float(adjusted.mean()),
            "unadjusted_estimate": float(plain.mean()),
        }
        kind = "double difference" if data.pre_outcomes else "paired difference"
        estimate = _paired(data, pairs, adjusted if self.is_bias_adjusted else plain, change)
        return replace(
            estimate,
            estimator=f"1:1 matched test and control, {kind}{', bias-adjusted' if self.is_bias_adjusted else ''}",
            diagnostics=diagnostics,
            notes=_notes(data, spec, pairs, worst=worst),
        )

    def pair(self, data: Sample, *, seed: int) -> tuple[Pairs, FloatArray, BoolArray]:
        """The pairs, each row's outcome less its mean before (NaN where that is missing), and the rows that could be matched.

        Raises as `fit`.
        """
        require_binary(data)
        require_covariates(data)
        if data.weights is not None:
            raise NotIdentified(
                "matching 1:1 does not use sampling weights.", where="effect.weights", advice="Use the doubly robust estimator, which does."
            )
        before = np.stack(list(data.pre_outcomes.values())) if data.pre_outcomes else np.zeros((1, len(data.outcome)))
        known = ~np.isnan(before)
        counted = known.sum(axis=0)
        mean_before = np.where(counted > 0, np.where(known, before, 0.0).sum(axis=0) / np.maximum(counted, 1), np.nan)
        # A unit is compared with its own past only when the whole of it was recorded: other months are another level.
        eligible: BoolArray = np.all(known, axis=0)
        if min(int((eligible & (data.treatment == arm)).sum()) for arm in (0.0, 1.0)) < MINIMUM_PER_ARM:
            raise TooFewRows(
                f"an arm has fewer than {MINIMUM_PER_ARM} rows with all pre-period outcomes.",
                where="effect.pre_outcomes",
                advice="Name fewer pre-periods.",
            )
        features = make_features(data.covariates.matrix)
        repetitions = repetitions_for(len(data.outcome))
        chance = fit_propensity(features, data.treatment, fold_groups(data), repetitions=repetitions, seed=seed).mean
        pairs = match_pairs(data.treatment, chance, data.covariates, eligible=eligible, distance=self.distance, seed=seed)
        _require_pairs(data, pairs)
        return pairs, np.where(eligible, data.outcome - mean_before, np.nan), eligible


def _require_pairs(data: Sample, pairs: Pairs) -> None:
    share = len(pairs.treated) / float(data.treatment.sum())
    few = len(pairs.treated) < MINIMUM_PER_ARM
    untreated = len(data.treatment) - float(data.treatment.sum())
    if few or share < 0.5 * min(1.0, untreated / float(data.treatment.sum())):
        raise PositivityViolated(
            f"only {share:.0%} of the treated have a partner among the untreated within the caliper"
            f"{f', fewer than {MINIMUM_PER_ARM} pairs' if few else ''}.",
            where="treatment",
            advice="Test and control units are too unlike: choose another control pool, or overlap weighting.",
        )


def _paired(data: Sample, pairs: Pairs, differences: FloatArray, change: FloatArray) -> Estimate:
    n, count = len(data.outcome), len(differences)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(count))
    influence = np.zeros(n)
    influence[pairs.treated] = n / count * (differences - mean)
    estimate = from_influence(mean, influence, estimator="", estimand="ATT", n_treated=count, n_untreated=count, clusters=data.cluster)
    if data.cluster is None:
        method = f"t with {count - 1} degrees of freedom, paired"
        return replace(with_error(estimate, error, degrees=count - 1), interval_method=method)
    error = max(error, _clustered_error(data.cluster, pairs, differences, change))
    groups = len(np.unique(data.cluster[np.concatenate([pairs.treated, pairs.untreated])]))
    return replace(
        with_error(estimate, error, degrees=max(groups - 1, 1)),
        interval_method=f"t with {max(groups - 1, 1)} degrees of freedom, clustered and paired",
    )


def _clustered_error(cluster: IntArray, pairs: Pairs, differences: FloatArray, change: FloatArray) -> float:
    """Two-way: pairs and clusters (Cameron, Gelbach and Miller 2011); what a bias adjustment takes off is put on the treated side."""
    down = change[pairs.untreated]
    sides = np.concatenate([differences + down - (differences + down).mean(), -(down - down.mean())])
    owner = np.unique(cluster[np.concatenate([pairs.treated, pairs.untreated])], return_inverse=True)[1]
    couple = np.tile(np.arange(len(differences)), 2)
    both = np.unique(owner * len(differences) + couple, return_inverse=True)[1]
    by_cluster, by_pair, by_both = (float(np.sum(np.bincount(key, weights=sides) ** 2)) for key in (owner, couple, both))
    groups = int(owner.max()) + 1
    variance = by_cluster * groups / max(groups - 1, 1) + by_pair - by_both
    return float(np.sqrt(max(variance, by_pair)) / len(differences))


def _bias_adjusted(change: FloatArray, matrix: FloatArray, pairs: Pairs) -> FloatArray:
    """Pair differences less what the covariate differences predict, by least squares among matched controls; shape (pairs,)."""
    centre = matrix[pairs.untreated].mean(axis=0)
    scale = np.maximum(matrix.std(axis=0), 1e-300)
    controls = (matrix[pairs.untreated] - centre) / scale
    target = change[pairs.untreated]
    slopes = np.linalg.lstsq(controls, target - target.mean(), rcond=1e-8)[0]
    gap = (matrix[pairs.treated] - matrix[pairs.untreated]) / scale
    out: FloatArray = change[pairs.treated] - target - gap @ slopes
    return out


def _notes(data: Sample, spec: Identification, pairs: Pairs, *, worst: float) -> tuple[str, ...]:
    notes = []
    if spec.estimand != "ATT":
        notes.append(f"matching answers for the treated: ATT, not {spec.estimand}")
    unusable = int(data.treatment.sum()) - len(pairs.treated) - pairs.without_partner
    if unusable > 0:
        notes.append(f"{_count(unusable)} treated units lack a pre-period outcome and were left out")
    if pairs.without_partner > 0:
        notes.append(
            f"{_count(pairs.without_partner)} treated units have no partner within the caliper: the effect is that of the matched ones"
        )
    notes.append(f"matched exactly on {', '.join(pairs.exact_on)}" if pairs.exact_on else "no column could be matched exactly")
    if data.pre_outcomes:
        notes.append(f"double difference against the mean of {len(data.pre_outcomes)} pre-period columns, in the outcome's own unit")
    if worst > _MAXIMUM_SMD:
        notes.append(f"after matching a covariate still differs by {worst:.2f} standard deviations (at most 0.1 should)")
    return tuple(notes)


def _count(number: int) -> str:
    """Counts of 1-10 people are not told."""
    return f"{number:,}" if number > _SMALL_CELL else f"at most {_SMALL_CELL}"
