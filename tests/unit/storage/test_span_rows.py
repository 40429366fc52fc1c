"""Rows, bins, rollups and cursors without a server."""

from __future__ import annotations

import base64
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2i.domain.telemetry import SpanRecord
from e2i.errors import BackendRejected, ConfigError
from e2i.observability.attributes import CLEANED
from e2i.storage.json_bytes import json_bytes
from e2i.storage.latency import BINS, FLOOR_MS, GROWTH, Measure, bin_of, rollup_parameters
from e2i.storage.repositories.span_shipments import united
from e2i.storage.span_cleaning import cleaned
from e2i.storage.span_cursor import after, cursor_behind
from e2i.storage.span_rows import measure_alone, row_of
from e2i.storage.span_writer import Arrivals
from span_samples import a_span, dirty_spans, spans


@given(st.floats(0.001, 9.9e7))
def test_the_middle_of_a_bin_is_within_one_percent_of_every_value_in_it(duration_ms: float) -> None:
    middle = FLOOR_MS * GROWTH ** (bin_of(duration_ms) - 1) * 2 * GROWTH / (1 + GROWTH)
    assert middle == pytest.approx(duration_ms, rel=0.00991)


def test_durations_beyond_the_histogram_fall_into_its_ends() -> None:
    assert [bin_of(ms) for ms in (0.0, 0.0009, 0.001, 1e8, 1e13)] == [0, 0, 1, BINS - 1, BINS - 1]


