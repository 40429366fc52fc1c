"""Rows with instruments as the `Sample` that estimators take, and worlds whose effect is known."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Identification, Sample
from e2i.causal.encoding import Covariates

SPEC = Identification(design="iv", estimand="LATE", treatment="dose", outcome="nrx")


def instrument_rows(
    outcome: object,
    treatment: object,
    instruments: object,
    covariates: object = None,
    *,
    names: tuple[str, ...] = (),
    cluster: IntArray | None = None,
    weights: FloatArray | None = None,
) -> Sample:
    y = np.asarray(outcome, dtype=np.float64)
    matrix = np.empty((len(y), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64).reshape(len(y), -1)
    columns = tuple(f"x{j}" for j in range(matrix.shape[1]))
    return Sample(
        outcome=y,
        treatment=np.asarray(treatment, dtype=np.float64),
        covariates=Covariates(matrix=matrix, names=columns, sources=columns, is_level=(False,) * len(columns), notes=()),
        negative_controls={},
        groups=np.arange(len(y)),
        rows_given=len(y),
        missing_treatment=0,
        missing_outcome=0,
        cluster=cluster,
        weights=weights,
        instruments=np.asarray(instruments, dtype=np.float64).reshape(len(y), -1),
        instrument_names=names,
    )


def confounded(
    rows: int, *, seed: int, strength: float = 0.5, instruments: int = 2, effect: float = 1.0, cluster: IntArray | None = None
) -> Sample:
    """A dose moved by instruments and by a hidden cause of the outcome; errors vary with the instrument."""
    rng = np.random.default_rng(seed)
    covariates, z = rng.normal(size=(rows, 3)), rng.normal(size=(rows, instruments))
    hidden = rng.normal(size=rows)
    shared = 0.0 if cluster is None else rng.normal(size=cluster.max() + 1)[cluster]
    dose = strength * z.sum(axis=1) + covariates[:, 0] + hidden + rng.normal(size=rows)
    noise = rng.normal(size=rows) * (1.0 + 0.5 * np.abs(z[:, 0]))
    nrx = effect * dose + covariates @ [1.0, -1.0, 0.5] + 2.0 * hidden + noise + shared
    return instrument_rows(nrx, dose, z, covariates, cluster=cluster)


def encouraged(rows: int, *, seed: int, compliers: float = 0.5, effect: float = 1.5) -> Sample:
    """A 0/1 instrument that follows a covariate, always-takers with higher outcomes, never-takers, and compliers with the effect."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(rows, 3))
    offered = (rng.random(rows) < 1.0 / (1.0 + np.exp(-covariates[:, 0]))).astype(float)
    kind = rng.random(rows)
    always, complier = kind < 0.2, (kind >= 0.2) & (kind < 0.2 + compliers)
    treatment = np.where(always, 1.0, np.where(complier, offered, 0.0))
    nrx = 1.0 + covariates[:, 0] + np.sin(2 * covariates[:, 1]) + effect * treatment + 2.0 * always + rng.normal(size=rows)
    return instrument_rows(nrx, treatment, offered, covariates)
