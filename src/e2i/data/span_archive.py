"""Spans as Parquet: one file per day for the archive, or any file for an export. DuckDB, pandas and polars read them."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from e2i.app.trace_export import compact
from e2i.errors import StorageError
from e2i.whole_files import beside, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import date
    from pathlib import Path

    from e2i.domain.telemetry import StoredSpan

FORMAT = "1"
_TEXTS = ("trace_id", "span_id", "parent_span_id", "name", "kind", "service", "scope", "origin", "span_status", "status_message")
_COLUMN_TEXTS = (
    "agent_name", "agent_tier", "operation_type", "model_name", "status", "error_type", "error_message",
    "experiment_id", "run_id", "user_id", "session_id",
)  # fmt: skip
_SAME = frozenset(_TEXTS) - {"span_status"}


class ParquetSpanArchive:
    """`SpanArchive` in a folder: `spans-2026-10-21.parquet`, zstd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def path(self, day: date) -> Path:
        """Where the day's file is."""
        return self._folder / f"spans-{day.isoformat()}.parquet"

    async def exists(self, day: date) -> bool:
        """Whether the day's archive is there and whole. Raises StorageError when it is damaged."""
        return await asyncio.to_thread(self._rows, day) is not None

    async def write(self, day: date, batches: AsyncIterator[list[StoredSpan]]) -> int:
        """Have these spans in the day's archive, beside those that it holds; returns how many of them it holds.

        What was written is read back and counted, forced to the disk, and only then takes its place under the day's name. Spans that
        are there already are not written again; when all are, nothing is written.

        Raises
        ------
        StorageError
            The folder cannot be written, the disk is full, the old file is damaged, or what was read back differs.
        """
        path = self.path(day)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            known = await asyncio.to_thread(_keys, path) if await self.exists(day) else set()
            return await _write_new(path, batches, known=known)
        except OSError as error:
            raise StorageError(
                f"the day {day} cannot be archived: {error.strerror or error}. It stays in the database.",
                where=str(path),
                advice="Free space or give write permission, then run again.",
            ) from error

    def _rows(self, day: date) -> int | None:
        from pyarrow import ArrowException, parquet

        path = self.path(day)
        if not path.is_file():
            return None
        try:
            return int(parquet.read_metadata(path).num_rows)
        except (ArrowException, OSError) as error:
            raise StorageError(
                f"the archive is damaged: {error}", where=str(path), advice="Move the file away to have it written anew."
            ) from error


async def write_spans(path: Path, batches: AsyncIterator[list[StoredSpan]]) -> int:
    """Write spans to a Parquet file, which takes its place when it is complete; returns how many."""
    return await _write_new(path, batches, known=set())


async def _write_new(path: Path, batches: AsyncIterator[list[StoredSpan]], *, known: set[bytes]) -> int:
    """Write to a temporary file what is not known, then what the file held; check it; put it in place. Returns the spans seen."""
    old = path if known else None
    seen = 0
    with beside(path) as part:
        added = 0
        writer = None if known else await asyncio.to_thread(_open, part)
        try:
            async for batch in batches:
                seen += len(batch)
                new = [each for each in batch if _digest(*each.span.key) not in known] if known else batch
                if new:
                    writer = writer or await asyncio.to_thread(_open, part)
                    await asyncio.to_thread(_append, writer, new)
                    added += len(new)
            if writer is not None and old is not None:
                added += await asyncio.to_thread(_copy, old, writer)
        finally:
            if writer is not None:
                await asyncio.to_thread(writer.close)
        if writer is not None:
            await asyncio.to_thread(_put, part, path, added)
    return seen


def _put(part: Path, path: Path, rows: int) -> None:
    """Read back and count, then put in place."""
    from pyarrow import parquet

    with parquet.ParquetFile(part) as file:
        found = sum(batch.num_rows for batch in file.iter_batches(batch_size=5000))
    if found != rows:
        raise StorageError(f"{rows} spans were written and {found} read back.", where=str(part), advice="Check the disk, then run again.")
    place(part, path)


def _open(part: Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetWriter(part, _schema(), compression="zstd", compression_level=3)


def _append(writer: Any, batch: Sequence[StoredSpan]) -> None:
    writer.write_table(_table(batch))


def _copy(old: Path, writer: Any) -> int:
    from pyarrow import parquet

    rows = 0
    with parquet.ParquetFile(old) as file:
        for batch in file.iter_batches(batch_size=5000):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _keys(path: Path) -> set[bytes]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return {
            _digest(trace, span)
            for batch in file.iter_batches(batch_size=20_000, columns=["trace_id", "span_id"])
            for trace, span in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        }


def _digest(trace_id: str, span_id: str) -> bytes:
    return hashlib.blake2b(f"{trace_id}/{span_id}".encode(), digest_size=16).digest()


def _schema() -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=name in ("parent_span_id", "status_message")) for name in _TEXTS),
            pa.field("started_at", moment, nullable=False),
            pa.field("ended_at", moment),
            pa.field("started_ns", pa.int64(), nullable=False),
            pa.field("ended_ns", pa.int64()),
            pa.field("duration_ms", pa.float64()),
            *(pa.field(name, pa.string()) for name in _COLUMN_TEXTS),
            pa.field("input_tokens", pa.int64()),
            pa.field("output_tokens", pa.int64()),
            pa.field("total_cost", pa.float64()),
            pa.field("fallback_chain", pa.list_(pa.string()), nullable=False),
            pa.field("attributes", pa.string(), nullable=False),
            pa.field("events", pa.string(), nullable=False),
            pa.field("links", pa.string(), nullable=False),
        ],
        metadata={"e2i.format": FORMAT, "e2i.content": "spans; attributes, events and links are JSON"},
    )


def _table(batch: Sequence[StoredSpan]) -> Any:
    import pyarrow as pa

    spans = [each.span for each in batch]
    columns = [each.columns for each in batch]
    found: dict[str, list[Any]] = {name: [getattr(span, name) for span in spans] for name in _SAME}
    found["span_status"] = [span.status for span in spans]
    for name in (*_COLUMN_TEXTS, "input_tokens", "output_tokens", "total_cost"):
        found[name] = [getattr(each, name) for each in columns]
    found["fallback_chain"] = [list(each.fallback_chain) for each in columns]
    found["started_ns"] = [span.started_ns for span in spans]
    found["ended_ns"] = [span.ended_ns for span in spans]
    found["started_at"] = [span.started_ns // 1000 for span in spans]
    found["ended_at"] = [None if span.ended_ns is None else span.ended_ns // 1000 for span in spans]
    found["duration_ms"] = [span.duration_ms for span in spans]
    found["attributes"] = [compact(span.attributes) for span in spans]
    found["events"] = [compact([{"name": e.name, "at_ns": e.at_ns, "attributes": e.attributes} for e in span.events]) for span in spans]
    found["links"] = [
        compact([{"trace_id": k.trace_id, "span_id": k.span_id, "attributes": k.attributes} for k in span.links]) for span in spans
    ]
    return pa.Table.from_pydict(found, schema=_schema())
