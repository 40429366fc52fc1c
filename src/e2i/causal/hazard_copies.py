"""Columns that are the outcome or the treatment under another name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.correlation import squared_correlations
from e2i.causal.hazard_table import Table, found, numbers, refuse
from e2i.domain.evidence import Hazard

_COPY_R2, _NEAR_COPY_R2 = 0.999, 0.98
_TIED_R2 = 0.9


def copies_of_roles(table: Table) -> Iterator[Hazard]:
    """A confounder, an earlier outcome or a control that is the outcome or the treatment under another name."""
    names, matrix = table.matrix()
    for role, target in (("outcome", table.outcome), ("treatment", table.treatment)):
        if target is not None and matrix.shape[1] > 0:
            yield from _copies_of(role, target[table.complete], names, matrix)
    for role, columns in (("earlier outcome", table.spec.pre_outcomes), ("negative control", table.spec.negative_controls)):
        for name in columns:
            values = numbers(table.frame[name])
            if values is None or table.outcome is None:
                continue
            known = table.complete & np.isfinite(values)
            if (
                known.sum() > 2
                and np.ptp(values[known]) > 0
                and (share := float(squared_correlations(values[known][:, None], table.outcome[known])[0])) > _COPY_R2
            ):
                yield refuse("control_is_outcome", f"{role} `{name}` is a copy of the outcome.", "Name the column meant.", share, _COPY_R2)


def _copies_of(role: str, target: FloatArray, names: tuple[str, ...], matrix: FloatArray) -> Iterator[Hazard]:
    """Columns that repeat the outcome or the treatment, or seem to for the sake of one row, such as a total at the end of a sheet."""
    shares = squared_correlations(matrix, target)
    left = _without_the_farthest(matrix, target)
    seeming = [name for name, share, other in zip(names, shares, left, strict=True) if share > _COPY_R2 and other < _TIED_R2]
    if seeming:
        shown = ", ".join(f"`{name}`" for name in seeming[:3])
        text = f"one row lies so far out in the {role} and in {shown} that nothing else counts: is it a total?"
        yield refuse("one_row_decides", text, "Leave the row out.", float(shares.max()), _COPY_R2)
    for name, share in zip(names, shares, strict=True):
        if name in seeming:
            continue
        if share > _COPY_R2:
            remedy = "Adjust only for what was known before treatment." if role == "outcome" else "Take it out of `confounders`."
            yield refuse(f"confounder_is_{role}", f"`{name}` is a copy of the {role}.", remedy, share, _COPY_R2)
        elif role == "outcome" and share > _NEAR_COPY_R2:
            text = f"`{name}` alone explains {share:.1%} of the outcome: is it measured after treatment?"
            yield found("leak", "review", text, "Adjust only for what was known before treatment.", measure=(share, _NEAR_COPY_R2))


def _without_the_farthest(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Squared correlations with the target when the row farthest out in it is left out, shape (k,)."""
    kept = np.ones(len(target), dtype=np.bool_)
    kept[int(np.argmax(np.abs(target - np.median(target))))] = False
    return squared_correlations(matrix[kept], target[kept]) if np.ptp(target[kept]) > 0 else np.ones(matrix.shape[1])
