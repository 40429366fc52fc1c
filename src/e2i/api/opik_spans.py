"""Opik's traces, spans and scores as spans of ours.

A trace becomes a root span whose id is the trace's; a span without a parent hangs below it. Ids are UUIDs in 32 hexadecimal
digits. A piece leaves at its default what it does not say (`name` "", `started_ns` 0, None), for `SpanMerges.merge` to unite.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from e2i.api.problems import Refused
from e2i.domain.telemetry import SpanEvent, SpanRecord
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from uuid import UUID

    from e2i.api.opik_bodies import ErrorInfo, Score, SpanPiece, TracePiece
    from e2i.telemetry.redaction import Redactor

OPIK_ID = "opik.id"
OPIK_SOURCE = "opik.source"
OPIK_METADATA = "opik.metadata"
OPIK_USAGE = "opik.usage"
OPIK_TTFT = "opik.ttft_ms"
OPIK_CATEGORY = "opik.feedback.category"
OPIK_AUTHOR = "opik.feedback.author"
ENVIRONMENT = "deployment.environment.name"
_SCOPE = "opik"
_NOT_SAID = "e2i"
"""the service of a `SpanRecord` that says none"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPERATIONS = {"general": "internal"}
_TOKENS = {
    "prompt_tokens": names.GEN_AI_INPUT_TOKENS,
    "input_tokens": names.GEN_AI_INPUT_TOKENS,
    "completion_tokens": names.GEN_AI_OUTPUT_TOKENS,
    "output_tokens": names.GEN_AI_OUTPUT_TOKENS,
}


def trace_record(piece: TracePiece, identifier: UUID, redactor: Redactor) -> SpanRecord:
    """The root span of a trace."""
    found = _common(piece, identifier) | {names.OPERATION: "trace"}
    if piece.thread_id:
        found[names.GEN_AI_CONVERSATION_ID] = piece.thread_id
    return _record(piece, found, redactor, trace_id=identifier.hex, span_id=identifier.hex, parent_span_id=None)


def span_record(piece: SpanPiece, identifier: UUID, trace: UUID, redactor: Redactor, *, is_whole: bool) -> SpanRecord:
    """A span. One that is whole and names no parent hangs below its trace; a change says nothing of its parent."""
    found = _common(piece, identifier)
    if piece.type:
        found[names.OPERATION] = _OPERATIONS.get(piece.type, piece.type)
    if piece.model:
        found[names.GEN_AI_REQUEST_MODEL] = piece.model
    if piece.provider:
        found[names.GEN_AI_PROVIDER] = piece.provider
    if piece.total_estimated_cost is not None:
        found[names.COST_USD] = piece.total_estimated_cost
    found |= _usage(piece.usage or {})
    above = piece.parent_span_id.hex if piece.parent_span_id else (trace.hex if is_whole else None)
    return _record(piece, found, redactor, trace_id=trace.hex, span_id=identifier.hex, parent_span_id=above)


def score_record(score: Score, target: UUID, trace_id: str, redactor: Redactor, *, at_ns: int) -> SpanRecord:
    """A feedback score. The same name on the same target is the same span: a later score replaces the earlier."""
    digest = blake2b(f"{target.hex}:{score.name}".encode(errors="replace"), digest_size=16, person=b"e2i-feedback")
    found: dict[str, Any] = {
        names.OPERATION: "feedback",
        names.FEEDBACK_NAME: score.name,
        names.FEEDBACK_VALUE: score.value,
        names.FEEDBACK_REASON: score.reason,
        names.FEEDBACK_SOURCE: score.source,
        OPIK_CATEGORY: score.category_name,
        OPIK_AUTHOR: score.author,
    }
    return SpanRecord(
        trace_id=trace_id,
        span_id=digest.hexdigest(),
        parent_span_id=target.hex,
        name=redactor.clean_text(f"feedback {score.name}"),
        started_ns=at_ns,
        ended_ns=at_ns,
        service=_service(score.project_name, redactor),
        scope=_SCOPE,
        origin="opik",
        attributes=redactor.clean({key: value for key, value in found.items() if value is not None}),
    )


def _record(
    piece: TracePiece, found: dict[str, Any], redactor: Redactor, *, trace_id: str, span_id: str, parent_span_id: str | None
) -> SpanRecord:
    started, ended = _ns(piece.start_time, "start_time"), _ns(piece.end_time, "end_time")
    error = piece.error_info
    if error:
        found[names.ERROR_TYPE] = error.exception_type
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_span_id,
        name=redactor.clean_text(piece.name or ""),
        started_ns=started,
        ended_ns=ended or None,
        status="error" if error else "unset",
        status_message=(redactor.clean_text(error.message or "") or None) if error else None,
        service=_service(piece.project_name, redactor),
        scope=_SCOPE,
        origin="opik",
        attributes=redactor.clean(found),
        events=(_exception(error, ended or started, redactor),) if error else (),
    )


def _common(piece: TracePiece, identifier: UUID) -> dict[str, Any]:
    found: dict[str, Any] = {OPIK_ID: str(identifier)}
    told = {
        names.INPUT: piece.input,
        names.OUTPUT: piece.output,
        names.TAGS: piece.tags,
        OPIK_SOURCE: piece.source,
        OPIK_TTFT: piece.ttft,
        ENVIRONMENT: piece.environment,
    }
    return found | {name: value for name, value in told.items() if value is not None} | _metadata(piece.metadata)


def _metadata(metadata: Any) -> dict[str, Any]:
    """One attribute per entry, so that each can be searched for; `usage` stands in the span's own fields already."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        return {OPIK_METADATA: metadata}
    return {f"{OPIK_METADATA}.{key}": value for key, value in metadata.items() if value is not None and key != "usage"}


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in usage.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key in _TOKENS:
            found.setdefault(_TOKENS[key], value)
        else:
            found[f"{OPIK_USAGE}.{key}"] = value
    return found


def _service(project: str | None, redactor: Redactor) -> str:
    """Who it is about; a piece that names no project leaves what is there."""
    return redactor.clean_text(project) if project else _NOT_SAID


def _exception(error: ErrorInfo, at_ns: int, redactor: Redactor) -> SpanEvent:
    told = {
        names.EXCEPTION_TYPE: error.exception_type,
        names.EXCEPTION_MESSAGE: error.message,
        names.EXCEPTION_STACKTRACE: error.traceback,
    }
    return SpanEvent(
        name="exception",
        at_ns=at_ns,
        attributes=redactor.clean({key: value for key, value in told.items() if value is not None}),
    )


def _ns(moment: datetime | None, field: str) -> int:
    """Nanoseconds since 1970; 0 when it is not told. A time without zone is UTC."""
    if moment is None:
        return 0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = (aware - _EPOCH) // timedelta(microseconds=1) * 1000
    if since < 0:
        raise Refused(f"{moment.isoformat()} lies before 1970.", where=field, advice="Send the time at which it happened.")
    return since
