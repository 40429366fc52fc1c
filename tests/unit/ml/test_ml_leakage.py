"""Leakage: planted leaks are found and named; what is clean is left alone."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from e2i.domain.quality import QCIssue
from e2i.errors import SchemaMismatch
from e2i.ml.leakage import LeakageRoles, find_leakage
from e2i.ml.splits import plan_splits

BINARY = LeakageRoles(target="y", problem_type="binary_classification")
NUMBER = LeakageRoles(target="v", problem_type="regression")
N = 2000


def frame(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    return pl.DataFrame(
        {
            "x": x,
            "calls": rng.poisson(4, N),
            "specialty": rng.choice(["onc", "gp", "derm"], N),
            "y": (rng.random(N) < 1 / (1 + np.exp(-x))).astype(np.int64),
            "v": x + rng.normal(size=N),
        }
    )


def found(data: pl.DataFrame, column: str, roles: LeakageRoles = BINARY) -> list[QCIssue]:
    return list(find_leakage(data, features=["x", "calls", column], roles=roles))


def with_column(values: object, data: pl.DataFrame | None = None) -> pl.DataFrame:
    return (data if data is not None else frame()).with_columns(pl.Series("leak", values))


Y = frame()["y"].to_numpy()
V = frame()["v"].to_numpy()
RNG = np.random.default_rng(1)

COPIES = {
    "itself": Y,
    "inverted": 1 - Y,
    "negated": -Y,
    "rescaled": 3.5 * Y + 7,
    "as text": np.where(Y == 1, "converted", "not yet"),
    "as a flag": Y == 1,
    "split into codes": np.where(Y == 1, RNG.choice([3, 7], N), RNG.choice([1, 5, 9], N)),
    "with noise": Y + RNG.normal(0, 0.25, N),
    "with wrong rows": np.where(RNG.random(N) < 0.01, 1 - Y, Y),
    "as several levels": np.where(Y == 1, RNG.choice(["a", "b"], N), RNG.choice(["c", "d"], N)),
    "monotone with noise": np.exp(2 * Y + RNG.normal(0, 0.3, N)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_a_class_blocks(kind: str) -> None:
    issues = found(with_column(COPIES[kind]), "leak")
    assert [(issue.column, issue.severity) for issue in issues] == [("leak", "blocking")]
    assert issues[0].check in ("target_copy", "target_near_copy")
    assert issues[0].value is not None
    assert issues[0].threshold is not None
    assert issues[0].value >= issues[0].threshold


NUMBER_COPIES = {
    "itself": V,
    "rescaled": -2 * V + 1,
    "with noise": V + RNG.normal(0, 0.2, N),
    "logarithm": np.log(V - V.min() + 0.1),
    "square": (V - 0.2) ** 2 * np.sign(V - 0.2),
    "folded": np.round(V, 2) % 1 + 10 * np.floor(V),
}


@pytest.mark.parametrize("kind", NUMBER_COPIES)
def test_a_copy_of_a_number_blocks(kind: str) -> None:
    issues = found(with_column(NUMBER_COPIES[kind]), "leak", NUMBER)
    assert [(issue.column, issue.severity) for issue in issues] == [("leak", "blocking")]


def test_an_unusually_good_column_is_a_warning() -> None:
    issues = found(with_column(Y + RNG.normal(0, 0.4, N)), "leak")
    assert [(issue.check, issue.severity) for issue in issues] == [("target_suspect", "warning")]


def test_a_column_filled_in_after_the_event_blocks() -> None:
    days_to_conversion = [float(value) if event else None for value, event in zip(RNG.exponential(size=N), Y, strict=True)]
    issues = found(with_column(days_to_conversion), "leak")
    assert [issue.check for issue in issues] == ["missingness_leak"]


def test_a_column_declared_as_after_the_event_blocks_and_the_target_itself_too() -> None:
    roles = LeakageRoles(target="y", problem_type="binary_classification", after_event=("calls",))
    issues = find_leakage(frame(), features=["x", "calls", "y"], roles=roles)
    assert {issue.check for issue in issues} == {"after_event_column", "target_as_feature"}


def test_a_date_after_the_event_time_blocks_and_a_single_slip_warns() -> None:
    index = [date(2024, 1, 1)] * N
    later = [day + timedelta(days=30) for day in index]
    slip = [index[0] + timedelta(days=1), *(day - timedelta(days=5) for day in index[1:])]
    data = frame().with_columns(pl.Series("index_date", index), pl.Series("discharge", later), pl.Series("visit", slip))
    roles = LeakageRoles(target="y", problem_type="binary_classification", event_time="index_date")
    issues = find_leakage(data, features=["x", "discharge", "visit"], roles=roles)
    assert [(issue.check, issue.column, issue.severity) for issue in issues] == [
        ("date_after_event", "discharge", "blocking"),
        ("date_after_event", "visit", "warning"),
    ]


IDENTIFIERS = {
    "npi": RNG.permutation(N) + 1_234_000_000,
    "row": np.arange(N),
    "patient_hash": [f"{value:08x}" for value in RNG.choice(2**31, N, replace=False)],
    "note": [f"spoke with office, call {number}" for number in range(N)],
}


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_an_identifier_among_the_features_blocks(name: str) -> None:
    data = frame().with_columns(pl.Series(name, IDENTIFIERS[name]))
    issues = found(data, name)
    assert [(issue.check, issue.severity) for issue in issues] == [("identifier_feature", "blocking")]


def test_a_column_named_like_an_identifier_with_few_levels_warns() -> None:
    data = frame().with_columns(pl.Series("territory_id", RNG.integers(0, 40, N)))
    assert [(issue.check, issue.severity) for issue in found(data, "territory_id")] == [("identifier_feature", "warning")]


def test_ten_thousand_levels_are_a_warning_with_advice() -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    zips = rng.integers(0, 10_000, n).astype(str)
    data = pl.DataFrame({"x": rng.normal(size=n), "calls": rng.poisson(3, n), "zip": zips, "y": rng.integers(0, 2, n)})
    issues = found(data, "zip")
    assert [(issue.check, issue.severity) for issue in issues] == [("high_cardinality", "warning")]
    assert "Group the levels" in issues[0].advice


def test_rows_sorted_by_the_target_raise_no_alarm() -> None:
    assert find_leakage(frame().sort("y"), features=["x", "calls", "specialty"], roles=BINARY) == ()


def test_a_unit_in_two_splits_and_a_divided_group_block() -> None:
    data = frame().with_columns(unit=pl.int_range(pl.len()) // 2, clinic=pl.int_range(pl.len()) % 50)
    labels = np.where(np.arange(N) % 2 == 0, "train", "test")
    roles = LeakageRoles(target="y", problem_type="binary_classification", unit="unit", group="clinic")
    issues = find_leakage(data, features=["x"], roles=roles, labels=labels)
    assert {issue.check: issue.value for issue in issues} == {"id_across_splits": 1000.0}
    moved = labels.copy()
    moved[:2] = "validation"
    again = find_leakage(data, features=["x"], roles=roles, labels=moved)
    assert {issue.check for issue in again} == {"id_across_splits", "group_across_splits"}


def test_planned_splits_have_no_finding_and_a_row_moved_back_in_time_has() -> None:
    data = frame().with_columns(pl.Series("day", [date(2023, 1, 1) + timedelta(days=int(day)) for day in RNG.integers(0, 500, N)]))
    roles = LeakageRoles(target="y", problem_type="binary_classification", time="day")
    plan, labels = plan_splits(data, time="day", target="y", seed=0)
    assert find_leakage(data, features=["x"], roles=roles, labels=labels, plan=plan) == ()
    moved = labels.copy()
    moved[np.flatnonzero(labels == "train")[0]] = "test"
    issues = find_leakage(data, features=["x"], roles=roles, labels=moved, plan=plan)
    assert [issue.check for issue in issues] == ["split_date_violation"]


def test_types_of_every_kind_pass_through() -> None:
    data = frame().with_columns(
        pl.Series("flag", RNG.random(N) < 0.5),
        pl.Series("band", RNG.choice(["lo", "hi"], N)).cast(pl.Categorical),
        pl.Series("level", RNG.choice(["lo", "hi"], N)).cast(pl.Enum(["lo", "hi"])),
        pl.Series("empty", [None] * N, dtype=pl.Float64),
        pl.Series("day", [date(2024, 1, 1)] * N),
        pl.Series("endless", np.where(np.arange(N) == 0, np.inf, RNG.normal(size=N))),
    )
    assert find_leakage(data, features=["flag", "band", "level", "empty", "day", "endless"], roles=BINARY) == ()


def test_a_missing_feature_is_named() -> None:
    with pytest.raises(SchemaMismatch, match="Did you mean `specialty`"):
        find_leakage(frame(), features=["speciality"], roles=BINARY)
