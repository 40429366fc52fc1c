"""Several levels of a treatment, each against the reference, with intervals that hold for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import MINIMUM_PER_ARM, Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.cross_fit import average_of, fold_groups, joined, require_covariates, require_finite
from e2i.causal.estimators.doubly_robust import augmented_mean, fit_propensity, repetitions_for, support
from e2i.causal.estimators.features import Features, make_features
from e2i.causal.estimators.nuisances import kind_of, library, out_of_fold, screen, stack, used
from e2i.causal.refute.normal import adjusted_p_values
from e2i.errors import PositivityViolated, TooFewRows

_DRAWS = 4_000
_MAXIMUM_OUTSIDE = 0.05


@dataclass(frozen=True, kw_only=True)
class MultiLevel:
    """Average effect of each level against level 0 over everybody (Cattaneo 2010), cross-fitted, stacked nuisances.

    The generalised propensity is one level against the rest by the same library, normalised to sum 1.
    """

    repetitions: int | None = None

    def fit_many(self, data: Sample, spec: Identification, *, seed: int) -> tuple[Estimate, ...]:
        """One estimate per level from 1 on, in the order of `data.levels`; intervals hold jointly at 95 %.

        Raises
        ------
        NotIdentified, NoVariation
            Another estimand than ATE is asked for, nothing is adjusted for, or a value is missing.
        TooFewRows
            A level has fewer than 30 rows, or there are fewer than 10 clusters.
        PositivityViolated
            More than 5 % of rows have a chance of some level below its support.
        """
        average_of(spec, ("ATE",))
        require_finite(data)
        require_covariates(data)
        levels = _levels(data)
        features = make_features(data.covariates.matrix, data.weights)
        rounds = repetitions_for(len(data.outcome)) if self.repetitions is None else self.repetitions
        chances, folds = _generalised_propensity(data, features, levels, repetitions=rounds, seed=seed)
        means = np.stack([_level_mean(data, features, level, folds=folds, seed=seed) for level in levels])
        clipped = np.maximum(chances, _floors(data, levels)[:, None, None])
        found = [
            [
                augmented_mean(data.outcome, (data.treatment == level) * 1.0, clipped[k, r], means[k, r], weights=data.weights)
                for r in range(len(folds))
            ]
            for k, level in enumerate(levels)
        ]
        return simultaneous(tuple(_contrast(data, found[0], found[k], k) for k in range(1, len(levels))), clusters=data.cluster, seed=seed)


def simultaneous(estimates: tuple[Estimate, ...], *, clusters: IntArray | None = None, seed: int) -> tuple[Estimate, ...]:
    """The same estimates, with 95 % intervals and p-values for all at once: sup-t by the multiplier bootstrap of influence values.

    Montiel Olea and Plagborg-Møller (2019); Gaussian multipliers, one per row or cluster.

    Parameters
    ----------
    estimates : on the same rows, each with influence values
    clusters : shape (n,)
    """
    if len(estimates) < 2:
        return estimates
    rows = np.column_stack([estimate.influence for estimate in estimates if estimate.influence is not None])
    if clusters is not None:
        place = np.unique(clusters, return_inverse=True)[1]
        rows = np.column_stack([np.bincount(place, weights=column) for column in rows.T])
    root = np.linalg.cholesky(_correlation(rows))
    draws = np.random.default_rng(seed).normal(size=(_DRAWS, len(estimates))) @ root.T
    critical = float(np.quantile(np.abs(draws).max(axis=1), 0.95))
    single = (estimates[0].interval[1] - estimates[0].estimate) / estimates[0].standard_error / 1.959963984540054
    critical *= max(single, 1.0)
    z = np.array([each.estimate / each.standard_error for each in estimates]) / max(single, 1.0)
    p_values = adjusted_p_values(z, _correlation(rows), seed=seed)
    return tuple(
        replace(
            each,
            p_value=float(max(p_value, each.p_value or 0.0)),
            interval=(each.estimate - critical * each.standard_error, each.estimate + critical * each.standard_error),
            interval_method=f"simultaneous over {len(estimates)} levels, sup-t by multiplier bootstrap ({each.interval_method})",
            diagnostics=each.diagnostics | {"sup_t_critical": critical},
        )
        for each, p_value in zip(estimates, p_values, strict=True)
    )


def _correlation(rows: FloatArray) -> FloatArray:
    """Of influence values; given the rows, Gaussian multipliers have exactly this correlation, so they need not be drawn one by one."""
    gram = rows.T @ rows
    scale = np.sqrt(np.diag(gram))
    out: FloatArray = gram / np.outer(scale, scale) + 1e-10 * np.eye(len(gram))
    return out


def _levels(data: Sample) -> FloatArray:
    levels, counts = np.unique(data.treatment, return_counts=True)
    if len(levels) < 2 or counts.min() < MINIMUM_PER_ARM:
        names = data.levels or tuple(f"{level:g}" for level in levels)
        scarce = [name for name, count in zip(names, counts, strict=False) if count < MINIMUM_PER_ARM]
        raise TooFewRows(
            f"each level needs {MINIMUM_PER_ARM} rows; too few: {', '.join(scarce) or 'there is only one level'}.",
            where="treatment",
            advice="Join rare levels with their neighbours.",
        )
    return levels


def _generalised_propensity(
    data: Sample, features: Features, levels: FloatArray, *, repetitions: int, seed: int
) -> tuple[FloatArray, IntArray]:
    """Chances, shape (levels, repetitions, n), and the folds of the first level, which the outcome models use too."""
    groups = fold_groups(data)
    fits = [
        fit_propensity(
            features, (data.treatment == level).astype(np.float64), groups, outcome=data.outcome, repetitions=repetitions, seed=seed
        )
        for level in levels
    ]
    raw = np.stack([fit.raw for fit in fits])
    raw /= raw.sum(axis=0)
    floors = _floors(data, levels)
    outside = float((raw.mean(axis=1) < floors[:, None]).any(axis=0).mean())
    if outside > _MAXIMUM_OUTSIDE:
        raise PositivityViolated(
            f"{outside:.1%} of rows have a chance below {floors.max():.2g} of some level (at most 5 % may).",
            where="treatment",
            advice="Compare fewer levels, or restrict the study to units that could have had each of them.",
        )
    return raw, fits[0].folds


def _floors(data: Sample, levels: FloatArray) -> FloatArray:
    """Lower end of every level's support, shape (levels,)."""
    return np.array([support(float((data.treatment == level).mean()))[0] for level in levels])


