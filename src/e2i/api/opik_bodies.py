"""The bodies of Opik's REST as its SDKs send them; what is not listed is passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from e2i.api.bodies import json_object
from e2i.api.problems import Refused

Body = TypeVar("Body", bound="OpikBody")
MOST_ITEMS = 10_000
"""of one batch; Opik's own limit is 1,000"""


class OpikBody(BaseModel):
    """Lenient, as Opik is: newer SDKs send more fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class ErrorInfo(OpikBody):
    """Why a trace or span failed."""

    exception_type: str
    message: str | None = None
    traceback: str | None = None


class TracePiece(OpikBody):
    """A trace, or what is to be changed of it."""

    id: UUID | None = None
    project_name: str | None = None
    name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    input: Any = None
    output: Any = None
    metadata: Any = None
    tags: list[str] | None = None
    tags_to_add: list[str] | None = None
    tags_to_remove: list[str] | None = None
    error_info: ErrorInfo | None = None
    ttft: FiniteFloat | None = None
    thread_id: str | None = None
    source: str | None = None
    environment: str | None = None


class SpanPiece(TracePiece):
    """A span, or what is to be changed of it."""

    trace_id: UUID | None = None
    parent_span_id: UUID | None = None
    type: str | None = None
    model: str | None = None
    provider: str | None = None
    usage: dict[str, Any] | None = None
    total_estimated_cost: FiniteFloat | None = None


class TraceBatch(OpikBody):
    """POST traces/batch."""

    traces: list[TracePiece] = Field(max_length=MOST_ITEMS)


class SpanBatch(OpikBody):
    """POST spans/batch."""

    spans: list[SpanPiece] = Field(max_length=MOST_ITEMS)


class TraceChange(OpikBody):
    """PATCH traces/batch."""

    ids: list[UUID] = Field(max_length=MOST_ITEMS)
    update: TracePiece
    merge_tags: bool | None = None


class SpanChange(OpikBody):
    """PATCH spans/batch."""

    ids: list[UUID] = Field(max_length=MOST_ITEMS)
    update: SpanPiece
    merge_tags: bool | None = None


class Score(OpikBody):
    """A feedback score of one trace or span."""

    name: str = Field(min_length=1)
    value: FiniteFloat
    category_name: str | None = None
    reason: str | None = None
    source: str | None = None
    author: str | None = None
    project_name: str | None = None


class ScoreOf(Score):
    """A score that names what it is about."""

    id: UUID


class ScoreBatch(OpikBody):
    """PUT traces/feedback-scores and spans/feedback-scores."""

    scores: list[ScoreOf] = Field(max_length=MOST_ITEMS)


def read(body: bytes, model: type[Body]) -> Body:
    """The body as `model`. Raises Refused with 400 and the place of the first fault."""
    try:
        return model.model_validate(json_object(body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        advice = f"{error.error_count() - 1} more places are wrong." if error.error_count() > 1 else "Nothing of this body was stored."
        raise Refused(f"{first['msg']}.", where=place, advice=advice) from None
