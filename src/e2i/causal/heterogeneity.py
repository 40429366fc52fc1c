"""From a fitted average effect to whom it helps more: unit effects, segments, pooling, policy, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from e2i.causal.cate.calibration import calibrate, cross_fit, ranks, sorted_groups
from e2i.causal.cate.dr_learner import make_scores, project
from e2i.causal.cate.econml_forest import EconMLForest
from e2i.causal.cate.forest import MINIMUM_ROWS, CateLearner, CateModel, ForestModel, HonestForest
from e2i.causal.cate.hierarchical import pool
from e2i.causal.cate.stored import Predicted
from e2i.causal.cate.uplift import rank_gain
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.encoding import Covariates, encode, numeric
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.groupings import group
from e2i.causal.segments import SegmentEffects, segment_effects
from e2i.domain.evidence import CausalFinding
from e2i.domain.segments import Calibration, GroupEffect, Interval, Pooling, Uplift
from e2i.errors import NoVariation, SchemaMismatch

if TYPE_CHECKING:
    from e2i.causal.arrays import FloatArray

ForestName = Literal["own", "econml"]
HIERARCHY_GROUPS = 3
HIERARCHY_ROWS = 50
_SUITED = "this is a cross_section design with a binary treatment"
_FOLD_FOREST = HonestForest(bags=30, trees=2)
_UNITS_SHOWN = 50_000
_IMPORTANCE_ROWS = 1_500


@dataclass(frozen=True, kw_only=True)
class Heterogeneity:
    """What the predicted effects tell, without the arrays."""

    rows: int
    calibration: Calibration
    uplift: Uplift
    average: Interval
    """over everybody, whatever the estimand"""
    spread: float
    """standard deviation of the calibrated unit effects"""
    projection: dict[str, Interval]
    importance: dict[str, float]
    quantiles: tuple[float, ...]
    notes: tuple[str, ...]
    methods: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """Groups of the predicted effect and their pooled effect."""

    groups: tuple[GroupEffect, ...]
    pooling: Pooling


def reason_against(identification: Identification | None, finding: CausalFinding | None, *, has_nuisances: bool) -> str | None:
    """Why no segments are told, or None when they may be."""
    if finding is None or finding.effect is None or identification is None:
        return "There is no average effect, so there is nothing to divide into segments."
    rows = finding.effect.n_treated + finding.effect.n_untreated
    kind = f"this is a {identification.design} design with a {identification.treatment_kind} treatment"
    reasons = (
        (finding.verdict.name == "block", "The average effect is blocked, so no segment of it is told."),
        (kind != _SUITED, f"Segments need one row per unit and a yes/no treatment; {kind}."),
        (identification.average != identification.estimand, f"Segments are told for ATE and ATT, not for {identification.estimand}."),
        (not identification.modifiers, "The study names no `modifiers`: name the columns by which the effect may differ."),
        (rows < MINIMUM_ROWS, f"{MINIMUM_ROWS} rows are needed to look for differences in an effect; there are fewer."),
        (not has_nuisances, "Rows or clusters are too few for the cross-fitted scores that segments start from."),
    )
    return next((text for applies, text in reasons if applies), None)


def predict_effects(
    frame: pl.DataFrame,
    *,
    identification: Identification,
    nuisances: tuple[Propensity, Fit],
    forest: ForestName = "own",
    seed: int,
) -> tuple[Predicted, Heterogeneity]:
    """Scores, effects of single units, and whether their differences are real.

    Parameters
    ----------
    frame, identification, seed : as given to `analysis.estimate`
    nuisances : what it fitted
    forest : for the intervals of unit effects; `econml` fits CausalForestDML with its own nuisances, for comparison

    Raises
    ------
    SchemaMismatch
        The nuisances belong to other rows.
    NoVariation
        No modifier varies.
    TooFewRows
        Fewer than 100 rows.
    """
    sample, kept = _rows(frame, identification)
    covariates, notes = _modifiers(kept, identification)
    scores = make_scores(sample, nuisances[1], nuisances[0], seed=seed)
    predicted, folds = cross_fit(_FOLD_FOREST, covariates.matrix, scores, seed=seed)
    learner: CateLearner = HonestForest() if forest == "own" else EconMLForest(sample=sample)
    model = learner.fit(covariates.matrix, scores, seed=seed)
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.permutation(len(predicted))[:_UNITS_SHOWN])
    part = covariates.matrix[shown]
    units = model.out_of_bag(part, rows=shown) if isinstance(model, ForestModel) else model.predict(part)
    calibration = calibrate(scores, predicted, folds, seed=seed)
    slope = calibration.differential_prediction
    line, few = project(scores, covariates.matrix, names=covariates.names), covariates.singles_out_few
    low, high = line.interval(0)
    found = Heterogeneity(
        rows=len(predicted),
        calibration=calibration,
        uplift=rank_gain(scores, ranks(predicted, folds, seed=seed), seed=seed),
        average=Interval(estimate=float(line.coefficients[0]), low=low, high=high),
        spread=float(np.clip(slope.estimate, 0.0, 1.0) * predicted.std()) if slope is not None else 0.0,
        projection={
            name: Interval(estimate=float(line.coefficients[j + 1]), low=line.interval(j + 1)[0], high=line.interval(j + 1)[1])
            for j, name in enumerate(covariates.names)
            if not few[j]
        },
        importance=_importance(model, covariates, rng),
        quantiles=tuple(np.quantile(units.estimate, np.linspace(0.0, 1.0, 11)).tolist()),
        notes=notes,
        methods={"scores": "doubly robust, cross-fitted", "unit_effects": units.interval_method, "projection": line.interval_method},
    )
    return Predicted(scores=scores, out_of_fold=predicted, folds=folds, units=units, unit_rows=shown), found


def analyze_segments(frame: pl.DataFrame, predicted: Predicted, *, identification: Identification, seed: int) -> SegmentEffects:
    """The effect within every segment of every modifier."""
    kept = _rows(frame, identification)[1]
    return segment_effects(predicted.scores, [group(kept[name]) for name in usable_modifiers(kept, identification)[0]], seed=seed)


def pool_hierarchy(predicted: Predicted, *, seed: int) -> Hierarchy | None:
    """Thirds of the predicted effect, of at least 50 rows each, and the effect pooled over them; None with fewer rows."""
    scores = predicted.scores
    if len(scores.effect) < HIERARCHY_GROUPS * HIERARCHY_ROWS:
        return None
    rank = ranks(predicted.out_of_fold, predicted.folds, seed=seed)
    groups = sorted_groups(scores, rank, groups=HIERARCHY_GROUPS, seed=seed)
    errors = np.array([each.standard_error for each in groups])
    return Hierarchy(groups=groups, pooling=pool(np.array([each.raw_estimate for each in groups]), errors))


def usable_modifiers(kept: pl.DataFrame, identification: Identification) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modifiers with at least two values, and what is said about the others."""
    names, notes = [], []
    for name in dict.fromkeys(identification.modifiers):
        series = kept[name].fill_nan(None) if kept[name].dtype.is_float() else kept[name]
        if series.n_unique() < 2 or series.null_count() == len(series):
            notes.append(f"Modifier `{name}` does not vary and was left out.")
        else:
            names.append(name)
    return tuple(names), tuple(notes)


