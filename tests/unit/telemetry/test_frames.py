"""Frames and spans in them: whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord
from e2i.telemetry import frames, heading

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = TEXT | st.booleans() | NUMBERS | st.lists(TEXT, max_size=3)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=4)
HEX = st.integers(1, 2**64 - 1).map(lambda value: f"{value:016x}")
MOMENTS = st.integers(0, 2**63 - 1)
SPANS = st.builds(
    SpanRecord,
    trace_id=HEX.map(lambda half: half * 2),
    span_id=HEX,
    parent_span_id=st.none() | HEX,
    name=TEXT,
    started_ns=MOMENTS,
    ended_ns=st.none() | MOMENTS,
    status=st.sampled_from(["unset", "ok", "error"]),
    status_message=st.none() | TEXT,
    attributes=ATTRIBUTES,
    events=st.lists(st.builds(SpanEvent, name=TEXT, at_ns=MOMENTS, attributes=ATTRIBUTES), max_size=2).map(tuple),
    links=st.lists(st.builds(SpanLink, trace_id=HEX, span_id=HEX, attributes=ATTRIBUTES), max_size=2).map(tuple),
)


@given(SPANS)
def test_a_span_comes_back_as_it_was(span: SpanRecord) -> None:
    assert frames.decode(frames.encode(span)) == span


@given(st.binary(max_size=200))
def test_what_is_not_a_span_is_refused_with_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        frames.decode(payload)


@pytest.mark.parametrize("place", range(15))
def test_a_span_with_one_field_of_another_kind_is_refused(place: int) -> None:
    import orjson

    span = SpanRecord(trace_id="1" * 32, span_id="2" * 16, parent_span_id=None, name="n", started_ns=1, ended_ns=2)
    values = orjson.loads(frames.encode(span))
    values[place] = 1.5
    with pytest.raises(ValueError):
        frames.decode(orjson.dumps(values))


def test_a_span_that_json_cannot_hold_is_refused_with_a_value_error() -> None:
    span = SpanRecord(trace_id="1" * 32, span_id="2" * 16, parent_span_id=None, name="\ud800", started_ns=1, ended_ns=2)
    with pytest.raises(ValueError, match="cannot be kept"):
        frames.encode(span)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.binary(max_size=40), st.data())
def test_whole_frames_are_found_around_any_damage(payloads: list[bytes], noise: bytes, data: st.DataObject) -> None:
    packed = [frames.pack(number, payload) for number, payload in enumerate(payloads, 1)]
    at = data.draw(st.integers(0, len(packed)))
    found = [(sequence, payload) for _, _, sequence, payload in frames.good_frames(b"".join([*packed[:at], noise, *packed[at:]]))]
    assert found == list(enumerate(payloads, 1))


def test_a_heading_names_its_version_and_a_damaged_one_names_none() -> None:
    made = heading.heading(heading.SEGMENT, 7)
    assert heading.version_of(heading.SEGMENT, made) == 7
    assert heading.is_foreign(heading.SEGMENT, made)
    assert not heading.is_foreign(heading.SEGMENT, heading.heading(heading.SEGMENT))
    for bit in range(8 * len(made)):
        flipped = (int.from_bytes(made, "big") ^ 1 << bit).to_bytes(len(made), "big")
        assert heading.version_of(heading.SEGMENT, flipped) is None
    assert heading.version_of(heading.SEGMENT, made[:-1]) is None
