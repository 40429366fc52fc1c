"""The spool keeps every span or says why not, whatever the disk does."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from e2i.telemetry.layout import Folders
from e2i.telemetry.reader import Position, SpoolReader
from e2i.telemetry.spool import SpanClass, SpoolWriter
from spool_faults import FAULTS, Watched, drain, failing_at, failing_in, fill, settings

SPANS = 60
FEW = 21


def expected(count: int, size: int = 200) -> list[bytes]:
    return [f"{number:08d}".encode().ljust(size, b".") for number in range(count)]


def test_what_was_written_is_read_in_order_with_its_class(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path))
    assert fill(writer, SPANS) == SPANS
    reader = SpoolReader(tmp_path)
    streams = {stream.kind: stream for stream in reader.streams()}
    assert [(stream.is_alive, stream.acknowledged) for stream in streams.values()] == [(True, SPANS // 3)] * 3
    for kind, stream in streams.items():
        chunk = reader.read(stream.name, Position(), max_frames=1000, max_bytes=1 << 20)
        first = chunk.frames
        while not chunk.at_end:
            chunk = reader.read(stream.name, chunk.position, max_frames=1000, max_bytes=1 << 20)
            first += chunk.frames
        assert [sequence for sequence, _ in first] == list(range(1, SPANS // 3 + 1))
        assert [payload for _, payload in first] == expected(SPANS)[int(kind) :: 3]
    writer.close()


def test_a_reader_follows_a_living_writer_and_misses_nothing(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(settings(tmp_path)), SpoolReader(tmp_path)
    seen: list[bytes] = []
    position = Position()
    for number in range(100):
        writer.write(expected(100)[number], SpanClass.KEPT)
        name = reader.streams()[0].name
        chunk = reader.read(name, position, max_frames=5, max_bytes=1 << 16)
        assert not chunk.lost
        seen += [payload for _, payload in chunk.frames]
        position = chunk.position
        reader.release(name, position)
    assert seen == expected(100)
    assert len(list(Folders(tmp_path).segments.iterdir())) <= 2
    writer.close()


def open_below(folder: Path) -> list[str]:
    """Files of a folder that this process holds open, as Linux tells."""
    held = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # gone since
            held.append(str(each.readlink()))
    return sorted(name for name in held if name.startswith(f"{folder}/"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
@pytest.mark.parametrize("leave", [SpoolWriter.close, SpoolWriter.start_anew])
def test_every_file_is_given_back_at_the_end_and_after_a_fork(tmp_path: Path, leave: Callable[[SpoolWriter], None]) -> None:
    writer = SpoolWriter(settings(tmp_path))
    fill(writer, SPANS)
    writer.note_kept("ab" * 16)
    assert len(open_below(tmp_path)) == 5
    leave(writer)
    assert open_below(tmp_path) == []


def test_a_closed_writer_leaves_no_zeros_and_gives_its_locks_back(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=1 << 20))
    fill(writer, SPANS)
    held = SpoolReader(tmp_path).total_bytes()
    writer.close()
    reader = SpoolReader(tmp_path)
    assert reader.total_bytes() == 3 * 16 + SPANS * (200 + 22) < held
    assert not any(stream.is_alive for stream in reader.streams())


def test_a_writer_that_never_wrote_leaves_nothing(tmp_path: Path) -> None:
    SpoolWriter(settings(tmp_path)).close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_span_after_close_is_kept_as_by_a_new_writer(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path))
    fill(writer, 3)
    writer.close()
    assert fill(writer, 3, start=3) == 3
    writer.close()
    writer.close()
    assert sorted(drain(tmp_path).payloads) == expected(6)
    assert len(SpoolReader(tmp_path).streams()) == 6


def test_threads_share_a_writer_without_losing_a_span(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path))
    threads = [threading.Thread(target=fill, args=(writer, 300), kwargs={"start": 300 * number}) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    left = drain(tmp_path)
    assert sorted(left.payloads) == expected(2400)
    assert not left.lost


def test_a_span_that_ends_inside_anothers_write_is_kept_too(tmp_path: Path) -> None:
    inner: list[bool] = []

    def interrupt(name: str, number: int) -> None:
        if name == "pwrite" and not inner:
            inner.append(True)
            writer.write(b"inner", SpanClass.KEPT)  # as a signal handler or a finaliser would

    writer = SpoolWriter(settings(tmp_path), disk=Watched(after=interrupt).disk())
    writer.write(b"outer", SpanClass.KEPT)
    writer.close()
    left = drain(tmp_path)
    assert sorted(left.payloads) == [b"inner", b"outer"]
    assert not left.lost


def test_an_interrupt_in_the_middle_of_a_write_costs_no_other_span(tmp_path: Path) -> None:
    for number in range(1, 40):
        folder = tmp_path / str(number)

        def interrupt(name: str, at: int, number: int = number) -> None:
            if at == number:
                raise KeyboardInterrupt

        for watched in (Watched(before=interrupt), Watched(after=interrupt)):
            writer = SpoolWriter(settings(folder, segment_bytes=1024), disk=watched.disk())
            returned: list[bytes] = []
            for payload in expected(20):
                try:
                    is_kept = writer.write(payload, SpanClass.KEPT)
                except KeyboardInterrupt:
                    continue
                assert is_kept
                returned.append(payload)
            writer.close()
            left = drain(folder)
            assert set(returned) <= set(left.payloads)
            assert left.accounted == left.emitted
            for path in folder.rglob("*.*"):
                path.unlink()


def workload(folder: Path, watched: Watched) -> int:
    writer = SpoolWriter(settings(folder, segment_bytes=700), disk=watched.disk())
    fill(writer, FEW)
    writer.count_drop("not_serialisable")
    writer.note_kept("ab" * 16)
    writer.sync()
    writer.close()
    return FEW + 1


def calls(folder: Path) -> int:
    watched = Watched()
    workload(folder, watched)
    return len(watched.calls)


@pytest.mark.parametrize("code", FAULTS, ids=lambda code: errno.errorcode[code])
def test_whichever_call_fails_every_span_is_read_or_counted(tmp_path: Path, code: int) -> None:
    for number in range(1, calls(tmp_path / "clean") + 1):
        folder = tmp_path / str(number)
        attempted = workload(folder, Watched(before=failing_at(number, code)))
        left = drain(folder)
        assert left.accounted == left.emitted == attempted, (number, left.lost, left.drops)
        assert set(left.drops) <= {"write_failed", "not_serialisable"}
        assert left.drops["write_failed"] <= 1
        assert not left.lost


def test_whichever_write_stops_midway_every_span_is_read_or_counted(tmp_path: Path) -> None:
    for number in range(1, calls(tmp_path / "clean") + 1):
        folder = tmp_path / str(number)
        attempted = workload(folder, Watched(half=frozenset({number})))
        left = drain(folder)
        assert left.accounted == left.emitted == attempted, (number, left.lost, left.drops)
        assert not left.lost


@pytest.mark.parametrize("code", FAULTS, ids=lambda code: errno.errorcode[code])
def test_a_disk_that_fails_for_a_while_costs_only_the_spans_of_that_while(tmp_path: Path, code: int) -> None:
    for first in range(1, 120, 7):
        folder = tmp_path / str(first)
        watched = Watched(before=failing_in(first, first + 40, code))
        writer = SpoolWriter(settings(folder, segment_bytes=1500), disk=watched.disk())
        taken = fill(writer, SPANS)
        while len(watched.calls) <= first + 40:
            writer.close()  # lets the rest of the faults pass
            taken += fill(writer, 1)
        dropped = writer.drops
        writer.close()
        left = drain(folder)
        assert len(left.payloads) == taken
        assert not left.lost
        assert left.drops.total() >= sum(dropped.values())


def test_a_full_disk_costs_little_time_and_the_writer_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    full = [True]

    def fate(name: str, number: int) -> None:
        if full[0] and name in {"pwrite", "write"}:
            raise OSError(errno.ENOSPC, "full")

    watched = Watched(before=fate)
    writer = SpoolWriter(settings(tmp_path), disk=watched.disk())
    assert fill(writer, 5000) == 0
    assert writer.drops == {"write_failed": 5000}
    assert len(watched.calls) < 500, "a full disk is not asked again for every span"
    assert list(Folders(tmp_path).segments.iterdir()) == []
    full[0] = False
    writer._look_at = 0.0
    assert fill(writer, 30) == 30
    writer.close()
    left = drain(tmp_path)
    assert (len(left.payloads), left.drops) == (30, {"write_failed": 5000})


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    with pytest.raises(OSError):
        SpoolWriter(settings(tmp_path / "spool"))


def test_a_segment_deleted_under_a_living_writer_is_noticed_and_counted(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path))
    for number in range(3):
        writer.write(b"%d" % number, SpanClass.KEPT)
    for path in Folders(tmp_path).segments.iterdir():
        path.unlink()
    writer._look_at = 0.0
    writer.write(b"3", SpanClass.KEPT)
    writer.close()
    left = drain(tmp_path)
    assert left.payloads == [b"3"]
    assert left.lost == {"corrupt": 3}
    assert left.accounted == left.emitted == 4


def test_a_look_that_became_due_a_moment_ago_is_left_to_the_second_span(tmp_path: Path) -> None:
    watched = Watched()
    writer = SpoolWriter(settings(tmp_path), disk=watched.disk())
    writer.write(b"0", SpanClass.KEPT)
    for path in Folders(tmp_path).segments.iterdir():
        path.unlink()
    writer._look_at = time.monotonic() - 0.2
    calls = len(watched.calls)
    writer.write(b"1", SpanClass.KEPT)
    assert watched.calls[calls:] == ["pwrite", "pwrite"]
    writer.write(b"2", SpanClass.KEPT)
    writer.close()
    left = drain(tmp_path)
    assert left.payloads == [b"2"]
    assert left.accounted == left.emitted == 3


def test_the_whole_folder_deleted_under_a_living_writer_is_made_again(tmp_path: Path) -> None:
    import shutil

    writer = SpoolWriter(settings(tmp_path / "spool"))
    fill(writer, 3)
    shutil.rmtree(tmp_path / "spool")
    writer._look_at = 0.0
    assert fill(writer, 30, start=3) == 30
    writer.close()
    assert sorted(drain(tmp_path / "spool").payloads) == expected(33)[3:]


@pytest.mark.parametrize("damage", ["deleted", "emptied", "zeroed"])
def test_counters_lost_under_a_living_writer_are_written_again(tmp_path: Path, damage: str) -> None:
    writer = SpoolWriter(settings(tmp_path))
    fill(writer, 9)
    (counter,) = Folders(tmp_path).writers.iterdir()
    if damage == "deleted":
        counter.unlink()
    else:
        counter.write_bytes(b"" if damage == "emptied" else bytes(counter.stat().st_size))
    writer._look_at = 0.0
    fill(writer, 9, start=9)
    reader = SpoolReader(tmp_path)
    assert all(stream.is_alive for stream in reader.streams())
    assert [stream.acknowledged for stream in reader.streams()] == [6, 6, 6]
    writer.close()
    left = drain(tmp_path)
    assert left.accounted == left.emitted == 18


def test_files_are_closed_to_other_users(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path / "spool"))
    fill(writer, 3)
    writer.note_kept("ab" * 16)
    for path in (tmp_path / "spool").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    writer.close()
