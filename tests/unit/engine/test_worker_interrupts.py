"""Ctrl-C belongs to whoever started the worker."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from e2i.engine.executor import LocalExecutor


async def test_an_interrupt_while_the_worker_imports_neither_ends_it_nor_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The terminal sends Ctrl-C to all processes of the command."""
    began = tmp_path / "began"
    (tmp_path / "slow_to_import.py").write_text(f"import pathlib, time\npathlib.Path({str(began)!r}).touch()\ntime.sleep(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    executor = LocalExecutor(preload=("slow_to_import",))
    executor.start()
    try:
        process = executor._process
        assert process is not None
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)  # before its first line
        while not began.exists():
            assert process.is_alive()
            await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)  # in the middle of an import
        assert await executor.run(os.getpid) == process.pid
    finally:
        executor.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_the_caller_still_hears_ctrl_c_after_it_started_a_worker() -> None:
    executor = LocalExecutor()
    executor.start()
    try:
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        executor.stop()
