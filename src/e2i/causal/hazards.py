"""What is wrong with the rows before anything is estimated: refusals, and concerns that the gate weighs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.correlation import squared_correlations
from e2i.causal.design import MissingOutcomes, Sample
from e2i.causal.hazard_checks import (
    assignment,
    clusters,
    coding,
    collinear,
    confounders_as_text,
    extreme_outcome,
    infinities,
    late_names,
    missing,
    mixed_units,
    order_in_time,
    sampling_weights,
    units,
    variation,
)
from e2i.causal.hazard_copies import copies_of_roles
from e2i.causal.hazard_outcome import outcome_itself
from e2i.causal.hazard_repeats import in_both_arms, repeated_share
from e2i.causal.hazard_scale import scale
from e2i.causal.hazard_table import Table, people, refuse
from e2i.domain.evidence import Hazard
from e2i.domain.study import EffectSpec
from e2i.errors import DataError, LeakageFound, NotIdentified, TooFewRows

ROWS_PER_PARAMETER = 10
_COPY_R2 = 0.999
_NEAR_COPY_R2 = 0.98
COPIES_REVIEW, COPIES_BLOCK = 0.01, 0.05
_MISSING_REVIEW = 0.20
_FILLED_REVIEW = 0.05
_MISSING_GAP = 0.05
_LOSS_Z = 2.5
"""standard errors that chance explains, among a few arms"""
_CONTINUOUS = 50
_COARSE = 0.05
_FIRST: tuple[Callable[[Table], Iterator[Hazard]], ...] = (
    coding,
    confounders_as_text,
    infinities,
    variation,
    missing,
    units,
    sampling_weights,
    order_in_time,
    scale,
    outcome_itself,
)
"""what can be asked of any table"""
_HOPELESS = frozenset(
    (
        "too_few_rows",
        "constant_treatment",
        "treatment_as_text",
        "outcome_as_text",
        "infinite_values",
        "extreme_value",
    )
)
"""codes after which nothing further can be measured"""


def too_many_columns(table: Table) -> Iterator[Hazard]:
    """Fewer rows than adjustment for so many columns needs; what the graph or a lottery adjusts for is known only later."""
    spec, width = table.spec, table.matrix()[1].shape[1]
    if spec.edges or spec.instruments or spec.randomised:
        return
    rows = int(table.complete.sum())
    if rows < ROWS_PER_PARAMETER * width:
        told = f"{people(rows)} are complete, for {width} numeric confounders; {ROWS_PER_PARAMETER} rows for each are needed."
        yield refuse("too_many_columns", told, "Name fewer confounders.", float(width), rows / ROWS_PER_PARAMETER)


_THEN: tuple[Callable[[Table], Iterator[Hazard]], ...] = (copies_of_roles, late_names, collinear, assignment, clusters, too_many_columns)


@dataclass(frozen=True, kw_only=True)
class Concern:
    """Something the gate must weigh, in words."""

    severity: Literal["review", "block"]
    text: str
    without_estimate: str | None = None
    """what is said instead where the estimate is withheld and the text would tell it"""


def validate(frame: pl.DataFrame, spec: EffectSpec, *, unit: str | None = None) -> tuple[Hazard, ...]:
    """What is wrong with a table of one row per unit for this question; nothing about the data is raised.

    Parameters
    ----------
    frame : with columns in any order and of any type
    spec : the question; its `override` names codes that a person has let pass

    Returns
    -------
    tuple of Hazard
        Worst first. `refuse` ends the analysis; so does `override`, unless the study names its code.
    """
    named = (spec.treatment, spec.outcome, *spec.confounders, *spec.modifiers, *spec.negative_controls, *spec.negative_exposures)
    single = (unit, spec.cluster, spec.weights, spec.treated_at, spec.measured_at, spec.entered_at)
    asked = (*named, *spec.pre_outcomes, *spec.instruments, *(name for name in single if name is not None))
    absent = tuple(name for name in dict.fromkeys(asked) if name not in frame.columns)
    if absent:
        shown = ", ".join(f"`{name}`" for name in absent)
        return (
            Hazard(code="column_missing", action="refuse", text=f"not in the data: {shown}.", remedy="Correct the names in the study."),
        )
    table = Table(frame=frame, spec=spec, unit=unit)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = [hazard for check in _FIRST for hazard in check(table)]
        if not any(hazard.code in _HOPELESS for hazard in found):
            found += [hazard for check in _THEN for hazard in check(table)]
    order = ("refuse", "override", "block", "review", "warn")
    return tuple(sorted(found, key=lambda hazard: order.index(hazard.action)))


def refuse_hopeless(sample: Sample) -> None:
    """Refuse rows from which no honest number can come.

    Raises
    ------
    TooFewRows
        Fewer than 10 rows per adjusted column.
    DataError
        An outcome lies more than 10¹² times the usual distance from the median, or outcomes are in two units.
    LeakageFound
        A covariate copies the outcome.
    NotIdentified
        A covariate copies the treatment.
    """
    width = sample.covariates.matrix.shape[1]
    if len(sample.treatment) < ROWS_PER_PARAMETER * width:
        raise TooFewRows(
            f"{len(sample.treatment)} rows for {width} adjusted columns; {ROWS_PER_PARAMETER} rows per column are needed.",
            where="confounders",
            advice="Group category levels or name fewer confounders.",
        )
    _refuse_extreme(sample.outcome)
    _refuse_copies_of_roles(sample)


def concerns_about_rows(sample: Sample) -> tuple[Concern, ...]:
    """Duplicated rows, selective or frequent missing outcomes, covariates that nearly repeat the outcome."""
    concerns = []
    copies = copied_share(sample)
    if copies > COPIES_REVIEW:
        concerns.append(
            Concern(
                severity="block" if copies > COPIES_BLOCK else "review",
                text=f"{copies:.0%} of rows are exact copies of other rows: the interval counts them as new evidence. "
                "Remove duplicates, or name the column that tells units apart as `unit`.",
            )
        )
    concerns += _concerns_about_repeats(sample, copies)
    concerns += concerns_about_losses(sample)
    r2 = squared_correlations(sample.covariates.matrix, sample.outcome)
    for name, value in zip(sample.covariates.names, r2, strict=True):
        if value > _NEAR_COPY_R2:
            concerns.append(
                Concern(severity="review", text=f"`{name}` alone explains {value:.1%} of the outcome: is it measured after treatment?")
            )
    return tuple(concerns)


def _concerns_about_repeats(sample: Sample, copies: float) -> list[Concern]:
    """Rows that were copied into another arm, and people who stand in several rows."""
    apart_from_treatment = np.column_stack([np.zeros(len(sample.outcome)), sample.covariates.matrix])
    twins = surplus_copies(sample.outcome, apart_from_treatment, groups=in_both_arms(sample))
    if twins > COPIES_REVIEW:
        text = (
            f"{2 * twins:.0%} of rows are equal to a row of another arm in the outcome and in every confounder: were untreated rows copied "
            "from treated ones, or one row written under both? Such a pair says that there is no effect, whatever it is. Remove the copies."
        )
        return [Concern(severity="block" if twins > COPIES_BLOCK else "review", text=text)]
    found = None if copies > COPIES_REVIEW else repeated_share(sample)
    if found is None or found[0] <= COPIES_BLOCK:
        return []
    (share, (one, other)) = found
    text = (
        f"{share:.0%} of rows agree with another row in every confounder, `{one}` and `{other}` to the last digit: is one unit in several "
        "rows? Name what such rows share as `cluster`, or make one row of each unit."
    )
    return [Concern(severity="review", text=text)]


def concerns_about_filled(sample: Sample) -> tuple[Concern, ...]:
    """Confounders whose gaps stand at the median beside an indicator: nothing is adjusted for in those rows (Greenland and Finkle 1995)."""
    lacking = np.zeros(len(sample.outcome), dtype=np.bool_)
    for _, gaps in sample.covariates.gaps:
        lacking |= gaps
    share = float(lacking.mean())
    if share <= _FILLED_REVIEW:
        return ()
    text = (
        f"{share:.0%} of rows lack a confounder; its median and an indicator stand there, which leaves the confounding within those rows. "
        "Fill the column at its source, or compare with the complete rows."
    )
    return (Concern(severity="review", text=text),)


def concerns_about_losses(sample: Sample) -> tuple[Concern, ...]:
    """Frequent or selective missing outcomes: they spoil a lottery too."""
    missing = sample.missing_outcome / max(sample.rows_given - sample.missing_treatment, 1)
    found = [Concern(severity="review", text=f"the outcome is missing in {missing:.0%} of rows, which were left out.")]
    return (*(found if missing > _MISSING_REVIEW else ()), *selective_loss(sample.missing_outcomes))


def selective_loss(arms: Sequence[MissingOutcomes]) -> list[Concern]:
    """A concern when outcomes are lost in one arm far more often than in another: those that remain are then not alike."""
    if len(arms) < 2:
        return []
    most, least = max(arms, key=lambda arm: arm.share), min(arms, key=lambda arm: arm.share)
    gap = most.share - least.share
    pooled = (most.missing + least.missing) / (most.rows + least.rows)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / most.rows + 1.0 / least.rows))
    if gap <= _MISSING_GAP or gap <= _LOSS_Z * error:
        return []
    text = f"the outcome is missing in {most.share:.0%} of {most.arm} and {least.share:.0%} of {least.arm} rows."
    return [Concern(severity="review", text=text)]


def copied_share(sample: Sample) -> float:
    """Share of rows that are surplus copies, in 0-1; see `surplus_copies`."""
    return surplus_copies(sample.outcome, np.column_stack([sample.treatment, sample.covariates.matrix]), groups=sample.groups)


def surplus_copies(outcome: FloatArray, others: FloatArray, *, groups: IntArray) -> float:
    """Share of rows that are surplus copies, in 0-1; 0 where rows are coarse enough to agree by chance.

    Copies are believed when they share a value of a continuous column that no other row has (zero earnings are no evidence), or when
    every distinct row occurs a multiple of the same number of times. What rounded outcomes bring about by themselves is taken off.

    Parameters
    ----------
    outcome : shape (n,)
    others : shape (n, k), treatment first
    groups : shape (n,), equal for rows that agree in everything
    """
    _, first, counts = np.unique(groups, return_index=True, return_counts=True)
    surplus = 1.0 - len(counts) / len(groups)
    if surplus == 0.0:
        return 0.0
    if _is_given_several_times(counts):
        return surplus
    own = _with_a_value_of_their_own(outcome, others, first)
    believed = float((counts[own] - 1).sum()) / len(groups)
    return max(believed - _met_by_chance(outcome, others, first), 0.0) if believed > 0.0 else 0.0


def dependent_rows(sample: Sample) -> IntArray:
    """Shape (n,): equal for copies of one row that few values do not explain; every other row stands alone.

    Rows of yes/no and categorical columns agree by the hundred and are still different units: kept in one fold, a kind of row would never
    be learned from, and as a cluster it would make one observation of them all.
    """
    groups = sample.groups
    _, first, place, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    if len(counts) == len(groups) or _is_given_several_times(counts):
        return groups
    others = np.column_stack([sample.treatment, sample.covariates.matrix])
    believed = _with_a_value_of_their_own(sample.outcome, others, first)[place]
    return np.where(believed, groups, int(groups.max()) + 1 + np.arange(len(groups)))


def _is_given_several_times(counts: IntArray) -> bool:
    """Whether every distinct row occurs a multiple of the same number of times."""
    return len(counts) >= 20 and int(np.gcd.reduce(counts)) > 1


def _with_a_value_of_their_own(outcome: FloatArray, others: FloatArray, first: IntArray) -> BoolArray:
    """For each distinct row whether it alone has its value of some continuous column, shape (distinct rows,)."""
    own = np.zeros(len(first), dtype=np.bool_)
    for column in np.column_stack([outcome, others[:, 1:]])[first].T:
        place, uses = np.unique(column, return_inverse=True, return_counts=True)[1:]
        if (column != np.round(column)).any() and len(uses) > _CONTINUOUS:
            own |= uses[place] == 1
    return own


def _met_by_chance(outcome: FloatArray, others: FloatArray, first: IntArray) -> float:
    """Share of rows that chance makes equal to another: like rows have like outcomes, and rounding makes some of them the same.

    Of neighbours in the outcome that are not equal in it, a share p agree in all else. So m rows that rounding alone gave one value
    agree in all with chance p^(m - 1); the values whose rows do not all agree can be counted.

    Parameters
    ----------
    first : one row of each group of equal rows
    """
    order = np.argsort(outcome, kind="stable")
    matrix = others[order]
    apart = np.diff(outcome[order]) != 0
    p = float((matrix[1:] == matrix[:-1]).all(axis=1)[apart].mean()) if apart.any() else 0.0
    if p > _COARSE:  # few kinds of rows: toward the ends of the outcome nearly all neighbours are of one kind
        p = max(p, 0.5)
    rows = np.unique(outcome, return_counts=True)[1]
    unlike = rows[np.unique(outcome[first], return_counts=True)[1] > 1] - 1.0
    chance = p**unlike
    return float(np.sum(unlike * chance / np.maximum(1.0 - chance, 1e-3))) / len(order)


def _refuse_extreme(outcome: FloatArray) -> None:
    if extreme_outcome(outcome) is not None:
        worst = outcome[int(np.argmax(np.abs(outcome - np.median(outcome))))]
        raise DataError(
            f"the outcome reaches {worst:.3g}, more than 10¹² times the usual distance from its median.",
            where="outcome",
            advice="Correct the value or set it to missing.",
        )
    far = mixed_units(outcome)
    if far is not None:
        raise DataError(
            f"{far:.1%} of outcomes lie 100 times the usual distance or more from the median, with a gap before them: two units are mixed.",
            where="outcome",
            advice="Bring all rows to one unit.",
        )


def _refuse_copies_of_roles(sample: Sample) -> None:
    for role, target in (("treatment", sample.treatment), ("outcome", sample.outcome)):
        r2 = squared_correlations(sample.covariates.matrix, target)
        if len(r2) == 0 or r2.max() < _COPY_R2:
            continue
        name = sample.covariates.names[int(np.argmax(r2))]
        if role == "treatment":
            raise NotIdentified(f"`{name}` determines the treatment.", where="effect.confounders", advice="Take it out of `confounders`.")
        raise LeakageFound(
            f"`{name}` is a copy of the outcome.", where="effect.confounders", advice="Adjust only for what was known before treatment."
        )
