"""Synthetic difference-in-differences: donors and periods are both weighed (Arkhangelsky, Athey, Hirshberg, Imbens & Wager 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.block import Block, block_of, fit_hazards, require_rectangle
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.did_weights import DoubleWeights, double_weights, noise_of
from e2i.causal.panel.synthetic_did_errors import Spread, bootstrap, can_jackknife, jackknife, placebo
from e2i.causal.panel.synthetic_fit import SyntheticFit, named_weights, path_of
from e2i.domain.evidence import Hazard, PeriodEffect, Refutation
from e2i.errors import NoVariation

Method = Literal["auto", "placebo", "jackknife", "bootstrap"]
_MANY_TREATED = 10
_MINIMUM_PRE = 2
_LARGE_ERROR = 0.25


@dataclass(frozen=True, kw_only=True)
class SyntheticDiD:
    """Effect on the treated, averaged over treated units and periods; one start, or several (Clarke et al. 2023).

    The interval comes from placebos with few treated units (fewer than ten in some start), from the jackknife with many, or from
    the bootstrap when the study's clusters are coarser than units.
    """

    inference: Method = "auto"
    replications: int = 200

    def fit(self, data: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The effect with its interval; `study` gives the rest.

        Raises
        ------
        DataError, NotIdentified, NoVariation
            See `block_of`; also when the asked inference is not possible with so few treated or donors.
        """
        return self.study(data, spec, seed=seed).estimate

    def study(self, data: Panel, spec: Identification, *, seed: int) -> SyntheticFit:
        """The effect, both paths, weights of donors and periods, placebo in time, fit before treatment."""
        blocks = _blocks(data, spec)
        fits = tuple(double_weights(block) for block in blocks)
        shares = _shares(blocks)
        effect = float(sum(share * fit.effect for share, fit in zip(shares, fits, strict=True)))
        spread = spread_of(blocks, fits, data.cluster, how=self, seed=seed)
        largest = int(np.argmax(shares))
        block, own = blocks[largest], fits[largest]
        tests = (pre_trend(block, own), placebo_in_time(blocks, data.cluster, how=self, seed=seed))
        names = block.unit_names
        return SyntheticFit(
            estimate=replace(_estimate(blocks, fits, effect=effect, spread=spread), notes=_notes(data)),
            path=path_of(block, own.observed, own.observed - own.gaps),
            weights=named_weights(names, sum((s * f.units for s, f in zip(shares, fits, strict=True)), np.zeros(len(names)))),
            refutations=tuple(test for test in tests if test is not None),
            hazards=(*fit_hazards(block), *_few_donors(block)),
            period_weights=named_weights(block.period_names, own.periods),
            by_unit={} if len(blocks) == 1 else {b.period_names[b.start]: f.effect for b, f in zip(blocks, fits, strict=True)},
            event_study=_event_study(block, own, spread) if len(blocks) == 1 else (),
        )


def spread_of(blocks: tuple[Block, ...], fits: tuple[DoubleWeights, ...], cluster: IntArray, *, how: SyntheticDiD, seed: int) -> Spread:
    """The standard error by the asked method, or by the one that suits the number of treated units and the clusters."""
    method = how.inference
    if method == "auto":
        coarse = len(np.unique(cluster)) < len(cluster)
        few = min(len(block.treated) for block in blocks) < _MANY_TREATED
        method = "bootstrap" if coarse else "placebo" if few or not can_jackknife(blocks, fits) else "jackknife"
    if method == "placebo":
        return placebo(blocks, replications=how.replications, seed=seed)
    if method == "jackknife":
        return jackknife(blocks, fits)
    return bootstrap(blocks, cluster, replications=how.replications, seed=seed)


def pre_trend(block: Block, fit: DoubleWeights) -> Refutation:
    """Before treatment the weighted donors must move like the treated: their gap, less its mean, stays small.

    Fails when its standard deviation exceeds both a quarter of the donors' own movement and the noise of their changes.
    """
    gaps = fit.gaps[: block.fit_end]
    error = float(gaps.std())
    scale, noise = max(block.scale, 1e-300), noise_of(block)
    passed = error <= max(_LARGE_ERROR * scale, noise)
    return Refutation(
        test="pre_fit",
        passed=passed,
        detail=(
            f"Before treatment the gap to the weighted donors varies by {error:.3g} ({error / scale:.2g} standard deviations of the "
            f"donors' own movement, noise {noise / scale:.2g}); {'they move alike' if passed else 'they do not move alike'}."
        ),
        statistic=error / scale,
    )


