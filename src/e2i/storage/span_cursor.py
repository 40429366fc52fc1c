"""The cursor of a page of spans: where the page before ended, as text that only this module reads."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from e2i.domain.telemetry import SpanRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cursor_behind(span: SpanRecord) -> str:
    """The cursor of the page that begins after this span."""
    place = [span.started_ns // 1000, span.trace_id, span.span_id]
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).rstrip(b"=").decode()


def after(cursor: str | None) -> dict[str, object]:
    """The parameters of the place; None each for the first page.

    Raises
    ------
    ConfigError
        The text is no cursor.
    """
    if cursor is None:
        return {"after_at": None, "after_trace": None, "after_span": None}
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        microseconds, trace_id, span_id = place
        moment = _EPOCH + timedelta(microseconds=microseconds)
        trace_id.encode(), span_id.encode()
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error) as exc:
        raise _refused(cursor) from exc
    if "\0" in trace_id or "\0" in span_id:
        raise _refused(cursor)
    return {"after_at": moment, "after_trace": trace_id, "after_span": span_id}


def _refused(cursor: str) -> ConfigError:
    return ConfigError(
        f"{cursor!r:.80} is no cursor.", where="cursor", advice="Give the next_cursor of the page before, or none for the first page."
    )
