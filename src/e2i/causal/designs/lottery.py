"""Did chance assign? What a study calls randomised must look like it."""

from __future__ import annotations

import math

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.hazards import Concern
from e2i.causal.iv.checks import imbalance
from e2i.causal.refute.normal import two_sided

_Z = 3.5
"""standard errors of the largest of two imbalances that chance still explains, raised with their number"""


def concerns_about_the_lottery(sample: Sample) -> tuple[Concern, ...]:
    """A block where a covariate goes with treatment beyond chance, clusters taken as wholes.

    The largest of all correlations counts (covariates times arms, levels or the dose), each through Student's t over clusters. Where
    rows are independent an imbalance must also stand out from reassigned rows, which long tails and small arms do not inflate.
    """
    matrix = sample.covariates.matrix
    if matrix.shape[1] == 0:
        return ()
    columns = _columns(sample.treatment)
    z = np.stack([imbalance(matrix, column[:, None], clusters=sample.cluster) for column in columns.T])
    if sample.cluster is None:
        z = np.minimum(z, _as_if_reassigned(matrix, columns))
    tries = max(z.size, 2)
    limit = _Z + math.sqrt(2.0 * math.log(tries)) - math.sqrt(2.0 * math.log(2.0))
    place = int(np.argmax(z.max(axis=0)))
    if _p_value(float(z.max()), sample) >= two_sided(limit):
        return ()
    text = (
        f"the study says that chance assigned treatment, but treatment goes with `{sample.covariates.names[place]}` "
        f"({float(z.max()):.1f} standard errors, more than chance explains among {z.size} comparisons). "
        "If it was drawn within levels of that column, leave `randomised` out: the column is then adjusted for."
    )
    return (Concern(severity="block", text=text),)


def _columns(treatment: FloatArray) -> FloatArray:
    """0/1 or the dose as it is; several levels (whole numbers from 0) as one column each but the reference; shape (n, m)."""
    levels = np.unique(treatment)
    if len(levels) <= 2 or not np.array_equal(levels, np.arange(len(levels))):
        return treatment[:, None]
    out: FloatArray = (treatment[:, None] == levels[1:]).astype(np.float64)
    return out


def _as_if_reassigned(matrix: FloatArray, columns: FloatArray) -> FloatArray:
    """Correlations over their standard deviation when rows are dealt anew, 1/sqrt(n - 1); shape (m, k)."""
    left, right = matrix - matrix.mean(axis=0), columns - columns.mean(axis=0)
    size = np.sqrt(np.outer(np.sum(right**2, axis=0), np.sum(left**2, axis=0)))
    out: FloatArray = np.abs(right.T @ left) / np.maximum(size, 1e-300) * math.sqrt(len(matrix) - 1)
    return out


def _p_value(z: float, sample: Sample) -> float:
    from scipy.stats import t

    count = len(sample.outcome) if sample.cluster is None else len(np.unique(sample.cluster))
    # The sum over the root of its squares, as the t statistic of the same products.
    p_value = float(2.0 * t.sf(z * math.sqrt((count - 1) / max(count - z**2, 1e-9)), count - 1))
    return p_value if sample.cluster is None else max(p_value, _smallest(sample.treatment, sample.cluster))


def _smallest(treatment: FloatArray, cluster: IntArray) -> float:
    """The least p-value that assignments of whole clusters allow; 0 where treatment varies within clusters."""
    pairs = np.unique(np.column_stack([cluster, treatment]), axis=0)
    count = len(np.unique(cluster))
    if len(pairs) > count:
        return 0.0
    return 2.0 / math.comb(count, int(np.unique(pairs[:, 1], return_counts=True)[1].min()))