def placebo_in_time(blocks: tuple[Block, ...], cluster: IntArray, *, how: SyntheticDiD, seed: int) -> Refutation | None:
    """Treatment moved back into the last third of the time before it: zero must lie in the 95 % interval; None with short history."""
    moved = tuple(
        block.backdated(block.fit_end - max(block.fit_end // 3, 1))
        for block in blocks
        if block.fit_end - max(block.fit_end // 3, 1) >= _MINIMUM_PRE
    )
    if not moved or min(noise_of(block) for block in moved) == 0.0:
        return None
    fits = tuple(double_weights(block) for block in moved)
    shares = _shares(moved)
    effect = float(sum(share * fit.effect for share, fit in zip(shares, fits, strict=True)))
    spread = spread_of(moved, fits, cluster, how=how, seed=seed)
    passed = abs(effect) <= spread.critical * spread.error
    return Refutation(
        test="placebo_in_time",
        passed=passed,
        detail=(
            f"With treatment moved back into the last third of the time before it the effect is {effect:.4g} "
            f"(standard error {spread.error:.3g}); {'no effect, as it must be' if passed else 'there should be none before treatment'}."
        ),
        statistic=effect / spread.error if spread.error > 0 else None,
        p_value=spread.p_value(effect),
        estimate=effect,
    )


def _blocks(panel: Panel, spec: Identification) -> tuple[Block, ...]:
    """One block per start."""
    require_rectangle(panel)
    starts = np.unique(panel.cohort[panel.cohort != NEVER])
    blocks = tuple(block_of(panel, spec, cohort=int(start), minimum_pre=_MINIMUM_PRE) for start in starts)
    for block in blocks:
        if noise_of(block) == 0.0:
            raise NoVariation(
                "before treatment the donors' outcome changes by the same amount everywhere; weights have nothing to go by.",
                where="outcome",
                advice="Check how the outcome was built.",
            )
    return blocks


def _shares(blocks: tuple[Block, ...]) -> FloatArray:
    """Treated unit-periods of each start over all of them (Clarke et al. 2023, equation 7)."""
    counts = np.array([len(block.treated) * block.n_post for block in blocks], dtype=np.float64)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _estimate(blocks: tuple[Block, ...], fits: tuple[DoubleWeights, ...], *, effect: float, spread: Spread) -> Estimate:
    half = spread.critical * spread.error
    starts = "" if len(blocks) == 1 else f", {len(blocks)} starts"
    block, fit = blocks[0], fits[0]
    return Estimate(
        estimator=f"synthetic difference-in-differences{starts}",
        estimand="ATT",
        estimate=effect,
        standard_error=spread.error,
        interval=(effect - half, effect + half),
        interval_method=f"{spread.method}, {LEVEL:.0%} {spread.reference}",
        p_value=spread.p_value(effect),
        n_treated=sum(len(one.treated) for one in blocks),
        n_untreated=len(block.donors),
        diagnostics={
            "effective_donors": float(1.0 / np.sum(fit.units**2)),
            "effective_periods": float(1.0 / np.sum(fit.periods**2)),
            "pre_periods": float(block.fit_end),
            "starts": float(len(blocks)),
            "replications": float(spread.replications),
        },
    )


def _event_study(block: Block, fit: DoubleWeights, spread: Spread) -> tuple[PeriodEffect, ...]:
    """Gap per period less its weighted mean before treatment, where the inference gave an error per period."""
    if spread.period_error is None:
        return ()
    half = spread.critical * spread.period_error
    return tuple(
        PeriodEffect(
            period=t - block.start,
            estimate=float(fit.gaps[t]),
            low=float(fit.gaps[t] - half[t]),
            high=float(fit.gaps[t] + half[t]),
            n_treated=len(block.treated),
        )
        for t in range(len(fit.gaps))
    )


def _few_donors(block: Block) -> tuple[Hazard, ...]:
    if len(block.donors) >= 2 * _MANY_TREATED:
        return ()
    return (
        Hazard(
            code="few_donors",
            action="warn",
            text=f"{len(block.donors)} donors; the standard error is itself uncertain.",
            remedy="Add untreated units.",
            measured=float(len(block.donors)),
            threshold=2.0 * _MANY_TREATED,
        ),
    )


def _notes(panel: Panel) -> tuple[str, ...]:
    notes = []
    if panel.covariate_names:
        notes.append("confounders are not used: donors and periods are weighed on outcomes before treatment")
    if panel.weights is not None:
        notes.append("sampling weights are not used: every treated unit counts the same")
    return tuple(notes)
