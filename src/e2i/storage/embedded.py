"""A PostgreSQL server of our own, in the home folder, shared by every process that uses this home."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from e2i.errors import StorageError
from e2i.storage.server_process import (
    DATABASE,
    FREE_SPACE,
    LOG_NAME,
    MAJOR_VERSION,
    USER,
    Postmaster,
    find_postmaster,
    initialise,
    is_alive,
    launch,
    refusal,
)
from e2i.storage.sql import load
from e2i.whole_files import flush, replace_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVER = load("server")
_LOCK_S = 120.0
_START_S = 60.0
_STOP_S = 30.0
_PORT_S = 1.0
_PASSING_FAULTS = ("is still in use", "Address already in use", "could not bind")


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """The embedded server as it is now; `port` and `pid` are None when it does not run."""

    is_running: bool
    pid: int | None
    port: int | None
    data: Path
    log: Path


class EmbeddedServer:
    """PostgreSQL 18 with pgvector on 127.0.0.1, made on first use in `home / postgres`.

    Every process that has called `start` holds a shared lock on a file; the kernel drops it when the process dies, so the
    last user to `release` knows that it is the last. Starting and stopping is serialised by a second lock.

    Parameters
    ----------
    home : a folder that may be written; made if missing
    port : a fixed port; without one (None or 0) a free one is chosen once and remembered

    Examples
    --------
    >>> server = EmbeddedServer(Path(".e2i"))    # doctest: +SKIP
    >>> url = server.start()                     # doctest: +SKIP
    >>> server.release()                         # doctest: +SKIP
    """

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        self._folder = home.absolute() / "postgres"
        self._data = self._folder / "data"
        self._fixed_port = port or None
        self._cluster = "e2i_" + hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        self._users: int | None = None
        self._users_pid = 0

    def start(self, *, stays: bool = False) -> str:
        """Start the server, or join it when it runs already; its URL.

        Parameters
        ----------
        stays : it goes on when its last user has left, until `stop`

        Raises
        ------
        StorageError
            The home cannot be written, the disk is full, the fixed port is taken, or the server does not start.
        """
        with self._guarded(), self._exclusively():
            self._join()
            try:
                url = self._url(self._running_port() or self._start())
                if stays:
                    self._mark_as_staying()
            except BaseException:
                self._leave()
                raise
            return url

    def stop(self) -> None:
        """Stop the server for everybody; nothing happens when it does not run."""
        with self._guarded():
            if not self._folder.exists():
                return
            with self._exclusively():
                self._stop()
                self._leave()

    def release(self) -> None:
        """Leave; the last user to leave stops the server, unless it was started to stay."""
        if self._users is None:
            return
        if self._users_pid != os.getpid():  # a forked child shares its parent's lock and must not give it away
            self._leave()
            return
        with self._guarded(), self._exclusively():
            try:
                if self._is_last() and not self._stays():
                    self._stop()
            finally:
                self._leave()  # or the next process to start would wait for our lock, and everybody else for that process

    def status(self) -> ServerStatus:
        """Look, and change nothing."""
        with self._guarded():
            found = find_postmaster(self._data, cluster=self._cluster)
            port = found.port if found is not None and found.port is not None and self._answers(found.port) else None
        pid = found.pid if found is not None and port is not None else None
        return ServerStatus(is_running=port is not None, pid=pid, port=port, data=self._data, log=self._data / LOG_NAME)

    # Locks

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(self._folder / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_S
        try:
            while not _try_lock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"another process has been starting or stopping the database for more than {_LOCK_S:.0f} s",
                        where=str(self._folder / "start.lock"),
                        advice="End that process, then try again.",
                    )
                time.sleep(0.01)
            yield
        finally:
            os.close(lock)

    def _join(self) -> None:
        if self._users is None or self._users_pid != os.getpid():
            self._users = os.open(self._folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._users_pid = os.getpid()
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _is_last(self) -> bool:
        """Nobody else holds the shared lock; nobody can take it now, for they need the exclusive one first."""
        return self._users is not None and _try_lock(self._users, fcntl.LOCK_EX)

    def _mark_as_staying(self) -> None:
        """By its pid: a server that died, and was started anew by a run, does not stay."""
        found = find_postmaster(self._data, cluster=self._cluster)
        if found is not None:
            replace_text(self._folder / "stays", f"{found.pid}\n")

    def _stays(self) -> bool:
        mark, found = self._folder / "stays", find_postmaster(self._data, cluster=self._cluster)
        return found is not None and mark.exists() and mark.read_text(encoding="ascii").strip() == str(found.pid)

    def _leave(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    # Starting and stopping, all under the exclusive lock

    def _running_port(self) -> int | None:
        """Port of the server of this home when it runs; waits for one that is starting, recovering or stopping."""
        deadline = time.monotonic() + _START_S
        while (found := find_postmaster(self._data, cluster=self._cluster)) is not None:
            if found.port is not None and self._answers(found.port):
                return self._accept(found.port)
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the embedded PostgreSQL runs (pid {found.pid}) and does not answer",
                    where=str(self._folder),
                    advice=f"See {self._data / LOG_NAME}; stop it with `e2i down`, then try again.",
                )
            time.sleep(0.02)
        return None

    def _accept(self, port: int) -> int:
        if self._fixed_port not in (None, port):
            raise StorageError(
                f"the embedded PostgreSQL runs on port {port}, not on the port {self._fixed_port} that was asked for",
                where=str(self._folder),
                advice="Stop it with `e2i down`, then try again.",
            )
        return port

    def _start(self) -> int:
        self._initialise()
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # nobody runs it: left behind by kill -9 or a reboot
        deadline = time.monotonic() + _START_S
        while True:
            port = self._choose_port()
            output = launch(self._folder, port=port, cluster=self._cluster)
            running = self._running_port()  # also one that recovers for longer than its starter waited
            if running is not None:
                self._remember(running)
                return running
            # Children of a killed server need a moment to die; a port can be snatched between choice and use.
            if time.monotonic() > deadline or not any(fault in output for fault in _PASSING_FAULTS):
                raise refusal("the embedded PostgreSQL did not start", where=self._folder, output=output)
            time.sleep(0.05)

    def _initialise(self) -> None:
        version = self._data / "PG_VERSION"
        if self._data.exists():
            found = version.read_text(encoding="ascii").strip() if version.exists() else "unknown"
            if found != str(MAJOR_VERSION):
                raise StorageError(
                    f"the database files are of PostgreSQL {found}, this release runs PostgreSQL {MAJOR_VERSION}",
                    where=str(self._data),
                    advice=f"Dump it with a server of PostgreSQL {found} and load it into a new home, or move the folder away.",
                )
            return
        for leftover in self._folder.glob("init-*"):  # of a process killed in the middle
            shutil.rmtree(leftover)
        staging = Path(tempfile.mkdtemp(prefix="init-", dir=self._folder))
        try:
            initialise(staging, password=self._password(create=True))
            (staging / "data").rename(self._data)
            flush(self._folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _stop(self) -> None:
        found = find_postmaster(self._data, cluster=self._cluster)
        if found is None:
            return
        for how, patience_s in ((signal.SIGINT, _STOP_S), (signal.SIGQUIT, 10.0)):  # PostgreSQL's fast, then immediate
            if self._signal(found, how, patience_s):
                return
        raise StorageError(f"the embedded PostgreSQL (pid {found.pid}) does not stop", where=str(self._folder), advice="End that process.")

    def _signal(self, server: Postmaster, how: signal.Signals, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        try:
            os.kill(server.pid, how)
        except ProcessLookupError:
            return True
        while is_alive(server.pid, cluster=self._cluster):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    # Address

    def _choose_port(self) -> int:
        if self._fixed_port is not None:
            if not _is_free(self._fixed_port):
                raise StorageError(
                    f"port {self._fixed_port} is taken by another program",
                    where="127.0.0.1",
                    advice="End that program, give another port, or give none and a free one is chosen.",
                )
            return self._fixed_port
        remembered = self._folder / "port"
        text = remembered.read_text(encoding="ascii").strip() if remembered.exists() else ""
        if text.isdigit() and _becomes_free(int(text)):
            return int(text)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _remember(self, port: int) -> None:
        replace_text(self._folder / "port", f"{port}\n")

    def _password(self, *, create: bool = False) -> str:
        path = self._folder / "password"
        if create and not path.exists():
            replace_text(path, secrets.token_urlsafe(32), is_private=True)
        if not path.exists():
            raise StorageError(
                "the password of the embedded PostgreSQL is gone",
                where=str(path),
                advice="Bring the file back from a backup; without it the database cannot be opened.",
            )
        return path.read_text(encoding="ascii").strip()

    def _url(self, port: int) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{port}/{DATABASE}?sslmode=disable"

    def _answers(self, port: int) -> bool:
        """Alive is what answers as this server; a pid proves nothing."""
        try:
            with psycopg.connect(self._url(port), connect_timeout=5, autocommit=True) as connection:
                row = connection.execute(_SERVER["cluster_name"]).fetchone()
        except psycopg.Error:
            return False
        return row is not None and row[0] == self._cluster

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            full = exc.errno in _DISK_FULL
            raise StorageError(
                f"the folder for the embedded database cannot be used: {exc.strerror or exc}",
                where=str(exc.filename or self._folder),
                advice=FREE_SPACE
                if full
                else "Give a home that you may write (E2I_HOME), or name a PostgreSQL 15 or newer with DATABASE_URL.",
            ) from exc


_DISK_FULL = (28, 122)  # ENOSPC, EDQUOT


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _becomes_free(port: int) -> bool:
    """A server that was killed lets go of its port a moment later; clients want it back on the same one."""
    deadline = time.monotonic() + _PORT_S
    while not _is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
