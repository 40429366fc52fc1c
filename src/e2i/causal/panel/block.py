"""A balanced panel whose treated units all start in one period: the shape that synthetic controls need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.panel.data import NEVER, Panel
from e2i.domain.disclosure import counted
from e2i.domain.evidence import Hazard
from e2i.errors import DataError, NotIdentified, NoVariation

MINIMUM_PRE = 3
MINIMUM_DONORS = 2
_COMFORTABLE_PRE = 10
_MANY_DONORS_PER_PERIOD = 10
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Block:
    """Outcomes of N units in T periods; the treated start in period `start`."""

    outcome: FloatArray
    """shape (N, T), finite"""
    treated: IntArray
    """shape (R,), rows of the treated units"""
    donors: IntArray
    """shape (J,), rows of units that are never treated"""
    start: int
    """first treated period, 0 … T-1"""
    fit_end: int
    """periods before this one are fitted; those from here to `start` may react in advance and are left out"""
    unit_names: tuple[str, ...]
    period_names: tuple[str, ...]
    covariates: FloatArray
    """shape (N, T, k)"""
    covariate_names: tuple[str, ...]

    @property
    def n_post(self) -> int:
        """Number of treated periods."""
        return int(self.outcome.shape[1] - self.start)

    @property
    def kept(self) -> IntArray:
        """Periods that are fitted or treated, in order."""
        return np.concatenate([np.arange(self.fit_end), np.arange(self.start, self.outcome.shape[1])])

    @property
    def scale(self) -> float:
        """Standard deviation of the donors' outcomes around their own means before treatment."""
        before = self.outcome[self.donors, : self.fit_end]
        return float(np.std(before - before.mean(axis=1, keepdims=True)))

    def pooled(self) -> FloatArray:
        """The average of the treated as a mixture of units, shape (N, 1)."""
        out = np.zeros((len(self.outcome), 1))
        out[self.treated] = 1.0 / len(self.treated)
        return out

    def singles(self, units: IntArray) -> FloatArray:
        """Each of `units` by itself, shape (N, R)."""
        return np.asarray(np.eye(len(self.outcome))[:, units], dtype=np.float64)

    def others(self, mixing: FloatArray) -> BoolArray:
        """Donors that a target may use, shape (N, R): not those that are in it."""
        is_donor = np.zeros(len(self.outcome), dtype=np.bool_)
        is_donor[self.donors] = True
        return np.asarray(is_donor[:, None] & (mixing == 0.0), dtype=np.bool_)

    def backdated(self, start: int) -> Block:
        """The same units before treatment, as if it had started in `start`; what came after `fit_end` is not looked at."""
        return replace(
            self,
            outcome=self.outcome[:, : self.fit_end],
            covariates=self.covariates[:, : self.fit_end],
            period_names=self.period_names[: self.fit_end],
            start=start,
            fit_end=start,
        )

    def without(self, donor: int) -> Block:
        """The same block with one donor (its row number) left out of the pool."""
        return replace(self, donors=self.donors[self.donors != donor])


def block_of(panel: Panel, spec: Identification, *, cohort: int | None = None, minimum_pre: int = MINIMUM_PRE) -> Block:
    """The treated of one cohort against the never treated.

    Parameters
    ----------
    cohort : first treated period; default the only one there is

    Raises
    ------
    DataError
        A unit lacks a period.
    NotIdentified
        Treatment ends again, starts at several dates (without `cohort`), starts too early to be fitted, or there are fewer than
        two donors.
    NoVariation
        The outcome before treatment is the same everywhere.
    """
    require_rectangle(panel)
    first = panel.cohort
    starts = np.unique(first[first != NEVER])
    if cohort is None:
        cohort = _only_start(panel, starts)
    treated, donors = np.flatnonzero(first == cohort), np.flatnonzero(first == NEVER)
    fit_end = cohort - spec.anticipation
    _require_enough(panel, cohort, fit_end, len(donors), minimum_pre)
    outcome = panel.matrix()
    if np.ptp(outcome[:, :fit_end]) == 0.0:
        raise NoVariation(
            "the outcome before treatment is the same in every unit and period.", where="outcome", advice="Check how it was built."
        )
    width = panel.covariates.shape[1]
    layers = [panel.matrix(panel.covariates[:, k]) for k in range(width)]
    return Block(
        outcome=outcome,
        treated=treated,
        donors=donors,
        start=int(cohort),
        fit_end=int(fit_end),
        unit_names=panel.unit_names,
        period_names=panel.period_names,
        covariates=np.stack(layers, axis=2) if width else np.zeros((*outcome.shape, 0)),
        covariate_names=panel.covariate_names,
    )


