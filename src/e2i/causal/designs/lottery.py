"""Did chance assign? What a study calls randomised must look like it."""

from __future__ import annotations

import math

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.independent_units import units_of
from e2i.causal.estimators.within_strata import centred_within
from e2i.causal.hazards import Concern
from e2i.causal.iv.checks import imbalance
from e2i.causal.refute.normal import two_sided

_MANY_WAYS = 10**9
_FEW_DRAWN = 4
_OUTSIDE = 0.10
_Z = 3.5
"""standard errors of the largest of two imbalances that chance still explains, raised with their number"""


def concerns_about_the_lottery(sample: Sample) -> tuple[Concern, ...]:
    """A block where a covariate goes with treatment beyond chance, clusters taken as wholes.

    The largest of all correlations counts (covariates times arms, levels or the dose), each through Student's t over clusters. Where
    rows are independent an imbalance must also stand out from reassigned rows, which long tails and small arms do not inflate.
    Where chance drew within strata, treatment and covariates are taken as departures from their stratum's means.
    """
    matrix, columns = sample.covariates.matrix, _columns(sample.treatment)
    if matrix.shape[1] == 0:
        return ()
    if sample.strata is not None:
        matrix, columns = (centred_within(sample.strata, values) for values in (matrix, columns))
    z = np.stack([imbalance(matrix, column[:, None], clusters=_drawn_together(sample)) for column in columns.T])
    if sample.cluster is None:
        z = np.minimum(z, _as_if_reassigned(matrix, columns, sample.strata))
    tries = max(z.size, 2)
    limit = _Z + math.sqrt(2.0 * math.log(tries)) - math.sqrt(2.0 * math.log(2.0))
    place = int(np.argmax(z.max(axis=0)))
    if _p_value(float(z.max()), sample) >= two_sided(limit):
        return ()
    text = (
        f"the study says that chance assigned treatment, but treatment goes with `{sample.covariates.names[place]}` "
        f"({float(z.max()):.1f} standard errors, more than chance explains among {z.size} comparisons). "
        f"{_what_to_say(sample.covariates.sources[place], is_within=sample.strata is not None)}"
    )
    return (Concern(severity="block", text=text),)


def about_strata(main: Estimate) -> tuple[Concern, ...]:
    """Strata that hold one arm only say nothing of the effect: it is then one on the others."""
    share = main.diagnostics.get("outside_strata_share", 0.0)
    if share <= _OUTSIDE:
        return ()
    text = (
        f"{share:.0%} of rows lie in strata that hold one arm only, or a single unit of an arm, and were left out: the effect is one on "
        "the others. Find out why partners are missing, or name coarser strata."
    )
    return (Concern(severity="review", text=text),)


def _what_to_say(source: str, *, is_within: bool) -> str:
    if is_within:
        return f"If strata were finer, name their columns too, `randomised_within: [..., {source}]`; if not, leave `randomised` out."
    return (
        f"If it was drawn within the levels of that column (strata, blocks, pairs), say `randomised_within: [{source}]`; "
        "if not, leave `randomised` out: the column is then adjusted for."
    )


def _columns(treatment: FloatArray) -> FloatArray:
    """0/1 or the dose as it is; several levels (whole numbers from 0) as one column each but the reference; shape (n, m)."""
    levels = np.unique(treatment)
    if len(levels) <= 2 or not np.array_equal(levels, np.arange(len(levels))):
        return treatment[:, None]
    out: FloatArray = (treatment[:, None] == levels[1:]).astype(np.float64)
    return out


def _drawn_together(sample: Sample) -> IntArray | None:
    """Clusters; whole strata too where few clusters were drawn in each, because one that is drawn keeps another from it."""
    if sample.cluster is None or sample.strata is None:
        return sample.cluster
    held = np.unique(np.column_stack([sample.strata, sample.cluster]), axis=0)[:, 0]
    return units_of(sample.strata, sample.cluster, (np.bincount(held) <= _FEW_DRAWN)[sample.strata])


def _as_if_reassigned(matrix: FloatArray, columns: FloatArray, strata: IntArray | None) -> FloatArray:
    """Correlations over their standard deviation when rows are dealt anew, in each stratum apart; shape (m, k)."""
    place = np.zeros(len(matrix), dtype=np.int64) if strata is None else strata
    left, right = centred_within(place, matrix), centred_within(place, columns)
    sizes = np.maximum(np.bincount(place) - 1.0, 1.0)
    of_left, of_right = (np.column_stack([np.bincount(place, weights=column**2) for column in part.T]) for part in (left, right))
    spread = np.sqrt(of_right.T @ (of_left / sizes[:, None]))
    out: FloatArray = np.abs(right.T @ left) / np.maximum(spread, 1e-300)
    return out


def _p_value(z: float, sample: Sample) -> float:
    from scipy.stats import t

    count = len(sample.outcome) if sample.cluster is None else len(np.unique(sample.cluster))
    # The sum over the root of its squares, as the t statistic of the same products.
    p_value = float(2.0 * t.sf(z * math.sqrt((count - 1) / max(count - z**2, 1e-9)), count - 1))
    if sample.cluster is None:
        return p_value
    strata = np.zeros(len(sample.cluster), dtype=np.int64) if sample.strata is None else sample.strata
    return max(p_value, _smallest(sample.treatment, sample.cluster, strata))


def _smallest(treatment: FloatArray, cluster: IntArray, strata: IntArray) -> float:
    """The least p-value that assignments of whole clusters allow; 0 where treatment varies within clusters."""
    found = np.unique(np.column_stack([cluster, treatment, strata]), axis=0)
    if len(found) > len(np.unique(cluster)):
        return 0.0
    ways = 1
    for stratum in np.unique(strata):
        arms = np.unique(found[found[:, 2] == stratum, 1], return_counts=True)[1]
        ways *= math.comb(int(arms.sum()), int(arms.min()) if len(arms) > 1 else 0)
        if ways > _MANY_WAYS:
            return 0.0
    return 2.0 / ways
