"""The ingest part of Opik's REST, as its SDKs use it with OPIK_URL_OVERRIDE=http://HOST:PORT/api.

Traces, spans and feedback scores are kept; datasets, experiments, prompts and what reads are not here and say so with 404.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from e2i.api import opik_bodies as bodies
from e2i.api.opik_spans import score_record, span_record, trace_record
from e2i.api.problems import Refused
from e2i.api.whereabouts import Whereabouts
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from e2i.api.receiver import Receiver
    from e2i.domain.telemetry import SpanRecord

PREFIX = "/api/v1/private"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
Read = Callable[[bytes], list["SpanRecord"]]


def routes(receiver: Receiver) -> APIRouter:
    """The routes of Opik's REST; exact paths before those with an id."""
    router = APIRouter(prefix=PREFIX, tags=["opik"])
    opik = OpikIngest(receiver)

    def add(path: str, endpoint: Callable[..., Any], *methods: str) -> None:
        for method in methods:
            router.add_api_route(path, endpoint, methods=[method], status_code=204, response_class=Response, openapi_extra=_BODY)

    add("/traces/batch", opik.create_traces, "POST", "PUT")
    add("/traces/batch", opik.change_traces, "PATCH")
    add("/spans/batch", opik.create_spans, "POST", "PUT")
    add("/spans/batch", opik.change_spans, "PATCH")
    add("/traces/feedback-scores", opik.score_traces, "PUT", "POST")
    add("/spans/feedback-scores", opik.score_spans, "PUT", "POST")
    add("/traces", opik.create_trace, "POST", "PUT")
    add("/spans", opik.create_span, "POST", "PUT")
    router.add_api_route("/traces/threads/{rest:path}", not_here, methods=_METHODS, include_in_schema=False)
    add("/traces/{identifier}", opik.change_trace, "PATCH")
    add("/spans/{identifier}", opik.change_span, "PATCH")
    add("/traces/{identifier}/feedback-scores", opik.score_trace, "PUT")
    add("/spans/{identifier}/feedback-scores", opik.score_span, "PUT")
    router.add_api_route("/auth", opik.access, methods=["POST"], status_code=204, response_class=Response)
    return router


async def not_here(request: Request) -> Response:
    """What Opik has and the receiver has not."""
    raise Refused(
        f"{request.method} {request.url.path[:120]} is not part of the receiver.",
        status=404,
        advice="It keeps traces, spans and feedback scores; read them at /api/v1/traces.",
    )


def rest() -> APIRouter:
    """What is to be mounted after every other route: signs of life, the link that the SDK prints, and the honest 404."""
    router = APIRouter(tags=["opik"])

    async def version() -> dict[str, str]:
        """The receiver's version, which is not one of Opik's."""
        from importlib.metadata import version as installed

        return {"version": installed("e2i")}

    async def show(trace_id: str = "") -> Response:
        """The link that Opik's SDK prints for a new trace."""
        return RedirectResponse(f"/api/v1/traces/{_uuid(trace_id, 'trace_id').hex}", status_code=302)

    router.add_api_route("/api/is-alive/ver", version, methods=["GET"])
    router.add_api_route("/api/v1/session/redirect/projects/", show, methods=["GET"], include_in_schema=False)
    router.add_api_route(PREFIX + "/{rest:path}", not_here, methods=_METHODS, include_in_schema=False)
    return router


