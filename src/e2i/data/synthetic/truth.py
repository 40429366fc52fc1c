"""What is true in the synthetic world, kept away from its tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

    from e2i.data.synthetic.story import Flags, Floats


@dataclass(frozen=True, kw_only=True)
class TrueEffect:
    """Averages of (recorded outcome if treated) - (recorded outcome if untreated) over the table's own rows.

    Both recorded outcomes went through the same projection, rounding and clipping, so these are what an estimator that sees
    only the records should find. `naive` is the difference of the observed group means.
    """

    table: str
    treatment: str
    outcome: str
    n: int
    n_treated: int
    ate: float
    att: float
    atu: float
    naive: float
    cate: dict[str, dict[str, float]]
    """ATE by level of a modifier: {"specialty": {"oncology": 1.9, …}, …}"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """`units`: one row per HCP and brand; `journeys`: one row per patient journey; both with the two potential outcomes."""

    seed: int
    size: int
    effects: tuple[TrueEffect, ...]
    units: pl.DataFrame
    journeys: pl.DataFrame | None

    def effect(self, *, table: str, outcome: str) -> TrueEffect:
        """The effect on `outcome` in `table`. Raises KeyError."""
        return {(effect.table, effect.outcome): effect for effect in self.effects}[(table, outcome)]

    def to_dict(self) -> dict[str, Any]:
        """The averages as JSON data, without the single units."""
        return {"seed": self.seed, "size": self.size, "effects": [asdict(effect) for effect in self.effects]}


def true_effect(
    names: tuple[str, str, str], *, treated: Flags, if_treated: Floats, if_untreated: Floats, modifiers: dict[str, pl.Series]
) -> TrueEffect:
    """Average the difference of two recorded potential outcomes.

    Parameters
    ----------
    names : table, treatment, outcome
    treated, if_treated, if_untreated : shape (n,)
    modifiers : name -> levels, shape (n,)
    """
    gain = if_treated - if_untreated
    observed = np.where(treated, if_treated, if_untreated)
    cate: dict[str, dict[str, float]] = {}
    for name, values in modifiers.items():
        levels = values.to_numpy()
        cate[name] = {str(level): float(gain[levels == level].mean()) for level in values.unique().sort()}
    return TrueEffect(
        table=names[0], treatment=names[1], outcome=names[2], n=len(gain), n_treated=int(treated.sum()),
        ate=float(gain.mean()), att=float(gain[treated].mean()), atu=float(gain[~treated].mean()),
        naive=float(observed[treated].mean() - observed[~treated].mean()), cate=cate,
    )  # fmt: skip
