"""`/livez`, `/readyz`, `/metrics` and Opik's sign of life."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from e2i.api import counters
from e2i.api.problems import try_later
from e2i.domain.telemetry import SpanQuery
from e2i.errors import E2IError

if TYPE_CHECKING:
    from e2i.api.receiver import Receiver

_PATIENCE_S = 2.0


def routes(receiver: Receiver) -> APIRouter:
    """The routes of probes."""
    router = APIRouter(tags=["probes"])

    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def ready() -> dict[str, str]:
        """The database answered a query just now; 503 and why when it did not."""
        await probe(receiver)
        return {"status": "ready"}

    async def opik_ping() -> dict[str, str | bool]:
        """As `/readyz`: while it fails, Opik's SDK keeps its messages and sends them afterwards."""
        await probe(receiver)
        return {"message": "Healthy Server", "healthy": True}

    async def metrics() -> Response:
        """Prometheus text: the pipeline's metrics and the receiver's own."""
        own = receiver.counters.text(in_flight=receiver.gate.in_flight)
        return PlainTextResponse(await receiver.ports.metrics() + own, media_type=counters.CONTENT_TYPE)

    router.add_api_route("/livez", live, methods=["GET"])
    router.add_api_route("/readyz", ready, methods=["GET"])
    router.add_api_route("/api/is-alive/ping", opik_ping, methods=["GET"])
    router.add_api_route("/metrics", metrics, methods=["GET"], response_class=PlainTextResponse)
    return router


async def probe(receiver: Receiver) -> None:
    """Ask the table for a row. Raises Refused with 503."""
    breaker = receiver.ports.breaker
    if breaker is not None and str(breaker.state) == "open":
        raise try_later(503, "writes are held back: the database failed several times.", advice="It is tried again by itself.")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await receiver.ports.spans.search(SpanQuery(limit=1))
    except TimeoutError:
        raise try_later(503, f"the database gave no answer within {_PATIENCE_S:g} s.", advice="See `e2i status`.") from None
    except E2IError as error:
        what = f"the database does not answer ({type(error).__name__})."
        raise try_later(503, what, advice="See `e2i status`.") from error
