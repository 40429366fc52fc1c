"""Thresholds and their products: chosen sparsely among deciles, then moved to where the target jumps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimators.features import Features, under
from e2i.causal.estimators.learners import Kind, Learner, Predictor, of_matrix, sparse_fit, thinned, weights_of
from e2i.causal.estimators.linear_models import sparse_linear, sparse_logistic

_MAX_MAIN = 14
_STEP_ROWS = 20_000
"""thresholds are chosen on at most so many rows"""
_AIC = 1.0
_FEWEST = 5
"""rows on either side of a threshold"""
_MOST_TERMS = 20


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """Chosen columns of `steps`, some of them with another threshold."""

    columns: IntArray
    moved: tuple[tuple[int, int, float, float, float], ...]
    """(place among `columns`, covariate, threshold, mean, standard deviation)"""

    def matrix(self, views: Features, rows: IntArray) -> FloatArray:
        """Shape (rows, columns)."""
        out = views.matrix("steps", rows, self.columns)
        for place, covariate, threshold, centre, scale in self.moved:
            out[:, place] = ((views.covariates[rows, covariate] > threshold) - centre) / scale
        return out


def sparse_steps_learner(kind: Kind) -> Learner:
    """Thresholds at the price of AIC, each then moved within its neighbouring deciles; last they and their products, at AIC again."""
    learner = sparse_logistic if kind == "binary" else sparse_linear

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        few = thinned(len(train), _STEP_ROWS)
        main = sparse_fit(kind, views, "steps", train[few], target[few], price=_AIC)
        chosen = _strongest(main.coefficients, _MAX_MAIN)
        if len(chosen) == 0:
            return of_matrix("steps", (main,))
        terms = _moved(views, chosen, train[few], target[few])
        kept, (first, second) = terms.matrix(views, train), np.triu_indices(len(chosen), k=1)
        wide = np.column_stack([kept, kept[:, first] * kept[:, second]])
        final = learner(wide, target, price=_AIC, weights=weights_of(views, train))
        products = np.zeros((len(chosen), len(chosen)))
        products[first, second] = final.coefficients[len(chosen) :]

        def predict(given: Features, rows: IntArray) -> FloatArray:
            kept = terms.matrix(given, rows)
            score = kept @ final.coefficients[: len(chosen)] + np.einsum("ij,ij->i", kept @ products, kept)
            return final.mean_at(score)[:, None]

        return predict

    return fit


def outcome_terms(features: Features, outcome: FloatArray, treatment: FloatArray) -> FloatArray:
    """Thresholds and products that the outcome follows, given treatment and everything linear: standardised, shape (n, at most 20).

    Chosen on at most 20,000 rows by least squares at the price of BIC. A propensity that balances them leaves no confounding that is
    plain in the outcome yet too faint in treatment to be learned from it (double selection: Belloni, Chernozhukov and Hansen 2014).
    """
    if np.ptp(outcome) == 0.0:
        return np.empty((len(outcome), 0))
    views, every = under(features, treatment), np.arange(len(outcome))
    few = every[thinned(len(outcome), _STEP_ROWS)]
    main = sparse_fit("continuous", views, "steps", few, outcome[few], price=_AIC)
    chosen = _strongest(main.coefficients, _MAX_MAIN)
    if len(chosen) == 0:
        return np.empty((len(outcome), 0))
    terms = _moved(views, chosen, few, outcome[few])
    kept, (first, second) = terms.matrix(views, few), np.triu_indices(len(chosen), k=1)
    wide = np.column_stack([kept, kept[:, first] * kept[:, second]])
    final = sparse_linear(wide, outcome[few], price=0.5 * np.log(len(few)), weights=weights_of(views, few))
    mine = chosen < features.recipe.plain_width + len(features.recipe.cuts)
    used = final.coefficients.copy()
    used[: len(chosen)][~mine | (chosen < features.recipe.plain_width)] = 0.0
    used[len(chosen) :][~(mine[first] & mine[second])] = 0.0
    left, right = np.append(np.arange(len(chosen)), first), np.append(np.full(len(chosen), -1), second)
    places = _strongest(used, _MOST_TERMS)
    columns = np.column_stack([terms.matrix(views, every), np.ones(len(outcome))])
    products = columns[:, left[places]] * columns[:, right[places]]
    scale = products.std(axis=0)
    out: FloatArray = ((products - products.mean(axis=0)) / np.where(scale > 0, scale, 1.0))[:, scale > 0]
    return out


def _strongest(coefficients: FloatArray, most: int) -> IntArray:
    """Places of the largest coefficients that are not 0, in order of place."""
    order = np.argsort(-np.abs(coefficients), kind="stable")[:most]
    return np.sort(order[coefficients[order] != 0.0])


def _moved(views: Features, chosen: IntArray, rows: IntArray, target: FloatArray) -> _Terms:
    """Every chosen threshold at its best place, given the others (repartition: Bai 1997, "Estimating multiple breaks one at a time").

    Places are judged by least squares, for a 0/1 target too: that finds the jump.
    """
    recipe, weights = views.recipe, weights_of(views, rows)
    given = np.ones(len(rows)) if weights is None else weights
    columns = views.matrix("steps", rows, chosen)
    root = np.sqrt(given)[:, None]
    slopes = np.linalg.lstsq(np.column_stack([np.ones(len(rows)), columns]) * root, target * root[:, 0], rcond=None)[0]
    left = target - slopes[0] - columns @ slopes[1:]
    moved = []
    for place in np.flatnonzero((chosen >= recipe.plain_width) & (chosen < recipe.plain_width + len(recipe.cuts))):
        number = int(chosen[place]) - recipe.plain_width
        covariate, centre, scale = recipe.cuts[number][0], *recipe.cut_scale[:, number]
        values = views.covariates[rows, covariate]
        partial = left + slopes[1 + place] * columns[:, place]
        threshold = _jump(values, partial, given, within=_neighbours(recipe.cuts, number))
        if threshold is None:
            continue
        new = ((values > threshold) - centre) / scale
        left = partial - slopes[1 + place] * new
        moved.append((int(place), covariate, threshold, float(centre), float(scale)))
    return _Terms(columns=chosen, moved=tuple(moved))


def _neighbours(cuts: tuple[tuple[int, float], ...], number: int) -> tuple[float, float]:
    """The thresholds of the same covariate below and above one."""
    covariate, at = cuts[number]
    same = [cut for other, cut in cuts if other == covariate]
    return max((cut for cut in same if cut < at), default=-np.inf), min((cut for cut in same if cut > at), default=np.inf)


def _jump(values: FloatArray, target: FloatArray, weights: FloatArray, *, within: tuple[float, float]) -> float | None:
    """Where cutting `values` in two explains most of the target; None where there is no room for a cut."""
    order = np.argsort(values, kind="stable")
    ordered, mass = values[order], np.cumsum(weights[order])
    sums = np.cumsum((weights * (target - np.average(target, weights=weights)))[order])
    rank = np.arange(1, len(values))
    fits = (ordered[1:] > ordered[:-1]) & (ordered[:-1] >= within[0]) & (ordered[:-1] <= within[1])
    fits &= (rank >= _FEWEST) & (rank <= len(values) - _FEWEST)
    if not fits.any():
        return None
    best = np.flatnonzero(fits)
    below = mass[best]
    best = best[int(np.argmax(sums[best] ** 2 / (below * (mass[-1] - below))))]
    return float(0.5 * (ordered[best] + ordered[best + 1]))
