"""`POST /v1/traces`: OTLP/HTTP in both encodings, also at the path where Opik takes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from e2i.api import otlp_json, otlp_proto
from e2i.api.otlp_spans import Batch, Reading, read_batch, unquotable
from e2i.api.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.api.receiver import Receiver

PATHS = ("/v1/traces", "/api/v1/private/otel/v1/traces")
_ADVICE = f"Send {otlp_proto.MEDIA_TYPES[0]} or {otlp_json.MEDIA_TYPE}."


@dataclass(frozen=True)
class Encoding:
    """One of OTLP's two."""

    media_type: str
    read: Callable[..., list[Batch]]
    respond: Callable[[int, str], bytes]


_JSON = Encoding(otlp_json.MEDIA_TYPE, otlp_json.read, otlp_json.respond)
_ENCODINGS = {name: Encoding(name, otlp_proto.read, otlp_proto.respond) for name in otlp_proto.MEDIA_TYPES} | {_JSON.media_type: _JSON}
_DESCRIPTION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An ExportTraceServiceRequest of OTLP 1.x; gzip and deflate are understood.",
        "content": {
            "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


def routes(receiver: Receiver) -> APIRouter:
    """The routes of OTLP."""
    router = APIRouter(tags=["ingest"])

    async def export(request: Request) -> Response:
        """Take spans in. Answered after they are committed; spans that are none are counted in `partial_success`."""
        encoding = encoding_of(request)
        async with receiver.intake(request, partial(read_spans, encoding=encoding, receiver=receiver)) as reading:
            if reading.spans:
                await receiver.store(reading.spans)
        receiver.counters.spans("otlp", accepted=len(reading.spans), rejected=reading.rejected)
        return Response(encoding.respond(reading.rejected, reading.message), media_type=encoding.media_type)

    for path in PATHS:
        router.add_api_route(path, export, methods=["POST"], openapi_extra=_DESCRIPTION, response_class=Response)
    return router


def encoding_of(request: Request) -> Encoding:
    """By Content-Type. Raises Refused with 415."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _ENCODINGS:
        raise Refused(
            f"the content type {media_type[:60]!r} is not OTLP's." if media_type else "there is no content type.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            where="Content-Type",
            advice=_ADVICE,
            headers={"Accept": ", ".join(_ENCODINGS)},
        )
    return _ENCODINGS[media_type]


def read_spans(body: bytes, *, encoding: Encoding, receiver: Receiver) -> Reading:
    """A body's spans, redacted and bounded. Raises Refused."""
    batches = encoding.read(body, max_spans=receiver.settings.max_spans)
    reading = Reading(unquotable=unquotable(batches, receiver.settings.silent_agents))
    for batch in batches:
        read_batch(batch, receiver.ports.redactor, reading)
    return reading
