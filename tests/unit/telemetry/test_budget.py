"""A full spool loses the least dear and oldest first, and says how much of what."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from e2i.telemetry import budget
from e2i.telemetry.layout import Folders, kind_of, parse_segment
from e2i.telemetry.reader import Position, SpoolReader
from e2i.telemetry.spool import SpanClass, SpoolWriter
from spool_faults import QUICK, Watched, drain, fill, settings


def classes(folder: Path) -> Counter[int]:
    names = [parse_segment(path.name) for path in Folders(folder).segments.glob("*.seg")]
    return Counter(int(kind_of(found[0])) for found in names if found)


def test_classes_go_in_order_and_within_one_the_oldest_segment_first(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 90)
    writer.close()
    reader = SpoolReader(tmp_path, disk=QUICK)
    total = reader.total_bytes()
    assert classes(tmp_path) == {0: 10, 1: 10, 2: 10}
    reader.enforce_budget(total - 4 * 700)
    assert classes(tmp_path) == {0: 10, 1: 10, 2: 5}
    left = drain(tmp_path)
    assert left.lost == {"disk_budget": 15}
    assert left.accounted == left.emitted == 90
    last_of_class_2 = [f"{number:08d}".encode() for number in range(90) if number % 3 == 2][15:]
    assert [payload[:8] for payload in left.payloads if int(payload[:8]) % 3 == 2] == last_of_class_2
    reader.enforce_budget(total // 2)
    assert classes(tmp_path) == {0: 10, 1: 5}
    reader.enforce_budget(total // 4)
    assert classes(tmp_path) == {0: 7}
    assert reader.total_bytes() <= total // 4
    left = drain(tmp_path)
    assert left.accounted == left.emitted == 90
    assert set(left.lost) == {"disk_budget"}


def test_a_writer_keeps_the_spool_in_bounds_by_itself_and_saves_the_errors(tmp_path: Path) -> None:
    bound = 1 << 20
    writer = SpoolWriter(settings(tmp_path, max_bytes=bound, segment_bytes=1 << 16), disk=QUICK)
    reader = SpoolReader(tmp_path, disk=QUICK)
    for number in range(3000):
        writer.write(b"e" * 1000 if number % 10 == 0 else b"m" * 1000, SpanClass.ERROR if number % 10 == 0 else SpanClass.MAYBE)
        if number % 100 == 0:
            assert reader.total_bytes() <= bound
    writer.close()
    left = drain(tmp_path, max_frames=1000, max_bytes=1 << 20)
    assert sum(payload[:1] == b"e" for payload in left.payloads) == 300
    assert left.accounted == left.emitted == 3000
    assert set(left.lost) == {"disk_budget"}


def test_living_writers_current_segments_go_only_when_nothing_else_is_left(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 20)
    reader = SpoolReader(tmp_path, disk=QUICK)
    reader.enforce_budget(3 * 700)
    assert classes(tmp_path) == {0: 1, 1: 1, 2: 1}
    assert {stream.is_alive for stream in reader.streams()} == {True}
    reader.enforce_budget(700)
    assert classes(tmp_path) == {0: 1}
    writer._look_at = 0.0
    fill(writer, 40, start=20)
    writer.close()
    left = drain(tmp_path)
    assert left.accounted == left.emitted == 60
    assert set(left.lost) == {"disk_budget"}


def test_what_a_sink_had_passed_before_it_was_deleted_is_no_loss_of_that_sink(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    for number in range(30):
        writer.write(b"%02d" % number * 100, SpanClass.KEPT)
    reader = SpoolReader(tmp_path, disk=QUICK)
    (stream,) = reader.streams()
    ahead = reader.read(stream.name, Position(), max_frames=100, max_bytes=900).position
    ahead = reader.read(stream.name, ahead, max_frames=100, max_bytes=900).position
    reader.enforce_budget(reader.total_bytes() - 4 * 700)
    writer.close()
    first = drain(tmp_path)
    lost: Counter[str] = Counter()
    frames = ahead.sequence
    position = ahead
    while True:
        chunk = reader.read(stream.name, position, max_frames=100, max_bytes=1 << 20)
        frames += len(chunk.frames)
        lost.update(chunk.lost)
        position = chunk.position
        if chunk.at_end and not chunk.frames:
            break
    assert first.lost["disk_budget"] - lost["disk_budget"] == ahead.sequence
    assert frames + lost.total() == 30


def test_corruption_and_deletion_for_room_are_told_apart(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    for number in range(30):
        writer.write(b"%02d" % number * 100, SpanClass.KEPT)
    writer.close()
    paths = sorted(Folders(tmp_path).segments.glob("*.seg"))
    paths[7].write_bytes(os.urandom(400))
    reader = SpoolReader(tmp_path, disk=QUICK)
    reader.enforce_budget(reader.total_bytes() - 3 * 600)
    left = drain(tmp_path)
    assert left.lost == {"disk_budget": 9, "corrupt": 3}
    assert left.accounted == left.emitted == 30


def test_a_stream_deleted_as_a_whole_is_still_accounted_for(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path), disk=QUICK)
    fill(writer, 9)
    writer.close()
    reader = SpoolReader(tmp_path, disk=QUICK)
    reader.enforce_budget(0)
    assert reader.total_bytes() == 0
    left = drain(tmp_path)
    assert left.lost == {"disk_budget": 9}
    assert left.emitted == 9
    for stream in reader.streams():
        assert reader.retire(stream.name)
    assert reader.streams() == []


def test_a_full_disk_that_has_no_room_for_the_note_still_gives_room_and_notes_afterwards(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 30)
    writer.close()
    deleted = []

    def full(name: str, number: int) -> None:
        if name == "write" and not deleted:
            raise OSError(errno.ENOSPC, "full")

    def after(name: str, number: int) -> None:
        if name == "unlink":
            deleted.append(number)

    reader = SpoolReader(tmp_path, disk=QUICK)
    bound = reader.total_bytes() - 1000
    assert budget.enforce(Folders(tmp_path), bound, Watched(before=full, after=after).disk()) >= 1000
    left = drain(tmp_path)
    assert left.lost.keys() == {"disk_budget"}
    assert left.accounted == left.emitted == 30


def test_a_note_that_is_damaged_makes_the_loss_corruption_and_nothing_worse(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 30)
    writer.close()
    SpoolReader(tmp_path, disk=QUICK).enforce_budget(3000)
    lost = drain(tmp_path).lost["disk_budget"]
    for note in Folders(tmp_path).segments.glob("*.gone"):
        note.write_bytes(b"\xff{")
    left = drain(tmp_path)
    assert left.lost == {"corrupt": lost}
    assert left.accounted == left.emitted == 30


def test_half_made_files_of_a_killed_process_are_cleared_away_when_they_are_old(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path), disk=QUICK)
    fill(writer, 3)
    folders = Folders(tmp_path)
    old, new = folders.segments / ".1-x.seg.00", folders.writers / ".new.count.00"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    SpoolReader(tmp_path, disk=QUICK).enforce_budget(1 << 20)
    assert not old.exists()
    assert new.exists()
    writer.close()


@pytest.mark.parametrize("clock", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_changes_only_what_is_oldest(tmp_path: Path, clock: float) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 45)
    writer.close()
    for number, path in enumerate(sorted(Folders(tmp_path).segments.glob("*.seg"))):
        if number % 2:
            os.utime(path, (path.stat().st_atime + clock, path.stat().st_mtime + clock))
    reader = SpoolReader(tmp_path, disk=QUICK)
    reader.enforce_budget(reader.total_bytes() - 5000)
    left = drain(tmp_path)
    assert left.accounted == left.emitted == 45
    assert set(left.lost) == {"disk_budget"}
