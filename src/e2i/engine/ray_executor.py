"""Heavy numerics as Ray tasks: on this machine, started by us and offline, or on a cluster."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any, TypeVar

from e2i.engine.executor import answer, name_of
from e2i.errors import BackendUnavailable, MissingExtra, StepFailed
from e2i.observability.propagation import carrier

T = TypeVar("T")
_WHERE = "executor ray"


class RayExecutor:
    """Each call is a Ray task on one core; calls run beside each other, as many as there are cores.

    Ray is imported and started on first use (or by `start`): local, without dashboard and without a word to the network. A process that
    has called `ray.init` itself keeps its Ray, and `close` leaves it alone. A call continues the caller's trace. Cancelling the waiting
    task kills the Ray worker that serves it.

    Parameters
    ----------
    preload : modules that a worker imports before its first call
    initialize : what a worker calls once before its first call; it must be picklable
    address : `local` starts Ray on this machine; else the cluster's, as `ray.init` takes it. Its workers need E2I installed.
    cores : of a local Ray: how many calls run at once; None: as many as the machine has
    """

    def __init__(
        self,
        *,
        preload: tuple[str, ...] = (),
        initialize: Callable[[], object] | None = None,
        address: str = "local",
        cores: int | None = None,
    ) -> None:
        self._recipe = pickle.dumps((preload, initialize))
        self._address, self._cores = address, cores
        self._starting = Lock()
        self._is_ours = False
        self._task: Any = None
        self._kept: tuple[Callable[..., Any], Any] | None = None
        """the last function and where Ray keeps it: a scorer with its matrices is sent once, not with every call"""

    def start(self) -> None:
        """Start Ray now; seconds.

        Raises
        ------
        MissingExtra
            Ray is not installed.
        BackendUnavailable
            Ray does not start here.
        """
        ray = _ray()
        with self._starting:
            if self._task is not None and ray.is_initialized():
                return
            if not ray.is_initialized():
                self._init(ray)
            self._task, self._kept = ray.remote(max_retries=0, num_cpus=1)(_serve), None

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Run `function` in a Ray worker; see ports.compute.Executor."""
        self.start()  # here and not in a thread: Ray's processes die with the thread that started them
        ray = _ray()
        trace = carrier()
        stored = await asyncio.to_thread(self._put, function, (args, kwargs))
        reference = self._task.remote(self._recipe, *stored, trace)
        try:
            done = await asyncio.wrap_future(reference.future())
        except asyncio.CancelledError:
            ray.cancel(reference, force=True)
            raise
        except ray.exceptions.RayTaskError as error:
            what = f"arguments or result did not pass between processes: {str(error).strip().splitlines()[-1]}"
            raise StepFailed(what, where=name_of(function), advice="Do the workers have the same E2I? Else please report it.") from error
        except ray.exceptions.RayError as error:
            raise BackendUnavailable(
                f"the Ray worker ended in {name_of(function)}: {_first_line(error)}",
                where=_WHERE,
                advice="Most often memory ran out: use fewer rows or columns.",
            ) from error
        succeeded, value = done
        if succeeded:
            return value  # type: ignore[no-any-return]
        raise value

    def close(self) -> None:
        """End the Ray that `start` started."""
        self._task = self._kept = None
        if self._is_ours:
            self._is_ours = False
            _ray().shutdown()

    def _init(self, ray: Any) -> None:
        here = {"num_cpus": self._cores, "include_dashboard": False} if self._address == "local" else {}
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR", **here)
        except (OSError, RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
            raise BackendUnavailable(
                f"Ray does not start: {_first_line(error)}", where=_WHERE, advice="Use `--engine process`, or mend Ray."
            ) from error
        self._is_ours = True

    def _put(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, Any]:
        """References to what Ray now keeps."""
        ray = _ray()
        with self._starting:
            if self._kept is None or self._kept[0] is not function:
                self._kept = (function, ray.put(function))
            return self._kept[1], ray.put(arguments)


def _serve(
    recipe: bytes, function: Callable[..., T], arguments: tuple[tuple[object, ...], dict[str, object]], trace: dict[str, str]
) -> Any:
    """In the Ray worker."""
    _prepare(recipe)
    return answer(function, *arguments, trace)


@cache
def _prepare(recipe: bytes) -> None:
    """Once per worker process."""
    preload, initialize = pickle.loads(recipe)  # noqa: S301 - written by our own process
    for module in preload:
        import_module(module)
    if initialize is not None:
        initialize()


def _ray() -> Any:
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingExtra("Ray is not installed.", where=_WHERE, advice="Install it: pip install 'e2i[ray]'.") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
