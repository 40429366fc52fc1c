"""Where spans are kept and asked for; storage implements these on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

from e2i.domain.telemetry import LatencyStats, Received, SinkAccount, SpanPage, SpanQuery, SpanRecord, StoredSpan, TraceSummary


class SpanRecords(Protocol):
    """ml_observability_spans and v_agent_latency_summary."""

    async def insert_span(self, span: SpanRecord) -> bool:
        """Whether it is new; a span that is there already changes nothing."""
        ...

    async def insert_spans_batch(self, spans: Sequence[SpanRecord]) -> int:
        """How many are new. One transaction: rows and rollups, all or nothing."""
        ...

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> list[LatencyStats]:
        """From the rollups. `window` is `1h`, `24h`, `7d`, `30d` …; it begins at the full hour. Raises ConfigError for another form."""
        ...

    async def get_trace(self, trace_id: str) -> list[StoredSpan]:
        """All spans of a trace, by start; empty when there is none. A prefix of at least 6 digits is enough when it is unique."""
        ...

    async def search(self, query: SpanQuery) -> SpanPage:
        """Newest first, one page."""
        ...

    async def recent_traces(self, *, since: datetime | None = None, agent: str | None = None, limit: int = 20) -> list[TraceSummary]:
        """Newest first."""
        ...


class SpanShipments(Protocol):
    """The shipper's side of the table: rows and the place reached in the spool commit together, so each span counts once."""

    async def ship(
        self, spans: Sequence[SpanRecord], *, spool_id: str, state: Mapping[str, Any], left_out: Sequence[SpanRecord] = ()
    ) -> int:
        """Insert what is new and keep `state` for `spool_id`, in one transaction; returns how many were new.

        `left_out` are spans that sampling leaves out: they count in the rollups, once for this state, and get no row. One that cannot be
        measured is skipped. Raises BackendUnavailable when the state is not the one last told or kept here: ask `shipped` again.
        """
        ...

    async def shipped(self, spool_id: str) -> dict[str, Any] | None:
        """The state kept by the latest `ship`; None for a spool that never shipped."""
        ...


class SpanMerges(Protocol):
    """Spans that arrive in pieces, as Opik's SDK sends them."""

    async def merge(self, spans: Sequence[SpanRecord]) -> int:
        """Insert or update by (trace_id, span_id): what is set in the newer piece replaces, attributes are united; rollups follow."""
        ...


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One day of spans."""

    name: str
    day: date
    spans: int
    bytes: int
    held_by: tuple[str, ...] = ()
    """names of the legal holds that keep it"""
    received_on: date | None = None
    """when the last span came of a day that was still ahead then: a clock was wrong, and the day's own date may be centuries away"""

    @property
    def counts_from(self) -> date:
        """The day from which its time to live counts."""
        return self.day if self.received_on is None else min(self.day, self.received_on)


class SpanRetention(Protocol):
    """Old days of spans."""

    async def partitions(self) -> list[Partition]:
        """Oldest first, without the default partition."""
        ...

    async def strays(self) -> list[Partition]:
        """Days without a partition of their own, whose spans share the default one; oldest first."""
        ...

    def read_day(self, day: date, *, batch: int = 5000) -> AsyncIterator[list[StoredSpan]]:
        """Every span of a day, by start, in batches; for the archive."""
        ...

    async def drop_day(self, day: date, *, most: int | None = None) -> None:
        """Drop the partition, or the day's spans in the default one; rollups stay.

        Raises Conflict when a legal hold covers the day or it has more than `most` spans by now, NotFound when there is none,
        BackendUnavailable while somebody reads it.
        """
        ...

    async def hold(self, name: str, *, first: date, last: date, reason: str, actor: str) -> None:
        """Keep these days whatever the TTL says. Raises Conflict when the name is taken."""
        ...

    async def release(self, name: str) -> None:
        """End a legal hold. Raises NotFound."""
        ...


class SpanArchive(Protocol):
    """Where days of spans are kept after they left the database."""

    async def exists(self, day: date) -> bool:
        """Whether the day's archive is there and whole. Raises StorageError when it is damaged."""
        ...

    async def write(self, day: date, batches: AsyncIterator[list[StoredSpan]]) -> int:
        """Have these spans in the day's archive beside those it holds; returns how many of `batches` it holds, read back and durable.

        What it holds already is not written again. Raises StorageError; the archive is then as it was.
        """
        ...


class ReceivedSpans(Protocol):
    """What other teams' exporters brought."""

    async def received_since(self, since: datetime) -> list[Received]:
        """By origin, spans that began since a moment."""
        ...


class SinkAccounts(Protocol):
    """Where every span went, sink by sink."""

    async def accounts(self) -> list[SinkAccount]:
        """Also while nothing ships."""
        ...


class Breaker(Protocol):
    """The circuit breaker as adapters see it."""

    def guard(self, timeout_s: float | None = None) -> AbstractAsyncContextManager[Any]:
        """Around one call. Raises CircuitOpen at entry, BackendUnavailable at exit when the call took too long."""
        ...

    @property
    def state(self) -> Any:
        """`closed`, `open` or `half_open`, as a str."""
        ...
