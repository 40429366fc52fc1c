"""What a reader makes of damaged, missing, foreign and deleted files; it deletes only what was passed."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from e2i.telemetry import heading
from e2i.telemetry.layout import Folders
from e2i.telemetry.reader import Position, SpoolReader
from e2i.telemetry.spool import SpanClass, SpoolWriter
from spool_faults import QUICK, Watched, drain, failing_at, fill, settings

PAYLOADS = [b"%02d" % number * 12 for number in range(6)]


def small_spool(folder: Path) -> Path:
    """One dead stream of one small segment; its path."""
    writer = SpoolWriter(settings(folder), disk=QUICK)
    for payload in PAYLOADS:
        writer.write(payload, SpanClass.KEPT)
    writer.close()
    (path,) = Folders(folder).segments.glob("*.seg")
    return path


def test_a_bit_flipped_at_any_byte_costs_at_most_one_span_which_is_counted(tmp_path: Path) -> None:
    path = small_spool(tmp_path)
    whole = path.read_bytes()
    bits = random.Random(1)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bits.randrange(8)
        path.write_bytes(damaged)
        left = drain(tmp_path)
        assert len(left.payloads) >= len(PAYLOADS) - 1
        assert set(left.payloads) <= set(PAYLOADS)
        assert left.accounted == left.emitted == len(PAYLOADS), at
        assert set(left.lost) <= {"corrupt"}


def test_a_segment_truncated_anywhere_gives_what_is_whole_and_counts_the_rest(tmp_path: Path) -> None:
    path = small_spool(tmp_path)
    whole = path.read_bytes()
    frame = (len(whole) - heading.SIZE) // len(PAYLOADS)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        left = drain(tmp_path)
        good = max(0, size - heading.SIZE) // frame
        assert left.payloads == PAYLOADS[:good]
        assert left.lost == Counter({"corrupt": len(PAYLOADS) - good})
        assert left.emitted == len(PAYLOADS)


@given(st.data())
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_everything_around_any_damage_is_salvaged(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = small_spool(tmp_path_factory.mktemp("spool"))
    whole = path.read_bytes()
    frame = (len(whole) - heading.SIZE) // len(PAYLOADS)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    noise = data.draw(st.binary(max_size=60))
    path.write_bytes(whole[:start] + noise + whole[end:])
    spoilt = {(at - heading.SIZE) // frame for at in range(max(start, heading.SIZE), end)}
    if heading.SIZE < start == end and (start - heading.SIZE) % frame and noise:
        spoilt.add((start - heading.SIZE) // frame)
    left = drain(path.parents[1], max_frames=data.draw(st.integers(1, 4)), max_bytes=data.draw(st.integers(1, 200)))
    assert {*left.payloads} >= {payload for number, payload in enumerate(PAYLOADS) if number not in spoilt}
    assert left.payloads == sorted(set(left.payloads))
    assert left.accounted == left.emitted == len(PAYLOADS)


def test_a_damaged_segment_in_the_middle_of_a_living_stream_blocks_nothing(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700))
    fill(writer, 60)
    paths = sorted(Folders(tmp_path).segments.glob("1-*.seg"))
    paths[2].write_bytes(b"")
    paths[4].write_bytes(os.urandom(700))
    left = drain(tmp_path)
    assert left.lost == {"corrupt": 6}
    assert left.accounted == left.emitted == 60
    writer.close()


def test_a_living_writers_segment_may_be_truncated_under_it(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(settings(tmp_path, segment_bytes=1 << 20)), SpoolReader(tmp_path)
    position = Position()
    seen: list[bytes] = []
    lost: Counter[str] = Counter()
    for number in range(40):
        writer.write(b"%02d" % number * 50, SpanClass.KEPT)
        if number in {10, 25}:
            (path,) = Folders(tmp_path).segments.glob("*.seg")
            os.truncate(path, 200)
        if number % 5 == 0:
            chunk = reader.read(reader.streams()[0].name, position, max_frames=100, max_bytes=1 << 20)
            position = chunk.position
            seen += [payload for _, payload in chunk.frames]
            lost.update(chunk.lost)
    writer.close()
    (stream,) = reader.streams()
    while True:
        chunk = reader.read(stream.name, position, max_frames=100, max_bytes=1 << 20)
        seen += [payload for _, payload in chunk.frames]
        lost.update(chunk.lost)
        position = chunk.position
        if chunk.at_end and not chunk.frames:
            break
    assert len(seen) == len(set(seen))
    assert len(seen) + lost["corrupt"] == 40
    assert position.sequence == stream.acknowledged == 40


@pytest.mark.parametrize("damage", ["deleted", "emptied", "garbage", "one bit"])
def test_without_counters_the_sequences_in_the_segments_count(tmp_path: Path, damage: str) -> None:
    small_spool(tmp_path)
    (counter,) = Folders(tmp_path).writers.iterdir()
    if damage == "deleted":
        counter.unlink()
    elif damage == "one bit":
        data = bytearray(counter.read_bytes())
        data[heading.SIZE + 16] ^= 64
        counter.write_bytes(data)
    else:
        counter.write_bytes(b"" if damage == "emptied" else os.urandom(200))
    left = drain(tmp_path)
    assert left.payloads == PAYLOADS
    assert left.emitted == left.accounted == len(PAYLOADS)
    reader = SpoolReader(tmp_path)
    (stream,) = reader.streams()
    assert not stream.is_alive
    assert reader.retire(stream.name)
    assert list(Folders(tmp_path).segments.iterdir()) == []


def test_a_living_writer_without_counters_is_still_seen_to_live_and_never_retired(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700))
    fill(writer, 9)
    for counter in Folders(tmp_path).writers.iterdir():
        counter.unlink()
    reader = SpoolReader(tmp_path)
    for stream in reader.streams():
        assert (stream.is_alive, stream.acknowledged) == (True, 3)
        assert not reader.retire(stream.name)
    assert len(drain(tmp_path).payloads) == 9
    writer.close()


def test_files_of_a_later_format_are_left_alone_and_reported(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    path = small_spool(tmp_path)
    later = folders.segment("1-00000000000000000001-77-aabbccdd", 1)
    later.write_bytes(heading.heading(heading.SEGMENT, 2) + b"whatever" * 5000)
    counter = folders.counter("77-aabbccdd")
    counter.write_bytes(heading.heading(heading.COUNTER, 2) + b"x" * 400)
    reader = SpoolReader(tmp_path)
    assert reader.foreign() == [later.name, counter.name]
    assert [stream.name for stream in reader.streams()] == [path.name[: -len("-00000001.seg")]]
    reader.enforce_budget(0)
    reader.retire("1-00000000000000000001-77-aabbccdd")
    reader.retire_writer("77-aabbccdd")
    assert later.exists()
    assert counter.exists()
    assert not path.exists()


def test_release_and_retire_delete_only_what_was_passed(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(settings(tmp_path, segment_bytes=700)), SpoolReader(tmp_path)
    fill(writer, 60)
    folders = Folders(tmp_path)
    everything = {path.name for path in folders.segments.iterdir()}
    stream = next(found for found in reader.streams() if found.kind is SpanClass.KEPT)
    chunk = reader.read(stream.name, Position(), max_frames=7, max_bytes=1 << 20)
    chunk = reader.read(stream.name, chunk.position, max_frames=7, max_bytes=1 << 20)
    reader.release(stream.name, chunk.position)
    gone = everything - {path.name for path in folders.segments.iterdir()}
    assert gone == {folders.segment(stream.name, number).name for number in range(1, chunk.position.segment)}
    assert not reader.retire(stream.name), "its writer lives"
    writer.close()
    assert reader.retire(stream.name)
    assert {path.name for path in folders.segments.iterdir()} == {name for name in everything if not name.startswith(stream.name)}
    assert len(list(folders.writers.iterdir())) == 1, "its counters count other streams, too"
    for other in reader.streams():
        assert reader.retire(other.name)
    assert [path for folder in (folders.segments, folders.writers) for path in folder.iterdir()] == []


def test_a_writer_that_only_lost_spans_is_found_and_can_be_retired(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(settings(tmp_path)), SpoolReader(tmp_path)
    writer.count_drop("not_serialisable")
    (name,) = reader.writer_drops()
    assert reader.writers_without_stream() == [], "it lives"
    reader.retire_writer(name)
    assert reader.writer_drops() == {name: {"not_serialisable": 1}}
    writer.close()
    assert reader.writers_without_stream() == [name]
    reader.retire_writer(name)
    assert reader.writer_drops() == {}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO], ids=lambda code: errno.errorcode[code])
def test_a_reader_whose_calls_fail_loses_and_deletes_nothing(tmp_path: Path, code: int) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 30)
    spool_id = SpoolReader(tmp_path, disk=QUICK).spool_id
    watched = Watched()
    drain(tmp_path, reader=SpoolReader(tmp_path, disk=watched.disk()))
    before = {path: path.read_bytes() for path in Folders(tmp_path).segments.iterdir()}
    for number in range(1, len(watched.calls) + 1):
        failing = Watched(before=failing_at(number, code))
        try:
            left = drain(tmp_path, reader=SpoolReader(tmp_path, disk=failing.disk()))
        except OSError:
            continue
        assert len(left.payloads) == 30 or code == errno.EIO
        assert left.accounted == left.emitted == 30
    assert {path: path.read_bytes() for path in Folders(tmp_path).segments.iterdir()} == before
    assert len(drain(tmp_path).payloads) == 30
    assert SpoolReader(tmp_path).spool_id == spool_id
    writer.close()


def test_a_part_of_a_segment_that_the_medium_lost_costs_only_the_spans_in_it(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=1 << 20))
    for number in range(100):
        writer.write(b"%03d" % number * 100, SpanClass.KEPT)
    writer.close()

    def unreadable(fd: int, size: int, offset: int) -> bytes:
        if offset <= 8192 < offset + size:
            raise OSError(errno.EIO, "medium")
        return os.pread(fd, size, offset)

    from dataclasses import replace

    left = drain(tmp_path, reader=SpoolReader(tmp_path, disk=replace(QUICK, pread=unreadable)), max_bytes=1 << 20, max_frames=1000)
    assert left.accounted == left.emitted == 100
    assert 80 <= len(left.payloads) < 100


def test_one_frame_is_given_whatever_its_size(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path, segment_bytes=4096))
    large = [bytes([65 + number]) * 300_000 for number in range(3)]
    for payload in large:
        assert writer.write(payload, SpanClass.ERROR)
    writer.close()
    assert drain(tmp_path, max_bytes=10).payloads == large


def test_the_id_is_made_once_by_whoever_comes_first_and_mended_when_damaged(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: SpoolReader(tmp_path).spool_id, range(16)))
    assert len(ids) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id", "segments", "writers"]
    (tmp_path / "id").write_text("")
    mended = SpoolReader(tmp_path).spool_id
    assert len(mended) == 32
    assert SpoolReader(tmp_path).spool_id == mended


def test_sync_forces_what_changed_and_nothing_else(tmp_path: Path) -> None:
    forced = Watched()
    writer, reader = SpoolWriter(settings(tmp_path)), SpoolReader(tmp_path, disk=forced.disk())

    def count() -> int:
        before = forced.calls.count("fdatasync")
        reader.sync()
        return forced.calls.count("fdatasync") - before

    fill(writer, 3)
    above = len([place for place in (tmp_path, *tmp_path.parents) if place.stat().st_dev == tmp_path.stat().st_dev])
    assert count() == 4 + above, "three segments, their folder, and once the names above it"
    assert count() == 3, "just written: their time may stand still"
    for path in Folders(tmp_path).segments.iterdir():
        os.utime(path, ns=(1, 1))
    count()
    assert count() == 0
    fill(writer, 1)
    assert count() == 1
    writer.close()


def test_kept_traces_are_read_as_they_come_whatever_was_damaged_between(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(settings(tmp_path)), SpoolReader(tmp_path)
    ids = [f"{number:032x}" for number in range(1, 7)]
    writer.note_kept(ids[0])
    writer.note_kept(ids[0])
    kept = reader.kept_traces()
    assert set(kept) == {ids[0]}
    assert len(kept) == 1
    with Folders(tmp_path).kept.open("ab") as file:
        file.write(b"torn")
    writer.note_kept(ids[1])
    writer.note_kept("not a trace")
    kept = reader.kept_traces()
    assert ids[1] in kept
    assert ids[2] not in kept
    assert "" not in kept
    reader.rotate_kept()
    writer.note_kept(ids[2])
    assert set(reader.kept_traces()) == set(ids[:3])
    reader.rotate_kept()
    assert set(reader.kept_traces()) == {ids[2]}
    assert SpoolReader(tmp_path).kept_traces() & set(ids) == {ids[2]}
    writer.close()


def test_many_kept_traces_need_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    from xxhash import xxh3_64_digest

    noted = [os.urandom(16) for _ in range(80_000)]
    Folders(tmp_path).make()
    Folders(tmp_path).kept.write_bytes(b"".join(key + xxh3_64_digest(key) for key in noted))
    reader = SpoolReader(tmp_path)
    tracemalloc.start()
    kept = reader.kept_traces()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(key.hex() in kept for key in noted[::97])
    assert held < 65_536 * 8 + 15_000 * 110


def test_permission_lost_on_one_stream_blocks_no_other(tmp_path: Path) -> None:
    from dataclasses import replace

    writer = SpoolWriter(settings(tmp_path, segment_bytes=700), disk=QUICK)
    fill(writer, 30)
    writer.close()
    closed = {path for path in Folders(tmp_path).segments.iterdir() if path.name.startswith("1-")}
    blocked = True

    def guarded(path: Path, flags: int, mode: int) -> int:
        if blocked and path in closed:
            raise PermissionError(errno.EACCES, "permission", str(path))
        return os.open(path, flags, mode)

    reader = SpoolReader(tmp_path, disk=replace(QUICK, open=guarded))
    streams = {int(stream.kind): stream for stream in reader.streams()}
    assert {kind: stream.acknowledged for kind, stream in streams.items()} == {0: 10, 1: 10, 2: 10}
    for kind in (0, 2):
        assert len(reader.read(streams[kind].name, Position(), max_frames=99, max_bytes=1 << 20).frames) == 3
    with pytest.raises(PermissionError):
        reader.read(streams[1].name, Position(), max_frames=99, max_bytes=1 << 20)
    assert not reader.retire(streams[1].name), "who cannot look must not delete"
    with pytest.raises(PermissionError):
        reader.sync()
    assert reader.enforce_budget(reader.total_bytes() - 4 * 700) > 0
    with pytest.raises(PermissionError):
        reader.enforce_budget(0)
    blocked = False
    left = drain(tmp_path, reader=reader)
    assert left.accounted == left.emitted == 30
    assert len(left.payloads) == 10
