"""Whatever callers put on a span becomes an attribute; nothing is raised and nothing goes on for ever."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from e2i.mlops.span_values import attribute_of, attributes_of, text_of
from e2i.observability import attributes as names


class Answer(BaseModel):
    text: str
    at: datetime


@dataclass
class Point:
    x: int


class Colour(Enum):
    RED = "red"


class FailsToDump:
    def model_dump(self, mode: str) -> dict:
        raise RuntimeError(mode)


class FailsToShow:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


def circle() -> list:
    found: list = [1]
    found += [found, found, found]
    return found


def deep(levels: int) -> list:
    found: list = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        ({1: 2, (1, 2): 3}, '{"1":2,"[1, 2]":3}'),
        ({"big": 2**80}, '{"big":"1208925819614629174706176"}'),
        ({"broken \ud800": "text \udfff"}, '{"broken ?":"text ?"}'),
        ({"bytes": b"abc"}, '{"bytes":"<bytes of 3 bytes>"}'),
        ({3, 1, 2}, "[1,2,3]"),
        (Answer(text="up", at=datetime(2026, 1, 2, tzinfo=UTC)), '{"text":"up","at":"2026-01-02T00:00:00Z"}'),
        ([Point(1), Colour.RED, UUID(int=1)], '[{"x":1},"red","00000000-0000-0000-0000-000000000001"]'),
        ([Decimal("1.50"), Path("a/b"), ValueError("no")], '["1.50","a/b","ValueError: no"]'),
        (np.arange(6).reshape(2, 3)[:, ::2], "[[0,2],[3,5]]"),
        ({"rate": np.float64(0.5), "n": np.int64(3)}, '{"rate":0.5,"n":3}'),
        (pl.DataFrame({"patient": ["A", "B"]}), '"<polars.dataframe.frame.DataFrame of shape (2, 1)>"'),
        ({"f": [FailsToDump(), 1], "s": FailsToShow()}, '{"f":["<test_span_values.FailsToDump>",1],"s":"<test_span_values.FailsToShow>"}'),
        (circle(), '[1,"<...>","<...>","<...>"]'),
        (object, '"<class object>"'),
        (float("nan"), "null"),
    ],
)
def test_every_value_has_a_text(value: object, text: str) -> None:
    assert text_of(value) == text


def test_what_is_too_deep_or_a_circle_of_circles_ends_soon() -> None:
    began = time.perf_counter()
    assert "<...>" in text_of(deep(5000))
    wide: list = []
    wide += [{"again": wide, "key": (wide, 2**80)} for _ in range(200)]
    assert len(text_of(wide)) < 1_000_000
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63, "9223372036854775808"),
        (0.5, 0.5),
        (["a", "b"], ("a", "b")),
        ((1, 2), (1, 2)),
        ([1, "a"], '[1,"a"]'),
        ([2**70], '["1180591620717411303424"]'),
        ([], "[]"),
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_an_attribute_is_a_scalar_a_tuple_of_one_kind_or_json(value: object, kept: object) -> None:
    found = attribute_of(value)
    assert found == kept
    assert type(found) is type(kept)


def test_words_that_have_a_column_or_name_of_their_own_get_it() -> None:
    assert attributes_of({"brand": "Kisqali", "experiment_id": "x", "mine": 1, "": 2, 5: "five", "none": None}) == {
        names.BRAND: "Kisqali",
        names.EXPERIMENT_ID: "x",
        "mine": 1,
        "5": "five",
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5) | st.builds(FailsToShow) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.tuples(st.integers()), inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(anything)
def test_nothing_is_ever_raised_and_structures_are_json(value: object) -> None:
    text = text_of(value)
    if not isinstance(value, str):
        orjson.loads(text)
    attribute_of(value)
