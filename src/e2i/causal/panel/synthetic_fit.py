"""What a synthetic control gives: the effect, both paths, the donors' weights and the tests it went through."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.estimate import Estimate
from e2i.causal.panel.block import Block
from e2i.domain.evidence import Hazard, PathPoint, PeriodEffect, Refutation

_SHOWN_WEIGHT = 1e-4


@dataclass(frozen=True, kw_only=True)
class SyntheticFit:
    """One fit with everything needed to judge it."""

    estimate: Estimate
    path: tuple[PathPoint, ...]
    """the average of the treated and its counterfactual, every period"""
    weights: dict[str, float]
    """donor -> weight, largest first; weights below 0.0001 are left out"""
    refutations: tuple[Refutation, ...]
    hazards: tuple[Hazard, ...] = ()
    period_weights: dict[str, float] = field(default_factory=dict)
    """period before treatment -> weight (synthetic difference-in-differences)"""
    importance: dict[str, float] = field(default_factory=dict)
    """predictor -> its weight V"""
    by_unit: dict[str, float] = field(default_factory=dict)
    """treated unit -> its own effect, where units were fitted one by one; start -> effect, where starts differ"""
    placebos: dict[str, float] = field(default_factory=dict)
    """donor -> RMSPE after over RMSPE before, as if it had been treated"""
    event_study: tuple[PeriodEffect, ...] = ()


def path_of(block: Block, observed: FloatArray, counterfactual: FloatArray) -> tuple[PathPoint, ...]:
    """Both paths, shapes (T,), as records."""
    return tuple(
        PathPoint(period=name, observed=float(observed[t]), counterfactual=float(counterfactual[t]), is_treated=t >= block.start)
        for t, name in enumerate(block.period_names)
    )


def named_weights(names: tuple[str, ...], weights: FloatArray) -> dict[str, float]:
    """Name -> weight, largest first, without those that are practically 0."""
    order = np.argsort(-np.abs(weights), kind="stable")
    return {names[k]: float(weights[k]) for k in order if abs(weights[k]) > _SHOWN_WEIGHT}
