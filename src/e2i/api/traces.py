"""`/api/v1/…`: what the table knows, page by page."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query

from e2i.api.problems import Refused
from e2i.api.views import LatencyView, SpanPageView, SpanView, TracePage, TraceView
from e2i.domain.telemetry import SpanQuery

if TYPE_CHECKING:
    from e2i.api.receiver import Receiver
    from e2i.domain.telemetry import TraceSummary

PREFIX = "/api/v1"
_DEEPEST = 10_000
"""traces behind which a list is not paged further; `since` and `agent` narrow it"""
_FEWEST_DIGITS = 6

Text = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=200)]
SpanLimit = Annotated[int, Query(ge=1, le=5000)]
Minimum = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]
Moment = datetime | None


def routes(receiver: Receiver) -> APIRouter:
    """The routes of questions."""
    router = APIRouter(prefix=PREFIX, tags=["query"])
    questions = Questions(receiver)
    router.add_api_route("/traces", questions.list_traces, methods=["GET"])
    router.add_api_route("/traces/{trace_id}", questions.show_trace, methods=["GET"])
    router.add_api_route("/spans", questions.search_spans, methods=["GET"])
    router.add_api_route("/latency", questions.latency, methods=["GET"])
    return router


class Questions:
    """Handlers."""

    def __init__(self, receiver: Receiver) -> None:
        self._records = receiver.ports.spans
        self._latency = receiver.latency

    async def list_traces(self, since: Moment = None, agent: Text = None, limit: Limit = 20, cursor: Text = None) -> TracePage:
        """Traces, newest first."""
        passed, behind = _position(cursor)
        asked = passed + limit + 1
        while True:
            found = await self._records.recent_traces(since=_aware(since), agent=_plain(agent), limit=asked)
            rest = sorted((trace for trace in found if behind is None or _order(trace) < behind), key=_order, reverse=True)
            if len(rest) > limit or len(found) < asked:
                break
            if asked > _DEEPEST:
                raise Refused("the list is not paged that far.", where="cursor", advice="Narrow it by `agent` or `since`.")
            asked *= 2  # many have arrived since the page before
        page = rest[:limit]
        token = _token(f"{passed + limit} {page[-1].started_at.isoformat()} {page[-1].trace_id}") if len(rest) > limit else None
        return TracePage(traces=list(page), next_cursor=token)

    async def show_trace(self, trace_id: str, limit: SpanLimit = 1000, cursor: Text = None) -> TraceView:
        """One trace by its id, or by the first six or more digits of it."""
        spans = await self._records.get_trace(_identifier(trace_id))
        if not spans:
            raise Refused(f"no span of trace {trace_id} has arrived.", status=404, where="trace_id", advice="See /api/v1/traces.")
        first = _whole(_untoken(cursor)) if cursor else 0
        page = spans[first : first + limit]
        token = _token(str(first + limit)) if first + limit < len(spans) else None
        views = [SpanView.of(stored) for stored in page]
        return TraceView(trace_id=spans[0].span.trace_id, total_spans=len(spans), spans=views, next_cursor=token)

    async def search_spans(  # noqa: PLR0917
        self,
        agent: Text = None,
        tier: Text = None,
        operation: Text = None,
        status: Literal["success", "error"] | None = None,
        since: Moment = None,
        until: Moment = None,
        minimum_ms: Minimum = None,
        limit: Limit = 50,
        cursor: Text = None,
    ) -> SpanPageView:
        """Spans, newest first; every parameter that is given must hold."""
        query = SpanQuery(
            agent=_plain(agent),
            tier=_plain(tier),
            operation=_plain(operation),
            status=status,
            since=_aware(since),
            until=_aware(until),
            minimum_ms=minimum_ms,
            limit=limit,
            cursor=_plain(cursor),
        )
        page = await self._records.search(query)
        return SpanPageView(spans=[SpanView.of(stored) for stored in page.spans], next_cursor=page.next_cursor)

    async def latency(self, window: Annotated[str, Query(max_length=20)] = "24h", agent: Text = None, tier: Text = None) -> LatencyView:
        """v_agent_latency_summary over a window such as 1h, 24h, 7d, 30d."""
        answer = await self._latency.get_latency_stats(window, _plain(agent), _plain(tier))
        return LatencyView(window=window, as_of=answer.as_of, agents=list(answer.stats))


def _order(trace: TraceSummary) -> tuple[datetime, str]:
    return trace.started_at, trace.trace_id


def _identifier(text: str) -> str:
    digits = text.replace("-", "").lower()
    if not _FEWEST_DIGITS <= len(digits) <= 32 or not digits.isascii() or any(digit not in "0123456789abcdef" for digit in digits):
        raise Refused(f"{text[:60]!r} is not a trace id.", where="trace_id", advice="Give 6 to 32 hexadecimal digits.")
    return digits


def _aware(moment: datetime | None) -> datetime | None:
    """A time without zone is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _plain(text: str | None) -> str | None:
    if text is not None and ("\0" in text or not text.isprintable()):
        raise Refused("a parameter holds characters that cannot be printed.", where="query")
    return text


def _token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _untoken(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _not_a_cursor() from None


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _not_a_cursor()
    return int(text)


def _position(cursor: str | None) -> tuple[int, tuple[datetime, str] | None]:
    """How many traces were shown, and the last of them."""
    if not cursor:
        return 0, None
    parts = _untoken(cursor).split(" ")
    if len(parts) != 3:
        raise _not_a_cursor()
    try:
        started = datetime.fromisoformat(parts[1])
    except ValueError:
        raise _not_a_cursor() from None
    return min(_whole(parts[0]), _DEEPEST), (started if started.tzinfo else started.replace(tzinfo=UTC), parts[2])


def _not_a_cursor() -> Refused:
    return Refused("it is not a cursor of this list.", where="cursor", advice="Take `next_cursor` of the page before, unchanged.")
