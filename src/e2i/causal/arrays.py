"""Names for the arrays that the numerics exchange, and which rows of one are the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def equal_rows(matrix: FloatArray) -> IntArray:
    """Number of the group of equal rows that each row of a matrix (n, k) belongs to, shape (n,)."""
    rows = np.ascontiguousarray(matrix + 0.0)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)
