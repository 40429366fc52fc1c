"""Where every span went, per sink; from the folder alone, so that it can be asked while the shipper is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from e2i.domain.telemetry import SinkAccount
from e2i.errors import BackendError, StorageError
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.frames import decode
from e2i.telemetry.housekeeping import read_status
from e2i.telemetry.layout import Folders, SpanClass
from e2i.telemetry.ledger import read_ledger
from e2i.telemetry.reader import Position, SpoolReader, Stream
from e2i.telemetry.sinks.postgres import NAME as POSTGRES
from e2i.telemetry.state import Reached, SinkState, added

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.ports.telemetry import SpanShipments

BreakerState = Literal["closed", "open", "half_open"]
_STATES = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, kw_only=True)
class _Spool:
    """What the folder holds at one moment."""

    reader: SpoolReader
    streams: Sequence[Stream]
    floors: Mapping[str, Position]
    lost: Mapping[str, int]
    """spans that no writer could write"""


async def accounts(
    folder: Path,
    sinks: Sequence[str] = (),
    *,
    shipments: SpanShipments | None = None,
    decision_wait_s: float = 150.0,
    now_ns: Callable[[], int] = time.time_ns,
) -> list[SinkAccount]:
    """One account per sink.

    Parameters
    ----------
    folder : of the spool; it need not exist
    sinks : names of the configured sinks; without any, those that have a cursor in the folder
    shipments : the database's own state for the sink `postgres`; without it, or while the database is away, the copy in the folder
    decision_wait_s : how long a span outside the sample waits; that wait is not lag

    Raises
    ------
    OSError
        The folder is there and cannot be read.
    """
    names = list(sinks) or sorted(path.stem for path in (folder / "sinks").glob("*.json"))
    if not _is_spool(folder):
        return [_account(name, SinkState(), None, {}, 0.0) for name in names]
    reader = SpoolReader(folder)
    status = read_status(folder)
    found = []
    for name in names:
        state = await _state(folder, name, reader.spool_id, shipments)
        # The state before the streams: what moves meanwhile looks as if it were still waiting, and nothing is missing.
        streams, counted = reader.streams(), reader.writer_drops()
        ledger = read_ledger(folder, sets_aside=False)
        spool = _Spool(reader=reader, streams=streams, floors=ledger.floors, lost=ledger.drops(counted))
        found.append(_account(name, state, spool, status.get(name, {}), _lag_s(spool, state, int(decision_wait_s * 1e9), now_ns())))
    return found


def spool_bytes(folder: Path) -> int:
    """Bytes of all segments; 0 where there is no spool."""
    return SpoolReader(folder).total_bytes() if _is_spool(folder) else 0


def metrics_text(accounts: Sequence[SinkAccount], *, bytes_on_disk: int | None = None) -> str:
    """The accounts in Prometheus' text format (version 0.0.4).

    >>> print(metrics_text([], bytes_on_disk=0).splitlines()[-1])
    e2i_spool_bytes 0
    """
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: Sequence[tuple[str, float]]) -> None:
        if samples:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}"))
            lines.extend(
                f"{name}{labels} {value:g}" if isinstance(value, float) else f"{name}{labels} {value}" for labels, value in samples
            )

    def by_sink(value: Callable[[SinkAccount], float]) -> list[tuple[str, float]]:
        return [(f'{{sink="{_label(account.sink)}"}}', value(account)) for account in accounts]

    family("e2i_spool_emitted_total", "counter", "Spans ended.", by_sink(lambda one: one.emitted))
    family("e2i_spool_delivered_total", "counter", "Spans that the sink confirmed.", by_sink(lambda one: one.delivered))
    family("e2i_spool_in_spool", "gauge", "Spans that wait for the sink.", by_sink(lambda one: one.in_spool))
    family("e2i_spool_sampled_out_total", "counter", "Spans left out by sampling.", by_sink(lambda one: one.sampled_out))
    dropped = [
        (f'{{sink="{_label(account.sink)}",reason="{_label(reason)}"}}', float(count))
        for account in accounts
        for reason, count in sorted(account.dropped.items())
    ]
    family("e2i_spool_dropped_total", "counter", "Spans lost, by reason.", [(labels, int(count)) for labels, count in dropped])
    family("e2i_spool_unexplained", "gauge", "Spans that nothing accounts for; must be 0.", by_sink(lambda one: one.unexplained))
    family("e2i_spool_lag_seconds", "gauge", "Age of the oldest span that waits for the sink.", by_sink(lambda one: float(one.lag_s)))
    circuits = [(f'{{connector="{_label(account.sink)}"}}', _STATES[account.breaker]) for account in accounts]
    family("e2i_circuit_state", "gauge", "Circuit breaker: 0 closed, 1 half open, 2 open.", circuits)
    if bytes_on_disk is not None:
        family("e2i_spool_bytes", "gauge", "Bytes of the spool on disk.", [("", bytes_on_disk)])
    return "\n".join(lines) + "\n"


def _is_spool(folder: Path) -> bool:
    """Whether anything was ever written; asking must not make a spool."""
    return Folders(folder).segments.is_dir()


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def _state(folder: Path, name: str, spool_id: str, shipments: SpanShipments | None) -> SinkState:
    if name == POSTGRES and shipments is not None:
        try:
            kept = await shipments.shipped(spool_id)
            if kept is not None:
                return SinkState.from_json(kept)
        except (BackendError, StorageError, ValueError):
            pass  # the copy in the folder is at most one batch behind, and the account says what it knows
    return CursorFile(folder, name, is_owner=False).read(spool_id) or SinkState()


def _account(name: str, state: SinkState, spool: _Spool | None, status: Mapping[str, object], lag_s: float) -> SinkAccount:
    waiting, passed, deleted = 0, state.passed, 0
    lost: Mapping[str, int] = {}
    if spool is not None:
        for stream in spool.streams:
            place = _reached(spool, state, stream).position
            waiting += max(0, stream.acknowledged - place.sequence)
            deleted += spool.reader.deleted(stream.name, place, stream.acknowledged)
        lost = spool.lost
    breaker = status.get("breaker")
    error = status.get("last_error")
    return SinkAccount(
        sink=name,
        emitted=passed + waiting + sum(lost.values()),
        delivered=state.delivered,
        in_spool=waiting - deleted,
        sampled_out=state.sampled_out,
        dropped=added(added(state.dropped, lost), {"disk_budget": deleted} if deleted else {}),
        breaker=cast("BreakerState", breaker) if breaker in _STATES else "closed",
        lag_s=lag_s,
        last_error=error if isinstance(error, str) else None,
    )


def _lag_s(spool: _Spool, state: SinkState, wait_ns: int, now_ns: int) -> float:
    """From the first span that waits in each stream."""
    oldest = 0
    for stream in spool.streams:
        place = _reached(spool, state, stream).position
        if stream.acknowledged <= place.sequence:
            continue
        try:
            frames = spool.reader.read(stream.name, place, max_frames=1, max_bytes=1).frames
            ended = decode(frames[0][1]).ended_ns if frames else None
        except (OSError, ValueError):
            continue
        if ended is not None:
            oldest = max(oldest, now_ns - ended - (wait_ns if stream.kind is SpanClass.MAYBE else 0))
    return oldest / 1e9


def _reached(spool: _Spool, state: SinkState, stream: Stream) -> Reached:
    if known := state.streams.get(stream.name):
        return known
    begin = spool.floors.get(stream.name, Position())
    return Reached(begin, begin.sequence)
