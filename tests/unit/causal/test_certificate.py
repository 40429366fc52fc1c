from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from e2i.causal.certificate import Certificate, Shape, certify, read, shipped

CELL = Certificate(
    estimator="doubly robust (AIPW), stacked",
    world="linear",
    rows=1_000,
    overlap="good",
    zeros="few",
    grouping="none",
    staggering="single",
    seeds=400,
    covered=379,
)
SHAPE = Shape(rows=1_100, effective_share=0.8)


def test_a_measured_shape_is_certified_with_its_coverage() -> None:
    found = certify("doubly robust (AIPW), other folds", SHAPE, table=[CELL])
    assert found.startswith("certified: ")
    assert "94.8% over 400 seeds at n = 1,000" in found


@pytest.mark.parametrize(
    ("name", "shape", "cell", "why"),
    [
        ("matching", SHAPE, CELL, "has not been measured"),
        ("doubly robust", replace(SHAPE, rows=2_500), CELL, "on data of this shape"),
        ("doubly robust", replace(SHAPE, effective_share=0.2), CELL, "overlap poor"),
        ("doubly robust", replace(SHAPE, zero_share=0.8), CELL, "zeros mostly"),
        ("doubly robust", replace(SHAPE, clusters=12), CELL, "clusters few"),
        ("doubly robust", replace(SHAPE, is_staggered=True), CELL, "staggered"),
        ("doubly robust", SHAPE, replace(CELL, seeds=100, covered=95), "100 seeds were run, 400 are needed"),
        ("doubly robust", SHAPE, replace(CELL, covered=364), "covered the truth in 91.0%"),
        ("doubly robust", SHAPE, replace(CELL, covered=398), "covered the truth in 99.5%"),
    ],
)
def test_everything_else_is_not_certified_and_says_why(name: str, shape: Shape, cell: Certificate, why: str) -> None:
    found = certify(name, shape, table=[cell])
    assert found.startswith("not certified: ")
    assert why in found


def test_the_worst_world_of_a_shape_counts() -> None:
    found = certify("doubly robust", SHAPE, table=[CELL, replace(CELL, world="curved", covered=360)])
    assert found.startswith("not certified")
    assert "90.0%" in found


def test_batches_of_one_cell_are_summed() -> None:
    text = "estimator,world,rows,overlap,zeros,grouping,staggering,first_seed,seeds,covered\n"
    text += "x,linear,500,good,few,none,single,0,20,19\nx,linear,500,good,few,none,single,20,20,18\n"
    found = read(csv.DictReader(io.StringIO(text)))
    assert [(one.seeds, one.covered) for one in found] == [(40, 37)]


def test_the_shipped_table_can_be_read() -> None:
    assert all(0 <= cell.covered <= cell.seeds for cell in shipped())
