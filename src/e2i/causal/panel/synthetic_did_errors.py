"""Standard errors of synthetic difference-in-differences: placebo, jackknife, bootstrap (Arkhangelsky et al. 2021, algorithms 2-4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimate import LEVEL
from e2i.causal.panel.block import MINIMUM_DONORS, Block
from e2i.causal.panel.did_weights import DoubleWeights, double_weights, many_double_weights, noise_of, weighted_difference
from e2i.errors import NotIdentified

_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A standard error and the t distribution that it is read with."""

    error: float
    degrees: int
    method: str
    replications: int
    period_error: FloatArray | None = None
    """shape (T,), of the gap in each period, where the method gives it"""

    @property
    def critical(self) -> float:
        """Half width of the 95 % interval in standard errors."""
        from scipy.stats import t

        return float(t.ppf(0.5 + LEVEL / 2, self.degrees))

    @property
    def reference(self) -> str:
        """The distribution, as people read it."""
        return f"t with {self.degrees} degrees of freedom"

    def p_value(self, effect: float) -> float | None:
        """Two-sided, of no effect; None without a standard error."""
        from scipy.stats import t

        return float(2.0 * t.sf(abs(effect) / self.error, self.degrees)) if self.error > 0 else None


def placebo(blocks: tuple[Block, ...], *, replications: int, seed: int) -> Spread:
    """Random donors stand in for the treated, everything is weighed again; their effects' standard deviation.

    Assumes that treated and donors are equally noisy. Read with t on the number of disjoint placebo groups less one.
    """
    donors = blocks[0].donors
    sizes = [len(block.treated) for block in blocks]
    total = sum(sizes)
    if len(donors) < total + MINIMUM_DONORS:
        raise NotIdentified(
            f"{total} treated units and {len(donors)} donors; placebos need at least {MINIMUM_DONORS} donors more than treated units.",
            where="panel",
            advice="Add untreated units, or choose inference `jackknife` (two treated units per start) or `bootstrap`.",
        )
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.permutation(donors)[:total] for _ in range(replications)])
    effects, period_error = np.zeros(replications), None
    shares = np.array([len(block.treated) * block.n_post for block in blocks], dtype=np.float64)
    ends = np.cumsum(sizes)
    for block, size, end, share in zip(blocks, sizes, ends, shares / shares.sum(), strict=True):
        mixing, allowed = _stand_ins(block, drawn, slice(int(end) - size, int(end)))
        fits = many_double_weights(block, mixing, allowed, noise=noise_of(block), size=size)
        effects += share * np.array([fit.effect for fit in fits])
        if len(blocks) == 1:
            period_error = np.asarray(np.std([fit.gaps for fit in fits], axis=0, ddof=1), dtype=np.float64)
    return Spread(
        error=float(effects.std(ddof=1)),
        degrees=max(len(donors) // total - 1, 1),
        method=f"placebo in space, {replications} draws",
        replications=replications,
        period_error=period_error,
    )


def can_jackknife(blocks: tuple[Block, ...], fits: tuple[DoubleWeights, ...]) -> bool:
    """Two treated units in every start, and no donor with all the weight."""
    return min(len(block.treated) for block in blocks) > 1 and max(float(fit.units.max()) for fit in fits) < 1.0 - 1e-9


def jackknife(blocks: tuple[Block, ...], fits: tuple[DoubleWeights, ...]) -> Spread:
    """Leave each unit out with the weights held fixed; conservative. Read with t on the fewest treated units of a start less one.

    Raises
    ------
    NotIdentified
        A start has one treated unit, or one donor has all the weight.
    """
    if not can_jackknife(blocks, fits):
        raise NotIdentified(
            "the jackknife needs two treated units in every start and two donors with weight.",
            where="inference",
            advice="Choose inference `placebo`.",
        )
    units = np.concatenate([blocks[0].donors, *(block.treated for block in blocks)])
    values = np.zeros(len(units))
    for k, unit in enumerate(units):
        sums = [_without(block, fit, int(unit)) for block, fit in zip(blocks, fits, strict=True)]
        values[k] = sum(effect * weight for effect, weight in sums) / sum(weight for _, weight in sums)
    count = len(values)
    return Spread(
        error=float(np.sqrt((count - 1) / count * np.sum((values - values.mean()) ** 2))),
        degrees=min(len(block.treated) for block in blocks) - 1 + len(blocks[0].donors) - 1,
        method="jackknife over units, weights held",
        replications=count,
    )


def bootstrap(blocks: tuple[Block, ...], cluster: IntArray, *, replications: int, seed: int) -> Spread:
    """Draw clusters of units with replacement and weigh everything again. Read with t on clusters less one.

    Parameters
    ----------
    cluster : shape (N,)

    Raises
    ------
    NotIdentified
        Treated or donors come from one cluster, so that most draws lack one of them.
    """
    members = [np.flatnonzero(cluster == one) for one in np.unique(cluster)]
    rng = np.random.default_rng(seed)
    effects: list[float] = []
    for _ in range(_TRIES * replications):
        if len(effects) == replications:
            break
        units = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        drawn = [again for again in (_redraw(block, units) for block in blocks) if again is not None]
        if drawn:
            weights = np.array([len(block.treated) * block.n_post for block in drawn], dtype=np.float64)
            effects.append(float(np.average([double_weights(block).effect for block in drawn], weights=weights)))
    if len(effects) < replications:
        raise NotIdentified(
            f"the bootstrap over {len(members)} clusters hardly ever draws both treated units and two donors.",
            where="cluster",
            advice="Use finer clusters, or choose inference `placebo`.",
        )
    return Spread(
        error=float(np.std(effects, ddof=1)),
        degrees=max(len(members) - 1, 1),
        method=f"bootstrap over {len(members)} {'units' if len(members) == len(cluster) else 'clusters'}, {replications} draws",
        replications=replications,
    )


def _stand_ins(block: Block, drawn: IntArray, part: slice) -> tuple[FloatArray, BoolArray]:
    """Mixtures, shape (N, B), of the drawn donors in `part`; and the donors that were not drawn."""
    units, count = len(block.outcome), len(drawn)
    columns = np.arange(count)[:, None]
    mixing, allowed = np.zeros((units, count)), np.zeros((units, count), dtype=np.bool_)
    allowed[block.donors] = True
    allowed[drawn, columns] = False
    chosen = drawn[:, part]
    mixing[chosen, columns] = 1.0 / chosen.shape[1]
    return mixing, allowed


def _without(block: Block, fit: DoubleWeights, unit: int) -> tuple[float, float]:
    """Effect of a block without a unit, and the number of treated unit-periods left in it."""
    treated = block.treated[block.treated != unit]
    units = fit.units.copy()
    units[unit] = 0.0
    mixing = np.zeros(len(units))
    mixing[treated] = 1.0 / len(treated)
    return weighted_difference(block, mixing, units / units.sum(), fit.periods).effect, float(len(treated) * block.n_post)


def _redraw(block: Block, units: IntArray) -> Block | None:
    """The block with rows `units` (with repetitions); None without treated, two donors or movement."""
    treated = np.flatnonzero(np.isin(units, block.treated))
    donors = np.flatnonzero(np.isin(units, block.donors))
    if len(treated) == 0 or len(np.unique(units[donors])) < MINIMUM_DONORS:
        return None
    again = replace(block, outcome=block.outcome[units], treated=treated, donors=donors, covariates=block.covariates[units])
    return again if noise_of(again) > 0 else None
