from __future__ import annotations

import csv
import io
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from e2i.causal.certificate import COLUMNS, Certificate, Shape, certify, read, shape_of_panel, shape_of_sample, shipped
from e2i.causal.design import Sample
from e2i.causal.panel.prepare import make_panel
from e2i.causal.router import identify
from e2i.causal.worlds.panel import PANEL_WORLDS
from instrument_rows import instrument_rows

CELL = Certificate(
    estimator="doubly robust (AIPW), stacked",
    estimand="ATE",
    world="linear",
    rows=1_000,
    overlap="good",
    zeros="few",
    grouping="none",
    arms="even",
    staggering="single",
    seeds=400,
    covered=379,
)
SHAPE = Shape(rows=1_100, effective_share=0.8, smaller_arm=400)
NAME = "Doubly robust (AIPW), stacked"


def test_a_measured_shape_is_certified_with_its_coverage() -> None:
    found = certify(NAME, SHAPE, estimand="ATE", table=[CELL])
    assert found.startswith("certified: ")
    assert "94.8% over 400 seeds at n = 1,000" in found


@pytest.mark.parametrize(
    ("name", "shape", "cell", "why"),
    [
        ("matching", SHAPE, CELL, "has not been measured"),
        ("doubly robust (AIPW), level b against a", SHAPE, CELL, "of this estimator has not been measured"),
        (NAME, replace(SHAPE, rows=2_500), CELL, "on data of this shape"),
        (NAME, replace(SHAPE, effective_share=0.2), CELL, "overlap poor"),
        (NAME, replace(SHAPE, zero_share=0.8), CELL, "zeros mostly"),
        (NAME, replace(SHAPE, clusters=12), CELL, "clusters few"),
        (NAME, replace(SHAPE, is_staggered=True), CELL, "staggered"),
        (NAME, replace(SHAPE, smaller_arm=12), CELL, "arms few"),
        (NAME, replace(SHAPE, smaller_arm=100), CELL, "arms uneven"),
        (NAME, replace(SHAPE, smaller_arm=None), CELL, "arms dose"),
        (NAME, SHAPE, replace(CELL, seeds=100, covered=95), "100 seeds were run, 400 are needed"),
        (NAME, SHAPE, replace(CELL, covered=364), "covered the truth in 91.0%"),
        (NAME, SHAPE, replace(CELL, covered=398), "covered the truth in 99.5%"),
    ],
)
def test_everything_else_is_not_certified_and_says_why(name: str, shape: Shape, cell: Certificate, why: str) -> None:
    found = certify(name, shape, table=[cell])
    assert found.startswith("not certified: ")
    assert why in found


def test_the_worst_world_of_a_shape_counts() -> None:
    found = certify(NAME, SHAPE, table=[CELL, replace(CELL, world="curved", covered=360)])
    assert found.startswith("not certified")
    assert "90.0%" in found


def test_a_cell_speaks_only_for_its_estimand() -> None:
    assert certify(NAME, SHAPE, estimand="ATT", table=[CELL]) == (
        "not certified: coverage of this estimator has not been measured for the ATT."
    )
    both = [CELL, replace(CELL, estimand="ATT", covered=360)]
    assert certify(NAME, SHAPE, estimand="ATE", table=both).startswith("certified: ")
    assert certify(NAME, SHAPE, table=both).startswith("not certified: "), "without an estimand the worst counts"


def test_batches_of_one_cell_are_summed_and_most_of_its_seeds_name_the_shape() -> None:
    text = ",".join(COLUMNS) + "\n"
    for first, seeds, covered, overlap in ((0, 20, 19, "fair"), (20, 20, 18, "good"), (40, 20, 20, "good")):
        text += f"x,ATE,linear,500,{overlap},few,none,even,single,{first},{seeds},{covered}\n"
    found = read(csv.DictReader(io.StringIO(text)))
    assert [(one.estimand, one.overlap, one.seeds, one.covered) for one in found] == [("ATE", "good", 60, 57)]


def sample(treatment: list[float], cluster: list[int] | None = None) -> Sample:
    rows = len(treatment)
    return replace(
        instrument_rows([0.0] + [1.0] * (rows - 1), treatment, np.zeros(rows)), cluster=None if cluster is None else np.array(cluster)
    )


def test_the_shape_of_a_sample_counts_independent_units_of_the_smaller_arm() -> None:
    assert shape_of_sample(sample([0, 0, 0, 1])) == Shape(rows=4, zero_share=0.25, smaller_arm=1)
    assert shape_of_sample(sample([0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2])) == Shape(rows=6, zero_share=1 / 6, clusters=3, smaller_arm=1)
    assert shape_of_sample(sample([0, 0.5, 2, 3])).arms == "dose"


def test_the_shape_of_a_panel_counts_ever_treated_units_and_starts() -> None:
    frame = PANEL_WORLDS["panel_staggered"].draw(80, seed=1)
    spec = identify(PANEL_WORLDS["panel_staggered"].effect(), frame, unit="unit", time="time")
    panel = make_panel(frame, spec)
    shape = shape_of_panel(panel)
    treated = int((panel.cohort >= 0).sum())
    assert (shape.rows, shape.clusters, shape.smaller_arm, shape.staggering) == (80, 0, min(treated, 80 - treated), "staggered")
    few = shape_of_panel(make_panel(frame, replace(spec, cluster="region")))
    assert (few.clusters, few.grouping, few.arms) == (12, "few", "few")


def test_the_shipped_table_can_be_read_and_has_no_cell_twice() -> None:
    assert all(0 <= cell.covered <= cell.seeds for cell in shipped())
    lines = files("e2i.causal").joinpath("certificates.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    keys = {(row["estimator"], row["estimand"], row["world"], row["rows"], row["first_seed"]) for row in rows}
    assert len(keys) == len(rows)
    assert lines[0] == ",".join(COLUMNS)
