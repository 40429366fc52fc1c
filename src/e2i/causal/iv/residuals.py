"""Outcome, treatment and instruments after the covariates: everything linear instrumental variables need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.errors import NotIdentified

_GONE = 1e-7
"""A column whose norm falls by this factor when others are projected out is a linear function of them."""


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """n rows with the covariates and a constant projected out, each on unit scale (Frisch, Waugh and Lovell).

    Square roots of the sampling weights are multiplied in. Instruments are orthonormal (`Z'Z / n` is the identity): what is computed
    here does not depend on how they are coded.
    """

    outcome: FloatArray
    """shape (n,)"""
    treatment: FloatArray
    """shape (n,)"""
    instruments: FloatArray
    """shape (n, m)"""
    outcome_scale: float
    treatment_scale: float
    partialled: int
    """parameters that were projected out, the constant included"""
    clusters: IntArray | None
    """shape (n,), 0 … G-1"""
    dropped: tuple[str, ...] = ()
    """instruments left out because the covariates or other instruments determine them"""

    @property
    def unit(self) -> float:
        """Outcome units per treatment unit."""
        return self.outcome_scale / self.treatment_scale

    @property
    def degrees(self) -> int:
        """Degrees of freedom of a t statistic with one further parameter: G - 1 with clusters."""
        if self.clusters is not None:
            return self.n_clusters - 1
        return len(self.outcome) - self.partialled - 1

    @cached_property
    def n_clusters(self) -> int:
        """G; 0 without clusters."""
        return 0 if self.clusters is None else int(self.clusters.max()) + 1

    def sums(self, scores: FloatArray) -> FloatArray:
        """Scores, shape (n,) or (n, q), summed within clusters; as they are without clusters."""
        if self.clusters is None:
            return scores
        columns = scores[:, None] if scores.ndim == 1 else scores
        summed: FloatArray = np.column_stack([np.bincount(self.clusters, weights=column) for column in columns.T]).astype(np.float64)
        return summed[:, 0] if scores.ndim == 1 else summed

    def correction(self, parameters: int) -> float:
        """Small-sample factor of a robust variance: HC1, or its clustered form G / (G - 1) · (n - 1) / (n - k)."""
        n, left = len(self.outcome), len(self.outcome) - self.partialled - parameters
        if self.clusters is None:
            return n / left
        return self.n_clusters / (self.n_clusters - 1) * (n - 1) / left

    def variance(self, scores: FloatArray, *, parameters: int) -> float:
        """Robust variance of an estimate that is a sum of scores, shape (n,)."""
        return float(self.correction(parameters) * np.sum(self.sums(scores) ** 2))

    @cached_property
    def reduced_form(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coefficients on the instruments of outcome and treatment, shape (m,) each, and their joint robust variance, (2m, 2m)."""
        z, n = self.instruments, len(self.outcome)
        delta, pi = z.T @ self.outcome / n, z.T @ self.treatment / n
        scores = np.column_stack([z * (self.outcome - z @ delta)[:, None], z * (self.treatment - z @ pi)[:, None]])
        summed = self.sums(scores)
        return delta, pi, self.correction(z.shape[1]) * (summed.T @ summed) / n**2


def project_out(
    outcome: FloatArray,
    treatment: FloatArray,
    instruments: FloatArray,
    *,
    covariates: FloatArray,
    weights: FloatArray | None = None,
    clusters: IntArray | None = None,
    names: tuple[str, ...] = (),
) -> Residuals:
    """Project covariates and a constant out of outcome, treatment and instruments by QR.

    Parameters
    ----------
    outcome, treatment : shape (n,), finite
    instruments : shape (n, m), finite
    covariates : shape (n, k), finite; k may be 0; columns that others determine are left out
    weights : shape (n,), positive

    Raises
    ------
    NotIdentified
        The covariates determine the treatment, the outcome, or every instrument.
    """
    root = np.ones(len(outcome)) if weights is None else np.sqrt(weights)
    basis = _basis(covariates, root)
    left_outcome, outcome_scale = _left_over(outcome, basis, root)
    left_treatment, treatment_scale = _left_over(treatment, basis, root)
    for role, scale in (("outcome", outcome_scale), ("treatment", treatment_scale)):
        if scale == 0.0:
            raise NotIdentified(
                f"the covariates determine the {role}: nothing of it varies once they are held fixed.",
                where=role,
                advice="Take the column that repeats it out of `confounders`.",
            )
    kept, dropped = _independent(instruments, basis, root, names or tuple(f"instrument {j + 1}" for j in range(instruments.shape[1])))
    if kept.shape[1] == 0:
        raise NotIdentified(
            "no instrument varies once the covariates are held fixed.",
            where="effect.instruments",
            advice="Name an instrument that is no function of the confounders.",
        )
    return Residuals(
        outcome=left_outcome,
        treatment=left_treatment,
        instruments=kept,
        outcome_scale=outcome_scale,
        treatment_scale=treatment_scale,
        partialled=basis.shape[1],
        clusters=None if clusters is None else np.unique(clusters, return_inverse=True)[1].astype(np.int64),
        dropped=dropped,
    )


def _basis(covariates: FloatArray, root: FloatArray) -> FloatArray:
    """Orthonormal basis of the constant and the covariates, rows multiplied by `root`."""
    centred = covariates - covariates.mean(axis=0)
    scale = centred.std(axis=0)
    varies = scale > 1e-12 * np.abs(covariates).max(axis=0, initial=0.0)
    design = np.column_stack([root, centred[:, varies] / scale[varies] * root[:, None]])
    basis, corner = np.linalg.qr(design)
    independent = np.abs(np.diag(corner)) > _GONE * np.linalg.norm(design, axis=0)
    out: FloatArray = basis if independent.all() else np.linalg.qr(design[:, independent])[0]
    return out


def _left_over(values: FloatArray, basis: FloatArray, root: FloatArray) -> tuple[FloatArray, float]:
    """What the basis leaves of a column, on unit scale, and that scale: 0 where nothing is left."""
    centred = (values - values.mean()) * root
    size = float(np.linalg.norm(centred))
    if size <= 1e-12 * float(np.linalg.norm(values * root)):
        return np.zeros_like(centred), 0.0
    # Projecting twice keeps orthogonality at rounding level ("twice is enough", Giraud et al. 2005).
    left = centred - basis @ (basis.T @ centred)
    left -= basis @ (basis.T @ left)
    norm = float(np.linalg.norm(left))
    if norm <= _GONE * size:
        return np.zeros_like(centred), 0.0
    scale = norm / float(np.sqrt(len(values)))
    return left / scale, scale


def _independent(
    instruments: FloatArray, basis: FloatArray, root: FloatArray, names: tuple[str, ...]
) -> tuple[FloatArray, tuple[str, ...]]:
    """Orthonormal instruments after the basis, and the names of those that add nothing."""
    left = [_left_over(column, basis, root) for column in instruments.T]
    alive = [j for j, (_, scale) in enumerate(left) if scale > 0.0]
    if not alive:
        return np.empty((len(root), 0)), names
    matrix = np.column_stack([left[j][0] for j in alive])
    fresh = np.abs(np.diag(np.linalg.qr(matrix, mode="r"))) > _GONE * np.sqrt(len(root))
    orthonormal: FloatArray = np.linalg.qr(matrix[:, fresh])[0] * np.sqrt(len(root))
    kept = {alive[place] for place in np.flatnonzero(fresh)}
    return orthonormal, tuple(name for j, name in enumerate(names) if j not in kept)
