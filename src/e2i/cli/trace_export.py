"""Write spans to a file or to standard output, as they are read."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from e2i.app.trace_export import json_array, otlp_lines
from e2i.app.trace_lookup import find_trace, pages
from e2i.errors import ConfigError, Conflict, StorageError
from e2i.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from e2i.domain.telemetry import SpanQuery, StoredSpan
    from e2i.ports.telemetry import SpanRecords


def check_target(target: Path | None, *, form: str, force: bool) -> None:
    """Before anything is opened.

    Raises
    ------
    ConfigError
        Parquet without a file, something that is not a file (a folder, a device), or a folder that is not there.
    Conflict
        The file exists and is not to be replaced.
    """
    if target is None:
        if form == "parquet":
            raise ConfigError("parquet goes to a file.", where="--output", advice="Add --output spans.parquet.")
        return
    if (target.exists() and not target.is_file()) or not target.parent.is_dir():
        raise ConfigError("no file can be written there.", where=str(target), advice="Name a file in a folder that exists.")
    if target.exists() and not force:
        raise Conflict("the file exists.", where=str(target), advice="Take another name, or --force to replace it.")


async def export_spans(records: SpanRecords, wanted: str | SpanQuery, *, form: str, target: Path | None) -> int:
    """Write a trace or what a query finds; the file takes its place when it is complete. Returns the number of spans.

    Raises
    ------
    NotFound, Conflict
        See `find_trace`.
    StorageError
        The file cannot be written.
    """
    batches = _once(await find_trace(records, wanted)) if isinstance(wanted, str) else pages(records, wanted)
    try:
        if form == "parquet" and target is not None:
            from e2i.data.span_archive import write_spans

            return await write_spans(target, batches)
        pieces = json_array(batches) if form == "json" else otlp_lines(batches)
        with _opened(target) as file:
            return sum([_put(file, text, spans) async for text, spans in pieces])
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"the export cannot be written: {error.strerror or error}.", where=str(target), advice="Free space, or name another file."
        ) from error


async def _once(spans: list[StoredSpan]) -> AsyncIterator[list[StoredSpan]]:
    for start in range(0, len(spans), 1000):
        yield spans[start : start + 1000]


def _put(file: BinaryIO, text: str, spans: int) -> int:
    file.write(text.encode("utf-8", "replace"))
    return spans


@contextmanager
def _opened(target: Path | None) -> Iterator[BinaryIO]:
    if target is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with replacing(target) as (part,), part.open("wb") as file:
        yield file
