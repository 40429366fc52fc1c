"""A PostgreSQL server that a test may stop, kill, freeze and fill; never the one that the other tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from databases import administer, scratch
from e2i.storage.embedded import EmbeddedServer
from e2i.storage.server_process import LOG_NAME, choose_account, run

OURS = "application_name = 'e2i'"
"""sessions of the pool of `e2i.storage.postgres.Database`"""


@dataclass
class OwnServer:
    """A server in a folder of its own; it comes back at the same address."""

    folder: Path = field(default_factory=lambda: scratch("e2i-own-"))
    url: str = ""

    def __post_init__(self) -> None:
        self._embedded = EmbeddedServer(self.folder / "home")
        self.url = self._embedded.start()
        administer(self.url, "alter system set fsync = off", "select pg_reload_conf()")

    @property
    def _postgres(self) -> Path:
        return self.folder / "home" / "postgres"

    @property
    def pid(self) -> int:
        return int((self._postgres / "data" / "postmaster.pid").read_text().split()[0])

    def stop(self, how: str) -> None:
        """`fast` and `immediate` by pg_ctl; `kill` is SIGKILL to the postmaster."""
        if how == "kill":
            pid = self.pid
            os.kill(pid, signal.SIGKILL)
            while _is_process(pid):
                time.sleep(0.005)
            return
        done = run("pg_ctl", "stop", "-m", how, "-w", "-s", account=choose_account(self._postgres), folder=self._postgres)
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        assert self._embedded.start() == self.url

    def close(self) -> None:
        self._embedded.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self._postgres / "data" / LOG_NAME).read_text(errors="replace")

    def backends(self, where: str = OURS) -> list[int]:
        """Process ids of sessions."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            rows = connection.execute(f"select pid from pg_stat_activity where {where} and pid <> pg_backend_pid()").fetchall()  # type: ignore[arg-type]
        return [pid for (pid,) in rows]

    def use_up_log(self) -> None:
        """Ask for one segment of the write-ahead log after the other, until the server goes down because it cannot make one."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, autocommit=True) as connection:
            while True:
                connection.execute("select pg_logical_emit_message(false, 'test', repeat('x', 4000000))")

    def terminate(self, where: str = OURS) -> int:
        """End sessions as an administrator does; how many there were."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            rows = connection.execute(
                f"select pg_terminate_backend(pid) from pg_stat_activity where {where} and pid <> pg_backend_pid()"  # type: ignore[arg-type]
            ).fetchall()
        return len(rows)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the server stands still: connections stay open, and nothing answers."""
        processes = [self.pid, *_children(self.pid)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def crowded(self) -> Iterator[int]:
        """Others hold every connection that the server has, those of superusers, too; how many they hold."""
        held: list[psycopg.Connection] = []
        try:
            while not self._fill(held):
                pass
            yield len(held)
        finally:
            for connection in held:
                connection.close()

    def _fill(self, held: list[psycopg.Connection]) -> bool:
        """Take what is free, end the sessions of the product; whether every place is held. It is free again a while after its session."""
        with suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(self.url, autocommit=True))
        assert held
        held[0].execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {OURS}")  # type: ignore[arg-type]
        (places,) = held[0].execute("select current_setting('max_connections')::int").fetchone() or (0,)
        return len(held) >= places


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system in memory that is soon full; None where this user may not mount one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def give(folder: Path, server: OwnServer) -> None:
    """Let the server's user have a folder."""
    owner = (server.folder / "home" / "postgres" / "data").stat()
    os.chown(folder, owner.st_uid, owner.st_gid)


def fill_disk(folder: Path) -> Path:
    """Leave no byte free; the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65_536))
    return ballast


def ask(url: str, query: str, *parameters: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query, parameters).fetchall()  # type: ignore[arg-type]


def name_of(url: str) -> str:
    """The database that a URL names."""
    return urlsplit(url).path[1:]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_process(pid: int) -> bool:
    """A zombie has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
