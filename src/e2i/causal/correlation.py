"""How far columns go with a target."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray


def squared_correlations(columns: FloatArray, target: FloatArray) -> FloatArray:
    """Squared correlation of each column with a target, in 0-1; 0 where one of them does not vary.

    Parameters
    ----------
    columns : shape (n, k), finite
    target : shape (n,), finite

    Returns
    -------
    FloatArray
        Shape (k,).
    """
    centred, aim = columns - columns.mean(axis=0), target - target.mean()
    total = np.sum(centred**2, axis=0) * float(aim @ aim)
    out: FloatArray = np.divide((aim @ centred) ** 2, total, out=np.zeros(columns.shape[1]), where=total > 0)
    return out
