"""Outcome, treatment and instruments after the covariates: everything linear instrumental variables need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.errors import NotIdentified

_GONE = 1e-7
"""A column whose norm falls by this factor when others are projected out is a linear function of them."""
_NO_REST = 1e-8
"""added where a cluster holds all there is of an instrument"""
_MOST_CLUSTERS = 2_000
_MANY = 0.1
"""times the rows: above it the robust Anderson-Rubin test rejected true effects in 14 to 90 % of draws instead of 5 %"""


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

    @property
    def joint_degrees(self) -> int:
        """Denominator's degrees of freedom of a test of all instruments' coefficients."""
        rows = self.n_clusters if self.clusters is not None else len(self.outcome) - self.partialled
        return rows - int(self.instruments.shape[1])

    @cached_property
    def has_many_instruments(self) -> bool:
        """More than rows can carry a robust variance for: its errors then add up, and valid instruments seem to disagree."""
        return self.clusters is None and bool(self.instruments.shape[1] ** 1.5 > _MANY * len(self.outcome))

    @cached_property
    def reduced_form(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coefficients on the instruments of outcome and treatment, shape (m,) each, and their joint variance, (2m, 2m).

        The variance is robust: HC1, with clusters CV3 (Bell and McCaffrey 2002; CR1 above 2,000 clusters) and
        Hotelling's factor for m coefficients. Many instruments (m^1.5 above a tenth of the rows, as with judges of few cases each) have
        the classical one, with which Anderson and Rubin's test is exact for normal errors however many there are: unequal variances
        average out over many coefficients, the errors of their estimates do not.
        """
        z, n, m = self.instruments, len(self.outcome), self.instruments.shape[1]
        delta, pi = z.T @ self.outcome / n, z.T @ self.treatment / n
        rest = np.column_stack([self.outcome - z @ delta, self.treatment - z @ pi])
        if self.has_many_instruments:
            return delta, pi, np.kron(rest.T @ rest / self.joint_degrees, np.eye(m)) / n
        summed = self.sums(np.column_stack([z * rest[:, [0]], z * rest[:, [1]]]))
        factor = self.correction(m)
        if self.clusters is not None:
            factor *= (self.n_clusters - 1) / self.joint_degrees
            if self.n_clusters <= _MOST_CLUSTERS:
                summed, factor = self._without_own(summed), factor * (1.0 - 1.0 / self.n_clusters) ** 2
        return delta, pi, factor * (summed.T @ summed) / n**2

    def _without_own(self, summed: FloatArray) -> FloatArray:
        """Sums within clusters, shape (G, 2m), with each cluster's residuals taken from a fit without it."""
        z, m = self.instruments, self.instruments.shape[1]
        own = np.stack([self.sums(z * z[:, [row]]) for row in range(m)], axis=1)
        left = (1.0 + _NO_REST) * np.eye(m) - own / len(z)
        freed = np.linalg.solve(left, summed.reshape(-1, 2, m).transpose(0, 2, 1)).transpose(0, 2, 1)
        return np.asarray(freed.reshape(-1, 2 * m), dtype=np.float64)


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
