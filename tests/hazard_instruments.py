"""Instruments for a yes/no treatment and for a dose, with a known effect, and everything that goes wrong with them."""

# ruff: noqa: E501 - a table reads better in lines
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.domain.study import EffectSpec
from hazard_cells import TRUE_EFFECT, Cell, Fault
from hazard_panels import INFINITE, ROW, c, clustered, put, times, weighted, where

SPEC = EffectSpec(
    treatment="visits",
    outcome="nrx",
    confounders=("decile", "calls"),
    instruments=("letter",),
    negative_controls=("other",),
    pre_outcomes=("before",),
)


def _world(seed: int, *, is_dose: bool, rows: int = 700) -> Cell:
    """A trait that nobody recorded moves treatment, outcome, control and the outcome before; a letter sent by lot moves treatment alone."""
    rng = np.random.default_rng(seed)
    trait, decile, calls = rng.normal(size=(3, rows))
    letter, second = rng.integers(0, 2, size=(2, rows))
    pull = 1.6 * letter + 0.7 * trait + 0.3 * decile + rng.normal(size=rows)
    visits = 3.0 + pull if is_dose else (pull > 0.8).astype(int)
    base = decile + 0.5 * calls + 0.8 * trait
    columns = {
        "hcp": [f"H{number:04}" for number in range(rows)],
        "visits": visits,
        "nrx": 30.0 + TRUE_EFFECT * visits + base + rng.normal(size=rows),
        "decile": decile,
        "calls": calls,
        "letter": letter,
        "second": second,
        "other": 20.0 + base + rng.normal(size=rows),
        "before": 25.0 + base + rng.normal(size=rows),
        "trait": trait,
        "noise": rng.normal(size=rows),
        "chance": rng.normal(size=rows),
    }
    return Cell(frame=pl.DataFrame(columns), spec=SPEC, unit="hcp")


WORLDS: dict[str, Callable[[int], Cell]] = {
    "dose": lambda seed: _world(seed, is_dose=True),
    "yes or no": lambda seed: _world(seed, is_dose=False),
}
BOTH, DOSE, YES_NO = tuple(WORLDS), ("dose",), ("yes or no",)
MANY = tuple(f"z{number}" for number in range(30))


def letter(values: pl.Expr) -> Fault:
    return put(letter=values)


def asking(**roles: object) -> Fault:
    return lambda cell: cell.asking(**roles)


def adjusting(values: pl.Expr, *rest: str) -> Fault:
    """For one more column."""
    return lambda cell: cell.put(more=values).asking(confounders=(*(rest or ("decile", "calls")), "more"))


def beside(values: pl.Expr) -> Fault:
    """A second instrument."""
    return lambda cell: cell.put(also=values).asking(instruments=("letter", "also"))


def again(cell: Cell, *, spelled: bool) -> Cell:
    copy = cell.frame.with_columns(hcp=c("hcp").str.to_lowercase()) if spelled else cell.frame
    return replace(cell, frame=pl.concat([cell.frame, copy]), unit=cell.unit if spelled else None)


def infinite(column: str) -> Fault:
    return put(**{column: pl.when(ROW == 40).then(INFINITE).otherwise(c(column).cast(pl.Float64))})


HIGH = c("visits") > c("visits").mean()
NOTHING = "first stage|do not move the treatment|function of the confounders|no instrument varies"
MOVED = "Negative control|Pre period placebo|repeats the"

