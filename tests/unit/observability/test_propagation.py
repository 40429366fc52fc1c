from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from e2i.observability.propagation import attached, carrier, environment, from_environment_value, run_traced, traced
from e2i.observability.spans import span

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def current() -> str | None:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def working_in(number: int) -> tuple[int, str | None, str | None]:
    return number + 1, current(), baggage.get_baggage("study")


def test_nothing_is_carried_outside_a_span() -> None:
    assert carrier() == {}
    assert environment() == {}


def test_what_is_carried_out_is_what_comes_in(exported: InMemorySpanExporter) -> None:
    token = attach(baggage.set_baggage("study", "speaker program"))
    with span("caller", {}) as caller:
        headers = carrier()
        assert set(environment()) == {"TRACEPARENT", "BAGGAGE"}
    detach(token)
    assert headers["traceparent"].split("-")[1:3] == [caller.trace_id, caller.span_id]
    with attached(headers), span("callee", {}) as callee:
        assert callee.trace_id == caller.trace_id
        assert baggage.get_baggage("study") == "speaker program"
    callee_span = next(each for each in exported.get_finished_spans() if each.name == "callee")
    assert callee_span.parent.is_remote
    assert callee_span.parent.span_id == int(caller.span_id, 16)
    assert current() is None
    assert baggage.get_baggage("study") is None


def test_the_state_of_other_vendors_is_passed_on(exported: InMemorySpanExporter) -> None:
    with attached({"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}), span("a", {}):
        assert carrier()["tracestate"] == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


@pytest.mark.parametrize("headers", [{"Traceparent": PARENT}, {"TRACEPARENT": PARENT}, {"traceparent": f" {PARENT} "},
                                     {"traceparent": f"01-{TRACE}-{SPAN}-01-more"}, {"traceparent": PARENT, "tracestate": "=,=bad"},
                                     {"traceparent": PARENT, "baggage": "%%%,=,a"}, {"traceparent": PARENT, "other": 3}])  # fmt: skip
def test_a_valid_header_is_followed(headers: dict[str, str]) -> None:
    with attached(headers):
        assert current() == TRACE


@pytest.mark.parametrize("value", [
    "", "x", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-0g",
    f"00_{TRACE}_{SPAN}_01", f"{PARENT},{PARENT}", "00-" + "a" * 10_000, "\x00", "ü" * 55, None, 3, b"00",
])  # fmt: skip
def test_a_malformed_header_is_ignored(value: object) -> None:
    with attached({"traceparent": value}):
        assert current() is None


def test_two_parents_are_none() -> None:
    with attached({"traceparent": PARENT, "Traceparent": PARENT.replace("4b", "4c")}):
        assert current() is None


def test_the_environment_s_values_are_handed_in() -> None:
    assert from_environment_value(None) == {}
    assert from_environment_value("", "", "") == {}
    assert from_environment_value(PARENT, "a=b", "k=v") == {"traceparent": PARENT, "tracestate": "a=b", "baggage": "k=v"}
    with attached(from_environment_value(PARENT)):
        assert current() == TRACE


def test_a_traced_function_continues_the_trace_wherever_it_runs(exported: InMemorySpanExporter) -> None:
    with span("caller", {}) as caller:
        there = traced(working_in)
    assert pickle.loads(pickle.dumps(there))(1) == (2, caller.trace_id, None)
    assert run_traced({"traceparent": PARENT, "baggage": "study=lift"}, working_in, 1) == (2, TRACE, "lift")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(there, 1).result() == (2, caller.trace_id, None)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(traced(working_in, {"traceparent": PARENT}), 4).result() == (5, TRACE, None)
    assert current() is None


def test_the_context_is_restored_after_an_error() -> None:
    before = get_current()
    with pytest.raises(ZeroDivisionError):
        run_traced({"traceparent": PARENT}, lambda: 1 / 0)
    assert get_current() is before
