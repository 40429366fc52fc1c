"""From OpenTelemetry's API into the spool: all of a span is kept, and nothing that a caller puts into one comes back at him."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context

from e2i.domain.telemetry import SpanRecord
from e2i.telemetry import redaction
from e2i.telemetry.frames import decode
from e2i.telemetry.processor import SpoolProcessor
from e2i.telemetry.reader import SpoolReader
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.spool import SpanClass, SpoolWriter
from spool_faults import QUICK, drain, settings

LIMITS = redaction.SpanLimits(
    include_input=True,
    include_output=True,
    max_input_size_bytes=10240,
    max_output_size_bytes=10240,
    max_metadata_size_bytes=4096,
    redact_patterns=("password", "token"),
)
REDACTOR = redaction.Redactor(LIMITS)
SAID = "the patient said"
OPEN = {"e2i.agent.name": "open", "input.value": SAID}
SILENT = frozenset({"discreet"})
RULES = SamplingRules(rate=1.0, always_agents=frozenset({"causal_impact"}))


class Setup:
    """A provider whose spans go to a spool."""

    def __init__(self, folder: Path, *, rules: SamplingRules = RULES, resource: Resource | None = None, **how: Any) -> None:
        self.folder = folder
        self.writer = SpoolWriter(settings(folder, segment_bytes=1 << 20), disk=QUICK)
        self.processor = SpoolProcessor(
            self.writer,
            REDACTOR,
            Sampler(rules),
            service="e2i",
            log_prompts=lambda agent: agent not in SILENT,
            silent_agents=SILENT,
        )
        self.provider = TracerProvider(shutdown_on_exit=False, resource=resource, **how)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("e2i.tests", "1.0")

    def spans(self) -> list[SpanRecord]:
        return [decode(payload) for payload in drain(self.folder, max_frames=1000, max_bytes=1 << 24).payloads]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.processor.shutdown()


def test_everything_of_a_span_is_kept(setup: Setup) -> None:
    other = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    with setup.tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as parent:
        child = setup.tracer.start_span(
            "child", kind=SpanKind.CLIENT, attributes={"a": 1, "b": [1.5, 2.5], "c": True, "d": "ä"}, links=[Link(other, {"why": "retry"})]
        )
        child.add_event("first token", {"after_ms": 12.5}, timestamp=55)
        child.record_exception(ValueError("no such week"))
        child.set_status(Status(StatusCode.ERROR, "it failed"))
        child.end()
    found = {span.name: span for span in setup.spans()}
    kept = found["child"]
    assert (kept.trace_id, kept.parent_span_id) == (found["parent"].trace_id, found["parent"].span_id)
    assert kept.trace_id == f"{parent.get_span_context().trace_id:032x}"
    assert found["parent"].parent_span_id is None
    assert (kept.kind, found["parent"].kind) == ("client", "server")
    assert (kept.status, kept.status_message, found["parent"].status) == ("error", "it failed", "unset")
    assert kept.attributes == {"a": 1, "b": [1.5, 2.5], "c": True, "d": "ä"}
    assert (kept.scope, kept.service, kept.origin) == ("e2i.tests", "e2i", "e2i")
    assert kept.ended_ns is not None
    assert kept.started_ns <= kept.ended_ns
    token, error = kept.events
    assert (token.name, token.at_ns, token.attributes) == ("first token", 55, {"after_ms": 12.5})
    assert error.name == "exception"
    assert error.attributes["exception.type"] == "ValueError"
    assert error.attributes["exception.message"] == "no such week"
    (link,) = kept.links
    assert (link.trace_id, link.span_id, link.attributes) == (f"{7:032x}", f"{8:016x}", {"why": "retry"})


def test_the_service_is_the_resources_and_ours_where_it_has_none(tmp_path: Path) -> None:
    theirs = Setup(tmp_path / "a", resource=Resource({"service.name": "billing"}))
    nobody = Setup(tmp_path / "b", resource=Resource.create({}))
    for made, service in ((theirs, "billing"), (nobody, "e2i")):
        made.tracer.start_span("x").end()
        assert [span.service for span in made.spans()] == [service]
        made.processor.shutdown()


def test_a_span_that_is_ended_twice_counts_once(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    span = setup.tracer.start_span("twice")
    span.end()
    span.end()
    assert len(setup.spans()) == 1
    assert "ended span" in caplog.text


def test_errors_and_listed_agents_and_samples_go_to_their_classes(tmp_path: Path) -> None:
    made = Setup(tmp_path, rules=SamplingRules(rate=0.0, agent_rates={"often": 1.0}, always_agents=frozenset({"causal_impact"})))
    with made.tracer.start_as_current_span("maybe"):
        made.tracer.start_span("listed", attributes={"e2i.agent.name": "causal_impact"}).end()
    made.tracer.start_span("listed too", attributes={"gen_ai.agent.name": "causal_impact"}).end()
    made.tracer.start_span("kept", attributes={"e2i.agent.name": "often"}).end()
    failed = made.tracer.start_span("failed")
    failed.set_status(StatusCode.ERROR)
    failed.end()
    made.processor.shutdown()
    reader = SpoolReader(tmp_path)
    assert {stream.kind: stream.acknowledged for stream in reader.streams()} == {SpanClass.ERROR: 3, SpanClass.KEPT: 1, SpanClass.MAYBE: 1}
    assert {span.trace_id for span in made.spans()} == set(reader.kept_traces())


def test_prompts_of_a_discreet_agent_are_not_kept(setup: Setup) -> None:
    for agent in ("discreet", "open"):
        setup.tracer.start_span("llm", attributes={"e2i.agent.name": agent, "input.value": "the patient said"}).end()
    said = {span.attributes["e2i.agent.name"]: span.attributes["input.value"] for span in setup.spans()}
    assert said == {"discreet": redaction.NOT_LOGGED, "open": "the patient said"}


def test_nothing_inside_a_discreet_agent_is_quoted_whoever_made_the_span(setup: Setup) -> None:
    current, tracer = setup.tracer.start_as_current_span, setup.tracer
    with current("agent", attributes={"e2i.agent.name": "discreet"}), current("library"), current("other agent", attributes=OPEN) as above:
        with current("deep", attributes={"gen_ai.prompt.0.content": SAID, "gen_ai.prompt.0.role": "user"}) as deep:
            deep.add_event("gen_ai.content.completion", {"gen_ai.completion": SAID})
        tracer.start_span("odd", attributes={"input.value": SAID, "count": 2**80}).end()
    tracer.start_span("late", set_span_in_context(above), attributes={"output.value": SAID}).end()
    with current("agent", attributes={"e2i.agent.name": "open"}):
        tracer.start_span("heard", attributes={"input.value": SAID}).end()
    found = {span.name: span for span in setup.spans()}
    assert [name for name, span in found.items() if SAID in repr(span)] == ["heard"]
    assert found["deep"].attributes == {"gen_ai.prompt.0.content": redaction.NOT_LOGGED, "gen_ai.prompt.0.role": "user"}
    assert found["deep"].events[0].attributes == {"gen_ai.completion": redaction.NOT_LOGGED}
    assert found["late"].attributes["output.value"] == redaction.NOT_LOGGED


def test_an_agent_that_is_named_only_after_its_span_began_is_discreet_as_well(setup: Setup) -> None:
    with setup.tracer.start_as_current_span("agent") as agent:
        agent.set_attribute("gen_ai.agent.name", "discreet")
        setup.tracer.start_span("inside", attributes={"input.value": SAID}).end()
    assert [span.attributes.get("input.value") for span in setup.spans()] == [redaction.NOT_LOGGED, None]


def test_source_lines_and_reasons_of_a_discreet_agent_are_not_kept(setup: Setup) -> None:
    for agent in ("discreet", "open"):
        with setup.tracer.start_as_current_span(agent, attributes={"e2i.agent.name": agent}):
            with pytest.raises(ValueError, match="no week"), setup.tracer.start_as_current_span(f"{agent} failed"):
                raise ValueError("no week of jane.doe@example.org")  # these lines are in the trace
            setup.tracer.start_span(f"{agent} scored", attributes={"e2i.feedback.reason": SAID, "e2i.feedback.value": 0.4}).end()
    found = {span.name: span for span in setup.spans()}
    for agent, is_quoted in (("discreet", False), ("open", True)):
        error = found[f"{agent} failed"].events[0].attributes
        assert (error["exception.type"], error["exception.message"]) == ("ValueError", "no week of [email]")
        assert ("these lines" in str(error["exception.stacktrace"])) is is_quoted
        scored = found[f"{agent} scored"].attributes
        assert scored == {"e2i.feedback.reason": SAID if is_quoted else redaction.NOT_LOGGED, "e2i.feedback.value": 0.4}


def test_a_span_reported_afterwards_below_a_discreet_one_is_not_quoted(setup: Setup) -> None:
    with (
        setup.tracer.start_as_current_span("agent", attributes={"e2i.agent.name": "discreet"}),
        setup.tracer.start_as_current_span("in") as span,
    ):
        where = span.get_span_context()
        parent = SpanContext(where.trace_id, where.span_id, is_remote=True, trace_flags=TraceFlags(1))
        setup.processor.on_end(span_by_hand(parent=parent, attributes={"e2i.feedback.reason": SAID}))
    assert setup.spans()[0].attributes == {"e2i.feedback.reason": redaction.NOT_LOGGED}


def test_what_is_known_of_discreet_spans_goes_with_them(setup: Setup) -> None:
    silence = setup.processor._silence
    assert silence is not None
    with setup.tracer.start_as_current_span("agent", attributes={"e2i.agent.name": "discreet"}):
        for _ in range(100):
            setup.tracer.start_span("inside").end()
        kept = [setup.tracer.start_span("inside") for _ in range(20_000)]
        assert len(silence._inside) == 20_000
        kept[0].set_attribute("input.value", SAID)
        kept[0].end()
    kept.clear()
    gc.collect()
    assert len(silence._inside) == 0
    assert SAID not in repr(setup.spans())


def test_identifiers_are_removed_wherever_they_stand(setup: Setup) -> None:
    mail = "jane.doe@example.org"
    with setup.tracer.start_as_current_span(f"mail to {mail}", attributes={"to": mail, "password": "hunter2hunter2"}) as span:
        span.add_event(f"sent to {mail}", {"to": mail})
        span.set_status(StatusCode.ERROR, f"{mail} bounced")
    link = Link(SpanContext(7, 8, is_remote=True), {"from": mail})
    setup.tracer.start_span("linked", links=[link]).end()
    setup.processor.shutdown()
    for path in setup.folder.rglob("*"):
        if path.is_file():
            assert b"jane.doe" not in path.read_bytes()
            assert b"hunter2" not in path.read_bytes()


class Unruly:
    """An object whose every method raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __len__(self) -> int:
        raise RuntimeError("no length")


