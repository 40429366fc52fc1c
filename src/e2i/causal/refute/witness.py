"""Whether a control can testify at all: one that has nothing to do with the outcome shows no effect however much is hidden."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.correlation import squared_correlations
from e2i.causal.encoding import Covariates
from e2i.domain.evidence import Refutation

NO_WITNESS = (
    "it does not go with the outcome, neither by what is measured nor by what is left, so it shares no cause with it and would show "
    "no effect even if much were hidden. Name one that the same causes move."
)
NO_TIE = "it does not go with treatment, so it shares no cause with it and would show nothing even if much were hidden."
TOO_FEW = "it hardly varies or has hardly any values."
DETERMINED = "a follow-up of treatment or another name for it: treatment alone decides it, although treatment cannot move it."
FOLLOWS = "treatment and the confounders determine it, so nothing of it is left to compare."
_LEFT = 0.01
"""share of a control's variance: with less left by the confounders hardly anything hidden could move it"""
_MOST_ROWS = 20_000
"""at random; more say nothing new of what determines a control"""
_NOTHING = 1e-9
"""share of a column's size below which rounding is all that is left"""
_SAME = 0.98
"""squared correlation above which a covariate is the placebo outcome under another name"""
_LEVEL = 3.5
"""standard errors of a correlation"""
_WEAKEST = 0.10
"""a looser tie is no witness even where many rows prove it"""


def goes_with(values: FloatArray, others: FloatArray, treatment: FloatArray) -> bool:
    """Whether a control is correlated with one of the columns once treatment is taken out of both.

    Parameters
    ----------
    values : shape (n,), NaN where missing
    others : shape (n, m), for instance the outcome, its prediction and what the prediction leaves
    treatment : shape (n,), 0/1, a dose or the number of a level
    """
    known = ~np.isnan(values)
    if known.sum() < 4 or np.ptp(values[known]) == 0:
        return False
    left, alive = _beyond_treatment(np.column_stack([values[known], others[known]]), treatment[known])
    size = np.sqrt(np.sum(left**2, axis=0))
    if not alive[0]:
        return False
    ties = np.abs(left[:, 0] @ left[:, 1:]) / np.maximum(size[0] * size[1:], 1e-300)
    strongest = float(ties[alive[1:]].max(initial=0.0))
    return strongest >= max(_WEAKEST, _LEVEL / float(np.sqrt(known.sum())))


def follows(values: FloatArray, matrix: FloatArray) -> bool:
    """Whether the confounders determine a control, together by a line or one of them by any curve: it is then adjusted for itself.

    A curve shows in neighbours: sorted by the confounder, the control hardly changes from row to row (von Neumann 1941).

    Parameters
    ----------
    values : shape (n,), NaN where missing
    matrix : shape (n, k)
    """
    known = np.flatnonzero(~np.isnan(values))
    known = np.random.default_rng(len(known)).permutation(known)[:_MOST_ROWS]  # a sorted table would look like a curve within ties
    if len(known) < 2 * (matrix.shape[1] + 1) or np.ptp(values[known]) == 0:
        return False
    given, columns = values[known] - values[known].mean(), matrix[known] - matrix[known].mean(axis=0)
    size = float(given @ given)
    left = given - columns @ np.linalg.lstsq(columns, given, rcond=None)[0]
    if float(left @ left) < _LEFT * size:
        return True
    steps = (float(np.sum(np.diff(given[np.argsort(column, kind="stable")]) ** 2)) for column in columns.T)
    return any(step < 2.0 * _LEFT * size for step in steps)


def is_treatment(values: FloatArray, treatment: FloatArray) -> bool:
    """Whether a control varies, and treatment alone decides how: the loudest alarm of all, though no standard error can be formed.

    Parameters
    ----------
    values : shape (n,), NaN where missing
    treatment : shape (n,), 0/1, a dose or the number of a level
    """
    known = ~np.isnan(values)
    if known.sum() < 4 or np.ptp(values[known]) == 0 or np.ptp(treatment[known]) == 0:
        return False
    return not _beyond_treatment(values[known, None], treatment[known])[1][0]


def _beyond_treatment(columns: FloatArray, treatment: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Columns (n, m) with treatment (arms, levels, or a dose's line) taken out, and which of them have anything left."""
    arms = np.unique(treatment)
    if len(arms) <= 12:
        base = (treatment[:, None] == arms).astype(np.float64)
    else:
        base = np.column_stack([np.ones(len(treatment)), (treatment - treatment.mean()) / treatment.std()])
    both = columns - columns.mean(axis=0)
    left = both - base @ np.linalg.lstsq(base, both, rcond=None)[0]
    alive: BoolArray = np.sqrt(np.sum(left**2, axis=0)) > _NOTHING * np.maximum(np.sqrt(np.sum(both**2, axis=0)), 1e-300)
    return left, alive


def decided_by_treatment(test: str) -> Refutation:
    """The alarm of `is_treatment` in words."""
    name = test.partition(":")[2]
    return Refutation(test=test, passed=False, detail=f"`{name}` is {DETERMINED}", p_value=0.0)


def untested(test: str, why: str) -> Refutation:
    """A control that could not be used: told, and it proves nothing."""
    kind, _, name = test.partition(":")
    return Refutation(test=f"untested_{kind}:{name}", passed=True, detail=f"`{name}` could not be tested: {why}", is_reported_only=True)


def copies_of(covariates: Covariates, values: FloatArray, names: Collection[str]) -> frozenset[str]:
    """Source columns among the covariates that are the outcome under trial, by name or by content.

    Adjusted for itself, an outcome shows no effect whatever is hidden.

    Parameters
    ----------
    values : shape (n,), NaN where missing
    names : columns that the outcome is made of
    """
    known = ~np.isnan(values)
    same = squared_correlations(covariates.matrix[known], values[known]) > _SAME
    return frozenset(source for source, is_copy in zip(covariates.sources, same, strict=True) if is_copy or source in names)
