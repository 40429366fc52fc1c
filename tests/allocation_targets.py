"""Prescribers among whom calls are allocated."""

from __future__ import annotations

import numpy as np
import polars as pl


def hcps(n: int, *, seed: int = 0) -> pl.DataFrame:
    """Responses with an interval, present calls, cost of a call; one row per prescriber."""
    rng = np.random.default_rng(seed)
    lift = rng.gamma(2, 3, n)
    return pl.DataFrame(
        {
            "entity_id": [f"h{i}" for i in range(n)],
            "lift": lift,
            "low": lift * 0.5,
            "high": lift * 1.6,
            "scale": rng.uniform(1, 6, n),
            "calls": rng.integers(0, 6, n),
            "cost": rng.uniform(50, 150, n),
            "region": rng.choice(["east", "west"], n),
        }
    )
