"""What is known by measurement about an interval on data of this shape. Only cells that were run are in the table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import log

import numpy as np

from e2i.causal.arrays import BoolArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.panel.data import NEVER, Panel

SEEDS_NEEDED = 400
LOW, HIGH = 0.93, 0.97
_FILE = "certificates.csv"
_SIZE_FACTOR = 2.0
_FEW_IN_ARM = 20
_UNEVEN = 0.2
SHAPE = ("overlap", "zeros", "grouping", "arms", "staggering")
"""what of a shape is compared, beside its size"""
COLUMNS = ("estimator", "estimand", "world", "rows", *SHAPE, "first_seed", "seeds", "covered")
"""of the table"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of the data decides how well an interval does."""

    rows: int
    """units in a cross-section or panel, people in repeated cross-sections, periods of a single series"""
    effective_share: float = 1.0
    """of the weights, in 0-1; 1 where nothing is weighted"""
    zero_share: float = 0.0
    """share of outcomes that are exactly zero, in 0-1"""
    clusters: int = 0
    """number of clusters of several units; 0 when units are independent"""
    smaller_arm: int | None = None
    """independent units (clusters where there are any) in the smaller of the two arms; None for a dose"""
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
    def arms(self) -> str:
        """Dose, few (fewer than 20 independent units in the smaller arm), uneven (less than 20 % of them) or even."""
        if self.smaller_arm is None:
            return "dose"
        if self.smaller_arm < _FEW_IN_ARM:
            return "few"
        return "uneven" if self.smaller_arm < _UNEVEN * (self.clusters or self.rows) else "even"

    @property
    def staggering(self) -> str:
        """Staggered or single."""
        return "staggered" if self.is_staggered else "single"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Measured coverage of the 95 % interval in one world; rows of the packaged table."""

    estimator: str
    estimand: str
    world: str
    rows: int
    overlap: str
    zeros: str
    grouping: str
    arms: str
    staggering: str
    seeds: int
    covered: int

    @property
    def coverage(self) -> float:
        """In 0-1."""
        return self.covered / self.seeds


def shape_of_sample(sample: Sample, *, effective_share: float = 1.0) -> Shape:
    """The shape of one row per unit.

    Parameters
    ----------
    effective_share : from `measure_overlap`, where rows are weighted by a propensity
    """
    levels = np.unique(sample.treatment)
    return Shape(
        rows=len(sample.outcome),
        effective_share=effective_share,
        zero_share=float((sample.outcome == 0).mean()),
        clusters=0 if sample.cluster is None else len(np.unique(sample.cluster)),
        smaller_arm=_smaller_arm(sample.treatment == levels[-1], sample.cluster) if len(levels) == 2 else None,
    )


def shape_of_panel(panel: Panel) -> Shape:
    """The shape of units over time; a unit is in the treated arm when it is ever treated."""
    clusters = int(panel.cluster.max()) + 1
    ever = panel.cohort != NEVER
    is_dose = len(np.unique(panel.treatment)) > 2
    return Shape(
        rows=panel.n_units if panel.n_units > 1 else len(panel.outcome),
        zero_share=float((panel.outcome == 0).mean()),
        clusters=clusters if clusters < panel.n_units else 0,
        smaller_arm=None if is_dose else _smaller_arm(ever, panel.cluster),
        is_staggered=len(np.unique(panel.cohort[ever])) > 1,
    )


def shape_of_people(panel: Panel, *, clusters: int) -> Shape:
    """The shape of other people in each period, in groups that are treated as a whole.

    Parameters
    ----------
    clusters : independent ones, as the estimate counted them
    """
    ever = panel.cohort != NEVER
    return Shape(
        rows=len(panel.unit),
        zero_share=float((panel.outcome == 0).mean()),
        clusters=clusters,
        smaller_arm=_smaller_arm(ever, None),
        is_staggered=len(np.unique(panel.cohort[ever])) > 1,
    )


def _smaller_arm(treated: BoolArray, cluster: IntArray | None) -> int:
    """Independent units in the smaller arm; a cluster with both counts in both."""
    if cluster is None:
        return int(min(treated.sum(), (~treated).sum()))
    return min(len(np.unique(cluster[treated])), len(np.unique(cluster[~treated])))


def certify(estimator: str, shape: Shape, *, estimand: str | None = None, table: Sequence[Certificate] | None = None) -> str:
    """One sentence: certified with its coverage, or not certified and why.

    Of the cells with the same estimator, estimand, overlap, zeros, grouping, arms and staggering, and with at most twice or half as
    many rows, the worst one counts: all its worlds have this shape. Certified means 400 seeds or more and coverage within 93-97 %.

    Parameters
    ----------
    estimator : as in `Effect.estimator`
    estimand : as in `Effect.estimand`; None for whichever, the worst of all counts
    table : default: what the package ships
    """
    known = shipped() if table is None else tuple(table)
    same = [row for row in known if row.estimator.lower() == estimator.lower()]
    if not same:
        return "not certified: coverage of this estimator has not been measured."
    same = [row for row in same if estimand in (None, row.estimand)]
    if not same:
        return f"not certified: coverage of this estimator has not been measured for the {estimand}."
    alike = [
        row
        for row in same
        if all(getattr(row, name) == getattr(shape, name) for name in SHAPE)
        and abs(log(row.rows / max(shape.rows, 1))) <= log(_SIZE_FACTOR) + 1e-9
    ]
    told = (
        f"n ≈ {shape.rows:,}, overlap {shape.overlap}, zeros {shape.zeros}, clusters {shape.grouping}, arms {shape.arms}, "
        f"{shape.staggering} start"
    )
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


@lru_cache(maxsize=1)
def shipped() -> tuple[Certificate, ...]:
    """The packaged table, made by benchmarks/coverage_certificate.py."""
    text = files("e2i.causal").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(read(csv.DictReader(text.splitlines())))


def read(rows: csv.DictReader[str]) -> list[Certificate]:
    """Certificates from a table with `COLUMNS`; batches of one cell are summed, its shape is that of most of its seeds.

    Parameters
    ----------
    rows : in the order of the table
    """
    sums: dict[tuple[str, str, str, int], list[int]] = {}
    shapes: dict[tuple[str, str, str, int], Counter[tuple[str, ...]]] = {}
    for row in rows:
        key = (row["estimator"], row["estimand"], row["world"], int(row["rows"]))
        total = sums.setdefault(key, [0, 0])
        total[0] += int(row["seeds"])
        total[1] += int(row["covered"])
        shapes.setdefault(key, Counter())[tuple(row[name] for name in SHAPE)] += int(row["seeds"])
    return [
        Certificate(
            estimator=key[0],
            estimand=key[1],
            world=key[2],
            rows=key[3],
            seeds=seeds,
            covered=covered,
            **dict(zip(SHAPE, shapes[key].most_common(1)[0][0], strict=True)),
        )
        for key, (seeds, covered) in sums.items()
    ]