def _level_mean(data: Sample, features: Features, level: float, *, folds: IntArray, seed: int) -> FloatArray:
    """E[outcome | covariates, level] for everybody, learned from the level's rows, shape (repetitions, n)."""
    inside = data.treatment == level
    candidates = screen(features, data.outcome, folds=folds[0], candidates=library(kind_of(data.outcome), seed=seed), training=inside)
    first = out_of_fold(features, data.outcome, folds=folds[0], candidates=candidates, training=inside)[0]
    weights = stack(
        first[inside],
        data.outcome[inside],
        candidates=candidates,
        row_weights=None if data.weights is None else data.weights[inside],
    )
    kept, columns = used(candidates, weights)
    others = [
        out_of_fold(features, data.outcome, folds=again, candidates=kept, training=inside)[0] @ weights.weights[columns]
        for again in folds[1:]
    ]
    return np.stack([first @ weights.weights, *others])


def _contrast(data: Sample, reference: list[tuple[float, FloatArray]], level: list[tuple[float, FloatArray]], place: int) -> Estimate:
    name = data.levels[place] if data.levels else f"{place}"
    against = data.levels[0] if data.levels else "0"
    inside = data.treatment == np.unique(data.treatment)[place]
    return joined(
        data,
        np.array([up[0] - down[0] for up, down in zip(level, reference, strict=True)]),
        np.stack([up[1] - down[1] for up, down in zip(level, reference, strict=True)]),
        estimator=f"cross-fitted doubly robust (AIPW), level {name} against {against}",
        estimand="ATE",
        n_treated=int(inside.sum()),
        n_untreated=int((data.treatment == np.unique(data.treatment)[0]).sum()),
    )
