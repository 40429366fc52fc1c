"""Other people of the same groups in each period, with a planted effect."""

from __future__ import annotations

import numpy as np
import polars as pl

EFFECT = 1.0


def people(
    *,
    groups: int = 24,
    periods: int = 4,
    rows: int = 20,
    seed: int = 0,
    starts: tuple[int, ...] = (),
    drift: float = 0.0,
    mix: float = 0.0,
    growth: float = 0.0,
    shock: float = 0.0,
) -> pl.DataFrame:
    """Every second group is treated from the middle on, or from `starts` in turn; the effect is 1 and grows by `growth`.

    `drift` moves treated groups per period, `mix` moves who is seen under treatment, `shock` is the spread of group-period shocks.
    """
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), periods * rows)
    t = np.tile(np.repeat(np.arange(periods), rows), groups)
    order = starts or (periods // 2,)
    first = np.array([order[group // 2 % len(order)] if group % 2 else periods for group in range(groups)])
    d = (t >= first[g]).astype(np.int64)
    x = rng.normal(size=len(g)) + 0.3 * (g % 2) + mix * d
    cells = rng.normal(size=(groups, periods)) * shock
    y = rng.normal(size=groups)[g] + 0.2 * t + 0.5 * x + d * (EFFECT + growth * (t - first[g])) + drift * (g % 2) * t + cells[g, t]
    return pl.DataFrame({"g": g, "t": t, "d": d, "x": x, "z": rng.normal(size=len(g)), "y": y + rng.normal(size=len(g)) * (1.0 + d)})
