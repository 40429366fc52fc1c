"""Spans as OTLP tells them, checked one by one and made into ours. Both encodings end here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord, SpanStatus
from e2i.observability import attributes as names
from e2i.telemetry.silence import unquoted

if TYPE_CHECKING:
    from e2i.telemetry.redaction import Redactor

_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES: tuple[SpanStatus, ...] = ("unset", "ok", "error")
_UNNAMED_SERVICE = "unknown_service"
_ABOUT_THE_SDK = "telemetry.sdk."
_TOLD_REASONS = 5
_MOST_EVENTS = 128
"""events, and links, of one span, as in OpenTelemetry's limits; further ones are left out"""
Id = tuple[bytes, bytes]
"""of a trace and of a span in it"""
LATEST_NS = 2**63 - 1
"""the year 2262: the last nanosecond that a signed number of 64 bits holds"""


@dataclass(slots=True, kw_only=True)
class RawEvent:
    """An event as it was sent."""

    name: str
    at_ns: int
    attributes: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class RawLink:
    """A link as it was sent."""

    trace_id: bytes
    span_id: bytes
    attributes: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class RawSpan:
    """A span as it was sent; ids in bytes of any number, times in nanoseconds since 1970."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    kind: int
    started_ns: int
    ended_ns: int
    status: int
    status_message: str
    attributes: dict[str, Any]
    events: list[RawEvent]
    links: list[RawLink]


@dataclass(slots=True, kw_only=True)
class Batch:
    """Spans that share a resource and a scope. `where` is the place of the list in the body."""

    resource: dict[str, Any]
    scope: str
    where: str
    spans: Callable[[], Sequence[RawSpan]]


@dataclass(slots=True)
class Reading:
    """What a body came to."""

    unquotable: frozenset[Id] = frozenset()
    """spans of which nothing that people or models said is kept"""
    spans: list[SpanRecord] = field(default_factory=list)
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def reject(self, where: str, why: str) -> None:
        """One span is not stored."""
        self.rejected += 1
        if len(self.reasons) < _TOLD_REASONS:
            self.reasons.append(f"{where}: {why}")

    @property
    def message(self) -> str:
        """For `error_message` of the answer."""
        more = self.rejected - len(self.reasons)
        return "; ".join(self.reasons) + (f"; and {more} more" if more > 0 else "")


def unquotable(batches: Iterable[Batch], agents: frozenset[str]) -> frozenset[Id]:
    """Spans of these agents, and those of the same body that hang below them at any depth."""
    if not agents:
        return frozenset()
    found: set[Id] = set()
    below: dict[Id, list[Id]] = {}
    for raw in (raw for batch in batches for raw in batch.spans()):
        agent = raw.attributes.get(names.AGENT) or raw.attributes.get(names.GEN_AI_AGENT_NAME)
        if isinstance(agent, str) and agent in agents:
            found.add((raw.trace_id, raw.span_id))
        below.setdefault((raw.trace_id, raw.parent_span_id), []).append((raw.trace_id, raw.span_id))
    reached = list(found)
    while reached:
        new = [span for span in below.get(reached.pop(), ()) if span not in found]
        found.update(new)
        reached += new
    return frozenset(found)


def read_batch(batch: Batch, redactor: Redactor, into: Reading) -> None:
    """Add the batch's spans to `into`, those that are no spans as rejected."""
    service = redactor.clean_text(str(batch.resource.get("service.name") or _UNNAMED_SERVICE))
    shared = {name: value for name, value in batch.resource.items() if name != "service.name" and not name.startswith(_ABOUT_THE_SDK)}
    resource = redactor.clean(shared)
    scope = redactor.clean_text(batch.scope)
    for index, raw in enumerate(batch.spans()):
        if why := _fault(raw):
            into.reject(f"{batch.where}[{index}]", why)
            continue
        is_quotable = (raw.trace_id, raw.span_id) not in into.unquotable
        into.spans.append(
            SpanRecord(
                trace_id=raw.trace_id.hex(),
                span_id=raw.span_id.hex(),
                parent_span_id=raw.parent_span_id.hex() if any(raw.parent_span_id) else None,
                name=redactor.clean_text(raw.name),
                started_ns=raw.started_ns,
                ended_ns=raw.ended_ns or None,
                status=_STATUSES[raw.status] if 0 <= raw.status < len(_STATUSES) else "unset",
                status_message=redactor.clean_text(raw.status_message) or None,
                kind=_KINDS[raw.kind] if 0 <= raw.kind < len(_KINDS) else "internal",
                service=service,
                scope=scope,
                origin="otlp",
                attributes=resource | _clean(raw.attributes, redactor, is_quotable=is_quotable),
                events=_events(raw, redactor, is_quotable=is_quotable),
                links=_links(raw, redactor, is_quotable=is_quotable),
            )
        )


def _clean(attributes: dict[str, Any], redactor: Redactor, *, is_quotable: bool) -> dict[str, Any]:
    return redactor.clean(attributes if is_quotable else unquoted(attributes), log_prompts=is_quotable)


def _events(raw: RawSpan, redactor: Redactor, *, is_quotable: bool) -> tuple[SpanEvent, ...]:
    return tuple(
        SpanEvent(
            name=redactor.clean_text(event.name),
            at_ns=min(event.at_ns, LATEST_NS),
            attributes=_clean(event.attributes, redactor, is_quotable=is_quotable),
        )
        for event in raw.events[:_MOST_EVENTS]
    )


def _links(raw: RawSpan, redactor: Redactor, *, is_quotable: bool) -> tuple[SpanLink, ...]:
    """Links with ids of the wrong length lead nowhere and are left out; the span itself is good."""
    kept = [link for link in raw.links if len(link.trace_id) == 16 and len(link.span_id) == 8][:_MOST_EVENTS]
    return tuple(
        SpanLink(
            trace_id=link.trace_id.hex(), span_id=link.span_id.hex(), attributes=_clean(link.attributes, redactor, is_quotable=is_quotable)
        )
        for link in kept
    )


def _fault(raw: RawSpan) -> str | None:
    """Why it is not a span; None when it is one."""
    if fault := _id_fault("trace", raw.trace_id, 16) or _id_fault("span", raw.span_id, 8):
        return fault
    if raw.parent_span_id and len(raw.parent_span_id) != 8:
        return f"its parent span id has {len(raw.parent_span_id)} bytes, not 8."
    if not raw.started_ns:
        return "it has no start time."
    if raw.started_ns > LATEST_NS or raw.ended_ns > LATEST_NS:
        return "its time lies behind the year 2262; times are nanoseconds since 1970."
    if raw.ended_ns and raw.ended_ns < raw.started_ns:
        return "it ends before it starts."
    return None


def _id_fault(which: str, identifier: bytes, size: int) -> str | None:
    if len(identifier) != size:
        return f"its {which} id has {len(identifier)} bytes, not {size}."
    return None if any(identifier) else f"its {which} id is all zero."
