"""A span as a row of ml_observability_spans: its bytes for COPY BINARY, what it adds to the rollups, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any

from e2i.domain.telemetry import SpanColumns, SpanEvent, SpanLink, SpanRecord, StoredSpan
from e2i.errors import BackendRejected
from e2i.observability import attributes as names
from e2i.observability.mapping import columns_of
from e2i.storage.json_bytes import json_bytes
from e2i.storage.latency import NOT_CALLS, UNKNOWN_TIER, Measure
from e2i.storage.span_cleaning import LATEST_NS, cleaned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2i.storage.postgres import Row

HEADER, TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
"""what stands before and after the tuples of COPY BINARY"""
_STRAY = b"\x7f\xff\xff\xff"
"""the date `infinity`"""
_LONGEST_ID = 64
_LONGEST_KEY = 200
"""characters of an agent's, tier's and operation's name: they stand in indexes"""
_MOST = 1e15
"""US dollars; more is no cost, and would spoil a sum"""
_DAY_NS = 86_400_000_000_000
_UNIX_DAYS = 10_957
"""from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins"""
_UNIX_US = _UNIX_DAYS * 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULL = b"\xff\xff\xff\xff"
_NO_END = _NULL + _NULL
_BOOLEANS = {False: b"\x00\x00\x00\x01\x00", True: b"\x00\x00\x00\x01\x01"}
_CODES = {"unset": b"\x00\x00\x00\x05unset", "ok": b"\x00\x00\x00\x02ok", "error": b"\x00\x00\x00\x05error"}
_EMPTY_LIST, _EMPTY_OBJECT = b"\x00\x00\x00\x03\x01[]", b"\x00\x00\x00\x03\x01{}"
_UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
_fields = Struct("!h").pack(35)
_size = Struct("!i").pack
_day_and_start = Struct("!iiiq").pack
_bigint = Struct("!iq").pack
_double = Struct("!id").pack
_nanos = Struct("!ihih").pack


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A span ready to be written."""

    data: bytes
    """a tuple of COPY BINARY, for the columns of the statement `copy_spans`"""
    day_at: int
    """where in `data` the day stands"""
    measure: Measure | None

    def as_stray(self) -> bytes:
        """The tuple for the partition of days that have none."""
        return b"%b%b%b" % (self.data[: self.day_at], _STRAY, self.data[self.day_at + 4 :])


def row_of(span: SpanRecord) -> SpanRow:
    """The row of a span. What PostgreSQL cannot hold is replaced, and named in the attribute `e2i.cleaned`.

    Raises
    ------
    BackendRejected
        The ids are no ids, or something is of a wrong type.
    """
    try:
        return _row(span)
    except _UNFIT:
        try:  # seldom: NUL, a lone surrogate, infinity, a huge integer, a time that is no time
            return _row(cleaned(span))
        except _UNFIT as exc:
            raise _refused(span, exc) from exc


def day_of(span: SpanRecord) -> date:
    """UTC day of the start, as `row_of` writes it. Raises BackendRejected when the start is no number."""
    try:
        return _date(min(max(span.started_ns, 0), LATEST_NS) // _DAY_NS)
    except TypeError as exc:
        raise _refused(span, exc) from exc


@lru_cache
def _date(days: int) -> date:
    return (_EPOCH + timedelta(days=days)).date()


def bounded(columns: SpanColumns) -> SpanColumns:
    """Columns that indexes and sums can bear; the attributes keep the whole."""
    agent, tier, operation, cost = columns.agent_name, columns.agent_tier, columns.operation_type, columns.total_cost
    if len(agent or "") <= _LONGEST_KEY and len(tier or "") <= _LONGEST_KEY and len(operation) <= _LONGEST_KEY and abs(cost or 0) <= _MOST:
        return columns
    return replace(
        columns,
        agent_name=agent and agent[:_LONGEST_KEY],
        agent_tier=tier and tier[:_LONGEST_KEY],
        operation_type=operation[:_LONGEST_KEY],
        total_cost=cost if cost is not None and abs(cost) <= _MOST else None,
    )


def measure_of(span: SpanRecord, columns: SpanColumns) -> Measure | None:
    """What the span adds to the rollups; None when it is neither an ended call of an agent nor an ended part of one."""
    if columns.agent_name is None or span.ended_ns is None or not span.started_ns or columns.operation_type in NOT_CALLS:
        return None
    return Measure(
        columns.agent_name,
        columns.agent_tier or UNKNOWN_TIER,
        span.started_ns,
        max(0, span.ended_ns - span.started_ns) / 1e6,
        columns.status == "error",
        len(columns.fallback_chain) > 1,
        columns.input_tokens or 0,
        columns.output_tokens or 0,
        columns.total_cost,
        span.attributes.get(names.IS_PART) is True,
    )


def measure_alone(span: SpanRecord) -> Measure | None:
    """As in `row_of`, for a span that is not kept as a row; None also where it is no span."""
    try:
        return _measure(span)
    except _UNFIT:
        try:
            return _measure(cleaned(span))
        except _UNFIT:
            return None


def _measure(span: SpanRecord) -> Measure | None:
    columns = bounded(columns_of(span))
    _check_times(span.started_ns, span.ended_ns)
    for text in (columns.agent_name, columns.agent_tier):
        _word(text)  # refuses what PostgreSQL cannot hold
    return measure_of(span, columns)


def _refused(span: SpanRecord, reason: Exception) -> BackendRejected:
    return BackendRejected(
        f"span {span.span_id!r:.80} of trace {span.trace_id!r:.80} cannot be stored: {reason}.",
        where="ml_observability_spans",
        advice="Leave it out, and mend what makes such spans.",
    )


def stored_span(row: Row) -> StoredSpan:
    """The way back, from a row of a statement that selects spans."""
    span = SpanRecord(
        started_ns=_nanoseconds(row["started_at"], row["started_nanos"]),
        ended_ns=None if row["ended_at"] is None else _nanoseconds(row["ended_at"], row["ended_nanos"]),
        status=row["status_code"],
        events=tuple(SpanEvent(**event) for event in row["events"]),
        links=tuple(SpanLink(**link) for link in row["links"]),
        **{name: row[name] for name in _SAME_IN_SPAN},
    )
    columns = SpanColumns(fallback_chain=tuple(row["fallback_chain"]), **{name: row[name] for name in _SAME_IN_COLUMNS})
    return StoredSpan(span=span, columns=columns)


_SAME_IN_SPAN = ("trace_id", "span_id", "parent_span_id", "name", "status_message", "kind", "service", "scope", "origin", "attributes")
_SAME_IN_COLUMNS = (
    "agent_name", "agent_tier", "operation_type", "model_name", "input_tokens", "output_tokens", "total_cost", "status", "error_type",
    "error_message", "experiment_id", "run_id", "user_id", "session_id",
)  # fmt: skip


def _nanoseconds(moment: datetime, rest: int) -> int:
    passed = moment - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000 + rest


def _row(span: SpanRecord) -> SpanRow:
    columns = bounded(columns_of(span))
    ids = b"%b%b%b" % (_fields, _identity(span.trace_id), _identity(span.span_id))
    data = b"".join((ids, *_numbers(span, columns), *_words(span, columns), *_documents(span, columns)))
    return SpanRow(data, len(ids) + 4, measure_of(span, columns))


def _numbers(span: SpanRecord, columns: SpanColumns) -> Iterable[bytes]:
    started, ended = span.started_ns, span.ended_ns
    _check_times(started, ended)
    start_us, start_rest = divmod(started, 1000)
    end_us, end_rest = (0, 0) if ended is None else divmod(ended, 1000)
    if ended is None:
        end = _NO_END
    else:  # a start of 0 is a start that nobody knows yet
        end = _bigint(8, end_us - _UNIX_US) + (_double(8, max(0, ended - started) / 1e6) if started else _NULL)
    return (
        _day_and_start(4, started // _DAY_NS - _UNIX_DAYS, 8, start_us - _UNIX_US),
        end,
        _NULL if columns.input_tokens is None else _bigint(8, columns.input_tokens),
        _NULL if columns.output_tokens is None else _bigint(8, columns.output_tokens),
        _NULL if columns.total_cost is None else _double(8, columns.total_cost),
        _nanos(2, start_rest, 2, end_rest),
        _BOOLEANS[len(columns.fallback_chain) > 1],
    )


def _check_times(started: int, ended: int | None) -> None:
    if not 0 <= started <= LATEST_NS or (ended is not None and not 0 <= ended <= LATEST_NS):
        raise ValueError("a time outside 1970-2262")


def _words(span: SpanRecord, columns: SpanColumns) -> Iterable[bytes]:
    return (
        _NULL if span.parent_span_id is None else _text(span.parent_span_id),
        _word(columns.agent_name),
        _word(columns.agent_tier),
        _word(columns.operation_type),
        _text(span.name),
        _word(span.kind),
        _word(span.service),
        _word(span.scope),
        _word(span.origin),
        _word(columns.model_name),
        _word(columns.status),
        _CODES[span.status],
        _NULL if span.status_message is None else _text(span.status_message),
        _word(columns.error_type),
        _NULL if columns.error_message is None else _text(columns.error_message),
        _word(columns.experiment_id),
        _word(columns.run_id),
        _word(columns.user_id),
        _word(columns.session_id),
    )


def _documents(span: SpanRecord, columns: SpanColumns) -> Iterable[bytes]:
    events = [{"name": event.name, "at_ns": event.at_ns, "attributes": event.attributes} for event in span.events]
    links = [{"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes} for link in span.links]
    return (
        _json(list(columns.fallback_chain)) if columns.fallback_chain else _EMPTY_LIST,
        _json(span.attributes) if span.attributes else _EMPTY_OBJECT,
        _json(events) if events else _EMPTY_LIST,
        _json(links) if links else _EMPTY_LIST,
    )


def _json(value: dict[str, Any] | list[Any]) -> bytes:
    data = json_bytes(value)
    return b"%b\x01%b" % (_size(len(data) + 1), data)  # 1: the version of jsonb's binary form


def _identity(text: str) -> bytes:
    if not 0 < len(text) <= _LONGEST_ID:
        raise ValueError(f"an id has 1 to {_LONGEST_ID} characters")
    return _text(text)


def _word(text: str | None) -> bytes:
    return _NULL if text is None else _kept(text) if len(text) < _LONGEST_KEY else _text(text)


def _text(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("text has no NUL")
    data = text.encode()
    return _size(len(data)) + data


_kept = lru_cache(maxsize=4096)(_text)
"""names of agents, models, services … recur"""