def measures(count: int, seed: int) -> list[Measure]:
    dice = random.Random(seed)
    return [
        Measure(
            dice.choice("ab"), dice.choice("xy"), dice.randrange(10**18, 10**18 + 3 * 10**14), dice.random() * 100,
            dice.random() < 0.5, False, 5, 7, 0.25,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_a_day_is_the_sum_of_its_hours_and_a_histogram_ends_at_the_number_of_calls() -> None:
    found = rollup_parameters(measures(500, 1), vector_oid=1)
    assert found is not None
    assert found["levels"] == sorted(found["levels"])
    keys = list(zip(found["levels"], found["buckets"], found["agents"], found["tiers"], strict=True))
    assert keys == sorted(keys)
    assert [histogram[-1] for histogram in found["histograms"].cumulative] == found["calls"]
    for name in ("calls", "errors", "inputs", "outputs", "durations", "costs"):
        by_level = {level: sum(v for v, at in zip(found[name], found["levels"], strict=True) if at == level) for level in ("hour", "day")}
        assert by_level["hour"] == pytest.approx(by_level["day"])
    assert sum(found["calls"]) == 1000
    for key, histogram in zip(keys, found["histograms"].cumulative, strict=True):
        if key[0] == "day":
            parts = [
                other
                for (level, bucket, *rest), other in zip(keys, found["histograms"].cumulative, strict=True)
                if level == "hour" and bucket.date() == key[1].date() and rest == list(key[2:])
            ]
            assert [sum(each) for each in zip(*parts, strict=True)] == histogram


def test_what_is_added_and_removed_again_leaves_nothing() -> None:
    some = measures(50, 2)
    found = rollup_parameters(some, some, vector_oid=1)
    assert found is not None
    assert not any(any(histogram) for histogram in found["histograms"].cumulative)
    assert set(found["calls"]) == {0}
    assert rollup_parameters([], vector_oid=1) is None


@given(spans)
def test_a_span_that_postgresql_can_hold_is_not_changed(span: SpanRecord) -> None:
    assert cleaned(span) == span
    row_of(span)


@given(dirty_spans)
def test_whatever_a_span_holds_it_becomes_a_row_that_says_what_was_replaced(span: SpanRecord) -> None:
    assert row_of(span).data
    mended = cleaned(span)
    assert cleaned(mended) == mended
    assert 0 <= mended.started_ns < 2**63
    if mended.name != span.name:
        assert "name" in mended.attributes[CLEANED]


@pytest.mark.parametrize(
    "changes",
    [{"trace_id": ""}, {"span_id": "x" * 65}, {"trace_id": "\0" * 32}, {"started_ns": "noon", "ended_ns": None}, {"attributes": 3}],
)
def test_what_is_no_span_is_refused_with_its_ids(changes: dict[str, object]) -> None:
    with pytest.raises(BackendRejected, match=r"span .* of trace .* cannot be stored"):
        Arrivals([a_span(1, **changes)]).data(0, 1, frozenset())


def test_names_in_indexes_are_cut_and_the_attribute_keeps_the_whole() -> None:
    row = row_of(a_span(1, also={"e2i.agent.name": "a" * 5000, "e2i.cost.usd": 1e300}))
    assert row.measure is not None
    assert row.measure.agent_name == "a" * 200
    assert row.measure.total_cost is None
    assert b"a" * 5000 in row.data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_so_that_it_is_read_as_a_float(value: float) -> None:
    text = json_bytes({"x": value}).decode()
    assert "." in text or "e-" in text
    assert math.copysign(1, value) * abs(json.loads(text)["x"]) == value


def test_a_text_that_looks_like_an_escape_is_no_nul() -> None:
    assert json_bytes({"x": r"\u0000"}) == rb'{"x":"\\u0000"}'
    for nasty in ("\0", "\\\0", r"\u0000" + "\0"):
        with pytest.raises(ValueError, match="NUL"):
            json_bytes({"x": nasty})


def test_of_two_pieces_the_newer_one_wins_where_it_says_something() -> None:
    created = a_span(1, ended_ns=None, also={"input": "q"})
    ended = SpanRecord(
        trace_id=created.trace_id, span_id=created.span_id, parent_span_id=None, name="", started_ns=0, ended_ns=created.started_ns + 9,
        status="error", status_message="no", attributes={"output": "a", "number": 2},
    )  # fmt: skip
    for whole in (united(created, ended), united(united(created, ended), SpanRecord(**{**_fields(created), "attributes": {}}))):
        assert (whole.name, whole.parent_span_id, whole.started_ns) == (created.name, created.parent_span_id, created.started_ns)
        assert (whole.ended_ns, whole.status, whole.status_message) == (ended.ended_ns, "error", "no")
        assert whole.attributes == {**created.attributes, "output": "a", "number": 2}
    assert united(ended, created).ended_ns == ended.ended_ns
    assert united(ended, created).started_ns == created.started_ns


def _fields(span: SpanRecord) -> dict[str, object]:
    return {name: getattr(span, name) for name in SpanRecord.__slots__}  # type: ignore[attr-defined]


@given(spans)
def test_a_cursor_leads_to_its_place(span: SpanRecord) -> None:
    place = after(cursor_behind(span))
    assert (place["after_trace"], place["after_span"]) == span.key
    assert int(place["after_at"].timestamp()) == span.started_ns // 10**9  # type: ignore[attr-defined]


NO_PLACES = [
    '[1,"a"]', '[1,"a","b","c"]', '["1","a","b"]', '[1,2,"b"]', "[1e400,1,1]", '{"a":1}', '[1,"a\\u0000","b"]', '[1,"\\ud800","b"]',
    '[99999999999999999999999,"a","b"]', "[" * 100_000, "null", '[true,null,"x"]',
]  # fmt: skip


@pytest.mark.parametrize("place", NO_PLACES)
def test_a_text_that_is_no_cursor_is_refused(place: str) -> None:
    for text in (base64.urlsafe_b64encode(place.encode()).decode(), place, "", "ä", "a" * 5):
        with pytest.raises(ConfigError, match="is no cursor"):
            after(text)


def test_an_integer_that_python_does_not_print_is_described() -> None:
    mended = cleaned(a_span(1, also={"huge": 10**5000}))
    assert mended.attributes["huge"].endswith("… (16610 bits)")
    assert mended.attributes[CLEANED] == ["huge"]


def test_a_part_of_a_call_adds_its_tokens_and_cost_alone() -> None:
    also = {"e2i.agent.is_part": True, "gen_ai.usage.input_tokens": 5, "e2i.cost.usd": 0.5}
    both = [measure_alone(a_span(1)), measure_alone(a_span(2, also=also, status="error"))]
    assert [measure is not None and measure.is_part for measure in both] == [False, True]
    found = rollup_parameters([measure for measure in both if measure], vector_oid=1)
    assert found is not None
    sums = {name: found[name][0] for name in ("spans", "calls", "errors", "durations", "inputs", "priced", "costs")}
    assert sums == {"spans": 2, "calls": 1, "errors": 0, "durations": 5.0, "inputs": 5, "priced": 1, "costs": 0.5}
    assert found["histograms"].cumulative[0][-1] == 1


@pytest.mark.parametrize("changes", [{"started_ns": "noon"}, {"ended_ns": "noon"}, {"attributes": 3}, {"attributes": {}}])
def test_what_cannot_be_measured_is_no_measure(changes: dict[str, object]) -> None:
    assert measure_alone(a_span(1, **changes)) is None


@given(st.one_of(spans, dirty_spans))
def test_a_span_without_a_row_counts_as_with_one(span: SpanRecord) -> None:
    try:
        row = row_of(span)
    except BackendRejected:
        measure_alone(span)  # never raises
    else:
        assert measure_alone(span) == row.measure
