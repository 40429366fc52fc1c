"""An allocation as a linear or mixed-integer program: curves cut into lines, constraints as rows, solved by HiGHS."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from e2i.errors import BackendUnavailable, ConfigError
from e2i.ml.allocation import sparse_program
from e2i.ml.allocation.limits import change_bounds
from e2i.ml.allocation.quiet import output_aside
from e2i.ml.allocation.sparse_program import known

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import Curves, FloatArray
    from e2i.ml.allocation.limits import Row
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.columns import BoolArray, IntArray

PIECES, FINE_PIECES = 12, 8
FEWEST = 30
"""entities in doubt that are searched first"""
WHOLE_POINTS = 32
"""whole numbers between two bounds that are all points of a curve, which makes its lines exact"""
CORE = 300
"""entities that branch and bound takes whole"""
_FAR = 1e4
"""where a curve without any limit is cut off, in multiples of its scale"""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Maximise outcome · f - cost · c; both weights are 0 or more."""

    outcome: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Every curve as lines between `points`, shape (n, k + 1): widths and slopes of shape (n, k)."""

    points: FloatArray
    widths: FloatArray
    slopes: FloatArray

    @property
    def low(self) -> FloatArray:
        """Lower bounds, shape (n,)."""
        return np.asarray(self.points[:, 0])


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Additional columns: `cost` is what one unit of each is charged, `row_entries` (row, column, value)."""

    cost: FloatArray
    upper: FloatArray
    integer: bool = False
    entries: tuple[tuple[int, int, float], ...] = ()
    """row index, column index, coefficient; row -1 is the cardinality row"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`x` is None when nothing is feasible. `bound` bounds the lines' objective (not the curves'), in the sense of maximising."""

    x: FloatArray | None
    is_optimal: bool
    bound: float
    extra: float = 0.0
    lines_value: float = 0.0
    """the goal over the lines"""
    """charge of the additional columns"""
    multipliers: FloatArray | None = None
    """per row, >= 0 for `high`, <= 0 for `low`: what raising the limit by 1 gives"""
    solver: str = ""


