"""Intervals of randomised arms whose rows come in clusters: few and unequal ones count for what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Average, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.cross_fit import with_error

_RCOND = 1e-10
_FEW = 30


def with_jackknife(estimate: Estimate, data: Sample, matrix: FloatArray, estimand: Average) -> Estimate:
    """The estimate with the error that leaving out one cluster at a time gives (CV3; MacKinnon, Nielsen and Webb 2023).

    Residuals of few or unequal clusters are too small, because each cluster has bent the fit towards itself, and t(G - 1) trusts errors
    that rest on the largest clusters alone. Degrees of freedom are Welch's (1947), each arm counting its effective clusters less one:
    1 / Σ w² with w a cluster's share of the arm (Kish 1965).

    Parameters
    ----------
    data : with clusters, two or more in each arm
    matrix : shape (n, k), the covariates that were adjusted for
    """
    assert data.cluster is not None
    cluster = np.unique(data.cluster, return_inverse=True)[1].astype(np.int64)
    without = _without_each(data, matrix, cluster, estimand)
    gaps = without - estimate.estimate
    count = len(gaps)
    degrees = _degrees(data, cluster, gaps)
    found = with_error(estimate, float(np.sqrt((count - 1) / count * np.sum(gaps**2))), degrees=degrees)
    notes = (f"{count} clusters: with fewer than {_FEW} the interval is rough",) if count < _FEW else ()
    method = f"t with {degrees:.1f} effective degrees of freedom, clustered (jackknife, CV3)"
    return replace(found, interval_method=method, notes=(*estimate.notes, *notes))


def _without_each(data: Sample, matrix: FloatArray, cluster: IntArray, estimand: Average) -> FloatArray:
    """Difference of the arms' regressions at the covariates' means, without each cluster in turn, shape (G,)."""
    given = np.ones(len(data.outcome)) if data.weights is None else data.weights
    scale = np.maximum(matrix.std(axis=0), 1e-300)
    design = np.column_stack([np.ones(len(given)), (matrix - matrix.mean(axis=0)) / scale])
    target = given if estimand == "ATE" else given * data.treatment
    middle = _left(design * target[:, None], cluster)
    middle /= middle[:, [0]]
    arms = []
    for arm in (0.0, 1.0):
        used = given * (data.treatment == arm)
        cross = _left(design * (used * data.outcome)[:, None], cluster)
        gram = np.stack([_left(design * (used * column)[:, None], cluster) for column in design.T], axis=1)
        slopes = np.linalg.pinv(gram, rcond=_RCOND, hermitian=True) @ cross[:, :, None]
        arms.append(np.einsum("gk,gk->g", middle, slopes[:, :, 0]))
    out: FloatArray = arms[1] - arms[0]
    return out


def _left(columns: FloatArray, cluster: IntArray) -> FloatArray:
    """Sums of columns over all clusters but each, shape (G, k)."""
    sums = np.column_stack([np.bincount(cluster, weights=column) for column in columns.T])
    out: FloatArray = sums.sum(axis=0) - sums
    return out


def _degrees(data: Sample, cluster: IntArray, gaps: FloatArray) -> float:
    """Welch's where clusters lie in one arm each; of all clusters together where some lie in both, as pairs and blocks do."""
    given = np.ones(len(data.outcome)) if data.weights is None else data.weights
    shares = np.column_stack([np.bincount(cluster, weights=given * (data.treatment == arm), minlength=len(gaps)) for arm in (0.0, 1.0)])
    shares = shares / shares.sum(axis=0)
    if (shares > 0).all(axis=1).any():
        return max(1.0 / float(np.sum(shares.mean(axis=1) ** 2)) - 1.0, 1.0)
    effective = 1.0 / np.sum(shares**2, axis=0) - 1.0
    parts = np.array([np.sum(gaps[shares[:, arm] > 0] ** 2) for arm in (0, 1)])
    welch = float(parts.sum() ** 2 / max(float(np.sum(parts**2 / np.maximum(effective, 0.5))), 1e-300))
    return max(welch, 1.0)
