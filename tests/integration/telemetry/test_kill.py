"""A span whose `end` returned is there after `kill -9`, at any moment and at every failpoint; forks and several processes, too."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import kill_emitter
import orjson
import pytest

from e2i.telemetry.frames import decode
from e2i.telemetry.reader import SpoolReader
from e2i.telemetry.spool import SpanClass, SpoolWriter
from spool_faults import QUICK, Left, Watched, drain, fill, settings

SCRIPT = Path(kill_emitter.__file__)


def acknowledged_then_killed(folder: Path, after: int, spans: int) -> int:
    """Start an emitter, kill it once it acknowledged so many spans; how many it had acknowledged."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(spans)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = 0
    while seen < after and (data := os.read(process.stdout.fileno(), 4096)):
        seen += len(data)
    process.kill()
    seen += len(process.stdout.read())
    process.stdout.close()
    process.wait()
    return seen


def check(folder: Path, acknowledged: int) -> Left:
    left = drain(folder, max_frames=1000, max_bytes=1 << 20)
    numbers = sorted(decode(payload).attributes["n"] for payload in left.payloads)
    assert numbers[:acknowledged] == list(range(acknowledged)), "an acknowledged span is missing or there twice"
    assert len(numbers) <= acknowledged + 1, "at most the span that was being ended"
    assert not left.lost
    assert not left.drops
    assert left.accounted == left.emitted
    return left


@pytest.mark.parametrize("number", range(6))
def test_no_acknowledged_span_is_lost_by_kill_9_at_a_random_moment(tmp_path: Path, number: int) -> None:
    moment = random.Random(number).randrange(1, 4000)
    acknowledged = acknowledged_then_killed(tmp_path, moment, 100_000)
    assert acknowledged >= moment
    check(tmp_path, acknowledged)
    assert not any(stream.is_alive for stream in SpoolReader(tmp_path).streams())


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_acknowledged_span_is_lost_by_kill_9_at_any_system_call(tmp_path: Path, when: str) -> None:
    count = 110
    watched = Watched()
    writer = SpoolWriter(settings(tmp_path / "clean", segment_bytes=kill_emitter.SEGMENT_BYTES), disk=watched.disk())
    kill_emitter_spans(writer, count)
    seen: set[str] = set()
    for at in failpoints(watched.calls):
        folder = tmp_path / str(at)
        pid, ack = os.pipe(), 0
        child = os.fork()
        if child == 0:
            os.dup2(pid[1], 1)
            kill_emitter.main(folder, count, at, when)
            os._exit(0)
        os.close(pid[1])
        while data := os.read(pid[0], 4096):
            ack += len(data)
        os.close(pid[0])
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):  # ids of traces are random, so that the last points may not be reached
            seen.add(watched.calls[at - 1])
        check(folder, ack)
    assert {"open", "pwrite", "rename", "close", "flock", "truncate", "fdatasync", "write"} <= seen


