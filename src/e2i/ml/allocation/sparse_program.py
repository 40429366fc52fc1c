"""Linear programs with few rows and very many columns: HiGHS on the columns that matter, proven on all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from e2i.errors import SpecError
from e2i.ml.allocation.quiet import output_aside

if TYPE_CHECKING:
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.columns import BoolArray

T = TypeVar("T")
WINDOW = 2000
"""columns that HiGHS takes at once; its time on dense rows grows much faster than their number"""
FEW_ROWS = 400
SMALL = 1500
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Solved:
    """`status` as scipy's; `duals` are the change of the minimum when a row's limit rises by 1, shape (rows,)."""

    status: int
    x: FloatArray | None
    value: float
    duals: FloatArray


def known(x: T | None) -> T:
    """A solution whose status says that it is there."""
    if x is None:
        raise SpecError("a solved program has no solution.", where="allocation")
    return x


def solve(
    charges: FloatArray,
    matrix: Any,
    limits: tuple[FloatArray, FloatArray],
    bounds: tuple[FloatArray, FloatArray],
    *,
    time_limit_s: float,
    start: FloatArray | None = None,
) -> Solved:
    """Minimise charges · x subject to low <= A x <= high and bounds.

    Many columns are sifted (Bixby et al. 1992): prices from a sample of the columns, then the program over the columns near these
    prices with the others at the bound that the prices tell, until no column outside would enter. `start` are prices of a similar program.
    """
    if len(charges) <= WINDOW or matrix.shape[0] > FEW_ROWS:
        return _direct(charges, matrix, limits, bounds, time_limit_s=time_limit_s)
    deadline = time.monotonic() + time_limit_s
    duals = _sampled(charges, matrix, limits, bounds, time_limit_s=time_limit_s) if start is None else start
    lower, upper = bounds
    open_ended = _open_ended(upper)
    window, solved = max(WINDOW, len(charges) // 20) if start is None else WINDOW, None
    while time.monotonic() < deadline and window < len(charges):
        reduced = charges - matrix.T @ duals
        free = _nearest(reduced, upper, lower, window) | open_ended
        held = np.where(free, 0.0, np.where(reduced < 0, upper, lower))
        shift = matrix @ held
        rest = max(deadline - time.monotonic(), 0.1)
        part = _direct(
            charges[free], matrix[:, free], (limits[0] - shift, limits[1] - shift), (lower[free], upper[free]), time_limit_s=rest
        )
        if part.x is None:
            if free.all():
                return part
            window *= 3
            continue
        x = held.copy()
        x[free] = part.x
        solved = Solved(status=1, x=x, value=float(charges @ x), duals=part.duals)
        new = charges - matrix.T @ part.duals
        scale = _TOLERANCE * (np.abs(charges) + np.abs(matrix).T @ np.abs(part.duals) + 1e-300)
        wrong = ~free & np.where(reduced < 0, new > scale, new < -scale) & (upper > lower)
        if not wrong.any():
            return Solved(status=part.status, x=x, value=solved.value, duals=part.duals)
        if wrong.sum() <= window:
            duals = part.duals
        else:  # the window was too narrow to hold the margin: its prices say nothing about the others
            window *= 3
    return solved or _direct(charges, matrix, limits, bounds, time_limit_s=max(deadline - time.monotonic(), 0.1))


def _open_ended(upper: FloatArray) -> BoolArray:
    """Columns without an upper bound, where they are few: what a limit may be missed by, without which a part has no solution."""
    found = np.isinf(upper)
    return found if found.sum() <= FEW_ROWS else np.zeros(len(upper), dtype=np.bool_)


def _nearest(reduced: FloatArray, upper: FloatArray, lower: FloatArray, window: int) -> BoolArray:
    """The columns nearest to changing sides, and those that have no side to stay at."""
    movable = upper > lower
    distance = np.where(movable, np.abs(reduced), np.inf)
    free = distance <= np.partition(distance, window - 1)[window - 1]
    return np.asarray((free & movable) | (np.isinf(upper) & (reduced < 0)))


def _sampled(
    charges: FloatArray, matrix: Any, limits: tuple[FloatArray, FloatArray], bounds: tuple[FloatArray, FloatArray], *, time_limit_s: float
) -> FloatArray:
    """Prices from every k-th column with its share of the limits; zeros where these have no solution."""
    step = -(-len(charges) // WINDOW)
    step += step % 2 == 0  # an odd step meets every line of the curves
    take = np.union1d(np.arange(0, len(charges), step), np.flatnonzero(_open_ended(bounds[1])))
    share = 1.0 / step
    sample = matrix[:, take]
    part = _direct(
        charges[take], sample, (limits[0] * share, limits[1] * share), (bounds[0][take], bounds[1][take]), time_limit_s=time_limit_s / 2
    )
    return part.duals


def _direct(
    charges: FloatArray, matrix: Any, limits: tuple[FloatArray, FloatArray], bounds: tuple[FloatArray, FloatArray], *, time_limit_s: float
) -> Solved:
    from scipy import sparse
    from scipy.optimize import linprog

    low, high = limits
    equal = np.isfinite(low) & (low == high)
    above, below = np.isfinite(high) & ~equal, np.isfinite(low) & ~equal
    a_ub = b_ub = a_eq = b_eq = None
    if np.any(above | below):
        a_ub = sparse.vstack([matrix[above], -matrix[below]], format="csr")
        b_ub = np.concatenate([high[above], -low[below]])
    if equal.any():
        a_eq, b_eq = matrix[equal], low[equal]
    # Presolve compares columns with each other, which costs more than it saves on few rows with thousands of bounded columns.
    options = {"time_limit": time_limit_s, "presolve": len(charges) <= SMALL}
    limited = {"A_ub": a_ub, "b_ub": b_ub, "A_eq": a_eq, "b_eq": b_eq, "bounds": np.stack(bounds, axis=1)}
    with output_aside():
        result = linprog(charges, **limited, method="highs", options=options)
    duals = np.zeros(matrix.shape[0])
    if result.x is None:
        return Solved(status=int(result.status), x=None, value=np.inf, duals=duals)
    if np.any(above | below):
        marginals = np.asarray(result.ineqlin.marginals)
        duals[above] += np.minimum(marginals[: above.sum()], 0.0)
        duals[below] += np.maximum(-marginals[above.sum() :], 0.0)
    if equal.any():
        duals[equal] = np.asarray(result.eqlin.marginals)
    return Solved(status=int(result.status), x=result.x, value=float(result.fun), duals=duals)
