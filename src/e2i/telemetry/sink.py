"""What the shipper asks of a sink, and the sink of every system that keeps no cursor for us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from e2i.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.telemetry import SpanRecord
    from e2i.telemetry.cursor import CursorFile
    from e2i.telemetry.state import SinkState


class Busy(BackendUnavailable):
    """The other side asks for patience: not before `retry_after_s` seconds."""

    retry_after_s: float = 0.0


class Faulty(BackendUnavailable):
    """The other side broke down over what it was sent: its fault, or that of one record."""


class Sink(Protocol):
    """One place that spans go to. `state` is absolute, so that repeating a delivery counts nothing twice."""

    name: str
    batch_size: int
    """spans at a time"""
    batch_bytes: int
    """of their payload at a time, at most; one span is given whatever its size"""
    keeps_state_here: bool
    """whether the state is in the spool's folder, so that `load` asks nobody"""
    wants_left_out: bool
    """whether it counts the spans that sampling leaves out; then `deliver` may come with these alone"""

    async def load(self, spool_id: str) -> SinkState | None:
        """The state that is durable; None where there is none. Raises BackendUnavailable."""
        ...

    def remembered(self) -> SinkState | None:
        """What the spool's folder knows of the state: older than `load`, unless the sink was put back in time."""
        ...

    async def deliver(self, spans: Sequence[SpanRecord], state: SinkState, left_out: Sequence[SpanRecord] = ()) -> int:
        """Deliver, then keep `state`: with the delivery or after it, never before. Returns how many the other side refused for good.

        `left_out` is not delivered, at most counted.

        Raises BackendUnavailable when it may work later, BackendRejected when one of these records may be at fault.
        """
        ...

    async def save(self, state: SinkState) -> None:
        """Keep `state`: there is nothing to deliver, but the place in the spool moved. Raises BackendUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Exporter(Protocol):
    """The sending half of a foreign sink: any span may come again, with the same ids."""

    name: str
    batch_size: int

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        """Returns when the other side has confirmed: how many it refused for good. Raises as `Sink.deliver`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ForeignSink:
    """A Sink out of an exporter and a cursor file: at least once, in order."""

    batch_bytes = 1024 * 1024
    keeps_state_here = True
    wants_left_out = False

    def __init__(self, exporter: Exporter, cursor: CursorFile) -> None:
        self.name = exporter.name
        self.batch_size = exporter.batch_size
        self._exporter = exporter
        self._cursor = cursor

    async def load(self, spool_id: str) -> SinkState | None:
        """See Sink."""
        return self._cursor.read(spool_id)

    def remembered(self) -> SinkState | None:
        """See Sink; here it is the state itself."""
        return None

    async def deliver(self, spans: Sequence[SpanRecord], state: SinkState, left_out: Sequence[SpanRecord] = ()) -> int:  # noqa: ARG002
        """See Sink."""
        refused = await self._exporter.send(spans)
        await self._cursor.write(state.with_rejected(refused))
        return refused

    async def save(self, state: SinkState) -> None:
        """See Sink."""
        await self._cursor.write(state)

    async def close(self) -> None:
        """See Sink."""
        await self._exporter.close()