def failpoints(calls: list[str], each: int = 5) -> list[int]:
    """Numbers of calls: some of each name, spread over the run."""
    points: list[int] = []
    for name in sorted(set(calls)):
        found = [at for at, other in enumerate(calls, 1) if other == name]
        points += found[:: max(1, len(found) // each)]
    return sorted(points)


def kill_emitter_spans(writer: SpoolWriter, count: int) -> None:
    """What `kill_emitter.main` does, here."""
    tracer = kill_emitter.provider(writer).get_tracer("kill")
    for number in range(count):
        agent = "causal_impact" if number % 10 == 0 else "gap_analyzer"
        tracer.start_span(f"span {number}", attributes={"e2i.agent.name": agent, "n": number, "text": "x" * (number % 700)}).end()
        if number % 100 == 99:
            writer.sync()
    writer.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_shipper_killed_while_it_deletes_leaves_losses_by_their_reason(tmp_path: Path, when: str) -> None:
    def spool(folder: Path) -> None:
        writer = SpoolWriter(settings(folder, segment_bytes=700), disk=QUICK)
        fill(writer, 45)
        writer.close()

    def work(folder: Path, watched: Watched) -> None:
        reader = SpoolReader(folder, disk=watched.disk())
        reader.enforce_budget(reader.total_bytes() - 4000)

    spool(tmp_path / "clean")
    watched = Watched()
    work(tmp_path / "clean", watched)
    kills = 0
    for at in failpoints(watched.calls, each=4):
        folder = tmp_path / str(at)
        spool(folder)
        child = os.fork()
        if child == 0:
            from spool_faults import killed_at

            work(folder, Watched(before=killed_at(at)) if when == "before" else Watched(after=killed_at(at)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        left = drain(folder)
        assert left.accounted == left.emitted == 45
        assert set(left.lost) <= {"disk_budget"}
        work(folder, Watched())
        left = drain(folder)
        assert left.accounted == left.emitted == 45
        assert set(left.lost) == {"disk_budget"}
    assert kills > 20


def emit(folder: Path, name: int, count: int) -> None:
    """One of several processes on a spool."""
    writer = SpoolWriter(settings(folder, segment_bytes=5000), disk=QUICK)
    for number in range(count):
        writer.write(orjson.dumps([name, number]), SpanClass(number % 3))
    os._exit(0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes_write_at_once_while_a_reader_deletes_behind_them(tmp_path: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=emit, args=(tmp_path, name, 2000)) for name in range(4)]
    for worker in workers:
        worker.start()
    reader = SpoolReader(tmp_path, disk=QUICK)
    positions: dict[str, object] = {}
    seen: list[tuple[int, int]] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        running = any(worker.is_alive() for worker in workers)
        streams = reader.streams()
        if not running and not streams:
            break
        for stream in streams:
            from e2i.telemetry.reader import Position

            position = positions.get(stream.name, Position())
            assert isinstance(position, Position)
            chunk = reader.read(stream.name, position, max_frames=100, max_bytes=1 << 16)
            assert not chunk.lost
            seen += [tuple(orjson.loads(payload)) for _, payload in chunk.frames]
            positions[stream.name] = chunk.position
            reader.release(stream.name, chunk.position)
            if chunk.at_end and not chunk.frames and not stream.is_alive:
                assert reader.retire(stream.name)
    for worker in workers:
        worker.join()
    assert sorted(seen) == [(name, number) for name in range(4) for number in range(2000)]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "id"] == []


_FORKS_AFTER_A_THREAD_POOL = """
import concurrent.futures, os, sys
from pathlib import Path
from e2i.telemetry.pipeline import PipelineSettings, install
from e2i.telemetry.redaction import SpanLimits
from e2i.telemetry.sampling import SamplingRules
from spool_faults import settings

limits = SpanLimits(
    include_input=True, include_output=True, max_input_size_bytes=1024, max_output_size_bytes=1024, max_metadata_size_bytes=1024,
    redact_patterns=(),
)
rules = SamplingRules(rate=1.0, always_agents=frozenset())
pipeline = install(PipelineSettings(service="fork", spool=settings(Path(sys.argv[1])), limits=limits, rules=rules))
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(int).result()
child = os.fork()
pipeline.provider.get_tracer("fork").start_span("child" if child == 0 else "parent").end()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
pipeline.close()
"""


def test_a_process_that_forks_after_its_first_thread_pool_does_not_hang(tmp_path: Path) -> None:
    """The SDK's fork handler submits to a pool: the pool's own handler has to be registered before it."""
    tests = Path(__file__).parents[2]
    path = os.pathsep.join(str(folder) for folder in (tests, Path(__file__).parent))
    command = [sys.executable, "-c", _FORKS_AFTER_A_THREAD_POOL, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(drain(tmp_path).payloads) == 2


def test_a_forked_child_writes_for_itself_and_its_parent_goes_on(tmp_path: Path) -> None:
    writer = SpoolWriter(settings(tmp_path), disk=QUICK)
    fill(writer, 30)
    writer.count_drop("not_serialisable")
    child = os.fork()
    if child == 0:
        fill(writer, 30, start=100)
        os._exit(0)
    fill(writer, 30, start=30)
    os.waitpid(child, 0)
    fill(writer, 3, start=60)
    writer.close()
    left = drain(tmp_path)
    assert sorted(int(payload[:8]) for payload in left.payloads) == [*range(63), *range(100, 130)]
    assert left.drops == {"not_serialisable": 1}
    assert left.accounted == left.emitted == 94


def test_a_parent_that_died_is_seen_to_be_dead_while_its_child_lives(tmp_path: Path) -> None:
    go, stop = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        writer = SpoolWriter(settings(tmp_path), disk=QUICK)
        fill(writer, 3)
        if os.fork() == 0:
            os.write(go[1], b".")
            os.close(stop[1])
            os.read(stop[0], 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(parent, 0)
    os.read(go[0], 1)
    assert [stream.is_alive for stream in SpoolReader(tmp_path).streams()] == [False] * 3
    for fd in (*go, *stop):
        os.close(fd)


def test_a_fork_in_the_middle_of_other_threads_writes_breaks_nothing(tmp_path: Path) -> None:
    import threading
    import warnings

    writer = SpoolWriter(settings(tmp_path), disk=QUICK)
    stop = threading.Event()
    written = [0] * 3

    def emit_until(index: int) -> None:
        while not stop.is_set():
            written[index] += fill(writer, 3)

    threads = [threading.Thread(target=emit_until, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(15):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            fill(writer, 3)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    writer.close()
    left = drain(tmp_path, max_frames=1000, max_bytes=1 << 20)
    assert len(left.payloads) == sum(written) + 45
    assert not left.lost


def test_a_file_size_limit_of_the_process_is_a_counted_loss_and_no_crash(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        writer = SpoolWriter(settings(tmp_path, segment_bytes=100_000), disk=QUICK)
        taken = fill(writer, 300)
        dropped = writer.drops.get("write_failed", 0)
        os._exit(0 if taken + dropped == 300 and taken > 200 else 1)
    assert os.waitpid(child, 0)[1] == 0
    left = drain(tmp_path)
    assert left.accounted == left.emitted == 300
    assert not left.lost
