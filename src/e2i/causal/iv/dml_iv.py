"""Instrumental variables with learned nuisances: partially linear, or interactive (effect on compliers).

Chernozhukov, Chetverikov, Demirer, Duflo, Hansen, Newey and Robins (2018), sections 4.2 and 5.2. Predictions are averaged over several
partitions into folds; no row's prediction ever comes from a model that saw the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.doubly_robust import fit_propensity, repetitions_for
from e2i.causal.estimators.features import Features, make_features
from e2i.causal.estimators.nuisances import kind_of, library, make_folds, out_of_fold, screen, stack, used
from e2i.causal.hazards import dependent_rows
from e2i.causal.iv.checks import instrument_hazards, raise_refused
from e2i.causal.iv.late import EncouragementMeans, late_estimate
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.causal.iv.two_stage import from_residuals, two_stage
from e2i.errors import NotIdentified, TooFewRows

Model = Literal["auto", "partially_linear", "interactive"]
_MINIMUM_PER_ARM = 30


@dataclass(frozen=True, kw_only=True)
class DMLIV:
    """Effect of a treatment that the instruments move, with cross-fitted, stacked nuisances.

    `interactive` gives the effect on compliers for one instrument with two values and a 0/1 treatment, and lets the effect vary with
    covariates; `partially_linear` takes any treatment and several instruments; `auto` takes the first where it applies.
    """

    model: Model = "auto"

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:
        """Estimate with its 95 % interval, Anderson and Rubin's where instruments are weak.

        Raises
        ------
        NotIdentified
            The instruments cannot identify the effect.
        TooFewRows
            Fewer rows than `instrument_hazards` asks for, or fewer than 30 with one value of the instrument.
        """
        raise_refused(instrument_hazards(data), override=spec.override)
        assert data.instruments is not None, "checked above"
        is_interactive = data.instruments.shape[1] == 1 and _is_binary(data.treatment) and len(np.unique(data.instruments)) == 2
        if self.model == "interactive" and not is_interactive:
            raise NotIdentified(
                "the interactive model takes one instrument with two values and a 0/1 treatment.",
                where="effect.instruments",
                advice="Use the partially linear model.",
            )
        if is_interactive and self.model != "partially_linear":
            return _interactive(data, seed=seed)
        return _partially_linear(data, seed=seed)


def _partially_linear(data: Sample, *, seed: int) -> Estimate:
    assert data.instruments is not None
    targets = np.column_stack([data.outcome, data.treatment, data.instruments])
    predictions = _conditional_means(data, targets, seed=seed)
    whole = _reduce(targets - predictions.mean(axis=0), data)
    single = [two_stage(_reduce(targets - once, data)) for once in predictions]
    fit = two_stage(whole)
    spread = float(np.std([once.estimate for once in single])) / fit.standard_error
    return from_residuals(
        whole, estimator="DML-IV, partially linear, stacked nuisances", treatment=data.treatment, diagnostics={"fold_spread": spread}
    )


def _reduce(left: FloatArray, data: Sample) -> Residuals:
    """Residuals of (outcome, treatment, instruments), shape (n, 2 + m), with their means taken out."""
    return project_out(
        left[:, 0],
        left[:, 1],
        left[:, 2:],
        covariates=np.empty((len(left), 0)),
        weights=data.weights,
        clusters=data.cluster,
        names=data.instrument_names,
    )


def _conditional_means(data: Sample, targets: FloatArray, *, seed: int) -> FloatArray:
    """Out-of-fold means of each target given the covariates, shape (repetitions, n, targets)."""
    if data.covariates.matrix.shape[1] == 0:
        return np.zeros((1, *targets.shape))
    features = make_features(data.covariates.matrix, weights=data.weights)
    groups = _independent_groups(data)
    strata = np.zeros(len(groups), dtype=np.int64)
    folds = np.stack([make_folds(groups, strata, seed=seed * 1009 + r) for r in range(repetitions_for(len(groups)))])
    return np.stack([_cross_fit(features, target, folds=folds, seed=seed) for target in targets.T], axis=-1)


def _interactive(data: Sample, *, seed: int) -> Estimate:
    assert data.instruments is not None
    instrument = data.instruments[:, 0]
    encouraged = (instrument == instrument.max()).astype(np.float64)
    if min(encouraged.sum(), (1.0 - encouraged).sum()) < _MINIMUM_PER_ARM:
        raise TooFewRows(
            f"one value of the instrument is held by fewer than {_MINIMUM_PER_ARM} rows.",
            where="effect.instruments",
            advice="Collect more rows or use two-stage least squares.",
        )
    return late_estimate(_encouragement_means(data, encouraged, seed=seed), data=data, encouraged=encouraged)


def _encouragement_means(data: Sample, encouraged: FloatArray, *, seed: int) -> EncouragementMeans:
    """Nuisances of the interactive model; without covariates they are the arms' means."""
    arms = [encouraged == arm for arm in (0.0, 1.0)]
    roles = (data.outcome, data.treatment)
    if data.covariates.matrix.shape[1] == 0:
        flat = np.ones((1, len(encouraged)))
        outcome, treatment = (np.stack([flat * _mean(role, data.weights, rows) for rows in arms]) for role in roles)
        share = _mean(encouraged, data.weights, np.ones(len(encouraged), dtype=np.bool_))
        return EncouragementMeans(propensity=flat * share, outcome=outcome, treatment=treatment)
    features = make_features(data.covariates.matrix, weights=data.weights)
    groups = _independent_groups(data)
    fitted = fit_propensity(features, encouraged, groups, repetitions=repetitions_for(len(groups)), seed=seed)
    outcome, treatment = (
        np.stack([_cross_fit(features, role, folds=fitted.folds, rows=rows, seed=seed) for rows in arms]) for role in roles
    )
    return EncouragementMeans(propensity=fitted.raw, outcome=outcome, treatment=treatment)


def _cross_fit(features: Features, target: FloatArray, *, folds: IntArray, seed: int, rows: BoolArray | None = None) -> FloatArray:
    """Stacked out-of-fold means, learned on `rows` (default: all) and predicted for everybody, shape (repetitions, n).

    A target that does not vary among `rows` (one-sided compliance) is its own mean.
    """
    chosen = np.ones(len(target), dtype=np.bool_) if rows is None else rows
    if np.ptp(target[chosen]) == 0.0:
        return np.full(folds.shape, target[chosen][0])
    row_weights = None if features.weights is None else features.weights[chosen]
    candidates = screen(features, target, folds=folds[0], candidates=library(kind_of(target[chosen]), seed=seed), training=rows)
    first = out_of_fold(features, target, folds=folds[0], candidates=candidates, training=rows)[0]
    weights = stack(first[chosen], target[chosen], candidates=candidates, row_weights=row_weights)
    kept, columns = used(candidates, weights)
    others = [out_of_fold(features, target, folds=again, candidates=kept, training=rows)[0] for again in folds[1:]]
    return np.stack([first @ weights.weights, *(predictions @ weights.weights[columns] for predictions in others)])


def _independent_groups(data: Sample) -> IntArray:
    return dependent_rows(data) if data.cluster is None else data.cluster


def _is_binary(values: FloatArray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _mean(values: FloatArray, weights: FloatArray | None, rows: BoolArray) -> float:
    return float(np.average(values[rows], weights=None if weights is None else weights[rows]))
