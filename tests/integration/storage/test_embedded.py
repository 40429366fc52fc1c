"""The embedded server: shared by processes, safe against their death, startable by root and by a user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from databases import scratch
from e2i.errors import StorageError
from e2i.storage.embedded import EmbeddedServer

ROOT = Path(__file__).parents[3]
USER = """
import os, sys
from pathlib import Path
from e2i.errors import StorageError
from e2i.storage.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
for line in sys.stdin:
    try:
        print(getattr(server, line.strip())(), flush=True)
    except StorageError as error:
        print("refused:", error, flush=True)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Process:
    """Another process with a server object on the same home."""

    def __init__(self, home: Path, *, python: str = sys.executable, **more: object) -> None:
        self.popen = subprocess.Popen(
            [python, "-c", USER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", **more
        )  # type: ignore[call-overload]

    def begin(self, what: str) -> None:
        self.popen.stdin.write(f"{what}\n")
        self.popen.stdin.flush()

    def answer(self) -> str:
        return self.popen.stdout.readline().strip()

    def do(self, what: str) -> str:
        self.begin(what)
        return self.answer()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.popen.send_signal(number)
        self.popen.wait()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    made: list[Process] = []
    yield made
    for process in made:
        process.kill()
        process.popen.stdin.close()
        process.popen.stdout.close()


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A home that was made and stopped."""
    folder = scratch("e2i-made-")
    server = EmbeddedServer(folder / "home")
    server.start()
    server.release()
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture
def home(made_home: Path) -> Iterator[Path]:
    """The same home for every test that leaves it healthy, with nobody using it."""
    yield made_home
    EmbeddedServer(made_home).stop()


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedServer]:
    """This process's server object on that home."""
    server = EmbeddedServer(home)
    yield server
    server.stop()


@pytest.fixture
def spare_home(made_home: Path) -> Iterator[Path]:
    """A copy to be broken."""
    folder = scratch("e2i-home-")
    subprocess.run(["cp", "-a", made_home, folder], check=True)
    yield folder / "home"
    EmbeddedServer(folder / "home").stop()
    shutil.rmtree(folder)


def pid_of(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None


def is_running(home: Path) -> bool:
    return EmbeddedServer(home).status().is_running


def test_the_first_start_makes_a_private_server_of_version_18_with_pgvector() -> None:
    folder = scratch("e2i-first-")
    server = EmbeddedServer(folder / "home")
    try:
        url = server.start()
        assert str(ask(url, "show server_version")).startswith("18.")
        assert ask(url, "select count(*) from pg_available_extensions where name = 'vector'") == 1
        assert [ask(url, f"show {name}") for name in ("listen_addresses", "unix_socket_directories", "max_connections", "TimeZone")] == [
            "127.0.0.1",
            "",
            "200",
            "UTC",
        ]
        assert stat.S_IMODE((folder / "home" / "postgres" / "password").stat().st_mode) == 0o600
        password = (folder / "home" / "postgres" / "password").read_text()
        assert len(password) > 40
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url.replace(password, "guess"))
        assert sorted(path.name for path in (folder / "home" / "postgres").iterdir()) == [
            "data",
            "password",
            "port",
            "start.lock",
            "users.lock",
        ]
    finally:
        server.stop()
        shutil.rmtree(folder)


def test_starting_twice_is_starting_once_and_data_survive_a_stop(home: Path, server: EmbeddedServer) -> None:
    url = server.start()
    pid = pid_of(home)
    assert server.start() == url
    assert pid_of(home) == pid
    with psycopg.connect(url) as connection:
        connection.execute("drop table if exists kept; create table kept as select 42 as answer")
    server.release()
    assert not is_running(home)
    assert ask(server.start(), "select answer from kept") == 42
    server.release()
    server.release()
    assert server.start() == url, "the port is remembered"


def test_a_warm_start_is_quick(home: Path, server: EmbeddedServer) -> None:
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        server.start()
        spent.append(time.perf_counter() - begun)
        server.release()
    assert min(spent) < 1.0, f"{spent}: 0.15 s on a quiet machine"


def test_processes_share_one_server_and_the_last_one_to_leave_stops_it(home: Path, processes: list[Process]) -> None:
    processes += [Process(home) for _ in range(3)]
    for process in processes:
        process.begin("start")
    urls = {process.answer() for process in processes}
    assert len(urls) == 1
    assert ask(urls.pop(), "select 1") == 1
    pid = pid_of(home)
    processes[0].do("release")
    processes[1].kill()
    assert is_running(home)
    assert pid_of(home) == pid
    assert "is_running=True" in processes[2].do("status")
    processes[2].do("release")
    assert not is_running(home)


def test_processes_that_start_an_empty_home_at_once_make_one_server(processes: list[Process]) -> None:
    folder = scratch("e2i-race-")
    try:
        processes += [Process(folder / "home") for _ in range(3)]
        for process in processes:
            process.begin("start")
        urls = {process.answer() for process in processes}
        assert len(urls) == 1
        assert ask(urls.pop(), "select 1") == 1
    finally:
        EmbeddedServer(folder / "home").stop()
        shutil.rmtree(folder)


def test_the_server_of_a_killed_process_goes_on_until_its_next_user_leaves(
    home: Path, server: EmbeddedServer, processes: list[Process]
) -> None:
    processes.append(Process(home))
    url = processes[0].do("start")
    pid = pid_of(home)
    processes[0].kill()
    assert server.start() == url
    assert pid_of(home) == pid
    server.release()
    assert not is_running(home)


def test_a_server_that_was_started_to_stay_outlives_its_users_until_it_is_stopped(
    home: Path, server: EmbeddedServer, processes: list[Process]
) -> None:
    server.start(stays=True)
    pid = pid_of(home)
    server.release()
    processes.append(Process(home))
    processes[0].do("start")
    processes[0].do("release")
    server.start()
    server.release()
    assert is_running(home)
    assert pid_of(home) == pid
    server.stop()
    server.start()
    server.release()
    assert not is_running(home), "stopped once, it does not stay any longer"


def test_a_killed_server_starts_again_with_everything_that_was_committed(home: Path, server: EmbeddedServer) -> None:
    url = server.start()
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("drop table if exists kept; create table kept as select 42 as answer")
    os.kill(pid_of(home), signal.SIGKILL)
    assert server.start() == url
    connection.close()
    assert ask(url, "select answer from kept") == 42
    server.release()
    assert not is_running(home)


def test_a_server_killed_under_a_busy_client_starts_again(home: Path, server: EmbeddedServer) -> None:
    """Its orphaned children still use the shared memory for a moment."""
    url = server.start()
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("set statement_timeout = '1s'")
    connection.pgconn.send_query(b"select count(*) from generate_series(1, 100000000)")
    time.sleep(0.1)
    os.kill(pid_of(home), signal.SIGKILL)
    assert server.start() == url
    assert ask(url, "select 1") == 1
    connection.close()


def test_a_pid_file_with_the_pid_of_a_stranger_does_not_keep_the_server_from_starting(home: Path, server: EmbeddedServer) -> None:
    data = home / "postgres" / "data"
    server.start()
    lines = (data / "postmaster.pid").read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert ask(server.start(), "select 1") == 1


def test_a_server_that_is_a_zombie_counts_as_dead(home: Path, server: EmbeddedServer) -> None:
    """Started by a process that does not wait for its children, as the first process of a container."""
    url = server.start()
    server.release()
    parent = subprocess.Popen([sys.executable, "-c", ZOMBIE, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        zombie = int(parent.stdout.readline())
        assert Path(f"/proc/{zombie}/stat").read_text().split()[2] == "Z"
        assert not server.status().is_running
        assert server.start() == url
        assert pid_of(home) != zombie
        server.stop()
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


ZOMBIE = """
import ctypes, os, signal, sys, time
from pathlib import Path
from e2i.storage.embedded import EmbeddedServer
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # children of dead children become ours
home = Path(sys.argv[1])
EmbeddedServer(home).start()
pid = int((home / "postgres/data/postmaster.pid").read_text().split()[0])
os.kill(pid, signal.SIGKILL)
while "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
    time.sleep(0.01)
print(pid, flush=True)
time.sleep(60)
"""


def test_stop_stops_for_everybody(home: Path, processes: list[Process]) -> None:
    processes.append(Process(home))
    processes[0].do("start")
    EmbeddedServer(home).stop()
    assert not is_running(home)
    assert processes[0].do("start").startswith("postgresql://")
    EmbeddedServer(home).stop()
    EmbeddedServer(home / "nothing" / "here").stop()
    assert not (home / "nothing").exists()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home: Path, processes: list[Process]) -> None:
    processes.append(Process(home, start_new_session=True, stderr=subprocess.DEVNULL))
    url = processes[0].do("start")
    os.killpg(processes[0].popen.pid, signal.SIGINT)
    processes[0].popen.wait()
    time.sleep(0.1)
    assert ask(url, "select 1") == 1
    assert os.getsid(pid_of(home)) != processes[0].popen.pid


def test_a_forked_child_that_leaves_takes_nothing_from_its_parent(home: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from e2i.storage.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
child = os.fork()
if child == 0:
    server.release()
    os._exit(0)
os.waitpid(child, 0)
other = EmbeddedServer(Path(sys.argv[1]))
other.start()
other.release()
print(server.status().is_running)
server.release()
print(server.status().is_running)
"""
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_remembered_port_that_is_taken_is_replaced(home: Path, server: EmbeddedServer) -> None:
    port = int((home / "postgres" / "port").read_text())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert ask(server.start(), "select 1") == 1
        assert server.status().port not in (None, port)
        server.release()


def test_a_fixed_port_is_used_or_refused_and_never_replaced(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StorageError, match=f"port {port} is taken"):
            EmbeddedServer(home, port=port).start()
    server = EmbeddedServer(home, port=port)
    assert f"127.0.0.1:{port}/" in server.start()
    with pytest.raises(StorageError, match=f"runs on port {port}, not on the port {port - 1}"):
        EmbeddedServer(home, port=port - 1).start()
    free = EmbeddedServer(home, port=0)
    assert free.start() == server.start()
    free.release()
    server.stop()


def test_a_copied_home_does_not_join_the_server_of_the_original(spare_home: Path) -> None:
    server, other = EmbeddedServer(spare_home), EmbeddedServer(spare_home.parent / "copy")
    subprocess.run(["cp", "-a", spare_home, spare_home.parent / "copy"], check=True)
    assert server.start() != other.start()
    assert ask(server.start(), "show data_directory") != ask(other.start(), "show data_directory")
    other.stop()
    server.stop()


def test_settings_of_other_postgres_clients_in_the_environment_do_no_harm(home: Path, processes: list[Process]) -> None:
    hostile = {"PGPORT": "1", "PGHOST": "/nowhere", "PGSSLMODE": "require", "PGDATA": "/nowhere", "PGUSER": "x", "PGPASSWORD": "y"}
    processes.append(Process(home, env={**os.environ, **hostile}))
    assert processes[0].do("start").startswith("postgresql://e2i:")


def test_a_home_that_cannot_be_written_is_said_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file" / "home", Path("/proc/home")):
        with pytest.raises(StorageError, match=r"E2I_HOME.*DATABASE_URL") as caught:
            EmbeddedServer(wrong).start()
        assert caught.value.where.startswith(str(wrong.parent))


def test_files_of_another_version_are_not_touched(spare_home: Path) -> None:
    (spare_home / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StorageError, match="PostgreSQL 17, this release runs PostgreSQL 18"):
        EmbeddedServer(spare_home).start()


def test_a_lost_password_is_said(spare_home: Path) -> None:
    (spare_home / "postgres" / "password").unlink()
    with pytest.raises(StorageError, match="password of the embedded PostgreSQL is gone"):
        EmbeddedServer(spare_home).start()


@as_root
def test_a_full_disk_is_said_and_leaves_nothing_half_made() -> None:
    folder = scratch("e2i-full-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", folder], check=False, capture_output=True)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("this machine does not let us mount a small disk")
    try:
        with pytest.raises(StorageError, match=r"disk is full.*Free some space"):
            EmbeddedServer(folder / "home").start()
        assert not list((folder / "home" / "postgres").glob("init-*"))
        assert not (folder / "home" / "postgres" / "data").exists()
        subprocess.run(["mount", "-o", "remount,size=300m", folder], check=True)
        server = EmbeddedServer(folder / "home")
        assert ask(server.start(), "select 1") == 1
        server.stop()
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def test_what_a_process_killed_in_the_middle_left_is_cleared_away() -> None:
    folder = scratch("e2i-half-")
    half = folder / "postgres" / "init-half" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = EmbeddedServer(folder)
    try:
        assert ask(server.start(), "select 1") == 1
        assert not (folder / "postgres" / "init-half").exists()
    finally:
        server.stop()
        shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize(("mode", "owner"), [(0o755, pwd.getpwnam("nobody").pw_uid), (0o700, 0)], ids=["nobody", "namespace"])
def test_root_runs_it_as_somebody_else_and_opens_no_folder(spare_home: Path, mode: int, owner: int) -> None:
    """Where `nobody` cannot reach the home, the server runs in a user namespace and the files stay root's."""
    spare_home.parent.chmod(mode)
    server = EmbeddedServer(spare_home)
    assert ask(server.start(), "select 1") == 1
    assert (spare_home / "postgres" / "data").stat().st_uid == owner
    uids = Path(f"/proc/{pid_of(spare_home)}/status").read_text().split("Uid:")[1].split()[:1]
    assert uids == [str(owner)]
    assert stat.S_IMODE(spare_home.parent.stat().st_mode) == mode
    server.release()
    assert not is_running(spare_home)
    spare_home.parent.chmod(0o700 if mode == 0o755 else 0o755)
    assert ask(server.start(), "select 1") == 1, "the other way works on the same files"
    server.release()


@as_root
def test_a_normal_user_runs_it_as_himself(processes: list[Process]) -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")
    nobody = pwd.getpwnam("nobody")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    probe = [python, "-c", "import psycopg, sys; assert sys.version_info[:2] == " + str(sys.version_info[:2])]
    become = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{packages}", "PATH": os.defpath}
    if python is None or subprocess.run(probe, env=path, check=False, capture_output=True, cwd="/", **become).returncode != 0:  # type: ignore[call-overload,list-item]
        pytest.skip("no second Python of this version that another user may run")
    folder = scratch("e2i-user-")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        processes.append(Process(folder / "home", python=python, env=path, **become))
        assert ask(processes[0].do("start"), "select 1") == 1
        assert (folder / "home" / "postgres" / "data").stat().st_uid == nobody.pw_uid
        processes[0].do("release")
        assert not is_running(folder / "home")
        for path_ in (folder / "home" / "postgres" / "data", *(folder / "home" / "postgres" / "data").rglob("*")):
            os.chown(path_, 12345, 12345, follow_symlinks=False)
        assert processes[0].do("start").startswith("refused:")
    finally:
        EmbeddedServer(folder / "home").stop()
        shutil.rmtree(folder)
