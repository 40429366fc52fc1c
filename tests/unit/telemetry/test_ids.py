from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from e2i.observability.ids import is_v7, span_number, trace_number
from e2i.observability.spans import new_trace_id
from e2i.telemetry.ids import E2IIdGenerator, span_uuid, trace_uuid

TRACES = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
SPANS = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")


def test_a_new_trace_id_is_a_uuid_of_version_seven_with_the_time_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_trace_id())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after
    assert trace_uuid(made.hex) == str(made)


def test_ids_differ_and_their_last_seven_bytes_are_random() -> None:
    numbers = [trace_number() for _ in range(20_000)]
    assert len(set(numbers)) == len(numbers)
    ones = [sum(number >> bit & 1 for number in numbers) / len(numbers) for bit in range(56)]
    assert all(abs(share - 0.5) < 0.025 for share in ones)
    assert all(0 < span_number() < 2**64 for _ in range(1000))


def test_a_study_s_seed_neither_repeats_ids_nor_is_moved_by_them() -> None:
    random.seed(42)
    first = span_number()
    drawn = random.random()
    random.seed(42)
    assert span_number() != first
    assert random.random() == drawn


def test_a_forked_child_makes_ids_of_its_own() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, span_number().to_bytes(8, "big"))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int.from_bytes(os.read(reader, 8), "big")
    os.close(reader)
    os.close(writer)
    assert theirs != span_number()


def test_the_sdk_takes_the_generator_and_flags_the_id_as_random() -> None:
    provider = TracerProvider(id_generator=E2IIdGenerator(), shutdown_on_exit=False)
    context = provider.get_tracer("t").start_span("a").get_span_context()
    assert is_v7(context.trace_id)
    assert context.trace_flags.random_trace_id


@given(TRACES, SPANS)
def test_every_trace_and_span_has_one_uuid_of_version_seven(trace_id: str, span_id: str) -> None:
    trace, span = uuid.UUID(trace_uuid(trace_id)), uuid.UUID(span_uuid(trace_id, span_id))
    assert (trace.version, span.version) == (7, 7)
    assert (trace.variant, span.variant) == (uuid.RFC_4122, uuid.RFC_4122)
    assert trace.int >> 80 == span.int >> 80
    assert trace_uuid(trace.hex) == str(trace)
    assert span_uuid(trace_id.upper(), span_id.upper()) == str(span)


@given(TRACES, SPANS, SPANS)
def test_different_spans_have_different_uuids(trace_id: str, one: str, other: str) -> None:
    assert (span_uuid(trace_id, one) == span_uuid(trace_id, other)) == (one == other)
    assert span_uuid(trace_id, one) != trace_uuid(trace_id)


def test_the_uuid_of_a_span_that_an_opik_sdk_made_is_its_own() -> None:
    own = new_trace_id()
    assert span_uuid(new_trace_id(), own) == str(uuid.UUID(own))


def test_uuids_are_the_same_in_every_process() -> None:
    code = (
        "from e2i.telemetry.ids import span_uuid, trace_uuid\n"
        "trace = '4bf92f3577b34da6a3ce929d0e0e4736'\n"
        "print(trace_uuid(trace), span_uuid(trace, '00f067aa0ba902b7'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert done.stdout.split() == [trace_uuid(trace), span_uuid(trace, span)]


def test_reading_opik_s_ids_loads_no_sdk() -> None:
    code = (
        "import sys, e2i.telemetry.ids, e2i.observability.spans, e2i.observability.propagation; print('opentelemetry.sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
