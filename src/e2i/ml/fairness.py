"""Does the model decide alike for protected groups; small groups are never told singly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.errors import SchemaMismatch
from e2i.ml.columns import MISSING_LEVEL

if TYPE_CHECKING:
    from e2i.ml.columns import BoolArray, FloatArray, IntArray

# Cells of 1 to 10 people are suppressed, also those that follow from the others and the total.
SUPPRESSED_UP_TO = 10


@dataclass(frozen=True, kw_only=True)
class GroupFairness:
    """One group: people, share decided positive, and share of events found (None with 10 events or fewer)."""

    name: str
    n: int
    selection_rate: float
    tpr: float | None


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Differences and ratio between the groups that are large enough; None where fewer than two are."""

    attribute: str
    demographic_parity_difference: float | None
    demographic_parity_ratio: float | None
    equal_opportunity_difference: float | None
    groups: tuple[GroupFairness, ...]
    suppressed_groups: int

    def to_dict(self) -> dict[str, float]:
        """Flat numbers: the three measures that are defined, `suppressed_groups`, and `n[group]`, `selection_rate[group]`, `tpr[group]`."""
        flat: dict[str, float] = {}
        for name in ("demographic_parity_difference", "demographic_parity_ratio", "equal_opportunity_difference"):
            value: float | None = getattr(self, name)
            if value is not None:
                flat[name] = value
        flat["suppressed_groups"] = float(self.suppressed_groups)
        for group in self.groups:
            flat[f"n[{group.name}]"] = float(group.n)
            flat[f"selection_rate[{group.name}]"] = group.selection_rate
            if group.tpr is not None:
                flat[f"tpr[{group.name}]"] = group.tpr
        return flat


def fairness(y: FloatArray, decisions: IntArray, attribute: pl.Series, *, people: pl.Series | None = None) -> Fairness:
    """Demographic parity and equal opportunity over the groups of one protected attribute, by fairlearn.

    Groups of 10 people or fewer are left out and counted; when what is left out could be found by subtraction from the total (10
    people or fewer together), the next smallest group is left out with them. Missing values are a group.

    Parameters
    ----------
    y : shape (n,), 0 or 1
    decisions : shape (n,), 0 or 1
    attribute : shape (n,), the protected attribute; numbers with more than 20 values must be grouped first
    people : shape (n,), who each row is about; default: every row another person

    Raises
    ------
    SchemaMismatch
        The attribute is a number with too many values to be groups.
    """
    if attribute.dtype.is_numeric() and attribute.n_unique() > 20:
        raise SchemaMismatch(
            f"'{attribute.name}' has {attribute.n_unique()} values, too many for groups.",
            where="protected",
            advice="Group it first, for instance ages into bands.",
        )
    names = attribute.cast(pl.String).fill_null(MISSING_LEVEL)
    counted = pl.DataFrame({"group": names, "person": people if people is not None else pl.Series(np.arange(len(y)))})
    sizes = dict(counted.group_by("group").agg(pl.col("person").n_unique()).iter_rows())
    told = _told(sizes)
    rows = names.is_in(sorted(told)).to_numpy()
    parity, ratio, opportunity = _measures(y[rows], decisions[rows], names.filter(pl.Series(rows)))
    return Fairness(
        attribute=attribute.name,
        demographic_parity_difference=parity,
        demographic_parity_ratio=ratio,
        equal_opportunity_difference=opportunity,
        groups=tuple(_one_group(name, sizes[name], y, decisions, (names == name).to_numpy()) for name in sorted(told)),
        suppressed_groups=len(sizes) - len(told),
    )


def _told(sizes: dict[str, int]) -> set[str]:
    by_size = sorted(sizes, key=lambda name: (sizes[name], name))
    hidden = [name for name in by_size if sizes[name] <= SUPPRESSED_UP_TO]
    if hidden and sum(sizes[name] for name in hidden) <= SUPPRESSED_UP_TO:
        hidden = by_size[: len(hidden) + 1]
    return set(by_size) - set(hidden)


def _one_group(name: str, n: int, y: FloatArray, decisions: IntArray, rows: BoolArray) -> GroupFairness:
    events = rows & (y > 0.5)
    return GroupFairness(
        name=name,
        n=n,
        selection_rate=float(decisions[rows].mean()),
        tpr=float(decisions[events].mean()) if events.sum() > SUPPRESSED_UP_TO else None,
    )


def _measures(y: FloatArray, decisions: IntArray, names: pl.Series) -> tuple[float | None, float | None, float | None]:
    from fairlearn.metrics import demographic_parity_difference, demographic_parity_ratio, equal_opportunity_difference

    if names.n_unique() < 2:
        return None, None, None
    groups = names.to_numpy()
    parity = float(demographic_parity_difference(y, decisions, sensitive_features=groups))
    ratio = float(demographic_parity_ratio(y, decisions, sensitive_features=groups)) if decisions.any() else None
    # A group without events has no true positive rate; fairlearn would take it as 0.
    cases = [int(y[groups == name].sum()) for name in np.unique(groups)]
    opportunity = float(equal_opportunity_difference(y, decisions, sensitive_features=groups)) if min(cases) > SUPPRESSED_UP_TO else None
    return parity, ratio, opportunity
