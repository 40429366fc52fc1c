"""From a question to arrays: which design answers it, what is adjusted for, which rows can be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray, equal_rows
from e2i.causal.encoding import Covariates, encode, numeric
from e2i.causal.strata import strata_of
from e2i.domain.disclosure import counted
from e2i.domain.nearest import suggestion
from e2i.domain.study import EffectSpec, Study
from e2i.errors import NotIdentified, NoVariation, SchemaMismatch, TooFewRows

Average = Literal["ATE", "ATT"]
MINIMUM_PER_ARM = 30
_ARROW = re.compile("<->|->|<-|→|←|↔")
_FEW_INCOMPLETE = 0.05
"""share of rows with a missing confounder up to which they are left out of an instrumental variable design, as the field does"""


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
    mediators: tuple[str, ...] = ()
    """front door: what carries the whole effect; nothing is adjusted for then"""
    negative_controls: tuple[str, ...] = ()
    negative_exposures: tuple[str, ...] = ()
    pre_outcomes: tuple[str, ...] = ()
    cluster: str | None = None
    place: str | None = None
    """within which treatment of one unit may reach another"""
    weights: str | None = None
    reference: str | None = None
    anticipation: int = 0
    is_randomised: bool = False
    drawn_within: tuple[str, ...] = ()
    """one row per unit: columns within whose levels chance assigned"""
    is_repeated_cross_section: bool = False
    """rows are different people in groups (`unit`) and periods, several in each"""
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
class MissingOutcomes:
    """Rows of one arm, and how many of them have no outcome."""

    arm: str
    rows: int
    missing: int

    @property
    def share(self) -> float:
        """In 0-1."""
        return self.missing / self.rows


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
    missing_outcomes: tuple[MissingOutcomes, ...] = ()
    """per arm, level or half of the doses"""
    cluster: IntArray | None = None
    """shape (n,), equal for rows that are not independent"""
    strata: IntArray | None = None
    """shape (n,), equal for rows among which chance assigned; None where all shared one lottery, or there was none"""
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


def prepare(frame: pl.DataFrame, identification: Identification) -> Sample:
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
    unit = identification.unit
    if unit is not None and frame[unit].drop_nulls().is_duplicated().any():
        copies = int(frame[unit].drop_nulls().is_duplicated().sum())
        raise SchemaMismatch(
            f"{counted(copies, 'rows')} share their `{unit}` with another row; a cross-section has one row per unit.",
            where=f"column {unit}",
            advice="Aggregate to one row per unit, or leave `unit` out if rows are units.",
        )
    treatment, levels = _coded_treatment(frame[identification.treatment], identification)
    outcome = numeric(frame[identification.outcome])
    has_treatment, has_outcome = ~np.isnan(treatment), ~np.isnan(outcome)
    keep = has_treatment & has_outcome & _has_all(frame, identification.instruments)
    if identification.design == "iv":
        complete = keep & _has_all(frame, identification.adjustment)
        keep = complete if complete.sum() >= (1.0 - _FEW_INCOMPLETE) * keep.sum() else keep
    if not keep.any():
        raise TooFewRows(
            "no row has both treatment and outcome.",
            where=f"columns {identification.treatment}, {identification.outcome}",
            advice="Check the join that brought them together.",
        )
    _require_variation(treatment[keep], outcome[keep], kind=identification.treatment_kind)
    kept = frame.filter(pl.Series(keep))
    covariates = encode(kept, identification.adjustment)
    instruments = encode(kept, identification.instruments) if identification.instruments else None
    return Sample(
        outcome=outcome[keep],
        treatment=treatment[keep],
        covariates=covariates,
        negative_controls={name: numeric(kept[name]) for name in identification.negative_controls},
        # Rows with a key of their own are different units, however alike they look.
        groups=np.arange(kept.height)
        if unit is not None
        else equal_rows(np.column_stack([outcome[keep], treatment[keep], covariates.matrix])),
        rows_given=frame.height,
        missing_treatment=int((~has_treatment).sum()),
        missing_outcome=int((has_treatment & ~has_outcome).sum()),
        missing_outcomes=_missing_outcomes(treatment, has_outcome, identification.treatment_kind, levels),
        cluster=_clusters(kept, identification.cluster),
        strata=strata_of(kept, identification.drawn_within),
        weights=_weights(kept, identification.weights),
        instruments=instruments.matrix if instruments is not None else None,
        instrument_names=instruments.names if instruments is not None else (),
        pre_outcomes={name: numeric(kept[name]) for name in identification.pre_outcomes},
        negative_exposures={name: numeric(kept[name]) for name in identification.negative_exposures},
        levels=levels,
    )


def require_roles(effect: EffectSpec, columns: Iterable[str], *, unit: str | None = None, time: str | None = None) -> None:
    """Every named column is there, and no column plays two parts that exclude each other.

    Raises
    ------
    SchemaMismatch
        A named column is not there.
    NotIdentified
        A role contradicts another.
    """
    known = tuple(columns)
    for name in _named(effect, known, unit, time):
        if name not in known:
            raise SchemaMismatch(f"column `{name}` is not in the data.", where="effect", advice=suggestion(name, known))
    if effect.treatment == effect.outcome:
        raise NotIdentified(f"`{effect.treatment}` is both treatment and outcome.", where="effect")
    forbidden = {effect.treatment: "the treatment", effect.outcome: "the outcome"}
    forbidden |= dict.fromkeys(effect.negative_controls, "a negative control") | dict.fromkeys(effect.instruments, "an instrument")
    forbidden |= {name: part for name, part in ((unit, "the unit's identifier"), (effect.cohort, "the first treated period")) if name}
    for name in (*effect.confounders, *effect.modifiers):
        if name in forbidden:
            raise NotIdentified(
                f"`{name}` is {forbidden[name]} and cannot be adjusted for.",
                where="effect.confounders",
                advice="Take it out of `confounders` and `modifiers`.",
            )
    for role in ("negative_controls", "negative_exposures", "pre_outcomes", "instruments", "randomised_within"):
        for name in getattr(effect, role):
            if name in (effect.treatment, effect.outcome):
                part = "a negative control" if role == "negative_controls" else f"one of `{role}`"
                raise NotIdentified(f"`{name}` is {forbidden[name]} and cannot be {part}.", where=f"effect.{role}")


def columns_of(study: Study) -> list[str]:
    """Every column that the causal question names, once each; of a graph also its names, of which not all need be columns."""
    effect = study.effect
    if effect is None:
        return []
    in_graph = [name for edge in effect.edges for part in _ARROW.split(edge) if (name := part.strip())]
    return list(dict.fromkeys([*_named(effect, (effect.treatment,), study.unit, study.time), *in_graph]))


def _named(effect: EffectSpec, known: tuple[str, ...], unit: str | None, time: str | None) -> list[str]:
    """Every column that the study names; with a cohort column the treatment may be only a name."""
    days = (effect.treated_at, effect.measured_at, effect.entered_at)
    single = (unit, time, effect.cohort, effect.cluster, effect.place, effect.weights, *days)
    treatment = () if effect.cohort is not None and effect.treatment not in known else (effect.treatment,)
    several = (
        *effect.confounders,
        *effect.modifiers,
        *effect.negative_controls,
        *effect.negative_exposures,
        *effect.pre_outcomes,
        *effect.instruments,
        *effect.randomised_within,
    )
    return [*treatment, effect.outcome, *several, *(name for name in single if name is not None)]


def _coded_treatment(series: pl.Series, identification: Identification) -> tuple[FloatArray, tuple[str, ...]]:
    """As 0/1, as a dose, or as the number of its level (0 is the reference) with the levels' names."""
    if identification.treatment_kind == "multi_level":
        names = series.cast(pl.String)
        others = names.drop_nulls().value_counts().sort(["count", series.name], descending=[True, False])[series.name].to_list()
        levels = (identification.reference or others[0], *(name for name in others if name != identification.reference))
        number = {name: float(place) for place, name in enumerate(levels)}
        return np.array([number[name] if name is not None else np.nan for name in names.to_list()]), levels
    if identification.treatment_kind == "continuous":
        return numeric(series), ()
    return _treatment(series), ()


