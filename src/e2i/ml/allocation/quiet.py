"""HiGHS writes lines of its own to the process's standard output at times, which belongs to results alone."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_OUT, _ERR = 1, 2


@contextmanager
def output_aside() -> Iterator[None]:
    """Native code writes to standard error instead of standard output; several threads may be inside at once.

    The file descriptor itself is turned, as native code knows nothing of `sys.stdout`. Where one of the two is closed nothing is done.
    """
    _output.enter()
    try:
        yield
    finally:
        _output.leave()


class _Output:
    """The process's standard output: the first one in turns it, the last one out turns it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept: int | None = None

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._turn()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._kept is not None:
                _flush()
                os.dup2(self._kept, _OUT)
                os.close(self._kept)
                self._kept = None

    def _turn(self) -> None:
        _flush()
        try:
            kept = os.dup(_OUT)
        except OSError:
            return
        try:
            os.dup2(_ERR, _OUT)
        except OSError:
            os.close(kept)
            return
        self._kept = kept


_output = _Output()


def _flush() -> None:
    """What was printed waits in C's own buffer, and would else come out after the turn."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
