"""Whether untreated units are better or worse off where more of the others of their cluster are treated, one row per unit.

Inside a cluster the share of others that are treated is the exposure (Hudgens and Halloran 2008). Given the confounders it must not move
an untreated unit: where it does, treatment reaches the comparison, or the clusters differ in what was not measured.
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.refute.ground import Ground, sums_by
from e2i.domain.evidence import Refutation

_LEVEL = 0.01
_FEWEST = 20
_LEFT = 0.05
"""share of the exposure's variance that the confounders must leave"""


def spill_over(ground: Ground) -> Refutation | None:
    """The slope of untreated units' outcomes on the share of treated around them, given the confounders.

    The error is the clustered jackknife's (CV3; MacKinnon, Nielsen and Webb 2023), beside t with the effective number of clusters (Carter,
    Schnepel and Steigerwald 2017). Fails below 1 %. None where no clusters are named, fewer than 20 of them have untreated units with
    others, or the confounders leave less than a twentieth of the exposure's variance, as where whole clusters are treated.
    """
    sample = ground.sample
    if sample.cluster is None:
        return None
    numbered = np.unique(sample.cluster, return_inverse=True)[1].astype(np.int64)
    size = np.bincount(numbered)[numbered]
    asked = (sample.treatment == 0) & (size > 1)
    found = _slope(sample, ground.full.design, _exposure(sample, numbered, size), (asked, numbered))
    if found is None:
        return None
    from scipy.stats import t

    gain, error, degrees = found
    p_value = float(2.0 * t.sf(abs(gain) / error, degrees))
    passed = p_value >= _LEVEL
    half = float(t.ppf(0.975, degrees)) * error
    ending = (
        "none is proven."
        if passed
        else "treatment reaches units that count as untreated, or clusters differ in what was not measured. Compare whole clusters, or "
        "adjust for what they have in common."
    )
    return Refutation(
        test="spill_over",
        passed=passed,
        detail=(
            f"Untreated units have {gain:.3g} more ({gain - half:.3g} to {gain + half:.3g}, p = {p_value:.2g}) where all others of their "
            f"cluster are treated instead of none; {ending}"
        ),
        statistic=gain / error,
        p_value=p_value,
        estimate=gain,
    )


def _exposure(sample: Sample, numbered: IntArray, size: IntArray) -> FloatArray:
    """Share of the other rows of the cluster that are treated, shape (n,)."""
    treated = np.bincount(numbered, weights=sample.treatment)[numbered]
    out: FloatArray = (treated - sample.treatment) / np.maximum(size - 1, 1)
    return out


def _slope(
    sample: Sample, design: FloatArray, exposure: FloatArray, of: tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], IntArray]
) -> tuple[float, float, float] | None:
    """Slope, its jackknife error and degrees of freedom among the rows asked, given the design."""
    asked, numbered = of
    clusters = np.unique(numbered[asked], return_inverse=True)[1].astype(np.int64)
    if asked.sum() <= 2 * design.shape[1] or int(clusters.max()) + 1 < _FEWEST:
        return None
    given = exposure[asked] - exposure[asked].mean()
    target = np.column_stack([given, sample.outcome[asked]])
    left = target - design[asked] @ np.linalg.lstsq(design[asked], target, rcond=None)[0]
    size = float(left[:, 0] @ left[:, 0])
    if size <= _LEFT * float(given @ given) or size == 0.0:
        return None
    gain = float(left[:, 0] @ left[:, 1]) / size
    own = sums_by(clusters, left[:, :1] ** 2)[:, 0]
    effective = size**2 / float(np.sum(own**2))
    if effective < 2.0:
        return None
    moved = sums_by(clusters, (left[:, 0] * (left[:, 1] - gain * left[:, 0]))[:, None])[:, 0] / (size - own)
    return gain, float(np.sqrt((len(own) - 1) / len(own) * np.sum(moved**2))), effective - 1.0
