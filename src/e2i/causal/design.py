"""From a question to arrays: which design answers it, what is adjusted for, which rows can be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.encoding import Covariates, encode, numeric
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified, NoVariation, SchemaMismatch, TooFewRows

Average = Literal["ATE", "ATT"]
MINIMUM_PER_ARM = 30
_CROSS_SECTION_ONLY = "This version estimates cross-section designs: one row per unit, a 0/1 treatment, measured confounders."


TreatmentKind = Literal["binary", "multi_level", "continuous", "on_off", "staggered"]
OutcomeKind = Literal["continuous", "binary", "count"]


@dataclass(frozen=True, kw_only=True)
class Identification:
    """How the question is answered. `adjustment` is the set that must contain every common cause."""

    design: str
    """cross_section, matched, did, synthetic_control, synthetic_did, interrupted_time_series or iv"""
    estimand: str
    """ATE, ATT, ATO, LATE, or APE (average slope) for a dose"""
    treatment: str
    outcome: str
    adjustment: tuple[str, ...] = ()
    treatment_kind: TreatmentKind = "binary"
    outcome_kind: OutcomeKind = "continuous"
    unit: str | None = None
    time: str | None = None
    cohort: str | None = None
    modifiers: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    negative_controls: tuple[str, ...] = ()
    negative_exposures: tuple[str, ...] = ()
    pre_outcomes: tuple[str, ...] = ()
    cluster: str | None = None
    weights: str | None = None
    reference: str | None = None
    anticipation: int = 0
    is_randomised: bool = False
    override: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """why this design"""
    refused: tuple[tuple[str, str], ...] = ()
    """(design, why not)"""
    notes: tuple[str, ...] = ()

    @property
    def average(self) -> Average:
        """Over whom a yes/no treatment's effect is averaged."""
        return "ATT" if self.estimand == "ATT" else "ATE"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row per unit: the complete cases as arrays; n rows."""

    outcome: FloatArray
    treatment: FloatArray
    """0/1; the dose for a continuous treatment; the level's number for one with several levels"""
    covariates: Covariates
    negative_controls: dict[str, FloatArray]
    """name -> shape (n,), NaN where missing"""
    groups: IntArray
    """equal for rows that agree in treatment, outcome and all covariates"""
    rows_given: int
    missing_treatment: int
    missing_outcome: int
    missing_outcome_by_arm: tuple[float, float]
    """share of rows without outcome among the untreated and the treated, in 0-1"""
    cluster: IntArray | None = None
    """shape (n,), equal for rows that are not independent"""
    weights: FloatArray | None = None
    """shape (n,), positive, mean 1"""
    instruments: FloatArray | None = None
    """shape (n, m), finite"""
    instrument_names: tuple[str, ...] = ()
    pre_outcomes: dict[str, FloatArray] = field(default_factory=dict)
    """name -> shape (n,), oldest first, NaN where missing"""
    negative_exposures: dict[str, FloatArray] = field(default_factory=dict)
    """name -> shape (n,), NaN where missing"""
    levels: tuple[str, ...] = ()
    """of a treatment with several levels; level 0 is the reference"""


def identify(effect: EffectSpec, *, columns: Iterable[str], unit: str | None = None) -> Identification:
    """Choose design, estimand and adjustment set; refuse what cannot be answered.

    Raises
    ------
    NotIdentified
        Another design is asked for, nothing is adjusted for, or a role contradicts another.
    SchemaMismatch
        A named column is not there.
    """
    _require_columns(effect, tuple(columns), unit)
    if effect.design not in ("auto", "cross_section"):
        raise NotIdentified(f"design `{effect.design}` is not available.", where="effect.design", advice=_CROSS_SECTION_ONLY)
    if effect.estimand == "LATE":
        raise NotIdentified("estimand LATE needs an instrumental variable design.", where="effect.estimand", advice=_CROSS_SECTION_ONLY)
    if effect.cohort is not None:
        raise NotIdentified(f"`cohort: {effect.cohort}` asks for a panel design.", where="effect.cohort", advice=_CROSS_SECTION_ONLY)
    adjustment = tuple(dict.fromkeys((*effect.confounders, *effect.modifiers)))
    _require_consistent_roles(effect, adjustment, unit)
    notes = tuple(f"instrument `{name}` is not used by a cross-section design" for name in effect.instruments)
    return Identification(
        design="cross_section",
        estimand="ATT" if effect.estimand == "ATT" else "ATE",
        treatment=effect.treatment,
        outcome=effect.outcome,
        adjustment=adjustment,
        negative_controls=tuple(dict.fromkeys(effect.negative_controls)),
        notes=notes,
    )


