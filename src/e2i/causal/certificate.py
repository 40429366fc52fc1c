"""What is known by measurement about an interval on data of this shape. Only cells that were run are in the table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import log

SEEDS_NEEDED = 400
LOW, HIGH = 0.93, 0.97
_FILE = "certificates.csv"
_SIZE_FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of the data decides how well an interval does."""

    rows: int
    """units in a cross-section, units in a panel"""
    effective_share: float = 1.0
    """of the weights, in 0-1; 1 where nothing is weighted"""
    zero_share: float = 0.0
    """share of outcomes that are exactly zero, in 0-1"""
    clusters: int = 0
    """number of clusters of several units; 0 when units are independent"""
    is_staggered: bool = False

    @property
    def overlap(self) -> str:
        """Good from an effective share of 0.6 on, fair from 0.3 on, else poor."""
        return "good" if self.effective_share >= 0.6 else "fair" if self.effective_share >= 0.3 else "poor"

    @property
    def zeros(self) -> str:
        """Few below 30 % zeros, many below 70 %, else mostly."""
        return "few" if self.zero_share < 0.3 else "many" if self.zero_share < 0.7 else "mostly"

    @property
    def grouping(self) -> str:
        """None, few (fewer than 30 clusters) or many."""
        return "none" if self.clusters == 0 else "few" if self.clusters < 30 else "many"

    @property
    def staggering(self) -> str:
        """Staggered or single."""
        return "staggered" if self.is_staggered else "single"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Measured coverage of the 95 % interval in one world; rows of the packaged table."""

    estimator: str
    world: str
    rows: int
    overlap: str
    zeros: str
    grouping: str
    staggering: str
    seeds: int
    covered: int

    @property
    def coverage(self) -> float:
        """In 0-1."""
        return self.covered / self.seeds


def certify(estimator: str, shape: Shape, *, table: Sequence[Certificate] | None = None) -> str:
    """One sentence: certified with its coverage, or not certified and why.

    Of the cells with the same estimator, overlap, zeros, grouping and staggering, and with at most twice or half as many rows,
    the worst one counts: all its worlds have this shape. Certified means 400 seeds or more and coverage within 93-97 %.

    Parameters
    ----------
    estimator : name as in `Effect.estimator`; what stands before the first comma or bracket is compared
    table : default: what the package ships
    """
    known = shipped() if table is None else tuple(table)
    same = [row for row in known if family(row.estimator) == family(estimator)]
    if not same:
        return "not certified: coverage of this estimator has not been measured."
    alike = [
        row
        for row in same
        if (row.overlap, row.zeros, row.grouping, row.staggering) == (shape.overlap, shape.zeros, shape.grouping, shape.staggering)
        and abs(log(row.rows / max(shape.rows, 1))) <= log(_SIZE_FACTOR) + 1e-9
    ]
    told = f"n ≈ {shape.rows:,}, overlap {shape.overlap}, zeros {shape.zeros}, clusters {shape.grouping}, {shape.staggering} start"
    if not alike:
        return f"not certified: coverage has not been measured on data of this shape ({told})."
    worst = max(alike, key=lambda row: abs(row.coverage - 0.95))
    measured = f"{worst.coverage:.1%} over {worst.seeds} seeds at n = {worst.rows:,} (world `{worst.world}`, worst of {len(alike)})"
    fewest = min(row.seeds for row in alike)
    if fewest < SEEDS_NEEDED:
        return f"not certified: {fewest} seeds were run, {SEEDS_NEEDED} are needed; the interval covered the truth in {measured}."
    if not LOW <= worst.coverage <= HIGH:
        return f"not certified: the 95 % interval covered the truth in {measured}."
    return f"certified: the 95 % interval covered the truth in {measured}; {told}."


def family(estimator: str) -> str:
    """The estimator's name without its particulars."""
    return estimator.partition(",")[0].partition("(")[0].strip().lower()


@lru_cache(maxsize=1)
def shipped() -> tuple[Certificate, ...]:
    """The packaged table, made by benchmarks/coverage_certificate.py."""
    text = files("e2i.causal").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(read(csv.DictReader(text.splitlines())))


def read(rows: csv.DictReader[str]) -> list[Certificate]:
    """Certificates from a table with their fields as columns; batches of one cell are summed.

    Parameters
    ----------
    rows : with a column per field of `Certificate`
    """
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("estimator", "world", "rows", "overlap", "zeros", "grouping", "staggering"))
        total = sums.setdefault(key, [0, 0])
        total[0] += int(row["seeds"])
        total[1] += int(row["covered"])
    return [
        Certificate(
            estimator=key[0],
            world=key[1],
            rows=int(key[2]),
            overlap=key[3],
            zeros=key[4],
            grouping=key[5],
            staggering=key[6],
            seeds=seeds,
            covered=covered,
        )
        for key, (seeds, covered) in sums.items()
    ]