def _has_all(frame: pl.DataFrame, columns: tuple[str, ...]) -> BoolArray:
    """Rows in which none of the columns is missing."""
    out = np.ones(frame.height, dtype=np.bool_)
    for name in columns:
        series = frame[name]
        missing = series.is_null() | (series.is_nan() if series.dtype.is_float() else pl.repeat(False, frame.height, eager=True))
        out &= ~missing.fill_null(True).to_numpy()
    return out


def _clusters(frame: pl.DataFrame, column: str | None) -> IntArray | None:
    if column is None:
        return None
    series = frame[column]
    if series.null_count():
        raise SchemaMismatch(
            f"`{column}` is missing in {counted(series.null_count(), 'rows')}, so it is unknown which rows belong together.",
            where=f"column {column}",
            advice="Fill it, or leave those rows out.",
        )
    codes = series.rank("dense").to_numpy().astype(np.int64) - 1
    if codes.max() == 0:
        raise TooFewRows(
            f"all rows belong to one cluster of `{column}`; an interval needs several.",
            where=f"column {column}",
            advice="Name finer clusters, or leave `cluster` out if rows are independent.",
        )
    return codes


def _weights(frame: pl.DataFrame, column: str | None) -> FloatArray | None:
    if column is None:
        return None
    values = numeric(frame[column])
    wrong = int((~(values > 0)).sum())
    if wrong:
        raise SchemaMismatch(
            f"{counted(wrong, 'weights')} in `{column}` are missing, zero or negative.",
            where=f"column {column}",
            advice="Sampling weights are positive; leave out rows that stand for nobody.",
        )
    out: FloatArray = values / values.mean()
    return out


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


