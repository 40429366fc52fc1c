"""Predictor weights V of the classic synthetic control (Abadie, Diamond & Hainmueller 2010)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.panel.block import Block
from e2i.causal.panel.simplex import simplex_weights
from e2i.domain.nearest import suggestion
from e2i.errors import SchemaMismatch

_RANDOM_STARTS = 40
_LOWEST_LOG = -25.0


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A column averaged over periods before treatment."""

    column: str
    """the outcome or a covariate"""
    periods: tuple[str, ...] = ()
    """names of periods; default all fitted ones"""

    @property
    def label(self) -> str:
        """As people read it."""
        return f"{self.column}({', '.join(self.periods)})" if self.periods else self.column


def default_predictors(block: Block, outcome: str) -> tuple[Predictor, ...]:
    """Means of the covariates, and the outcome in the first, the middle and the last fitted period.

    With every pre-treatment outcome among the predictors the covariates would have no say (Kaul et al. 2022).
    """
    chosen = dict.fromkeys((0, (block.fit_end - 1) // 2, block.fit_end - 1))
    lags = tuple(Predictor(column=outcome, periods=(block.period_names[period],)) for period in chosen)
    return (*(Predictor(column=name) for name in block.covariate_names), *lags)


def predictor_matrix(block: Block, predictors: tuple[Predictor, ...], outcome: str) -> FloatArray:
    """Predictors of every unit over their standard deviation, shape (k, N).

    Raises
    ------
    SchemaMismatch
        A column or a period is not there, is not before treatment, or a value is missing.
    """
    rows = []
    for predictor in predictors:
        values = _column(block, predictor.column, outcome)[:, _periods(block, predictor)].mean(axis=1)
        if not np.isfinite(values).all():
            raise SchemaMismatch(
                f"predictor {predictor.label} has missing values.",
                where="confounders",
                advice="Choose periods in which every unit has it, or leave it out.",
            )
        spread = float(values.std(ddof=1))
        rows.append(values / spread if spread > 0 else values * 0.0)
    return np.asarray(rows, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class PredictorFit:
    """Donor weights that match predictors, weighted so that the outcome before treatment is matched best."""

    weights: FloatArray
    """shape (N,), 0 outside the donors"""
    importance: FloatArray
    """V, shape (k,), sum 1"""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How hard to look for V."""

    starts: FloatArray
    """shape (s, k), importances to try first; the best ones are improved"""
    evaluations: int
    """how many V one improvement may try"""
    restarts: int
    """improvements, from the best starts"""


def fit_predictors(block: Block, predictors: FloatArray, mixing: FloatArray, *, allowed: BoolArray, search: Search) -> PredictorFit:
    """Search V over the simplex for one target.

    Parameters
    ----------
    predictors : shape (k, N), from `predictor_matrix`
    mixing : shape (N,), the target as a mixture of units
    allowed : shape (N,), donors
    """
    from scipy.optimize import minimize

    use = np.flatnonzero(allowed)
    donors, aim = predictors[:, use], predictors @ mixing
    before, path = block.outcome[use, : block.fit_end], mixing @ block.outcome[:, : block.fit_end]

    def weights_at(log_importance: FloatArray) -> FloatArray:
        root = np.exp(0.5 * np.clip(log_importance - log_importance.max(), _LOWEST_LOG, 0.0))
        return simplex_weights(donors * root[:, None], aim * root)

    def loss(log_importance: FloatArray) -> float:
        return float(np.mean((path - weights_at(log_importance) @ before) ** 2))

    logs = np.log(np.maximum(search.starts, np.exp(_LOWEST_LOG)))
    losses = np.array([loss(row) for row in logs])
    best = logs[int(np.argmin(losses))]
    if search.evaluations > 0:
        most = search.evaluations
        options = {"maxfev": most, "maxiter": most, "adaptive": True, "xatol": 1e-4, "fatol": 1e-8 * float(losses.min())}
        tries = [minimize(loss, logs[row], method="Nelder-Mead", options=options) for row in np.argsort(losses)[: search.restarts]]
        best = min(tries, key=lambda found: float(found.fun)).x
    weights = np.zeros(len(allowed))
    weights[use] = weights_at(best)
    importance = np.exp(best - best.max())
    return PredictorFit(weights=weights, importance=importance / importance.sum())


def starting_importances(block: Block, matrix: FloatArray, *, seed: int) -> FloatArray:
    """Equal, by regression of the outcomes on the predictors (Synth's start), one predictor each, and random ones, shape (s, k)."""
    width = len(matrix)
    centred = matrix - matrix.mean(axis=1, keepdims=True)
    before = block.outcome[:, : block.fit_end]
    slopes = np.linalg.lstsq(centred.T, before - before.mean(axis=0), rcond=None)[0]
    regression = np.sum(slopes**2, axis=1)
    random = np.random.default_rng(seed).dirichlet(np.full(width, 0.5), size=_RANDOM_STARTS)
    rows = np.vstack([np.ones(width), regression if regression.sum() > 0 else np.ones(width), np.eye(width) + 0.01, random])
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), dtype=np.float64)


def _column(block: Block, column: str, outcome: str) -> FloatArray:
    if column == outcome:
        return block.outcome
    if column not in block.covariate_names:
        raise SchemaMismatch(
            f"predictor `{column}` is neither the outcome nor a confounder.",
            where="predictors",
            advice=suggestion(column, (outcome, *block.covariate_names), otherwise="There are"),
        )
    return np.asarray(block.covariates[:, :, block.covariate_names.index(column)], dtype=np.float64)


def _periods(block: Block, predictor: Predictor) -> list[int]:
    if not predictor.periods:
        return list(range(block.fit_end))
    fitted = block.period_names[: block.fit_end]
    for period in predictor.periods:
        if period not in fitted:
            raise SchemaMismatch(
                f"predictor {predictor.label}: {period} is not a fitted period before treatment.",
                where="predictors",
                advice=f"Fitted are {fitted[0]} to {fitted[-1]}.",
            )
    return [fitted.index(period) for period in predictor.periods]
