"""A real shipper process, killed between the sink's answer and its own note of it, at other moments, and asked to go."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2i.domain.telemetry import SpanRecord
from e2i.telemetry.account import accounts
from e2i.telemetry.frames import encode
from e2i.telemetry.layout import SpanClass
from e2i.telemetry.spool import SpoolSettings, SpoolWriter
from otlp_server import OtlpServer

if TYPE_CHECKING:
    from e2i.domain.telemetry import SinkAccount
    from faulty_http import Reply, Request


@dataclass
class DeadlyCollector(OtlpServer):
    """Kills its client when it has taken so many requests more, before it answers."""

    victim: int = 0
    after: int = 0

    def respond(self, request: Request) -> Reply:
        reply = super().respond(request)
        self.after -= 1
        if self.after == 0 and self.victim:
            os.kill(self.victim, signal.SIGKILL)
            time.sleep(0.05)
        return reply


def start(folder: Path, server: OtlpServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("ship_here.py")), str(folder), f"{server.url}/v1/traces"])


def emit(writer: SpoolWriter, first: int, spans: int) -> None:
    now = time.time_ns()
    for number in range(first, first + spans):
        one = SpanRecord(
            trace_id=f"{number + 1:032x}", span_id=f"{number + 1:016x}", parent_span_id=None, name="s", started_ns=now, ended_ns=now + 1000
        )
        assert writer.write(encode(one), SpanClass.KEPT)


def account_of(folder: Path) -> SinkAccount:
    (found,) = asyncio.run(accounts(folder, ["otlp"]))
    return found


def wait_for(spans: int, server: OtlpServer) -> None:
    deadline = time.monotonic() + 60
    while len(server.spans) < spans:
        assert time.monotonic() < deadline, len(server.spans)
        time.sleep(0.05)


def test_a_shipper_killed_after_sending_and_before_noting_it_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 28, segment_bytes=65_536))
    with DeadlyCollector() as server:
        emit(writer, 0, 3000)
        for deaths in range(4):
            process = start(folder, server)
            server.victim, server.after = process.pid, 3 + 2 * deaths
            assert process.wait(30) == -signal.SIGKILL
            emit(writer, 3000 + deaths * 100, 100)
            account = account_of(folder)
            assert (account.unexplained, account.emitted) == (0, 3100 + deaths * 100)
        server.victim = 0
        process = start(folder, server)
        wait_for(3400, server)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert server.received == 3400 + 4 * 50
    account = account_of(folder)
    assert (account.delivered, account.in_spool, account.dropped, account.unexplained) == (3400, 0, {}, 0)
    writer.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shipper_killed_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "spool"
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 28, segment_bytes=65_536))
    emitted = 0
    with OtlpServer() as server:
        for _ in range(4):
            process = start(folder, server)
            until = time.monotonic() + 0.5 + chance.random()
            while time.monotonic() < until:
                emit(writer, emitted, 40)
                emitted += 40
                time.sleep(0.01)
            process.kill()
            process.wait()
            account = account_of(folder)
            assert (account.unexplained, account.emitted) == (0, emitted)
        process = start(folder, server)
        wait_for(emitted, server)
        process.terminate()
        process.wait(10)
        assert len(server.spans) == emitted
    account = account_of(folder)
    assert (account.delivered, account.in_spool, account.dropped) == (emitted, 0, {})
    writer.close()


def test_a_shipper_that_is_asked_to_go_delivers_first_what_a_living_process_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 28, segment_bytes=65_536))
    with OtlpServer() as server:
        process = start(folder, server)
        emit(writer, 0, 10)
        wait_for(10, server)
        late = threading.Thread(target=emit, args=(writer, 10, 2000))
        late.start()
        late.join()
        process.terminate()
        began = time.monotonic()
        assert process.wait(15) == 0
        assert time.monotonic() - began < 8
        assert len(server.spans) == 2010
    writer.close()
