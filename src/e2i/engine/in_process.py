"""Heavy numerics beside the event loop in this very process: nothing is copied, and nothing can stop them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from e2i.engine.executor import answer, name_of
from e2i.observability.propagation import carrier

T = TypeVar("T")
_log = logging.getLogger(__name__)


class InProcessExecutor:
    """One thread, for debugging and for machines where no process may be started. Calls are served one after the other.

    A thread cannot be killed: a budget that is used up ends the waiting, the call itself goes on to its end (a warning says so) and
    the next call waits for it. Where budgets must hold, use `LocalExecutor`.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="in-process")

    def start(self) -> None:
        """Nothing is to be started."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Run `function` in the thread; see ports.compute.Executor."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, answer, function, args, kwargs, carrier())
        except asyncio.CancelledError:
            _log.warning("%s goes on although nobody waits for it: in process, a budget cannot stop the work.", name_of(function))
            raise
        if done[0]:
            return done[1]
        raise done[1]

    def close(self) -> None:
        """Let the thread go; a call that nobody waits for ends first when the interpreter does."""
        self._thread.shutdown(wait=False, cancel_futures=True)