def prepare(frame: pl.DataFrame, identification: Identification, *, unit: str | None = None) -> Sample:
    """Rows with treatment and outcome, encoded.

    Raises
    ------
    SchemaMismatch
        Treatment is not coded 0/1, outcome is not a number, or a unit has several rows.
    NoVariation
        Treatment or outcome is constant.
    TooFewRows
        Fewer than 30 rows in an arm, or no row with both treatment and outcome.
    """
    if unit is not None and frame[unit].drop_nulls().is_duplicated().any():
        copies = int(frame[unit].drop_nulls().is_duplicated().sum())
        raise SchemaMismatch(
            f"{copies} rows share their `{unit}` with another row; a cross-section has one row per unit.",
            where=f"column {unit}",
            advice="Aggregate to one row per unit, or leave `unit` out if rows are units.",
        )
    treatment = _treatment(frame[identification.treatment])
    outcome = numeric(frame[identification.outcome])
    has_treatment, has_outcome = ~np.isnan(treatment), ~np.isnan(outcome)
    keep = has_treatment & has_outcome
    if not keep.any():
        raise TooFewRows(
            "no row has both treatment and outcome.",
            where=f"columns {identification.treatment}, {identification.outcome}",
            advice="Check the join that brought them together.",
        )
    _require_variation(treatment[keep], outcome[keep])
    kept = frame.filter(pl.Series(keep))
    covariates = encode(kept, identification.adjustment)
    return Sample(
        outcome=outcome[keep],
        treatment=treatment[keep],
        covariates=covariates,
        negative_controls={name: numeric(kept[name]) for name in identification.negative_controls},
        # Rows with a key of their own are different units, however alike they look.
        groups=np.arange(kept.height)
        if unit is not None
        else _copies(np.column_stack([outcome[keep], treatment[keep], covariates.matrix])),
        rows_given=frame.height,
        missing_treatment=int((~has_treatment).sum()),
        missing_outcome=int((has_treatment & ~has_outcome).sum()),
        missing_outcome_by_arm=_missing_by_arm(treatment, has_outcome),
    )


def _require_columns(effect: EffectSpec, columns: tuple[str, ...], unit: str | None) -> None:
    named = (effect.treatment, effect.outcome, *effect.confounders, *effect.modifiers, *effect.negative_controls)
    for name in (*named, *((unit,) if unit is not None else ())):
        if name not in columns:
            near = get_close_matches(name, columns, n=1)
            raise SchemaMismatch(
                f"column `{name}` is not in the data.",
                where="effect",
                advice=f"Did you mean `{near[0]}`?" if near else f"Columns: {', '.join(columns[:20])}.",
            )


def _require_consistent_roles(effect: EffectSpec, adjustment: tuple[str, ...], unit: str | None) -> None:
    if effect.treatment == effect.outcome:
        raise NotIdentified(f"`{effect.treatment}` is both treatment and outcome.", where="effect")
    if not adjustment:
        raise NotIdentified(
            "no confounders are named, so nothing separates the effect from the reasons for treatment.",
            where="effect.confounders",
            advice="Name the common causes of treatment and outcome; in a randomised experiment name any column measured before treatment.",
        )
    forbidden = {effect.treatment: "the treatment", effect.outcome: "the outcome"}
    forbidden |= dict.fromkeys(effect.negative_controls, "a negative control") | dict.fromkeys(effect.instruments, "an instrument")
    if unit is not None:
        forbidden[unit] = "the unit's identifier"
    for name in adjustment:
        if name in forbidden:
            raise NotIdentified(
                f"`{name}` is {forbidden[name]} and cannot be adjusted for.",
                where="effect.confounders",
                advice="Take it out of `confounders` and `modifiers`.",
            )
    for name in effect.negative_controls:
        if name in (effect.treatment, effect.outcome):
            raise NotIdentified(f"`{name}` is {forbidden[name]} and cannot be a negative control.", where="effect.negative_controls")


def _treatment(series: pl.Series) -> FloatArray:
    advice = "Recode it: 1 = treated, 0 = not treated."
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise SchemaMismatch(f"treatment `{series.name}` is {series.dtype}, not 0/1.", where=f"column {series.name}", advice=advice)
    values = numeric(series)
    found = np.unique(values[~np.isnan(values)])
    if not set(found.tolist()) <= {0.0, 1.0}:
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise SchemaMismatch(
            f"treatment `{series.name}` has values {shown}{' …' if len(found) > 5 else ''}, not 0/1.",
            where=f"column {series.name}",
            advice=advice,
        )
    return values


def _require_variation(treatment: FloatArray, outcome: FloatArray) -> None:
    treated = int(treatment.sum())
    untreated = len(treatment) - treated
    if min(treated, untreated) == 0:
        raise NoVariation(
            f"all {len(treatment)} rows are {'treated' if treated else 'untreated'}.",
            where="treatment",
            advice="An effect needs both treated and untreated rows.",
        )
    if outcome.min() == outcome.max():
        raise NoVariation(f"the outcome is {outcome[0]:g} in every row.", where="outcome", advice="Check how the outcome was built.")
    if all(np.ptp(outcome[treatment == arm]) == 0 for arm in (0.0, 1.0)):
        raise NoVariation(
            "the outcome does not vary among the treated, nor among the untreated: it repeats the treatment.",
            where="outcome",
            advice="Check how the outcome was built.",
        )
    if min(treated, untreated) < MINIMUM_PER_ARM:
        raise TooFewRows(
            f"{treated} treated and {untreated} untreated rows; each arm needs {MINIMUM_PER_ARM}.",
            where="treatment",
            advice="Collect more rows or widen the definition of treatment.",
        )


def _missing_by_arm(treatment: FloatArray, has_outcome: BoolArray) -> tuple[float, float]:
    shares = [float((~has_outcome[treatment == arm]).mean()) if (treatment == arm).any() else 0.0 for arm in (0.0, 1.0)]
    return shares[0], shares[1]


def _copies(rows: FloatArray) -> IntArray:
    """Group number per row; equal rows share it."""
    keys = np.ascontiguousarray(rows + 0.0).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)