def require_rectangle(panel: Panel) -> None:
    """Every unit in every period, treatment that stays, somebody treated."""
    if not panel.is_balanced:
        observed = panel.observed
        lacking = np.flatnonzero(~observed.all(axis=1))
        raise DataError(
            f"{counted(int((~observed).sum()), 'unit-periods')} have no outcome, in {counted(len(lacking), 'units')}; "
            "a synthetic control weighs whole paths.",
            where="panel",
            advice="Leave out these units or the periods without data, or fill the gaps; design `did` takes unbalanced panels.",
        )
    if not panel.is_absorbing:
        raise NotIdentified(
            "treatment ends again in some units; a synthetic control needs treatment that stays.",
            where="treatment",
            advice="Give the first treated period as `cohort` if the effect is meant to last, or use a design for on/off treatments.",
        )
    if not (panel.cohort != NEVER).any():
        raise NotIdentified("no unit is treated.", where="treatment", advice="Check the coding of treatment or cohort.")


def fit_hazards(block: Block) -> tuple[Hazard, ...]:
    """What weakens a synthetic control before it is fitted: a short history, or far more donors than periods."""
    found = []
    if block.fit_end < _COMFORTABLE_PRE:
        found.append(
            Hazard(
                code="few_pre_periods",
                action="review",
                text=f"{block.fit_end} periods before treatment; a good fit to so few can be chance.",
                remedy="Add history before treatment.",
                measured=float(block.fit_end),
                threshold=float(_COMFORTABLE_PRE),
            )
        )
    if len(block.donors) > _MANY_DONORS_PER_PERIOD * block.fit_end:
        found.append(
            Hazard(
                code="many_donors",
                action="warn",
                text=f"{len(block.donors)} donors for {block.fit_end} fitted periods: many weightings fit equally well.",
                remedy="Keep the donors that are like the treated, or add history.",
                measured=len(block.donors) / block.fit_end,
                threshold=float(_MANY_DONORS_PER_PERIOD),
            )
        )
    return tuple(found)


def _only_start(panel: Panel, starts: IntArray) -> int:
    if len(starts) > 1:
        shown = ", ".join(panel.period_names[start] for start in starts[:_SHOWN])
        raise NotIdentified(
            f"treatment starts at {len(starts)} dates ({shown}{', …' if len(starts) > _SHOWN else ''}), a synthetic control has one.",
            where="treatment",
            advice="Use design `synthetic_did`, which averages over starts, or `did`; or keep the units of one start.",
        )
    return int(starts[0])


def _require_enough(panel: Panel, cohort: int, fit_end: int, donors: int, minimum_pre: int) -> None:
    if fit_end < minimum_pre:
        left_out = f" ({cohort - fit_end} left out for anticipation)" if fit_end < cohort else ""
        raise NotIdentified(
            f"treatment starts in {panel.period_names[cohort]} with {max(fit_end, 0)} periods before it{left_out}; "
            f"{minimum_pre} are needed to weigh donors.",
            where="time",
            advice="Add periods before treatment, or leave out the units that are treated from the beginning.",
        )
    if donors < MINIMUM_DONORS:
        raise NotIdentified(
            f"{donors} units are never treated; {MINIMUM_DONORS} donors are needed, and 19 for a placebo test at 5 %.",
            where="panel",
            advice="Add untreated units. Without any, design `interrupted_time_series` compares the treated with their own past.",
        )
