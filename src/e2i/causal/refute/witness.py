"""Whether a control can testify at all: one that has nothing to do with the outcome shows no effect however much is hidden."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.domain.evidence import Refutation

NO_WITNESS = (
    "it does not go with the outcome, neither by what is measured nor by what is left, so it shares no cause with it and would show "
    "no effect even if much were hidden. Name one that the same causes move."
)
NO_TIE = "it does not go with treatment, so it shares no cause with it and would show nothing even if much were hidden."
TOO_FEW = "it hardly varies or has hardly any values."
_LEVEL = 3.5
"""standard errors of a correlation"""
_WEAKEST = 0.10
"""a looser tie is no witness even where many rows prove it"""


def goes_with(values: FloatArray, others: FloatArray, treatment: FloatArray) -> bool:
    """Whether a control is correlated with one of the columns once treatment is taken out of both.

    Parameters
    ----------
    values : shape (n,), NaN where missing
    others : shape (n, m), for instance the outcome, its prediction and what the prediction leaves
    treatment : shape (n,), 0/1, a dose or the number of a level
    """
    known = ~np.isnan(values)
    if known.sum() < 4 or np.ptp(values[known]) == 0:
        return False
    codes = treatment[known]
    arms = np.unique(codes)
    if len(arms) <= 12:
        base = (codes[:, None] == arms).astype(np.float64)
    else:
        base = np.column_stack([np.ones(len(codes)), (codes - codes.mean()) / codes.std()])
    both = np.column_stack([values[known], others[known]])
    both = both - both.mean(axis=0)
    left = both - base @ np.linalg.lstsq(base, both, rcond=None)[0]
    size = np.sqrt(np.sum(left**2, axis=0))
    alive = size > 1e-9 * np.maximum(np.sqrt(np.sum(both**2, axis=0)), 1e-300)
    if not alive[0]:
        return False
    ties = np.abs(left[:, 0] @ left[:, 1:]) / np.maximum(size[0] * size[1:], 1e-300)
    strongest = float(ties[alive[1:]].max(initial=0.0))
    return strongest >= max(_WEAKEST, _LEVEL / float(np.sqrt(known.sum())))


def untested(test: str, why: str) -> Refutation:
    """A control that could not be used: told, and it proves nothing."""
    kind, _, name = test.partition(":")
    return Refutation(test=f"untested_{kind}:{name}", passed=True, detail=f"`{name}` could not be tested: {why}", is_reported_only=True)
