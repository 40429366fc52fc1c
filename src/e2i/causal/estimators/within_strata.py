"""Arms that chance drew within strata, blocks or pairs: compared within them, and averaged by their size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Average, Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.cross_fit import average_of, require_binary, require_finite, with_error
from e2i.causal.estimators.independent_units import Draw, Variance, units_of, variance_within
from e2i.causal.estimators.least_squares import independent_columns, least_squares
from e2i.causal.estimators.multi_level import simultaneous
from e2i.errors import NotIdentified, NoVariation, TooFewRows

_MINIMUM_PER_ARM = 5
_ROWS_PER_COLUMN = 3
_FEW_UNITS = 30


@dataclass(frozen=True, kw_only=True)
class WithinStrata:
    """Post-stratified difference of the arms, with covariates adjusted by regression within strata.

    Differences within strata are averaged by the strata's share of everybody (Imbens and Rubin 2015, chapter 9), so shares that differ
    from stratum to stratum do no harm. Slopes of covariates are the arms' own (Lin 2013; Liu and Yang 2020), or one for both arms where
    rows are paired or clustered. Variance: HC2 within strata; strata that hold one unit of an arm, pairs above all, count as one
    observation each (Imbens and Rubin 2015, chapter 10; Pashley and Miratrix 2021). Effects that differ between strata add to it,
    because strata are a sample of everybody. Degrees of freedom are Welch's.
    """

    is_adjusted: bool = True

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002 - nothing is drawn
        """Estimate with its interval.

        Raises
        ------
        NotIdentified
            No stratum holds both arms.
        NoVariation, TooFewRows
            Fewer than 5 rows in an arm, too few strata of pairs, or 3 rows or clusters per covariate.
        """
        estimand = average_of(spec)
        require_binary(data, per_arm=_MINIMUM_PER_ARM)
        return _contrast(data, data.treatment == 1, data.treatment == 0, estimand=estimand, is_adjusted=self.is_adjusted)


def contrasts_within(data: Sample, spec: Identification, *, is_adjusted: bool, seed: int) -> tuple[Estimate, ...]:
    """Every level against level 0, within strata; 95 % intervals hold for all at once. Raises as `WithinStrata.fit`."""
    average_of(spec, ("ATE",))
    require_finite(data)
    assert data.strata is not None
    reference = data.treatment == 0
    found = []
    for place in range(1, len(data.levels)):
        each = _contrast(data, data.treatment == place, reference, estimand="ATE", is_adjusted=is_adjusted)
        found.append(replace(each, estimator=f"{each.estimator}, level {data.levels[place]} against {data.levels[0]}"))
    return simultaneous(tuple(found), clusters=units_of(data.strata, data.cluster, np.ones(len(reference), dtype=np.bool_)), seed=seed)


def shares_within(strata: IntArray, treated: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """Share of the treated in each row's stratum, shape (n,)."""
    given = np.ones(len(strata)) if weights is None else weights
    out: FloatArray = (np.bincount(strata, weights=given * treated) / np.bincount(strata, weights=given))[strata]
    return out


