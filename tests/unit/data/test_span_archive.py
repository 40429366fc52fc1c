"""Days of spans as Parquet: complete or not there, readable by others, never fewer than before."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from e2i.data.span_archive import ParquetSpanArchive, write_spans
from e2i.errors import StorageError
from span_doubles import failed, spans_of, stored, study_trace

DAY = date(2026, 10, 18)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def batches(spans, size=7):
    for start in range(0, len(spans), size):
        yield spans[start : start + size]


async def test_duckdb_and_pandas_read_typed_columns_and_attributes_as_json(tmp_path: Path):
    spans = [*study_trace(), stored("open", number=90, ms=None), stored("é \u2028 \x00", number=91, attributes={"a": [1, float("nan")]})]
    archive = ParquetSpanArchive(tmp_path / "new" / "folder")
    assert await archive.write(DAY, batches(spans)) == len(spans)
    path = archive.path(DAY)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select agent_name, count(*), sum(input_tokens), round(sum(total_cost), 6), sum(duration_ms) from read_parquet(?) "
            "where operation_type = 'llm' group by 1",
            [str(path)],
        ).fetchall()
        assert rows == [("causal_impact", 2, 1624, 0.010182, 16500.0)]
        kinds = {name: kind for name, kind, *_ in connection.execute("describe select * from read_parquet(?)", [str(path)]).fetchall()}
    assert (kinds["started_at"], kinds["started_ns"], kinds["total_cost"]) == ("TIMESTAMP WITH TIME ZONE", "BIGINT", "DOUBLE")
    assert (kinds["fallback_chain"], kinds["attributes"]) == ("VARCHAR[]", "VARCHAR")
    frame = pd.read_parquet(path)
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    assert frame["started_at"][0] == datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    assert json.loads(frame["attributes"][8])["gen_ai.request.model"] == "claude-sonnet-5"
    assert json.loads(frame["events"][7])[0]["attributes"]["exception.type"] == "RateLimitError"
    assert frame["ended_ns"].isna().tolist() == [False] * 10 + [True, False]
    assert json.loads(frame["attributes"][11]) == {"a": [1, None]}
    assert list(frame["span_id"]) == [each.span.span_id for each in spans]


async def test_an_archive_that_holds_everything_is_not_written_again(tmp_path: Path):
    archive, spans = ParquetSpanArchive(tmp_path), spans_of(DAY, 40)
    assert not await archive.exists(DAY)
    await archive.write(DAY, batches(spans))
    assert await archive.exists(DAY)
    before = archive.path(DAY).stat()
    assert await archive.write(DAY, batches(spans[10:30])) == 20
    after = archive.path(DAY).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_late_spans_are_added_to_what_the_archive_holds(tmp_path: Path):
    archive, spans = ParquetSpanArchive(tmp_path), spans_of(DAY, 40)
    await archive.write(DAY, batches(spans[:30]))
    assert await archive.write(DAY, batches(spans[25:])) == 15
    assert sorted(pd.read_parquet(archive.path(DAY))["started_ns"]) == [each.span.started_ns for each in spans]


async def test_a_day_without_spans_is_an_empty_file(tmp_path: Path):
    archive = ParquetSpanArchive(tmp_path)
    assert await archive.write(DAY, batches([])) == 0
    assert len(pd.read_parquet(archive.path(DAY))) == 0


async def test_a_reader_that_breaks_off_leaves_neither_a_file_nor_a_part_of_one(tmp_path: Path):
    async def breaking():
        yield spans_of(DAY, 5)
        raise StorageError("the connection is gone.", where="database")

    archive = ParquetSpanArchive(tmp_path)
    with pytest.raises(StorageError, match="connection"):
        await archive.write(DAY, breaking())
    assert names(tmp_path) == []
    await archive.write(DAY, batches(spans_of(DAY, 5)))
    kept = archive.path(DAY).read_bytes()
    with pytest.raises(StorageError):
        await archive.write(DAY, breaking_after_new())
    assert names(tmp_path) == ["spans-2026-10-18.parquet"]
    assert archive.path(DAY).read_bytes() == kept


async def breaking_after_new():
    yield spans_of(DAY, 9)
    raise StorageError("the connection is gone.", where="database")


async def test_a_damaged_archive_is_told_and_not_overwritten(tmp_path: Path):
    archive = ParquetSpanArchive(tmp_path)
    await archive.write(DAY, batches(spans_of(DAY, 50)))
    damaged = archive.path(DAY).read_bytes()[:-20]
    archive.path(DAY).write_bytes(damaged)
    for question in (archive.exists(DAY), archive.write(DAY, batches(spans_of(DAY, 50)))):
        with pytest.raises(StorageError, match="damaged"):
            await question
    assert archive.path(DAY).read_bytes() == damaged


async def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="stays in the database"):
        await ParquetSpanArchive(tmp_path / "file").write(DAY, batches([]))


async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path):
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        with pytest.raises(StorageError, match="cannot be archived"):
            await ParquetSpanArchive(tmp_path).write(DAY, batches(spans_of(DAY, 3000), size=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_a_process_that_is_killed_leaves_a_whole_archive_or_none_and_the_next_one_goes_on(tmp_path: Path):
    code = (
        "import asyncio, sys; sys.path.insert(0, 'tests')\n"
        "from datetime import date; from pathlib import Path\n"
        "from e2i.data.span_archive import ParquetSpanArchive; from span_doubles import spans_of\n"
        "day = date(2026, 10, 18)\n"
        "async def batches():\n"
        "    for part in range(400):\n"
        "        print(part, flush=True)\n"
        "        yield spans_of(day, 50)\n"
        f"asyncio.run(ParquetSpanArchive(Path({str(tmp_path)!r})).write(day, batches()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert process.stdout is not None
    while int(process.stdout.readline()) < 20:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    archive = ParquetSpanArchive(tmp_path)
    assert [each.suffix for each in tmp_path.iterdir()] == [".part"]
    assert not asyncio.run(archive.exists(DAY))
    assert asyncio.run(archive.write(DAY, batches(spans_of(DAY, 30)))) == 30
    assert names(tmp_path) == ["spans-2026-10-18.parquet"]


async def test_an_export_is_the_same_file_under_any_name(tmp_path: Path):
    assert await write_spans(tmp_path / "out.parquet", batches([failed("x", number=1), stored("y", number=2)])) == 2
    assert list(pd.read_parquet(tmp_path / "out.parquet")["error_type"]) == ["ValueError", None]
