"""Panels with planted effects, for the tests of panel estimators."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.design import Identification

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", cohort="g", treatment_kind="staggered")


def staggered(
    units: int = 300, periods: int = 10, *, seed: int = 0, cohorts: tuple[int, ...] = (0, 4, 6, 8), drift: float = 0.0
) -> pl.DataFrame:
    """Cohorts 0 is never treated; the effect is 1 at first and grows by 0.3 per period; `x` shifts trends and who is treated when."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=units)
    g = np.array(cohorts)[np.minimum((rng.random(units) * len(cohorts)).astype(int), len(cohorts) - 1)]
    g = np.where((x > 1) & (cohorts[0] == 0), cohorts[1], g)
    t = np.arange(1, periods + 1)
    treated = (g[:, None] > 0) & (t >= g[:, None])
    effect = treated * (1.0 + 0.3 * (t - g[:, None]))
    y = rng.normal(size=units)[:, None] + 0.1 * t + 0.2 * x[:, None] * t + effect + rng.normal(size=(units, periods))
    y = y + drift * (g > 0)[:, None] * t
    return pl.DataFrame(
        {
            "u": np.repeat(np.arange(units), periods),
            "t": np.tile(t, units),
            "g": np.repeat(g, periods),
            "y": y.ravel(),
            "x": np.repeat(x, periods),
            "z": rng.normal(size=units * periods),
            "c": np.repeat(np.arange(units) // 6, periods),
            "effect": effect.ravel(),
        }
    )
