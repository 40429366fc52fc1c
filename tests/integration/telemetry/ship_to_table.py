"""Shipper processes as `e2i trace ship` runs them, forked from one that has loaded everything: they begin within milliseconds.

As a program: settings as JSON, one line each -> a process that ships until it is killed; tells its pid, then the signal that ended it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from e2i.config import Settings


class Shippers:
    """One after the other. Use as a context manager."""

    def __enter__(self) -> Self:
        self._nursery = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._nursery.communicate()

    def begin(self, settings: Settings) -> int:
        """The pid of a new one."""
        from e2i.config import as_arguments

        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(as_arguments(settings), default=str) + "\n")
        self._nursery.stdin.flush()
        return self.end()

    def end(self) -> int:
        """Wait for the end of the latest; the signal that it died of."""
        assert self._nursery.stdout is not None
        return int(self._nursery.stdout.readline())


def main() -> None:
    """See the module."""
    import psycopg_pool  # noqa: F401

    from e2i import config
    from e2i.bootstrap.observing import ship
    from e2i.storage import migrate  # noqa: F401
    from e2i.storage.repositories import span_shipments  # noqa: F401
    from e2i.telemetry import shipper  # noqa: F401
    from e2i.telemetry.sinks import mlflow, opik, otlp, postgres  # noqa: F401

    async def work(arguments: dict[str, Any]) -> None:
        await ship(config.load(**arguments), stop=asyncio.Event())

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(work(json.loads(line)))
            os._exit(0)
        os.write(1, b"%d\n" % pid)
        os.write(1, b"%d\n" % os.WTERMSIG(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
