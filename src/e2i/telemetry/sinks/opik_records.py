"""Spans as Opik's REST takes them: traces, spans and feedback scores. Every record has the same id whenever it is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from e2i.observability import attributes as names
from e2i.observability.mapping import columns_of
from e2i.telemetry.ids import span_uuid, trace_uuid

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from e2i.domain.telemetry import SpanColumns, SpanRecord

_TYPES = {"llm": "llm", "embedding": "llm", "tool": "tool", "retrieval": "tool", "guardrail": "guardrail"}
_ELSEWHERE = {*names.INPUTS, *names.OUTPUTS, names.TAGS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCE = "sdk"
_SCORE_SOURCES = ("ui", "sdk", "online_scoring")


@dataclass(frozen=True, kw_only=True)
class OpikBatch:
    """Bodies for the three batch calls."""

    traces: list[dict[str, Any]] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    trace_scores: list[dict[str, Any]] = field(default_factory=list)
    span_scores: list[dict[str, Any]] = field(default_factory=list)


def batch_of(spans: Sequence[SpanRecord], *, project: str, known: Container[str]) -> OpikBatch:
    """What to send for `spans`.

    A root span makes a trace and a span. A span that comes before its root makes a trace with little in it, unless the trace is in `known`;
    it says that it was last updated before the root ended, so that the root's version stands whichever comes last.
    """
    batch = OpikBatch()
    rooted = {span.trace_id for span in spans if is_top(span) and not _is_score(span)}
    begun: set[str] = set()
    for span in sorted(spans, key=lambda one: one.started_ns):
        if _is_score(span):
            _add_score(batch, span, project)
            continue
        columns = columns_of(span)
        if is_top(span):
            batch.traces.append(_trace(span, columns, project))
        elif span.trace_id not in rooted and span.trace_id not in begun and span.trace_id not in known:
            begun.add(span.trace_id)
            batch.traces.append(_begun_trace(span, project))
        batch.spans.append(_span(span, columns, project))
    return batch


def is_top(span: SpanRecord) -> bool:
    """Whether it is the top of what we send of a trace: a root, or a run that a foreign caller started, whose spans we never see."""
    return span.parent_span_id is None or span.attributes.get(names.OPERATION) == "run"


def _trace(root: SpanRecord, columns: SpanColumns, project: str) -> dict[str, Any]:
    return _without_nothing(
        id=trace_uuid(root.trace_id),
        project_name=project,
        name=root.name,
        start_time=_moment(root.started_ns),
        end_time=_moment(root.ended_ns),
        input=_content(root.attributes, names.INPUTS, "input"),
        output=_content(root.attributes, names.OUTPUTS, "output"),
        metadata=_metadata(root),
        tags=_tags(root),
        error_info=_error(root, columns),
        thread_id=columns.session_id,
        last_updated_at=_moment(root.started_ns if root.ended_ns is None else root.ended_ns),
        source=_SOURCE,
    )


def _begun_trace(span: SpanRecord, project: str) -> dict[str, Any]:
    start = _moment(span.started_ns)
    return {
        "id": trace_uuid(span.trace_id),
        "project_name": project,
        "name": span.name,
        "start_time": start,
        "last_updated_at": start,
        "source": _SOURCE,
    }


def _span(span: SpanRecord, columns: SpanColumns, project: str) -> dict[str, Any]:
    return _without_nothing(
        id=span_uuid(span.trace_id, span.span_id),
        trace_id=trace_uuid(span.trace_id),
        parent_span_id=span_uuid(span.trace_id, span.parent_span_id) if span.parent_span_id else None,
        project_name=project,
        name=span.name,
        type=_TYPES.get(columns.operation_type, "general"),
        start_time=_moment(span.started_ns),
        end_time=_moment(span.ended_ns),
        input=_content(span.attributes, names.INPUTS, "input"),
        output=_content(span.attributes, names.OUTPUTS, "output"),
        metadata=_metadata(span),
        model=columns.model_name,
        provider=span.attributes.get(names.GEN_AI_PROVIDER) or span.attributes.get(names.GEN_AI_SYSTEM),
        tags=_tags(span),
        usage=_usage(columns.input_tokens, columns.output_tokens),
        error_info=_error(span, columns),
        total_estimated_cost=columns.total_cost,
        last_updated_at=_moment(span.started_ns if span.ended_ns is None else span.ended_ns),
        source=_SOURCE,
    )


def _is_score(span: SpanRecord) -> bool:
    return _score_of(span) is not None


def _score_of(span: SpanRecord) -> tuple[str, float] | None:
    """(name, value) of a feedback or metric span; None for every other, also when its value is no number."""
    for name, value in ((names.FEEDBACK_NAME, names.FEEDBACK_VALUE), (names.METRIC_NAME, names.METRIC_VALUE)):
        called, worth = span.attributes.get(name), span.attributes.get(value)
        if called and isinstance(worth, int | float) and math.isfinite(worth):
            return str(called), float(worth)
    return None


def _add_score(batch: OpikBatch, span: SpanRecord, project: str) -> None:
    """Of the span that it stands below; of the trace when it stands below none."""
    scored = _score_of(span)
    assert scored is not None
    parent = span.parent_span_id
    source = span.attributes.get(names.FEEDBACK_SOURCE)
    score = _without_nothing(
        id=trace_uuid(span.trace_id) if parent is None else span_uuid(span.trace_id, parent),
        project_name=project,
        name=scored[0],
        value=scored[1],
        reason=_text_or_none(span.attributes.get(names.FEEDBACK_REASON)),
        category_name=_text_or_none(span.attributes.get(names.METRIC_UNIT)),
        source=source if source in _SCORE_SOURCES else _SOURCE,
    )
    (batch.trace_scores if parent is None else batch.span_scores).append(score)


def _metadata(span: SpanRecord) -> dict[str, Any]:
    found = {key: value for key, value in span.attributes.items() if key not in _ELSEWHERE}
    found |= {"otel.trace_id": span.trace_id, "otel.span_id": span.span_id, "otel.kind": span.kind, "service.name": span.service}
    if span.scope:
        found["otel.scope"] = span.scope
    if span.events:
        found["events"] = [{"name": event.name, "time": _moment(event.at_ns), "attributes": event.attributes} for event in span.events]
    if span.links:
        found["links"] = [{"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes} for link in span.links]
    return found


def _content(found: Mapping[str, Any], keys: Sequence[str], word: str) -> Any:
    """An object or a list of objects as it is; anything else as the value of `word`."""
    for key in keys:
        value = found.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, str) and value[:1] in "{[":
            try:
                parsed = orjson.loads(value)
            except ValueError:
                return {word: value}
            is_list = isinstance(parsed, list) and bool(parsed) and all(isinstance(item, dict) for item in parsed)
            return parsed if isinstance(parsed, dict) or is_list else {word: parsed}
        return {word: value}
    return None


def _usage(input_tokens: int | None, output_tokens: int | None) -> dict[str, int] | None:
    usage = {}
    if input_tokens is not None:
        usage["prompt_tokens"] = input_tokens
    if output_tokens is not None:
        usage["completion_tokens"] = output_tokens
    if len(usage) == 2:
        usage["total_tokens"] = sum(usage.values())
    return usage or None


def _error(span: SpanRecord, columns: SpanColumns) -> dict[str, str] | None:
    if span.status != "error":
        return None
    trace = next((event.attributes.get(names.EXCEPTION_STACKTRACE) for event in span.events if event.name == "exception"), None)
    return _without_nothing(
        exception_type=columns.error_type or "error", message=_text_or_none(columns.error_message), traceback=str(trace or "")
    )


def _tags(span: SpanRecord) -> list[str] | None:
    found = span.attributes.get(names.TAGS)
    if not found:
        return None
    return [found] if isinstance(found, str) else [str(tag) for tag in found if tag is not None]


def _moment(at_ns: int | None) -> str | None:
    """ISO 8601 in UTC with microseconds, as Opik keeps them."""
    return None if at_ns is None else (_EPOCH + timedelta(microseconds=at_ns // 1000)).isoformat().replace("+00:00", "Z")


def _text_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _without_nothing(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
