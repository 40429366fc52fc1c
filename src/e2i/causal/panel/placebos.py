"""Tests that a chance gap should fail: placebos in space and time, fit before treatment, one donor left out."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.panel.block import MINIMUM_DONORS, MINIMUM_PRE, Block
from e2i.causal.panel.donor_weights import ByOutcomes, ByPredictors, RidgeAugmented, Weighing
from e2i.causal.panel.simplex import many_simplex_weights
from e2i.causal.panel.synthetic_inference import (
    ALPHA,
    Placebos,
    block_p_values,
    can_be_conformal,
    can_be_placebo,
    placebo_interval,
    rank_p_value,
)
from e2i.domain.evidence import Refutation

_MAXIMUM_PLACEBOS = 200
_WORST_FIT = 5.0
_LEFT_OUT, _REFITTED = 10, 60
_NOTABLE_WEIGHT = 0.01
_LARGE_ERROR = 0.25
_FEWEST_RANKED = 9


def rmspe(gaps: FloatArray) -> float:
    """Root mean squared prediction error of gaps, any shape."""
    return float(np.sqrt(np.mean(gaps**2)))


def in_space(block: Block, own: FloatArray, weighing: Weighing, *, seed: int) -> Placebos:
    """Fit donors as if they had been treated (Abadie, Diamond & Hainmueller 2010).

    One treated unit is compared with every donor (200 random ones at most), several with all groups of the same size (the same).
    The truly treated are never donors of a placebo. Placebos whose fit before treatment is more than 5 times worse than that of
    the treated are left out.

    Parameters
    ----------
    own : shape (T,), gaps of the treated
    """
    names, mixing = _groups(block, seed=seed)
    if not names:
        empty = np.zeros(0)
        return Placebos(names=(), gaps=np.zeros((0, len(own))), pre_rmspe=empty, effect=empty, ratio=empty, dropped=0)
    gaps = (mixing - weighing(block, mixing)).T @ block.outcome
    before = np.sqrt(np.mean(gaps[:, : block.fit_end] ** 2, axis=1))
    after = np.sqrt(np.mean(gaps[:, block.start :] ** 2, axis=1))
    # A perfect fit of the treated would leave no placebo: then the scale of the outcome's rounding decides.
    keep = before <= _WORST_FIT * max(rmspe(own[: block.fit_end]), 1e-6 * block.scale)
    return Placebos(
        names=tuple(name for name, kept in zip(names, keep, strict=True) if kept),
        gaps=gaps[keep],
        pre_rmspe=before[keep],
        effect=gaps[keep][:, block.start :].mean(axis=1),
        ratio=after[keep] / np.maximum(before[keep], 1e-300),
        dropped=int((~keep).sum()),
        drawn_from=len(block.donors) if len(block.treated) > 1 else 0,
        handicap=_handicap(block, mixing) if len(block.treated) > 1 else 1.0,
    )


def _handicap(block: Block, groups: FloatArray) -> float:
    """How much worse the treated are fitted without the donors of one of the groups, shape (N, K); on average, by outcomes."""
    before, pooled = block.outcome[:, : block.fit_end], block.pooled()
    allowed = block.others(pooled) & (groups[:, :_REFITTED] == 0)
    target = before.T @ pooled
    weights = many_simplex_weights(before.T, np.repeat(target, allowed.shape[1], axis=1), allowed=allowed)
    fewer = np.sqrt(np.mean((target - before.T @ weights) ** 2, axis=0))
    own = rmspe(target - before.T @ ByOutcomes()(block, pooled))
    return max(float(fewer.mean()) / max(own, 1e-6 * block.scale), 1.0)


def leave_one_out(block: Block, mixing: FloatArray, weights: FloatArray, *, weighing: Weighing) -> dict[str, float]:
    """Donor -> effect without it, for the ten donors with the largest weights above 1 %; empty when too few would remain."""
    if len(block.donors) <= MINIMUM_DONORS:
        return {}
    size = np.abs(weights).mean(axis=1)
    largest = [int(unit) for unit in np.argsort(-size)[:_LEFT_OUT] if size[unit] > _NOTABLE_WEIGHT]
    out = {}
    for unit in largest:
        smaller = block.without(unit)
        gaps = (mixing - weighing(smaller, mixing)).T @ block.outcome
        out[block.unit_names[unit]] = float(gaps[:, block.start :].mean())
    return out


def donor_stability(left_out: dict[str, float], estimate: float, *, interval: tuple[float, float]) -> Refutation | None:
    """No single donor may carry the result: without any of them the effect stays in the 95 % interval."""
    if not left_out:
        return None
    low, high = min(left_out.values()), max(left_out.values())
    worst = max(left_out, key=lambda name: abs(left_out[name] - estimate))
    passed = interval[0] <= low and high <= interval[1]
    return Refutation(
        test="leave_one_donor_out",
        passed=passed,
        detail=(
            f"Without one donor at a time the effect ranges from {low:.4g} to {high:.4g} ({worst} matters most); "
            f"{'all within' if passed else 'not all within'} the 95 % interval."
        ),
        estimate=left_out[worst],
    )


def placebo_in_space(block: Block, own: FloatArray, placebos: Placebos, *, interval: tuple[float, float]) -> Refutation | None:
    """An effect that is told must be extreme among units that were not treated; None without placebos.

    The statistic is RMSPE after over RMSPE before. Passes when the rank p-value is at most 5 % (or the smallest that the number
    of placebos allows), or when the interval holds 0 and nothing is claimed.
    """
    count = len(placebos.ratio)
    if count == 0:
        return None
    ratio = rmspe(own[block.start :]) / max(rmspe(own[: block.fit_end]), 1e-300)
    p_value = rank_p_value(ratio, placebos.ratio)
    claims = not interval[0] <= 0.0 <= interval[1]
    passed = not claims or p_value <= max(ALPHA, 1.0 / (count + 1)) + 1e-9
    left_out = f" ({placebos.dropped} left out for a bad fit)" if placebos.dropped else ""
    few = "" if can_be_placebo(count) else f" With {count} placebos the p-value cannot go below {1 / (count + 1):.2g}."
    return Refutation(
        test="placebo_in_space",
        passed=passed,
        detail=(
            f"The prediction error grows {ratio:.3g}-fold after treatment; {int(np.sum(placebos.ratio >= ratio))} of {count} untreated "
            f"placebos{left_out} grow as much (p = {p_value:.2g}).{few}"
            f"{'' if passed else ' The interval excludes 0, yet such gaps occur without treatment.'}"
        ),
        statistic=ratio,
        p_value=p_value,
    )


def placebo_in_time(block: Block, mixing: FloatArray, weighing: Weighing, *, seed: int) -> Refutation | None:
    """Treatment moved back into the last third of the time before it: there must be no effect.

    Ranked among placebos in space at the same date where there are 19, else tested over time where there are 20 periods; None
    where neither is possible.
    """
    start = block.fit_end - max(block.fit_end // 3, 1)
    if start < MINIMUM_PRE:
        return None
    moved = block.backdated(start)
    if isinstance(weighing, ByPredictors):
        weighing = weighing.before(moved.period_names[:start])
    gaps = ((mixing - weighing(moved, mixing)).T @ moved.outcome).mean(axis=0)
    effect = float(gaps[start:].mean())
    placebos = in_space(moved, gaps, weighing, seed=seed)
    if can_be_placebo(len(placebos.names)):
        p_value = placebo_interval(effect, rmspe(gaps[:start]), placebos).p_value
        smallest = 1.0 / (1 + len(placebos.names))
    elif can_be_conformal(block.fit_end):
        p_value, smallest = _time_p_value(moved, mixing, weighing), 1.0 / block.fit_end
    else:
        return None
    passed = p_value > ALPHA
    return Refutation(
        test="placebo_in_time",
        passed=passed,
        detail=(
            f"With treatment moved back to {block.period_names[start]} the effect is {effect:.4g} (p = {p_value:.2g}); "
            f"{'no effect before treatment, as it must be' if passed else 'there should be none before treatment'}."
        ),
        p_value=p_value,
        smallest_p=smallest,
        estimate=effect,
    )


def pre_fit(block: Block, own: FloatArray, placebos: Placebos, *, interval: tuple[float, float]) -> Refutation:
    """The synthetic control must follow the treated before treatment.

    Fails when the mean gap before treatment exceeds a quarter of the standard deviation of the treated's own outcome then (the
    usual bound for a standardised difference) and a quarter of the interval's width, so that it could be taken for an effect; or
    when the RMSPE exceeds a quarter of the standard deviation and more than 95 % of at least nine placebos fit better.
    """
    before = own[: block.fit_end]
    error, bias = rmspe(before), abs(float(before.mean()))
    treated = block.outcome[block.treated][:, : block.fit_end].mean(axis=0)
    spread = max(float(treated.std()), block.scale, 1e-300)
    all_placebos = len(placebos.pre_rmspe) + placebos.dropped
    better = int(np.sum(placebos.pre_rmspe < error))
    is_worst = all_placebos >= _FEWEST_RANKED and better > 0.95 * all_placebos and error > _LARGE_ERROR * spread
    width = interval[1] - interval[0] if np.isfinite(interval).all() else 0.0
    passed = bias <= _LARGE_ERROR * max(spread, width) and not is_worst
    return Refutation(
        test="pre_fit",
        passed=passed,
        detail=(
            f"Before treatment the synthetic control misses by {error:.3g} per period (RMSPE, {error / spread:.2g} standard deviations) "
            f"and by {bias:.3g} on average ({bias / spread:.2g}; at most {_LARGE_ERROR}, or a quarter of the interval, may be); "
            f"{better} of {all_placebos} placebos fit better."
            f"{'' if passed else ' The treated lie outside what the donors can imitate.'}"
        ),
        statistic=error / spread,
    )


def _groups(block: Block, *, seed: int) -> tuple[tuple[str, ...], FloatArray]:
    """Names and mixtures, shape (N, K), of the placebos."""
    rng = np.random.default_rng(seed)
    size = len(block.treated)
    if size == 1:
        donors = block.donors if len(block.donors) > MINIMUM_DONORS else block.donors[:0]
        if len(donors) > _MAXIMUM_PLACEBOS:
            donors = np.sort(rng.choice(donors, _MAXIMUM_PLACEBOS, replace=False))
        return tuple(block.unit_names[unit] for unit in donors), block.singles(donors)
    if len(block.donors) < 2 * size:
        return (), np.zeros((len(block.outcome), 0))
    groups = _distinct(block.donors, size, rng)
    mixing = np.zeros((len(block.outcome), len(groups)))
    for k, members in enumerate(groups):
        mixing[list(members), k] = 1.0 / size
    return tuple(f"group {k + 1}" for k in range(len(groups))), mixing


def _distinct(donors: IntArray, size: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """All groups of so many donors, or 200 random ones, none twice: a group that is drawn again tells nothing new."""
    if comb(len(donors), size) <= _MAXIMUM_PLACEBOS:
        return [tuple(map(int, members)) for members in combinations(donors, size)]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < _MAXIMUM_PLACEBOS:
        found[tuple(sorted(map(int, rng.choice(donors, size, replace=False))))] = None
    return list(found)


def _time_p_value(moved: Block, mixing: FloatArray, weighing: Weighing) -> float:
    """p-value of no effect in the backdated block, over time."""
    fitted = weighing if isinstance(weighing, RidgeAugmented) else ByOutcomes()
    allowed = moved.others(mixing)
    targets = (mixing.T @ moved.outcome)[:, None, :]
    rows = [fitted.residuals(moved.outcome, targets[k], allowed[:, k : k + 1]) for k in range(mixing.shape[1])]
    return float(block_p_values(np.mean(rows, axis=0), moved.n_post)[0])
