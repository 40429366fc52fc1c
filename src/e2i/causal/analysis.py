"""A causal question from frame to finding: choose the design, estimate, refute, judge."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Protocol

import polars as pl

from e2i.causal.design import Identification
from e2i.causal.estimation import Estimation, refused
from e2i.causal.gate import Evidence, weigh
from e2i.causal.planned_shares import about_planned_shares
from e2i.causal.router import identify
from e2i.domain.evidence import Answer, CausalFinding, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError


def analyse(frame: pl.DataFrame, *, effect: EffectSpec, unit: str | None = None, time: str | None = None, seed: int) -> CausalFinding:
    """Estimate, refute and judge an effect.

    Parameters
    ----------
    frame : one row per unit, or per unit and period
    effect : roles of columns
    unit, time : identifier and period columns; without them rows are units
    seed : decides folds and random draws; the same seed gives the same finding

    Returns
    -------
    CausalFinding
        When the effect cannot be estimated from these data, `effect` is None, `refusal` says why and the verdict is `block`.

    Raises
    ------
    SchemaMismatch, TooFewRows, DataError, LeakageFound
        The table itself is unfit; see `design.prepare`, `hazards.refuse_hopeless`, `panel.prepare.make_panel`.
    """
    try:
        identification = identify(effect, frame, unit=unit, time=time)
    except CausalError as error:
        return refused(error)
    estimation = estimate(frame, effect=effect, identification=identification, seed=seed)
    if isinstance(estimation, CausalFinding):
        return estimation
    refutations = refute(frame, estimation, identification=identification, seed=seed)
    return conclude(estimation, refutations, identification=identification)


def estimate(frame: pl.DataFrame, *, effect: EffectSpec, identification: Identification, seed: int) -> Estimation | CausalFinding:
    """The effect with its diagnostics, or the finding that says why there is none. Raises as `analyse` does."""
    try:
        lottery = about_planned_shares(frame, effect, identification)
        found = _module(identification).estimate(frame, effect=effect, identification=identification, seed=seed)
    except CausalError as error:
        return refused(error, reasons=identification.reasons)
    return replace(found, hazards=(*lottery, *found.hazards))


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """All refuters on one estimation; `frame`, `identification` and `seed` as given to `estimate`."""
    return _module(identification).refute(frame, estimation, identification=identification, seed=seed)


def conclude(estimation: Estimation, refutations: tuple[Refutation, ...], *, identification: Identification) -> CausalFinding:
    """The finding with its verdict."""
    assert estimation.effect is not None
    evidence = Evidence(
        overlap=estimation.overlap,
        balance=estimation.balance,
        refutations=refutations,
        concerns=estimation.concerns,
        hazards=estimation.hazards,
        specifications=estimation.specifications,
        alternatives=estimation.alternatives,
        is_randomised=identification.is_randomised,
        is_dose=identification.treatment_kind == "continuous",
    )
    verdict = weigh(estimation.effect, evidence)
    answer = {each.name: getattr(estimation, each.name) for each in fields(Answer)}
    return CausalFinding(**answer, verdict=verdict, refutations=refutations)


class _Design(Protocol):
    """A module of `causal.designs`."""

    def estimate(
        self, frame: pl.DataFrame, *, effect: EffectSpec, identification: Identification, seed: int
    ) -> Estimation | CausalFinding: ...

    def refute(
        self, frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int
    ) -> tuple[Refutation, ...]: ...


def _module(identification: Identification) -> _Design:
    """What knows the design; imported when it is asked for."""
    if identification.design in ("cross_section", "matched"):
        from e2i.causal.designs import cross_section

        return cross_section
    if identification.design == "iv":
        from e2i.causal.designs import instrumental

        return instrumental
    if identification.is_repeated_cross_section:
        from e2i.causal.designs import repeated_groups

        return repeated_groups
    if identification.design == "did":
        from e2i.causal.designs import double_difference

        return double_difference
    from e2i.causal.designs import rebuilt_path

    return rebuilt_path