def kept_rows(frame: pl.DataFrame, identification: Identification) -> pl.DataFrame:
    """The rows that the average effect used."""
    return _rows(frame, identification)[1]


def _rows(frame: pl.DataFrame, identification: Identification) -> tuple[Sample, pl.DataFrame]:
    """The sample and its rows of the frame."""
    sample = prepare(frame, identification)
    complete = pl.Series(np.ones(frame.height, dtype=np.bool_))
    for name in (identification.treatment, identification.outcome, *identification.instruments):
        series = frame[name]
        complete &= (series.fill_nan(None) if series.dtype.is_float() else series).is_not_null()
    kept = frame.filter(complete)
    if kept.height != len(sample.outcome) or not np.array_equal(numeric(kept[identification.outcome]), sample.outcome):
        raise SchemaMismatch(
            f"{kept.height} rows have treatment and outcome, the average effect used {len(sample.outcome)}.",
            where="heterogeneous effects",
            advice="Start the study anew.",
        )
    return sample, kept


def _modifiers(kept: pl.DataFrame, identification: Identification) -> tuple[Covariates, tuple[str, ...]]:
    names, notes = usable_modifiers(kept, identification)
    covariates = encode(kept, names)
    if not covariates.matrix.shape[1]:
        raise NoVariation("no modifier varies.", where="effect.modifiers", advice="Name columns that differ between units.")
    return covariates, notes


def _importance(model: CateModel, covariates: Covariates, rng: np.random.Generator) -> dict[str, float]:
    """Mean squared change of the predicted effect when a modifier's values are shuffled, as shares (permutation, Breiman 2001)."""
    rows = rng.permutation(len(covariates.matrix))[:_IMPORTANCE_ROWS]
    matrix = covariates.matrix[rows]
    before = model.predict(matrix).estimate
    changes: dict[str, float] = {}
    for source in dict.fromkeys(covariates.sources):
        columns = [j for j, name in enumerate(covariates.sources) if name == source]
        shuffled: FloatArray = matrix.copy()
        shuffled[:, columns] = matrix[rng.permutation(len(matrix))][:, columns]
        changes[source] = float(((model.predict(shuffled).estimate - before) ** 2).mean())
    total = sum(changes.values())
    return {name: change / total if total > 0 else 0.0 for name, change in changes.items()}