def _require_variation(treatment: FloatArray, outcome: FloatArray, *, kind: TreatmentKind) -> None:
    if outcome.min() == outcome.max():
        raise NoVariation(f"the outcome is {outcome[0]:g} in every row.", where="outcome", advice="Check how the outcome was built.")
    if kind in ("continuous", "multi_level"):
        _require_spread(treatment, kind)
        return
    treated = int(treatment.sum())
    untreated = len(treatment) - treated
    if min(treated, untreated) == 0:
        raise NoVariation(
            f"all {counted(len(treatment), 'rows')} are {'treated' if treated else 'untreated'}.",
            where="treatment",
            advice="An effect needs both treated and untreated rows.",
        )
    if all(np.ptp(outcome[treatment == arm]) == 0 for arm in (0.0, 1.0)):
        raise NoVariation(
            "the outcome does not vary among the treated, nor among the untreated: it repeats the treatment.",
            where="outcome",
            advice="Check how the outcome was built.",
        )
    if min(treated, untreated) < MINIMUM_PER_ARM:
        raise TooFewRows(
            f"the smaller arm has {counted(min(treated, untreated), 'rows')}; each arm needs {MINIMUM_PER_ARM}.",
            where="treatment",
            advice="Collect more rows or widen the definition of treatment.",
        )


def _require_spread(treatment: FloatArray, kind: TreatmentKind) -> None:
    """A dose varies; every level is held by enough rows."""
    if treatment.min() == treatment.max():
        raise NoVariation(
            f"the treatment is {treatment[0]:g} in every row.", where="treatment", advice="An effect needs rows that differ in treatment."
        )
    if kind == "continuous":
        if len(treatment) < 2 * MINIMUM_PER_ARM:
            rows = counted(len(treatment), "rows")
            raise TooFewRows(f"{rows}; a dose needs {2 * MINIMUM_PER_ARM}.", where="treatment", advice="Collect more rows.")
        return
    counts = np.bincount(treatment.astype(np.int64))
    if counts.min() < MINIMUM_PER_ARM:
        raise TooFewRows(
            f"{int((counts < MINIMUM_PER_ARM).sum())} of {len(counts)} treatment levels have fewer than {MINIMUM_PER_ARM} rows.",
            where="treatment",
            advice="Join levels, or leave out the rare ones.",
        )


def _missing_outcomes(
    treatment: FloatArray, has_outcome: BoolArray, kind: TreatmentKind, levels: tuple[str, ...]
) -> tuple[MissingOutcomes, ...]:
    if kind == "continuous":
        middle = float(np.nanmedian(treatment)) if (~np.isnan(treatment)).any() else 0.0
        arms = {"high-dose": treatment > middle, "low-dose": treatment <= middle}
    elif kind == "multi_level":
        arms = {f"`{level}`": treatment == place for place, level in enumerate(levels)}
    else:
        arms = {"treated": treatment == 1, "untreated": treatment == 0}
    return tuple(
        MissingOutcomes(arm=name, rows=int(rows.sum()), missing=int((rows & ~has_outcome).sum()))
        for name, rows in arms.items()
        if rows.any()
    )
