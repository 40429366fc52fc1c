"""One row per unit. The kind of treatment, and who decided on it, lead to the estimator."""

from __future__ import annotations

import polars as pl

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs import adjusted, assigned, dosed, front_door
from e2i.causal.designs.level_means import prepare_with_level_means
from e2i.causal.estimation import Estimation, refused_by
from e2i.causal.hazards import validate
from e2i.domain.evidence import CausalFinding, Refutation
from e2i.domain.study import EffectSpec


def estimate(frame: pl.DataFrame, *, effect: EffectSpec, identification: Identification, seed: int) -> Estimation | CausalFinding:
    """The effect with its diagnostics. Raises CausalError, and DataError when the table is unfit.

    Where a graph has no open back door nothing is adjusted for, as after a lottery.
    """
    hazards = validate(frame, effect, unit=identification.unit)
    if (refusal := refused_by(hazards, identification)) is not None:
        return refusal
    if identification.mediators:
        return front_door.estimate(front_door.mediated(frame, identification), identification, hazards, seed=seed)
    sample = _sample(frame, identification)
    if identification.treatment_kind in ("continuous", "multi_level"):
        return dosed.estimate(sample, identification, hazards, seed=seed)
    if identification.is_randomised or not identification.adjustment:
        return assigned.estimate(sample, identification, hazards, seed=seed)
    return adjusted.estimate(sample, identification, hazards, seed=seed)


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """Every test that this kind of estimate can fail."""
    if identification.mediators:
        return front_door.refute(front_door.mediated(frame, identification), identification, seed=seed, estimation=estimation)
    sample = _sample(frame, identification)
    if identification.treatment_kind in ("continuous", "multi_level"):
        return dosed.refute(sample, identification, seed=seed)
    if identification.is_randomised or not identification.adjustment:
        return assigned.refute(sample, identification, seed=seed)
    return adjusted.refute(sample, estimation, seed=seed)


def _sample(frame: pl.DataFrame, identification: Identification) -> Sample:
    """Arrays; after a lottery nothing that is made from treatment stands among the covariates."""
    return prepare(frame, identification) if identification.is_randomised else prepare_with_level_means(frame, identification)
