"""Choose test markets: sets of regions whose outcome the others predict best, judged on windows in which nothing happened.

A set's placebo effect in a past window is its volume per period less that of its synthetic control (Abadie, Diamond & Hainmueller
2010, with an intercept: Doudchenko & Imbens 2016), weights fitted on the periods before that window. The spread of these placebo
effects around 0 over non-overlapping windows is the standard error of a test of that length (a bias counts as error); the detectable
effect follows with a t of as many degrees of freedom as there are windows (Vaver & Koehler 2011 choose markets in the same spirit).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.trials import MarketCandidate, MarketSelection
from e2i.errors import ConfigError, TooFewRows

if TYPE_CHECKING:
    from e2i.domain.trials import GeoSpec
    from e2i.ml.columns import FloatArray

Weights = Callable[..., "FloatArray"]
"""(matrix (m, J), target (m,), intercept=True) -> weights (J,) on the simplex"""
WHERE = "experiment.geo"
_EXHAUSTIVE = 600
_EVALUATIONS = 600
_FEWEST_WINDOWS = 3
_LEAST_HISTORY = 8
"""periods before a window that the weights are fitted on, at least"""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Markets:
    """The panel: outcome per region and period, shape (R, T), no gaps; `cost` per region or None."""

    names: tuple[str, ...]
    volume: FloatArray
    cost: FloatArray | None = None


def select_markets(markets: Markets, spec: GeoSpec, *, weights: Weights, alpha: float, power: float, seed: int) -> MarketSelection:
    """Sets of test regions by smallest detectable effect.

    Every set is scored when there are at most 600; else a search that swaps single regions, from seeded starts, scores 600.

    Raises
    ------
    ConfigError
        Unknown regions, or constraints that no set fulfils.
    TooFewRows
        Gaps in the panel, or history for fewer than three placebo windows.
    """
    _check(markets, spec)
    search = _Search(markets=markets, spec=spec, weights=weights, multiplier=_multiplier(alpha, power))
    pool = search.pool()
    sizes = [spec.treated] if isinstance(spec.treated, int) else sorted(set(spec.treated))
    sizes = [size for size in sizes if 1 <= size <= len(pool)]
    total = sum(math.comb(len(pool), size) for size in sizes)
    if total <= _EXHAUSTIVE:
        for size in sizes:
            for chosen in itertools.combinations(pool, size):
                search.score(chosen)
    else:
        rng = np.random.default_rng(seed)
        for size in sizes:
            search.climb(pool, size, limit=_EVALUATIONS // len(sizes), rng=rng)
    if not search.found:
        why = "; ".join(f"{count} sets: {reason}" for reason, count in sorted(search.skipped.items())) or "no region may be treated"
        raise ConfigError(f"no set of test regions fulfils the constraints ({why}).", where=WHERE, advice="Loosen one of them.")
    ranked = sorted(search.found.values(), key=lambda one: (one.mde_share, one.test))
    first = [markets.names.index(name) for name in ranked[0].test]
    level = abs(float(markets.volume[first].mean()))
    return MarketSelection(
        method="synthetic control with intercept, placebo windows in time",
        searched=len(search.found),
        is_exhaustive=total <= _EXHAUSTIVE,
        windows=len(search.origins),
        candidates=tuple(ranked[:_SHOWN]),
        skipped=dict(sorted(search.skipped.items())),
        mde_confirmed=search.confirmed_share() * level,
    )


def placebo_windows(periods: int, weeks: int) -> tuple[int, ...] | None:
    """Starts of non-overlapping past windows, oldest first, each with history before it; None where there are fewer than three.

    >>> placebo_windows(40, 8)
    (8, 16, 24, 32)
    """
    starts = tuple(range(periods - weeks, max(weeks, _LEAST_HISTORY) - 1, -weeks))[::-1]
    return starts if len(starts) >= _FEWEST_WINDOWS else None


def _multiplier(alpha: float, power: float) -> Callable[[int], float]:
    from scipy import special

    return lambda df: float(special.stdtrit(df, 1.0 - alpha / 2.0) + special.stdtrit(df, power))


class _Search:
    """Scores sets once each."""

    def __init__(self, *, markets: Markets, spec: GeoSpec, weights: Weights, multiplier: Callable[[int], float]) -> None:
        self._markets, self._spec, self._weights, self._multiplier = markets, spec, weights, multiplier
        self._usable = [place for place, name in enumerate(markets.names) if name not in spec.excluded]
        self._share = markets.volume.sum(axis=1) / markets.volume[self._usable].sum()
        periods = markets.volume.shape[1]
        origins = placebo_windows(periods, spec.weeks)
        if origins is None:
            need = max(spec.weeks, _LEAST_HISTORY) + _FEWEST_WINDOWS * spec.weeks
            raise TooFewRows(
                f"the panel has {periods} periods; a test of {spec.weeks} needs {need} to try itself on the past.",
                where=WHERE,
                advice="Load more history or shorten the test.",
            )
        self.origins = origins
        self.found: dict[tuple[int, ...], MarketCandidate] = {}
        self.relative: dict[tuple[int, ...], FloatArray] = {}
        self.skipped: dict[str, int] = {}

    def pool(self) -> list[int]:
        """Regions that may be treated."""
        allowed = set(self._spec.candidates) or set(self._markets.names)
        return [place for place in self._usable if self._markets.names[place] in allowed]

    def climb(self, pool: list[int], size: int, *, limit: int, rng: np.random.Generator) -> None:
        """Swap one region at a time while that helps, from random starts."""
        spent = 0
        while spent < limit:
            chosen = tuple(sorted(int(each) for each in rng.choice(pool, size=size, replace=False)))
            best, spent = self.score(chosen), spent + 1
            improved = True
            while improved and spent < limit:
                improved = False
                swaps = [(out, new) for out in chosen for new in pool if new not in chosen]
                for place in rng.permutation(len(swaps)):
                    out, new = swaps[place]
                    other = tuple(sorted({*chosen, new} - {out}))
                    value, spent = self.score(other), spent + 1
                    if value < best:
                        chosen, best, improved = other, value, True
                        break
                    if spent >= limit:
                        break

    def score(self, chosen: tuple[int, ...]) -> float:
        """The set's detectable effect as a share of its volume; infinite where a constraint forbids the set."""
        if chosen in self.found:
            return self.found[chosen].mde_share
        reason = self._forbidden(chosen)
        if reason is not None:
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
            return math.inf
        self.found[chosen] = self._candidate(chosen)
        return self.found[chosen].mde_share

    def _forbidden(self, chosen: tuple[int, ...]) -> str | None:
        cost = self._cost(chosen)
        if self._spec.budget is not None and cost is not None and cost > self._spec.budget:
            return "above the budget"
        if self._share[list(chosen)].sum() > self._spec.maximum_share:
            return "above the largest share of volume"
        return None if len(self._usable) - len(chosen) >= 2 else "fewer than two control regions"

    def _cost(self, chosen: tuple[int, ...]) -> float | None:
        if self._markets.cost is not None:
            return float(self._markets.cost[list(chosen)].sum())
        return None if self._spec.cost_per_region is None else self._spec.cost_per_region * len(chosen)

    def _candidate(self, chosen: tuple[int, ...]) -> MarketCandidate:
        donors = [place for place in self._usable if place not in chosen]
        volume, span = self._markets.volume, self._spec.weeks
        target, matrix = volume[list(chosen)].mean(axis=0), volume[donors].T
        gaps = np.array([self._gap(matrix[: start + span], target[: start + span], start) for start in self.origins])
        w = self._weights(matrix, target, intercept=True)
        rest = target - matrix @ w
        rest = rest - rest.mean()
        spread = float(np.sum((target - target.mean()) ** 2))
        level = float(np.mean(target))
        mde = self._multiplier(len(gaps)) * float(np.sqrt(np.mean(gaps**2)))
        self.relative[chosen] = gaps / abs(level) if level else np.full(len(gaps), np.inf)
        return MarketCandidate(
            test=tuple(self._markets.names[place] for place in chosen),
            controls={self._markets.names[place]: round(float(x), 4) for place, x in zip(donors, w, strict=True) if x > 5e-4},
            pre_fit_rmse=float(np.sqrt(np.mean(rest**2))),
            pre_fit_r2=1.0 - float(rest @ rest) / spread if spread > 0 else 0.0,
            placebo_bias=float(gaps.mean()),
            placebo_rmse=float(np.sqrt(np.mean(gaps**2))),
            mde=mde,
            mde_share=mde / abs(level) if level else math.inf,
            volume_share=float(self._share[list(chosen)].sum()),
            cost=self._cost(chosen),
        )

    def _gap(self, matrix: FloatArray, target: FloatArray, start: int) -> float:
        w = self._weights(matrix[:start], target[:start], intercept=True)
        gap = target - matrix @ w
        return float(gap[start:].mean() - gap[:start].mean())

    def confirmed_share(self) -> float:
        """Detectable effect of the whole procedure, as a share of volume, by leaving out one window at a time (Stone 1974)."""
        squares = np.array(list(self.relative.values())) ** 2
        best = np.argmin(squares.sum(axis=1)[:, None] - squares, axis=0)
        unseen = squares[best, np.arange(squares.shape[1])]
        return self._multiplier(len(unseen)) * float(np.sqrt(unseen.mean()))


def _check(markets: Markets, spec: GeoSpec) -> None:
    named = {*spec.candidates, *spec.excluded}
    unknown = sorted(named - set(markets.names))
    if unknown:
        raise ConfigError(f"no region is called {', '.join(unknown)}.", where=WHERE, advice=f"Regions: {', '.join(markets.names[:20])}.")
    both = sorted(set(spec.candidates) & set(spec.excluded))
    if both:
        raise ConfigError(f"{', '.join(both)} is both candidate and excluded.", where=WHERE, advice="Take it out of one.")
    if not np.isfinite(markets.volume).all():
        gaps = [name for name, row in zip(markets.names, markets.volume, strict=True) if not np.isfinite(row).all()]
        raise TooFewRows(
            f"{len(gaps)} regions lack periods: {', '.join(gaps[:10])}.",
            where=WHERE,
            advice="Fill the gaps or put them under `geo.excluded`.",
        )
    if spec.budget is not None and spec.cost_per_region is None and markets.cost is None:
        raise ConfigError("a budget needs what a region costs.", where=WHERE, advice="Add `cost_per_region` or `cost_column`.")
