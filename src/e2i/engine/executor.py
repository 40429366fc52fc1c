"""A worker process for heavy numerics, so that a budget can really stop them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Event
from typing import Any, Literal, TypeVar

from e2i.engine.faults import failure
from e2i.errors import BackendUnavailable, ConfigError, E2IError, StepFailed
from e2i.observability import attributes as names
from e2i.observability.propagation import attached, carrier
from e2i.observability.spans import span

T = TypeVar("T")
_GOODBYE_S = 5
_WORKER = "e2i-worker"
_UNGUARDED = 78
"""exit code of a worker whose import of the caller's script began the caller's work anew"""


class LocalExecutor:
    """One worker process, started on first use (or by `start`), kept warm, killed on cancellation and then replaced.

    Calls are served one after the other: two numeric libraries on two cores slow each other down. A call continues the caller's
    trace: the worker's spans hang below the span in which `run` was called.

    Parameters
    ----------
    preload : modules that the worker imports when it starts
    initialize : what the worker calls once before its first call; it must be picklable
    """

    def __init__(self, *, preload: tuple[str, ...] = (), initialize: Callable[[], object] | None = None) -> None:
        self._preload = preload
        self._initialize = initialize
        self._lock = asyncio.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executor")
        self._sent: Callable[..., Any] | None = None
        """what the worker holds already: a scorer with its matrices is sent once, not with every call"""

    def start(self) -> None:
        """Start the worker now and let it import its libraries beside us."""
        if self._process is not None and self._process.is_alive():
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._preload, self._initialize), daemon=True, name=_WORKER)
        resource_tracker.ensure_running()  # its own start lets interrupts in again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the worker's imports end with us, and tell nothing
        try:
            process.start()
        except RuntimeError:
            if multiprocessing.current_process().name != _WORKER:
                raise
            sys.exit(_UNGUARDED)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._process, self._pipe, self._sent = process, ours, None

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Run `function` in the worker; see ports.compute.Executor."""
        async with self._lock:
            loop, is_wanted = asyncio.get_running_loop(), Event()
            is_wanted.set()
            call = partial(self._call, is_wanted, carrier(), function, args, kwargs)
            try:
                return await loop.run_in_executor(self._thread, call)
            except asyncio.CancelledError:
                is_wanted.clear()  # before `stop`: a worker that is only being started is stopped by `_call`
                self.stop()
                raise

    def stop(self) -> None:
        """Kill the worker, whatever it does."""
        process, self._process = self._process, None
        if process is not None and process.is_alive():
            process.kill()
            process.join(timeout=10)
        # The reading thread sees the end of the pipe and closes it; see _call.

    def close(self) -> None:
        """Let the worker go (it ends when its pipe does) and the thread that talks to it.

        A worker that was never asked anything may be in the middle of its imports; it is killed.
        """
        self._thread.shutdown(wait=True)
        if self._sent is None:
            self.stop()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.join(timeout=_GOODBYE_S)
        self.stop()

    def _call(
        self, is_wanted: Event, trace: dict[str, str], function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> T:
        self.start()
        if not is_wanted.is_set():
            self.stop()
        pipe, process = self._pipe, self._process
        if pipe is None or process is None:
            raise BackendUnavailable("the worker process was stopped.", where="executor")
        try:
            pipe.send((None if function is self._sent else function, args, kwargs, trace))
            self._sent = function
            succeeded, value = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            process.join(timeout=10)
            pipe.close()
            self._process = self._pipe = None
            if process.exitcode == _UNGUARDED:
                raise _unguarded() from error
            raise BackendUnavailable(
                f"the worker process ended with code {process.exitcode} in {name_of(function)}.",
                where="executor",
                advice="Most often memory ran out: use fewer rows or columns.",
            ) from error
        if succeeded:
            return value  # type: ignore[no-any-return]
        raise value


def _unguarded() -> ConfigError:
    """A worker imports the script that started it, as `spawn` does on every system."""
    return ConfigError(
        "the worker process began the script anew when it imported it.",
        where="executor",
        advice="Put what the script does below `if __name__ == '__main__':`.",
    )


def name_of(function: Callable[..., object]) -> str:
    """What messages call it."""
    return getattr(function, "__qualname__", type(function).__name__)


def _serve(pipe: Connection[Any, Any], preload: tuple[str, ...], initialize: Callable[[], object] | None) -> None:
    """The worker's loop; it answers whatever happened."""
    import importlib

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    gc.disable()  # a fifth of the time of large imports goes into looking for garbage that is not there
    for module in preload:
        importlib.import_module(module)
    if initialize is not None:
        initialize()
    gc.freeze()
    gc.enable()
    held: Any = None
    while True:
        try:
            function, args, kwargs, trace = pipe.recv()
            held = function = held if function is None else function
            _reply(pipe, answer(function, args, kwargs, trace), name_of(function))
        except (EOFError, OSError):  # whoever asks is gone, maybe in the middle of a call
            gc.freeze()  # or the interpreter would go through everything that was imported once more before it ends
            return


def _reply(pipe: Connection[Any, Any], done: tuple[bool, object], name: str) -> None:
    """Send the answer, or why it cannot be sent; nothing of it was sent then."""
    try:
        pipe.send(done)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        what = f"its result cannot pass between processes: {error}"
        pipe.send((False, StepFailed(what, where=name, advice="This is a fault of E2I: please report it.")))


def answer(
    function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object], trace: dict[str, str]
) -> tuple[Literal[True], T] | tuple[Literal[False], E2IError]:
    """Whether the call succeeded, and its value or the error; every executor answers so, wherever it runs.

    Errors of ours come back as they are; any other becomes one (see `faults.failure`) with its traceback as a note.
    """
    try:
        return True, _traced(function, args, kwargs, trace)
    except E2IError as error:
        return False, error
    except Exception as error:  # noqa: BLE001
        failed = failure(error, where=name_of(function))
        failed.__notes__ = [_traceback(error)]
        return False, failed


def _traced(function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object], trace: dict[str, str]) -> T:
    """Inside the caller's trace; without one there is nothing to continue."""
    if not trace:
        return function(*args, **kwargs)
    with attached(trace), span(f"worker {name_of(function)}", {names.OPERATION: "worker"}):
        return function(*args, **kwargs)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