class UnrulyMapping(Mapping[str, Any]):
    """Attributes that fall apart when they are read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("nothing here")

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise RuntimeError("no more")

    def __len__(self) -> int:
        return 3


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "huge int": 2**80,
    "very huge int": 10**30_000,
    "surrogate": "half \ud83d of a pair",
    "not a number": math.nan,
    "infinite": -math.inf,
    "bytes": b"\x00\xffabc",
    "none": None,
    "nested": {"a": {"b": [1, None, b"x"]}},
    "object": Unruly(),
    "mixed list": [1, "a", None, 2.5],
    "nan in list": [1.0, math.nan],
    "ten megabytes": "x" * 10_000_000,
    "ten megabytes of bytes": b"x" * 10_000_000,
    "long list": list(range(200_000)),
    "deep": deep(100),
    "set": {1},
    "complex": 1j,
    "nul": "a\x00b",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("by_hand", [False, True], ids=["through the API", "past the API"])
def test_an_odd_value_is_kept_in_some_form_and_never_raises(setup: Setup, name: str, by_hand: bool) -> None:
    if by_hand:
        setup.processor.on_end(span_by_hand(attributes={"odd": ODD[name], "plain": 1}))
    else:
        try:
            span = setup.tracer.start_span("odd", attributes={"plain": 1})
            span.set_attribute("odd", ODD[name])
        except RuntimeError:
            pytest.skip("the SDK itself raises")
        span.add_event("e", {"odd": 1})
        span.end()
    (kept,) = setup.spans()
    assert kept.attributes["plain"] == 1
    assert setup.writer.drops == {}
    assert SpoolReader(setup.folder).total_bytes() < 1 << 21


def span_by_hand(**fields: Any) -> ReadableSpan:
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    return ReadableSpan(**{"name": "hand-made", "context": context, "start_time": 1, "end_time": 2, **fields})


HAND_MADE: dict[str, Callable[[], ReadableSpan]] = {
    "no times": lambda: span_by_hand(start_time=None, end_time=None),
    "times beyond 64 bits": lambda: span_by_hand(start_time=-1, end_time=2**70),
    "surrogate in the name": lambda: span_by_hand(name="\udc00"),
    "a name that is none": lambda: span_by_hand(name=None),
    "surrogate in an event": lambda: span_by_hand(events=[Event("\udc00", {"a": "\udc00", "b": math.nan}, 5)]),
    "a million events": lambda: span_by_hand(events=[Event(f"e{number}", {"text": "x" * 50}, number) for number in range(30_000)]),
    "keys that are no text": lambda: span_by_hand(attributes={1: "a", None: "b", (1, 2): "c"}),
    "a thousand large values": lambda: span_by_hand(attributes={f"k{number}": "x" * 4000 for number in range(1000)}),
    "ten megabytes in the name": lambda: span_by_hand(name="n" * 10_000_000),
    "no attributes": lambda: span_by_hand(attributes=None),
    "odd scope and status": lambda: span_by_hand(status=Status(StatusCode.ERROR, "\udc00")),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_span_that_no_sdk_would_make_is_kept_all_the_same(setup: Setup, name: str) -> None:
    setup.processor.on_end(HAND_MADE[name]())
    (kept,) = setup.spans()
    assert kept.trace_id == f"{1:032x}"
    assert setup.writer.drops == {}
    assert SpoolReader(setup.folder).total_bytes() < 1 << 21


def test_what_cannot_be_kept_is_counted_and_said_once(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            setup.processor.on_end(span_by_hand(attributes=UnrulyMapping()))
    assert setup.writer.drops == {"not_serialisable": 5}
    assert len([record for record in caplog.records if "cannot be kept" in record.message]) == 1
    left = drain(setup.folder)
    assert left.accounted == left.emitted == 5


def test_spans_that_another_sampler_left_out_stay_out(setup: Setup) -> None:
    setup.processor.on_end(span_by_hand(context=SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(0))))
    setup.processor.on_end(span_by_hand(context=None))
    assert drain(setup.folder).emitted == 0


def test_a_provider_without_limits_is_bounded_by_us(tmp_path: Path) -> None:
    unlimited = SpanLimits(max_attributes=None, max_events=None, max_links=None, max_attribute_length=None)
    made = Setup(tmp_path, span_limits=unlimited)
    with made.tracer.start_as_current_span("much") as span:
        for number in range(3000):
            span.set_attribute(f"key {number}", "x" * 5000)
            span.add_event("again", {"text": "y" * 5000})
    assert SpoolReader(tmp_path).total_bytes() < 2 * 1024 * 1024
    (kept,) = made.spans()
    assert kept.name == "much"
    made.processor.shutdown()


def test_flush_forces_the_disk_and_shutdown_closes_the_files(tmp_path: Path) -> None:
    from spool_faults import Watched

    watched = Watched()
    writer = SpoolWriter(settings(tmp_path), disk=watched.disk())
    processor = SpoolProcessor(writer, REDACTOR, Sampler(RULES), service="e2i", log_prompts=lambda agent: True)
    processor.on_end(span_by_hand())
    assert processor.force_flush()
    above = len([place for place in (tmp_path, *tmp_path.parents) if place.stat().st_dev == tmp_path.stat().st_dev])
    assert watched.calls.count("fdatasync") == 2 + above, "the segment, its folder, and the names above it"
    assert [stream.is_alive for stream in SpoolReader(tmp_path).streams()] == [True]
    processor.shutdown()
    assert [stream.is_alive for stream in SpoolReader(tmp_path).streams()] == [False]


def test_a_disk_that_is_full_never_reaches_the_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import errno

    from spool_faults import Watched, failing_in

    writer = SpoolWriter(settings(tmp_path), disk=Watched(before=failing_in(1, 10**9, errno.ENOSPC)).disk())
    processor = SpoolProcessor(writer, REDACTOR, Sampler(RULES), service="e2i", log_prompts=lambda agent: True)
    for _ in range(50):
        processor.on_end(span_by_hand(attributes={"e2i.agent.name": "causal_impact"}))
    assert writer.drops == {"write_failed": 50}
    assert processor.force_flush()
    assert caplog.text.count("spans are lost") == 1
    processor.shutdown()


async def test_fifty_agents_at_once_each_keep_their_own_tree(setup: Setup) -> None:
    import asyncio

    async def agent(number: int) -> None:
        with setup.tracer.start_as_current_span("agent", attributes={"n": number}):
            for step in range(5):
                with setup.tracer.start_as_current_span("step", attributes={"n": number, "step": step}):
                    await asyncio.sleep(0)

    await asyncio.gather(*(agent(number) for number in range(50)))
    spans = setup.spans()
    assert len(spans) == 300
    roots = {span.span_id: span for span in spans if span.name == "agent"}
    for span in spans:
        if span.parent_span_id:
            assert roots[span.parent_span_id].attributes["n"] == span.attributes["n"]
