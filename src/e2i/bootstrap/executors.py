"""Where heavy numerics run: a worker process, this process, or Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from e2i.ports.compute import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from e2i.config import Settings

EngineName = Literal["process", "local", "ray"]


class Worker(Executor, Protocol):
    """An executor that is started early and closed at the end; both may be called twice."""

    def start(self) -> None:
        """Begin what takes time."""
        ...

    def close(self) -> None:
        """Let go what was started."""
        ...


def make_executors(
    engine: EngineName, settings: Settings, *, preloads: Sequence[tuple[str, ...]], initialize: Callable[[], object]
) -> tuple[Worker, ...]:
    """One executor per entry of `preloads`: the modules that its worker imports first.

    `process`: a worker process each. `local`: a thread each; a budget cannot stop it. `ray`: the same Ray for all, which is never
    chosen by fallback; the numbers are the same with each.

    Parameters
    ----------
    initialize : what a worker process calls once before its first call; in this process it has been called already

    Raises
    ------
    MissingExtra, BackendUnavailable
        When it is started or first used: Ray is not installed, or does not start.
    """
    if engine == "local":
        from e2i.engine.in_process import InProcessExecutor

        return tuple(InProcessExecutor() for _ in preloads)
    if engine == "ray":
        from e2i.engine.ray_executor import RayExecutor

        modules = tuple(dict.fromkeys(name for preload in preloads for name in preload))
        shared = RayExecutor(preload=modules, initialize=initialize, address=settings.ray.address)
        return tuple(shared for _ in preloads)
    from e2i.engine.executor import LocalExecutor

    return tuple(LocalExecutor(preload=preload, initialize=initialize) for preload in preloads)