def limits_of(problem: Problem, spec: AllocationSpec, *, rows: tuple[Row, ...], families: frozenset[str]) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound of every entity from the families that hold, and from what the rows imply."""
    low, high = np.zeros(problem.n), np.full(problem.n, np.inf)
    if "minimum" in families:
        low = np.maximum(low, problem.minimum)
    if "maximum" in families:
        high = np.minimum(high, problem.maximum)
    if "max_change" in families:
        least, most = change_bounds(problem, spec)
        low, high = np.maximum(low, least), np.minimum(high, most)
    if "integer" in families:
        low, high = np.ceil(low - 1e-9), np.floor(high + 1e-9)
    for row in rows:
        if row.coefficients is not None and np.isfinite(row.high) and np.all(row.coefficients >= 0):
            with np.errstate(divide="ignore", invalid="ignore"):
                reach = np.where(row.coefficients > 0, row.high / row.coefficients, np.inf)
            high = np.where(reach >= low, np.minimum(high, reach), high)
    if problem.curves.kind != "linear":
        high = np.where(np.isinf(high), np.maximum(_FAR * problem.curves.scale, low), high)
    return low, np.floor(high + 1e-9) if "integer" in families else high


def cut(
    problem: Problem, low: FloatArray, high: FloatArray, *, around: FloatArray | None = None, depth: int = 1, whole: bool = False
) -> Lines:
    """Lines for every curve, `depth` times finer near `around`, which is a point of its own: a plan at it is worth what the curves say."""
    curves = problem.curves
    if curves.kind == "linear":
        widths = np.maximum(high - low, 0.0)[:, None]
        return Lines(points=np.stack([low, high], axis=1), widths=widths, slopes=curves.coefficient[:, None])
    span = float(np.max(high - low, initial=0.0))
    if whole and span <= WHOLE_POINTS:
        around, points = None, np.minimum(low[:, None] + np.arange(int(span) + 1), np.maximum(high, low)[:, None])
        points[:, 1:] = np.where((curves.coefficient < 0)[:, None], points[:, -1:], points[:, 1:])  # lines that rise would fill backwards
    else:
        points = curves.cuts(low, np.maximum(high, low), pieces=PIECES)
    for _ in range(depth if around is not None else 0):
        last, index = points.shape[1] - 1, np.arange(problem.n)
        place = np.clip((points[:, 1:-1] <= np.asarray(around)[:, None]).sum(axis=1), 0, last - 1)
        left, right = points[index, np.maximum(place - 1, 0)], points[index, np.minimum(place + 2, last)]
        points = np.sort(np.concatenate([points, curves.cuts(left, right, pieces=FINE_PIECES)], axis=1), axis=1)
    if around is not None:
        own = np.where(curves.coefficient < 0, points[:, -1], np.clip(around, points[:, 0], points[:, -1]))
        points = np.sort(np.concatenate([points, own[:, None]], axis=1), axis=1)
    if whole:
        points = np.maximum.accumulate(np.round(points), axis=1)
    widths = np.diff(points, axis=1)
    rises = np.diff(curves.value(points), axis=1)
    slopes = np.where(widths > 0, rises / np.where(widths > 0, widths, 1.0), 0.0)
    if around is not None:
        slopes = np.where((curves.coefficient < 0)[:, None], _one_slope(curves, points[:, 0], around)[:, None], slopes)
    return Lines(points=points, widths=widths, slopes=slopes)


def _one_slope(curves: Curves, low: FloatArray, around: FloatArray) -> FloatArray:
    """The slope from `low` to `around`: a curve that bends the other way cannot be several lines, but one that is right at the plan."""
    width = np.maximum(around - low, 1e-9 * curves.scale)
    return np.asarray((curves.value(low + width) - curves.value(low)) / width)


@dataclass(frozen=True, kw_only=True)
class Program:
    """Everything that HiGHS needs, in the columns [lines | selected | additional]."""

    problem: Problem
    spec: AllocationSpec
    rows: tuple[Row, ...]
    families: frozenset[str]
    lines: Lines
    goal: Goal
    relaxed: Relaxed | None = None
    line_charge: FloatArray | None = field(default=None)
    """replaces the goal: what a unit of every line is charged, shape (n, k)"""

    def solve(self, *, time_limit_s: float, start: FloatArray | None = None) -> Answer:
        """Solve, where `start` are multipliers of a similar program.

        Raises BackendUnavailable when the time was not enough for any plan, ConfigError when nothing bounds the plan.
        """
        if np.any(self._upper() < self.lines.low - 1e-12):
            return Answer(x=None, is_optimal=True, bound=-math.inf)
        whole = "integer" in self.families or self._selects or (self.relaxed is not None and self.relaxed.integer)
        return self._mixed(time_limit_s) if whole else self._linear(time_limit_s, start)

    @property
    def _selects(self) -> bool:
        return bool(self.families & {"cardinality", "minimum_if_selected"})

    def _upper(self) -> FloatArray:
        return np.asarray(self.lines.points[:, -1])

    def _charges(self) -> FloatArray:
        """What HiGHS minimises, per column."""
        gain = self.goal.outcome * self.lines.slopes - self.goal.cost * self.problem.cost[:, None]
        parts = [(self.line_charge if self.line_charge is not None else -gain).ravel()]
        parts += [np.zeros(self.problem.n)] if self._selects else []
        parts += [self.relaxed.cost] if self.relaxed is not None else []
        return np.concatenate(parts)

    def _constant(self) -> float:
        """The goal's value at the lower bounds."""
        if self.line_charge is not None:
            return 0.0
        return self.goal.outcome * float(self.problem.curves.value(self.lines.low).sum()) - self.goal.cost * float(
            self.problem.cost @ self.lines.low
        )

    def _matrix(self) -> tuple[Any, FloatArray, FloatArray]:
        """Rows over all columns, as (matrix, low, high)."""
        from scipy import sparse

        n, k = self.lines.widths.shape
        blocks, low, high = [], [], []
        for row in self.rows:
            per_line = self.lines.slopes if row.coefficients is None else np.repeat(row.coefficients[:, None], k, axis=1)
            shift = row.amount(self.problem, self.lines.low)
            blocks.append(sparse.csr_array(per_line.ravel()[None, :]))
            low.append(row.low - shift)
            high.append(row.high - shift)
        matrix = sparse.vstack(blocks, format="csr") if blocks else sparse.csr_array((0, n * k))
        if self._selects:
            matrix, low, high = self._with_selection(matrix, low, high)
        if self.relaxed is not None:
            size = len(self.relaxed.cost)
            entries = [(row if row >= 0 else len(self.rows), column, value) for row, column, value in self.relaxed.entries]
            where = ([e[0] for e in entries], [e[1] for e in entries])
            extra = sparse.csr_array(([e[2] for e in entries], where), shape=(matrix.shape[0], size))
            matrix = sparse.hstack([matrix, extra], format="csr")
        return matrix, np.array(low, dtype=float), np.array(high, dtype=float)

    def _with_selection(self, matrix: Any, low: list[float], high: list[float]) -> tuple[Any, list[float], list[float]]:
        """Binary columns: nothing above the lower bound without selection; few are selected; who is selected gets enough.

        Every line is bound to its selection on its own, so that the relaxation is as tight as can be (Frangioni and Gentile 2006).
        """
        from scipy import sparse

        n, k = self.lines.widths.shape
        each = sparse.kron(sparse.eye_array(n), np.ones((1, k)), format="csr")
        identity = sparse.eye_array(n, format="csr")
        width = self.lines.widths
        if not np.all(np.isfinite(width)):
            advice = "Give a `maximum`, or a budget with a cost per unit."
            raise ConfigError("choosing entities needs an upper bound for each.", where="allocation.maximum", advice=advice)
        wide = sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], n))], format="csr")
        count = sparse.csr_array(np.concatenate([np.zeros(n * k), np.ones(n)])[None, :])
        most = float(self.spec.cardinality) if "cardinality" in self.families and self.spec.cardinality is not None else float(n)
        owner = sparse.csr_array((-width.ravel(), (np.arange(n * k), np.repeat(np.arange(n), k))), shape=(n * k, n))
        parts = [wide, count, sparse.hstack([sparse.eye_array(n * k, format="csr"), owner], format="csr")]
        low, high = [*low, -np.inf, *([-np.inf] * (n * k))], [*high, most, *([0.0] * (n * k))]
        if "minimum_if_selected" in self.families and self.problem.minimum_if_selected is not None:
            least = np.maximum(self.problem.minimum_if_selected, 0.0)
            parts.append(sparse.hstack([each, -(identity * least[:, None])], format="csr"))
            low, high = [*low, *(-self.lines.low)], [*high, *([np.inf] * n)]
        return sparse.vstack(parts, format="csr"), low, high

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        low, high = [np.zeros(self.lines.widths.size)], [self.lines.widths.ravel()]
        if self._selects:
            low.append((self.lines.low > 0).astype(float))
            high.append(np.ones(self.problem.n))
        if self.relaxed is not None:
            low.append(np.zeros(len(self.relaxed.cost)))
            high.append(self.relaxed.upper)
        return np.concatenate(low), np.concatenate(high)

    def _linear(self, time_limit_s: float, start: FloatArray | None) -> Answer:
        matrix, low, high = self._matrix()
        prices = None if start is None else -start
        found = sparse_program.solve(self._charges(), matrix, (low, high), self._bounds(), time_limit_s=time_limit_s, start=prices)
        if self._without_plan(found.status, found.x):
            return Answer(x=None, is_optimal=True, bound=-math.inf, solver="HiGHS linear program")
        return self._answer(known(found.x), is_optimal=found.status == 0, bound=-found.value, multipliers=-found.duals, solver="linear")

    def _mixed(self, time_limit_s: float) -> Answer:
        """Branch and bound; with many entities first over those alone that the relaxation leaves in doubt (kernel search, Angelelli et
        al. 2010), and over more of them until the plan is near the relaxation's bound.
        """  # noqa: D205
        deadline = time.monotonic() + time_limit_s
        matrix, low, high = self._matrix()
        lower, upper = self._bounds()
        if self.problem.n <= CORE:
            return self._branch(matrix, low, high, lower, upper, time_limit_s=time_limit_s)
        relaxed = self._relaxed(matrix, low, high, lower, upper, time_limit_s=time_limit_s)
        if relaxed is None:
            return Answer(x=None, is_optimal=True, bound=-math.inf, solver="HiGHS mixed-integer program")
        found, doubt, bound = relaxed
        order, core = np.argsort(doubt, kind="stable"), max(FEWEST, CORE // self.lines.widths.shape[1])
        best: Answer | None = None
        while core < self.problem.n and time.monotonic() < deadline:
            free = self._columns_of(order[:core], size=len(lower))
            fixed = np.clip(np.round(found), lower, upper)
            answer = self._branch(
                matrix, low, high, np.where(free, lower, fixed), np.where(free, upper, fixed), time_limit_s=deadline - time.monotonic()
            )
            if answer.x is not None:
                value = answer.lines_value
                near = bound - value <= max(self.spec.gap_tolerance, 1e-9) * abs(value) + 1e-9
                best = replace(answer, bound=bound, is_optimal=near)
                if near:
                    return best
            core *= 3
        return best or self._branch(matrix, low, high, lower, upper, time_limit_s=max(deadline - time.monotonic(), 1.0))

    def _relaxed(
        self, matrix: Any, low: FloatArray, high: FloatArray, lower: FloatArray, upper: FloatArray, *, time_limit_s: float
    ) -> tuple[FloatArray, FloatArray, float] | None:
        """Columns of the relaxation, how much each entity is in doubt (0: not whole; else its smallest reduced cost), and the bound."""
        charges = self._charges()
        result = sparse_program.solve(charges, matrix, (low, high), (lower, upper), time_limit_s=time_limit_s)
        if self._without_plan(result.status, result.x):
            return None
        x = known(result.x)
        reduced = np.where(np.abs(x - np.round(x)) > 1e-7, 0.0, np.abs(charges - matrix.T @ result.duals))
        n, k = self.lines.widths.shape
        real = np.where(self.lines.widths > 0, reduced[: n * k].reshape(n, k), np.inf)
        doubt = real.min(axis=1)
        if self._selects:
            doubt = np.minimum(doubt, reduced[n * k : n * k + n])
        return x, doubt, -result.value + self._constant()

    def _columns_of(self, entities: IntArray, *, size: int) -> BoolArray:
        n, k = self.lines.widths.shape
        free = np.ones(size, dtype=bool)
        chosen = np.zeros(n, dtype=bool)
        chosen[entities] = True
        free[: n * k] = np.repeat(chosen, k)
        if self._selects:
            free[n * k : n * k + n] = chosen
        return free

    def _branch(
        self, matrix: Any, low: FloatArray, high: FloatArray, lower: FloatArray, upper: FloatArray, *, time_limit_s: float
    ) -> Answer:
        """Branch and bound over the columns that are not fixed."""
        from scipy import sparse
        from scipy.optimize import Bounds, LinearConstraint, milp

        whole = np.full(self.lines.widths.size, int("integer" in self.families))
        parts = [whole, np.ones(self.problem.n)] if self._selects else [whole]
        parts += [np.full(len(self.relaxed.cost), int(self.relaxed.integer))] if self.relaxed is not None else []
        free = lower < upper
        held = np.where(free, 0.0, lower)
        shift = matrix @ held
        inner = matrix[:, free]
        touched = np.asarray(np.diff(inner.tocsr().indptr) > 0)
        rest = ~touched
        if np.any((shift[rest] < low[rest] - 1e-7) | (shift[rest] > high[rest] + 1e-7)):
            return Answer(x=None, is_optimal=True, bound=-math.inf, solver="HiGHS mixed-integer program")
        scale = _row_sizes(inner[touched]) if touched.any() else np.ones(0)
        ends = [(end - shift)[touched] / scale for end in (low, high)]
        limits = LinearConstraint(sparse.diags_array(1 / scale) @ inner[touched], *ends) if touched.any() else ()
        charges = self._charges()
        if not free.any():
            value = -float(charges @ held)
            return self._answer(held, is_optimal=True, bound=value, multipliers=None, solver="mixed-integer")
        with output_aside():
            result = milp(
                charges[free],
                integrality=np.concatenate(parts)[free],
                bounds=Bounds(lower[free], upper[free]),
                constraints=limits,
                options={"time_limit": max(time_limit_s, 0.1), "mip_rel_gap": self.spec.gap_tolerance},
            )
        if self._without_plan(result.status, result.x):
            return Answer(x=None, is_optimal=True, bound=-math.inf, solver="HiGHS mixed-integer program")
        fixed = -float(charges @ held)
        bound = -float(result.mip_dual_bound) + fixed if result.mip_dual_bound is not None else math.inf
        whole = held.copy()
        whole[free] = result.x
        return self._answer(whole, is_optimal=result.status == 0, bound=bound, multipliers=None, solver="mixed-integer")

    def _without_plan(self, status: int, x: FloatArray | None) -> bool:
        """Whether the program is infeasible. Raises for what is neither solved nor infeasible."""
        if status == 3:
            advice = "Give a `maximum`, or a budget with a cost per unit."
            raise ConfigError("nothing keeps the allocation finite.", where="allocation.maximum", advice=advice)
        if status in (2, 4) and x is None:
            return True
        if x is None:
            advice = "Raise `time_limit_s`, or drop whole numbers or the cardinality."
            raise BackendUnavailable("the time was not enough to find any plan.", where="allocation.time_limit_s", advice=advice)
        return False

    def _answer(self, found: FloatArray, *, is_optimal: bool, bound: float, multipliers: FloatArray | None, solver: str) -> Answer:
        n, k = self.lines.widths.shape
        x = self.lines.low + found[: n * k].reshape(n, k).sum(axis=1)
        x = np.clip(np.round(x) if "integer" in self.families else x, self.lines.low, self._upper()) + 0.0  # never -0.0
        extra = float(self.relaxed.cost @ found[-len(self.relaxed.cost) :]) if self.relaxed is not None else 0.0
        if self.line_charge is not None:
            extra += float(self.line_charge.ravel() @ found[: n * k])
        return Answer(
            x=x,
            is_optimal=is_optimal,
            bound=bound + self._constant(),
            extra=extra,
            lines_value=-float(self._charges() @ found) + self._constant(),
            multipliers=None if multipliers is None else multipliers[: len(self.rows)],
            solver=f"HiGHS {solver} program",
        )


def _row_sizes(matrix: Any) -> FloatArray:
    """The largest coefficient of every row: tolerances of a search are absolute."""
    sizes = np.asarray(np.abs(matrix).max(axis=1).toarray(), dtype=float).ravel()
    return np.where(sizes > 0, sizes, 1.0)
