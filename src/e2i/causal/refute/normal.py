"""Normal tails, and p-values of the largest of several correlated z-values."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from e2i.causal.arrays import FloatArray

_DRAWS = 20_000
_NORMAL = NormalDist()


def two_sided(z: float) -> float:
    """P(|Z| ≥ |z|)."""
    return 2.0 * _NORMAL.cdf(-abs(z))


def adjusted_p_values(z: FloatArray, correlation: FloatArray, *, seed: int) -> FloatArray:
    """P-values against the largest |Z| of the family, exact up to simulation error (Westfall and Young 1993).

    Parameters
    ----------
    z : shape (m,)
    correlation : shape (m, m), of the z-values when nothing is wrong
    """
    raw = np.array([two_sided(value) for value in z])
    if len(z) < 2:
        return raw
    values, vectors = np.linalg.eigh(correlation)
    draws = np.random.default_rng(seed).normal(size=(_DRAWS, len(z))) * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    largest = np.sort(np.abs(draws).max(axis=1))
    above = 1.0 - np.searchsorted(largest, np.abs(z), side="left") / _DRAWS
    # Far in the tail the simulation has no draws; there Bonferroni is exact enough.
    out: FloatArray = np.where(above > 0.002, np.maximum(above, raw), np.minimum(raw * len(z), 0.002))
    return out
