"""Periods as exports write them: read in their order, at their distance, or refused where the order is not sure."""

from __future__ import annotations

import polars as pl
import pytest

from e2i.causal.panel.periods import read_moments
from e2i.errors import SchemaMismatch

READ: dict[str, tuple[list[object], str, list[float]]] = {
    "Excel's months": (["Nov-23", "Dec-23", "Jan-24"], "month", [0, 1, 2]),
    "months with an apostrophe": (["Dec'23", "Jan'24"], "month", [0, 1]),
    "year before month": (["23-Nov", "23-Dec", "24-Jan"], "month", [0, 1, 2]),
    "month before year": (["11/2023", "12/2023", "01/2024"], "month", [0, 1, 2]),
    "American dates, short year": (["12/25/23", "1/1/24", "1/8/24"], "month/day/year", [0, 7, 14]),
    "American midnight": (["12/25/2023 12:00:00 AM", "1/1/2024 12:00:00 AM"], "month/day/year", [0, 7]),
    "unpadded weeks": (["2024-W5", "2024-W12"], "week", [0, 7]),
    "calendar weeks": (["CW51/2023", "CW52/2023", "CW01/2024"], "week", [0, 1, 2]),
    "German weeks": (["KW 9/2024", "KW 10/2024"], "week", [0, 1]),
    "weeks as numbers over a turn of the year": ([202351, 202352, 202401], "week", [0, 1, 2]),
    "the same as text": (["202351", "202352", "202401"], "week", [0, 1, 2]),
    "numbers of one year": ([202413, 202414, 202420], "number", [0, 1, 7]),
    "numbers that are no weeks": ([202352, 202353, 202401], "number", [0, 1, 49]),
}


@pytest.mark.parametrize("case", READ)
def test_periods_are_read_at_their_distance(case: str) -> None:
    given, form, expected = READ[case]
    found = read_moments(pl.Series("t", given))
    assert found.form == form
    assert (found.values - found.values.min()).tolist() == expected


@pytest.mark.parametrize(
    "given",
    [
        ["Jan-05", "Jan-12", "Jan-19", "Feb-02"],
        ["01-Nov", "01-Dec", "01-Jan"],
        ["1/2023", "2/2023", "3/2023", "4/2023", "1/2024"],
        ["1/2/24", "1/3/24"],
        ["13/1/24", "14/1/24"],
        ["1/2/2024 0:00", "1/3/2024 6:00"],
    ],
)
def test_periods_that_may_mean_two_things_are_refused(given: list[str]) -> None:
    with pytest.raises(SchemaMismatch, match="order is not sure"):
        read_moments(pl.Series("t", given))


def test_a_start_is_read_as_its_clock_is() -> None:
    assert read_moments(pl.Series("first", [202405]), form="week").form == "week"
    assert (
        read_moments(pl.Series("first", ["1/2/24"]), form="month/day/year").values[0] == read_moments(pl.Series(["2024-01-02"])).values[0]
    )
    assert read_moments(pl.Series("first", ["Jan-24"]), form="month").form == "month"