def centred_within(strata: IntArray, values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Values less their stratum's mean, shape as given."""
    if not values.size:
        return values
    given = np.ones(len(strata)) if weights is None else weights
    mass = np.bincount(strata, weights=given)
    columns = values.reshape(len(values), -1)
    means = np.column_stack([np.bincount(strata, weights=given * column) for column in columns.T]) / mass[:, None]
    out: FloatArray = (columns - means[strata]).reshape(values.shape)
    return out


@dataclass(frozen=True, kw_only=True)
class _Arms:
    """The strata that can be compared, and where their rows stand."""

    rows: IntArray
    """shape (m,), places among all n rows"""
    draw: Draw
    notes: tuple[str, ...]


def _contrast(data: Sample, up: BoolArray, down: BoolArray, *, estimand: Average, is_adjusted: bool) -> Estimate:
    arms = _arms(data, up, down, estimand)
    draw, outcome = arms.draw, data.outcome[arms.rows]
    matrix = _varying(data.covariates.matrix[arms.rows], draw) if is_adjusted else np.empty((len(outcome), 0))
    slopes = _slopes(outcome, matrix, draw)
    middle = _means(matrix, draw.strata, draw.target, len(draw.is_single))
    residual, effects = np.zeros(len(outcome)), np.zeros(len(draw.is_single))
    for arm, sign in ((0, -1.0), (1, 1.0)):
        inside = (draw.cell >= 0) & (draw.cell % 2 == arm)
        rest = outcome[inside] - matrix[inside] @ slopes[arm]
        means = _means(rest[:, None], draw.strata[inside], draw.given[inside], len(effects))[:, 0]
        residual[inside] = rest - means[draw.strata[inside]]
        effects += sign * (means + middle @ slopes[arm])
    estimate = float(np.average(effects, weights=np.bincount(draw.strata, weights=draw.target)))
    gain = (matrix - middle[draw.strata]) @ (slopes[1] - slopes[0])
    variance = variance_within(draw, residual, effects - estimate, gain=gain, columns=matrix.shape[1])
    return _told(data, variance, estimate, arms, estimand=estimand, columns=matrix.shape[1])


def _told(data: Sample, variance: Variance, estimate: float, arms: _Arms, *, estimand: Average, columns: int) -> Estimate:
    draw = arms.draw
    influence = np.zeros(len(data.outcome))
    influence[arms.rows] = variance.influence * len(data.outcome)
    if not variance.total > 0:
        raise NoVariation("the outcome does not vary within the arms.", where="outcome", advice="Check how the outcome was built.")
    units = units_of(data.strata, data.cluster, np.ones(len(influence), dtype=np.bool_)) if data.strata is not None else None
    first = from_influence(
        estimate,
        influence,
        estimator="regression adjustment within strata" if columns else "difference in means within strata",
        estimand=estimand,
        clusters=units if draw.is_single.any() or data.cluster is not None else None,
        n_treated=int((draw.cell % 2 == 1)[draw.cell >= 0].sum()),
        n_untreated=int((draw.cell % 2 == 0)[draw.cell >= 0].sum()),
        diagnostics={
            "strata": float(len(draw.is_single)),
            "adjusted_columns": float(columns),
            "outside_strata_share": 1.0 - len(arms.rows) / len(influence),
        },
    )
    found = with_error(first, float(np.sqrt(variance.total)), degrees=variance.degrees)
    way = "strata as observations" if draw.is_single.all() else "HC2 within strata" if data.cluster is None else "clustered within strata"
    few = (
        (f"{variance.units} independent units: with fewer than {_FEW_UNITS} the interval is rough",) if variance.units < _FEW_UNITS else ()
    )
    method = f"t with {variance.degrees:.1f} degrees of freedom, {way}"
    return replace(found, interval_method=method, notes=(*arms.notes, *few))


def _arms(data: Sample, up: BoolArray, down: BoolArray, estimand: Average) -> _Arms:
    assert data.strata is not None
    count = int(data.strata.max()) + 1
    unit = np.arange(len(up)) if data.cluster is None else data.cluster
    held = [_distinct(data.strata[arm], unit[arm], count) for arm in (down, up)]
    comparable = (held[0] > 0) & (held[1] > 0)
    if not comparable.any():
        raise NotIdentified(
            "no stratum holds both arms, so nothing can be compared within strata.",
            where="effect.randomised_within",
            advice="Name the columns within whose levels chance drew who is treated; units or clusters of both arms stand in each.",
        )
    single = comparable & (np.minimum(held[0], held[1]) == 1)
    if int(single.sum()) == 1 and comparable.sum() > 1:  # one observation has no variance of its own
        comparable, single = comparable & ~single, np.zeros_like(single)
    _require_strata(comparable, single)
    rows = np.flatnonzero(comparable[data.strata])
    strata = np.unique(data.strata[rows], return_inverse=True)[1].astype(np.int64)
    is_single = single[comparable]
    given = np.ones(len(up)) if data.weights is None else data.weights
    cell = np.where(up[rows], 2 * strata + 1, np.where(down[rows], 2 * strata, -1))
    lost = int(count - comparable.sum())
    notes = (f"{lost} of {count} strata hold one arm only, or a single unit of an arm, and were left out",) if lost else ()
    draw = Draw(
        strata=strata,
        cell=cell,
        given=given[rows],
        target=given[rows] * (up[rows] if estimand == "ATT" else 1.0),
        unit=units_of(strata, None if data.cluster is None else data.cluster[rows], is_single[strata]),
        is_single=is_single,
        base=rows if data.cluster is None else data.cluster[rows],
    )
    return _Arms(rows=rows, draw=draw, notes=notes)


def _require_strata(comparable: BoolArray, single: BoolArray) -> None:
    if single.sum() == comparable.sum() == 1:
        raise TooFewRows(
            "one stratum with a single unit in an arm shows no chance variation.",
            where="effect.randomised_within",
            advice="Name coarser strata, or leave `randomised_within` out if all shared one lottery.",
        )


def _distinct(strata: IntArray, unit: IntArray, count: int) -> IntArray:
    """Different units in each stratum, shape (S,)."""
    if not len(unit):
        return np.zeros(count, dtype=np.int64)
    pairs = np.unique(np.column_stack([strata, unit]), axis=0)
    return np.bincount(pairs[:, 0], minlength=count).astype(np.int64)


def _means(matrix: FloatArray, groups: IntArray, weights: FloatArray, count: int) -> FloatArray:
    """Weighted mean of each column by group, shape (groups, k)."""
    mass = np.bincount(groups, weights=weights, minlength=count)
    sums = [np.bincount(groups, weights=weights * column, minlength=count) for column in matrix.T]
    out: FloatArray = np.column_stack([np.empty((count, 0)), *sums]) / np.maximum(mass, 1e-300)[:, None]
    return out


def _varying(matrix: FloatArray, draw: Draw) -> FloatArray:
    """Columns that vary within strata, and not as others do; scaled."""
    if not matrix.shape[1]:
        return matrix
    scale = np.maximum(matrix.std(axis=0), 1e-300)
    centred = centred_within(draw.strata, (matrix - matrix.mean(axis=0)) / scale, draw.given)
    kept = independent_columns(np.column_stack([centred, np.ones(len(matrix))]))
    kept = kept[(kept < matrix.shape[1])]
    kept = kept[centred[:, kept].std(axis=0) > 1e-7]
    out: FloatArray = ((matrix - matrix.mean(axis=0)) / scale)[:, kept]
    return out


def _slopes(outcome: FloatArray, matrix: FloatArray, draw: Draw) -> FloatArray:
    """Of covariates in the untreated and the treated arm, shape (2, k)."""
    width = matrix.shape[1]
    if not width:
        return np.zeros((2, 0))
    used = np.flatnonzero(draw.cell >= 0)
    units, free = len(np.unique(draw.base[used])), len(draw.is_single)
    shared = bool(draw.is_single.any()) or units < len(used)
    room = units - free - 1 if shared else int(min((draw.cell[used] % 2 == arm).sum() for arm in (0, 1))) - free
    if room < _ROWS_PER_COLUMN * (width + 1):
        raise TooFewRows(
            f"{width} covariates for {units} independent units in {free} strata: each needs {_ROWS_PER_COLUMN} more of them in every arm.",
            where="effect.confounders",
            advice="Name fewer covariates.",
        )
    if shared:
        treated = (draw.cell[used] % 2 == 1).astype(np.float64)
        design = centred_within(draw.strata[used], np.column_stack([treated, matrix[used]]), draw.given[used])
        found = least_squares(
            design, centred_within(draw.strata[used], outcome[used], draw.given[used]), weights=_unit_mean(draw.given[used])
        )
        return np.tile(found.coefficients[1:], (2, 1))
    mass = np.bincount(draw.strata, weights=draw.target)
    out = np.zeros((2, width))
    for arm in (0, 1):
        rows = used[draw.cell[used] % 2 == arm]
        own = np.bincount(draw.strata[rows], weights=draw.given[rows], minlength=free)
        weights = draw.given[rows] * (mass / own)[draw.strata[rows]]
        design = centred_within(draw.strata[rows], matrix[rows], draw.given[rows])
        kept = independent_columns(design)
        centred = centred_within(draw.strata[rows], outcome[rows], draw.given[rows])
        out[arm, kept] = least_squares(design[:, kept], centred, weights=_unit_mean(weights)).coefficients
    return out


def _unit_mean(weights: FloatArray) -> FloatArray:
    out: FloatArray = weights / weights.mean()
    return out