FAULTS: dict[str, tuple[Fault, tuple[str, ...], str]] = {
    # name -> what is done, in which worlds, and what must be said unless the interval holds the truth; "" where nothing need be said
    "nothing": (lambda cell: cell, BOTH, ""),
    "nothing to test it by": (asking(negative_controls=(), pre_outcomes=()), BOTH, ""),
    "missing at random": (where(ROW % 10 == 0, "letter", None), BOTH, ""),
    "missing in half of the rows": (where(ROW % 2 == 0, "letter", None), BOTH, ""),
    "yes and no as text": (letter(pl.when(c("letter") == 1).then(pl.lit("yes")).otherwise(pl.lit("no"))), BOTH, ""),
    "two good ones": (asking(instruments=("letter", "second")), BOTH, ""),
    "twice the same": (beside(2 * c("letter")), BOTH, ""),
    "collinear confounders": (adjusting(2 * c("decile") + 1), BOTH, ""),
    **{f"NaN in {name}": (put(**{name: pl.when(ROW % 40 == 0).then(float("nan")).otherwise(c(name).cast(pl.Float64))}), BOTH, "")
       for name in ("letter", "visits", "nrx", "decile", "other", "before")},
    "constant": (letter(pl.lit(1)), BOTH, "no instrument varies"),
    "without values": (letter(pl.lit(None, dtype=pl.Int64)), BOTH, "no row has|missing"),
    "copy of the treatment": (letter(c("visits")), BOTH, "repeats the treatment"),
    "nearly the treatment": (letter(c("visits") + 0.05 * c("noise")), BOTH, MOVED),
    "treatment with errors": (letter(pl.when(ROW % 10 == 0).then(c("visits").max() + c("visits").min() - c("visits")).otherwise(c("visits"))), BOTH, MOVED),
    "copy of the outcome": (letter(2 * c("nrx")), BOTH, "repeats the outcome"),
    "nearly the outcome": (letter(c("nrx") + c("noise")), BOTH, MOVED),
    "function of the confounders": (letter(2 * c("decile") - c("calls")), BOTH, NOTHING),
    "nearly a function of the confounders": (letter(2 * c("decile") - c("calls") + 0.01 * c("noise")), BOTH, NOTHING),
    "threshold of a confounder": (letter((c("decile") > 0).cast(pl.Int64)), BOTH, NOTHING + "|determine"),
    "square of a confounder": (letter(c("decile") ** 2), BOTH, NOTHING),
    "moves nothing": (letter(c("noise")), BOTH, NOTHING),
    "weak, and goes with the trait": (letter(c("noise") + 0.3 * c("trait")), BOTH, MOVED + "|weak|do not move"),
    "thirty that move nothing": (lambda cell: cell.put(**{name: ((ROW * (n + 3) * 7919) % 97).cast(pl.Float64) for n, name in enumerate(MANY)}).asking(instruments=MANY), BOTH, NOTHING),
    "one letter": (letter((ROW == 5).cast(pl.Int64)), BOTH, MOVED + "|" + NOTHING),
    "five letters": (letter((ROW < 5).cast(pl.Int64)), BOTH, MOVED + "|" + NOTHING),
    "missing among the treated": (where(HIGH & (c("noise") > 0), "letter", None), BOTH, "without an instrument differ"),
    "missing where the outcome is low": (where(c("nrx") < c("nrx").quantile(0.3), "letter", None), BOTH, "without an instrument differ"),
    "a second that goes with the trait": (beside((c("noise") + 0.8 * c("trait") > 0).cast(pl.Int64)), BOTH, "disagree"),
    "a second that touches the outcome": (
        lambda cell: beside(pl.when(c("chance") > 0).then(c("letter")).otherwise(c("second")))(cell).put(nrx=c("nrx") + 1.5 * c("also")), BOTH, "disagree"
    ),
    "affected by the treatment": (letter(c("letter") + 0.5 * c("visits") + 0.2 * c("noise")), BOTH, MOVED),
    "affected by the outcome": (letter(c("letter") + 0.1 * c("nrx")), BOTH, MOVED),
    "goes with the trait": (letter((c("letter") + 0.6 * c("trait") + 0.3 * c("noise") > 0.5).cast(pl.Int64)), BOTH, MOVED),
    "touches outcome and control": (put(nrx=c("nrx") + c("letter"), other=c("other") + c("letter")), BOTH, MOVED),
    "moves some the other way": (letter(pl.when(c("decile") > 0).then(1 - c("letter")).otherwise(c("letter"))), BOTH, NOTHING + "|other way"),
    "adjusted for too": (asking(confounders=("decile", "letter")), BOTH, "cannot be adjusted"),
    "its copy adjusted for": (adjusting(2.0 * c("letter"), "decile"), BOTH, "no instrument varies"),
    "outcomes missing by letter": (where((c("letter") == 1) & (c("nrx") < c("nrx").median()), "nrx", None), BOTH, MOVED + "|missing"),
    "outcomes missing by arm": (where(HIGH & (c("nrx") < c("nrx").median()), "nrx", None), BOTH, MOVED + "|missing"),
    "9 for missing": (where(ROW % 12 == 0, "letter", 9), BOTH, "missing_code"),
    "-99 for missing": (where(ROW % 12 == 0, "letter", -99), BOTH, "missing_code"),
    "letters in thousands": (times(ROW % 10 == 3, 1e3, "letter"), BOTH, "units_mixed|two_scales|weak"),
    "a graded letter in thousands": (lambda cell: times(ROW % 10 == 3, 1e3, "letter")(cell.put(letter=c("letter") + 0.3 * c("noise") + 3)), BOTH, "units_mixed"),
    "1e308 in the letter": (put(letter=pl.when(ROW == 3).then(1e308).otherwise(c("letter").cast(pl.Float64))), BOTH, "extreme_value"),
    **{f"infinite {name}": (infinite(name), BOTH, "infinite") for name in ("letter", "visits", "nrx", "decile", "other", "before")},
    **{f"{name} in thousands": (times(ROW % 10 == 3, 1e3, name), BOTH, "units_mixed") for name in ("nrx", "decile", "other", "before")},
    "visits in thousands": (times(ROW % 10 == 3, 1e3, "visits"), BOTH, "units_mixed|weak"),
    "treatment 0/1/9": (where(ROW % 12 == 0, "visits", 9), YES_NO, "missing_code"),
    "treatment 1/2": (put(visits=c("visits") + 1), YES_NO, "not 0/1"),
    "treatment as text": (put(visits=c("visits").cast(pl.String)), BOTH, "not numbers"),
    "outcome as text": (put(nrx=c("nrx").cast(pl.String)), BOTH, "not numbers"),
    "constant treatment": (put(visits=pl.lit(1)), BOTH, "same treatment"),
    "constant outcome": (put(nrx=pl.lit(1.0)), BOTH, "same in every row"),
    "outcome repeats treatment": (put(nrx=2.0 * c("visits")), BOTH, "exact function|does not vary"),
    "-99 in the outcome": (where(ROW % 12 == 0, "nrx", -99.0), BOTH, "missing_code"),
    "0 for missing in the outcome": (where(ROW % 12 == 0, "nrx", 0.0), BOTH, "zero_for_missing"),
    "0 for missing among the treated": (where(HIGH & (c("noise") > 1), "nrx", 0.0), BOTH, "zero_for_missing"),
    "1e5 in one outcome": (where(ROW == 3, "nrx", 1e5), BOTH, "one row carries"),
    "1e308 in the outcome": (where(ROW == 3, "nrx", 1e308), BOTH, "extreme_value"),
    "negative weights": (weighted(ROW % 50 == 0, -1.0), BOTH, "weights"),
    "one huge weight": (weighted(ROW == 50, 1e9), BOTH, "weight|row"),
    "one cluster": (clustered(pl.lit("a")), BOTH, "one_cluster"),
    "three clusters": (clustered(ROW % 3), BOTH, "clusters"),
    "a row without cluster": (clustered(pl.when(ROW % 30 == 0).then(None).otherwise(ROW % 40)), BOTH, "cluster_missing"),
    "3 rows": (lambda cell: replace(cell, frame=cell.frame.head(3)), BOTH, "too_few_rows"),
    "no row": (lambda cell: replace(cell, frame=cell.frame.head(0)), BOTH, "too_few_rows"),
    "a tenth of the units again": (lambda cell: replace(cell, frame=pl.concat([cell.frame, cell.frame.head(70)])), BOTH, "duplicate_units"),
    "all rows again": (lambda cell: again(cell, spelled=False), BOTH, "copies"),
    "all units again in another spelling": (lambda cell: again(cell, spelled=True), BOTH, "units_alike"),
    "a mediator": (lambda cell: adjusting(c("visits") + 0.5 * c("noise"))(cell.put(nrx=c("nrx") + 0.5 * c("noise"))), BOTH, MOVED + "|do not move|weak|Bias bound"),
    "a collider": (adjusting(c("visits") + c("nrx") + c("noise")), BOTH, MOVED + "|do not move|weak|Bias bound"),
    "nearly the outcome adjusted for": (adjusting(c("nrx") + 0.1 * c("noise")), BOTH, "copy of the outcome|measured after"),
    "the treatment adjusted for": (adjusting(2.0 * c("visits")), BOTH, "copy of the treatment|determine"),
    "outcome measured before treatment": (lambda cell: cell.put(a=pl.lit(100), b=pl.lit(90)).asking(treated_at="a", measured_at="b"), BOTH, "measured before"),
    "control is the outcome": (put(other=c("nrx")), BOTH, "copy of the outcome"),
    "earlier outcome is the outcome": (put(before=c("nrx")), BOTH, "copy of the outcome"),
}  # fmt: skip
