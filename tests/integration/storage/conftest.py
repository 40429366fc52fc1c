"""Every storage test runs on the embedded server and on a plain one of another major version, reached by its URL alone."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from databases import Template, copy_of, migrated_template, scratch
from e2i.storage.server_process import binaries


@pytest.fixture(scope="session")
def plain_server_url() -> Iterator[str]:
    """A PostgreSQL 16 that this test session makes and runs by itself."""
    programs = binaries().parent.parent / "pginstall" / "bin"
    folder = scratch("e2i-plain-")
    become = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        become = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [programs / program, "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **become)  # type: ignore[call-overload]

    run("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
    options = f"-F -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c timezone=Asia/Tokyo"
    run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
    yield f"postgres://postgres@127.0.0.1:{port}/postgres"
    run("pg_ctl", "stop", "-w", "-m", "immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def plain_template(plain_server_url: str) -> Iterator[Template]:
    """The migrated database of the plain server."""
    with migrated_template(plain_server_url) as template:
        yield template


@pytest.fixture(params=["embedded", "plain"])
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of each server in turn."""
    return str(request.getfixturevalue("database_url" if request.param == "embedded" else "plain_server_url"))


@pytest.fixture
def fresh_database(server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a new, migrated database on each server in turn."""
    kind = "plain_template" if server_url.startswith("postgres://") else "database_template"
    with copy_of(request.getfixturevalue(kind)) as url:
        yield url
