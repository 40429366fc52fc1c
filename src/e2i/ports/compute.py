"""Heavy numerics run where they can be stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Executor(Protocol):
    """Runs pure functions away from the event loop."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Run a module-level function on picklable arguments in a worker process.

        Cancelling the awaiting task kills the worker, so a budget really stops the work. Errors of ours come back as they
        are; a worker that dies raises BackendUnavailable.
        """
        ...


class Progress(Protocol):
    """Tells people how far long work has come."""

    def advance(self, what: str, *, done: int, of: int, note: str = "") -> None:
        """`done` of `of` units of `what` are finished."""
        ...