class OpikIngest:
    """Handlers. Each answers after its spans are committed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._redactor = receiver.ports.redactor
        self._whereabouts = Whereabouts(receiver.ports.spans, patience_s=receiver.settings.patience_s)

    async def create_traces(self, request: Request) -> Response:
        """Traces, whole or in part."""
        return await self._take(request, self._read_traces)

    async def create_spans(self, request: Request) -> Response:
        """Spans, whole or in part."""
        return await self._take(request, self._read_spans)

    async def create_trace(self, request: Request) -> Response:
        """One trace; 201 and where it is."""
        made = uuid.uuid4()
        return await self._take(request, partial(self._read_trace, made=made), place="/traces")

    async def create_span(self, request: Request) -> Response:
        """One span; 201 and where it is."""
        made = uuid.uuid4()
        return await self._take(request, partial(self._read_span, made=made), place="/spans")

    async def change_trace(self, request: Request, identifier: str) -> Response:
        """A piece of a trace; it may come before the trace."""
        trace = _uuid(identifier, "path")
        return await self._change(request, lambda body: bodies.TraceChange(ids=[trace], update=bodies.read(body, bodies.TracePiece)))

    async def change_span(self, request: Request, identifier: str) -> Response:
        """A piece of a span; it may come before the span."""
        span = _uuid(identifier, "path")
        return await self._change(request, lambda body: bodies.SpanChange(ids=[span], update=bodies.read(body, bodies.SpanPiece)))

    async def change_traces(self, request: Request) -> Response:
        """The same piece of several traces."""
        return await self._change(request, lambda body: bodies.read(body, bodies.TraceChange))

    async def change_spans(self, request: Request) -> Response:
        """The same piece of several spans."""
        return await self._change(request, lambda body: bodies.read(body, bodies.SpanChange))

    async def score_traces(self, request: Request) -> Response:
        """Feedback scores of traces."""
        return await self._take(request, partial(self._read_scores_of_traces, at_ns=time.time_ns()))

    async def score_spans(self, request: Request) -> Response:
        """Feedback scores of spans."""
        return await self._score(request, lambda body: [(score, score.id) for score in bodies.read(body, bodies.ScoreBatch).scores])

    async def score_trace(self, request: Request, identifier: str) -> Response:
        """One feedback score of a trace."""
        trace, now = _uuid(identifier, "path"), time.time_ns()
        return await self._take(
            request, lambda body: [score_record(bodies.read(body, bodies.Score), trace, trace.hex, self._redactor, at_ns=now)]
        )

    async def score_span(self, request: Request, identifier: str) -> Response:
        """One feedback score of a span."""
        span = _uuid(identifier, "path")
        return await self._score(request, lambda body: [(bodies.read(body, bodies.Score), span)])

    async def access(self) -> Response:
        """The key was right, or none is asked for."""
        return Response(status_code=204)

    async def _take(self, request: Request, read: Read, *, place: str | None = None) -> Response:
        async with self._receiver.intake(request, read) as records:
            await self._keep(records)
        if place is None:
            return Response(status_code=204)
        made = uuid.UUID(records[0].span_id)
        return Response(status_code=201, headers={"Location": f"{PREFIX}{place}/{made}"})

    async def _keep(self, records: Sequence[SpanRecord]) -> None:
        for record in records:
            if len(record.span_id) == 32 and record.trace_id != record.span_id:
                self._whereabouts.note(uuid.UUID(record.span_id), uuid.UUID(record.trace_id))
        if records:
            await self._receiver.merge(records)
        self._receiver.counters.spans("opik", accepted=len(records), rejected=0)

    async def _change(self, request: Request, read: Callable[[bytes], bodies.TraceChange | bodies.SpanChange]) -> Response:
        async with self._receiver.intake(request, read) as change:
            traces = await self._traces_of(change)
            await self._keep([await self._piece(change, identifier, trace) for identifier, trace in traces.items()])
        return Response(status_code=204)

    async def _traces_of(self, change: bodies.TraceChange | bodies.SpanChange) -> dict[uuid.UUID, uuid.UUID]:
        """The trace of everything that is changed. Raises Refused with 404 for a span that nobody knows."""
        if isinstance(change, bodies.TraceChange):
            return {trace: trace for trace in change.ids}
        if change.update.trace_id is not None:
            return dict.fromkeys(change.ids, change.update.trace_id)
        with self._receiver.gate.aside():
            found = await self._whereabouts.traces_of(change.ids)
        lost = [span for span in change.ids if span not in found]
        if lost:
            raise Refused(f"the span {lost[0]} is not known.", status=404, where="id", advice="Name its trace_id, or send it first.")
        return {span: uuid.UUID(trace_id) for span, trace_id in found.items()}

    async def _piece(self, change: bodies.TraceChange | bodies.SpanChange, identifier: uuid.UUID, trace: uuid.UUID) -> SpanRecord:
        tags = await self._tags(change, identifier, trace)
        if isinstance(change, bodies.TraceChange):
            return trace_record(change.update.model_copy(update=tags), identifier, self._redactor)
        return span_record(change.update.model_copy(update=tags), identifier, trace, self._redactor, is_whole=False)

    async def _tags(self, change: bodies.TraceChange | bodies.SpanChange, identifier: uuid.UUID, trace: uuid.UUID) -> dict[str, list[str]]:
        """The new tags, where the change adds to those that are stored or takes some away."""
        piece = change.update
        added = [*((piece.tags or []) if change.merge_tags else []), *(piece.tags_to_add or [])]
        if not added and not piece.tags_to_remove:
            return {}
        stored = await self._receiver.ports.spans.get_trace(trace.hex)
        told = next((row.span.attributes.get(names.TAGS) for row in stored if row.span.span_id == identifier.hex), None)
        before = told if isinstance(told, list) else []
        if piece.tags is not None and not change.merge_tags:
            before = piece.tags
        gone = set(piece.tags_to_remove or ())
        return {"tags": [str(tag) for tag in dict.fromkeys([*before, *added]) if tag not in gone]}

    async def _score(self, request: Request, read: Callable[[bytes], Iterable[tuple[bodies.Score, uuid.UUID]]]) -> Response:
        """A score whose span never came is kept under a trace of its own, named by the span's id."""
        async with self._receiver.intake(request, read) as scores:
            now = time.time_ns()
            with self._receiver.gate.aside():
                traces = await self._whereabouts.traces_of(span for _, span in scores)
            await self._keep(
                [score_record(score, span, traces.get(span, span.hex), self._redactor, at_ns=now) for score, span in scores],
            )
        return Response(status_code=204)

    def _read_traces(self, body: bytes) -> list[SpanRecord]:
        batch = bodies.read(body, bodies.TraceBatch)
        return [trace_record(piece, piece.id or uuid.uuid4(), self._redactor) for piece in batch.traces]

    def _read_spans(self, body: bytes) -> list[SpanRecord]:
        batch = bodies.read(body, bodies.SpanBatch)
        return [self._whole_span(piece, f"spans[{index}]", uuid.uuid4()) for index, piece in enumerate(batch.spans)]

    def _read_trace(self, body: bytes, *, made: uuid.UUID) -> list[SpanRecord]:
        piece = bodies.read(body, bodies.TracePiece)
        return [trace_record(piece, piece.id or made, self._redactor)]

    def _read_span(self, body: bytes, *, made: uuid.UUID) -> list[SpanRecord]:
        return [self._whole_span(bodies.read(body, bodies.SpanPiece), "body", made)]

    def _read_scores_of_traces(self, body: bytes, *, at_ns: int) -> list[SpanRecord]:
        scores = bodies.read(body, bodies.ScoreBatch).scores
        return [score_record(score, score.id, score.id.hex, self._redactor, at_ns=at_ns) for score in scores]

    def _whole_span(self, piece: bodies.SpanPiece, where: str, made: uuid.UUID) -> SpanRecord:
        if piece.trace_id is None:
            raise Refused("there is no trace_id.", where=f"{where}.trace_id", advice="Name the trace that the span belongs to.")
        return span_record(piece, piece.id or made, piece.trace_id, self._redactor, is_whole=True)


def _uuid(text: str, where: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise Refused(f"{text[:60]!r} is not a UUID.", where=where, advice="Opik's ids are UUIDs.") from None
