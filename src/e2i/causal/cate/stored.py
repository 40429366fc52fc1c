"""Scores and predicted effects as bytes and back: one step of an agent leaves them for the next. Numbers only, no pickle."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import cast

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.forest import UnitEffects
from e2i.causal.design import Average


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Scores of n rows with two predictions of their effects."""

    scores: Scores
    out_of_fold: FloatArray
    """shape (n,), by models that never saw the row's fold"""
    folds: IntArray
    units: UnitEffects
    """with intervals, from the bags without the row, of `unit_rows`"""
    unit_rows: IntArray


def to_bytes(predicted: Predicted) -> bytes:
    """A npz archive."""
    scores, units = predicted.scores, predicted.units
    buffer = io.BytesIO()
    np.savez(
        buffer,
        told=np.array(json.dumps({"estimand": scores.estimand, "interval_method": units.interval_method})),
        effect=scores.effect,
        treated_effect=scores.treated_effect,
        treatment=scores.treatment,
        weights=scores.weights,
        cluster=np.empty(0, dtype=np.int64) if scores.cluster is None else scores.cluster,
        out_of_fold=predicted.out_of_fold,
        folds=predicted.folds,
        unit_rows=predicted.unit_rows,
        estimate=units.estimate,
        standard_error=units.standard_error,
        low=units.low,
        high=units.high,
    )
    return buffer.getvalue()


def from_bytes(content: bytes) -> Predicted:
    """What `to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        told = json.loads(str(arrays["told"]))
        return Predicted(
            scores=Scores(
                estimand=cast("Average", told["estimand"]),
                effect=arrays["effect"],
                treated_effect=arrays["treated_effect"],
                treatment=arrays["treatment"],
                weights=arrays["weights"],
                cluster=arrays["cluster"] if len(arrays["cluster"]) else None,
            ),
            out_of_fold=arrays["out_of_fold"],
            folds=arrays["folds"],
            unit_rows=arrays["unit_rows"],
            units=UnitEffects(
                estimate=arrays["estimate"],
                standard_error=arrays["standard_error"],
                low=arrays["low"],
                high=arrays["high"],
                interval_method=told["interval_method"],
            ),
        )
