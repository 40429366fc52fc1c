"""A disk that the spool itself filled: what is on it is delivered, which makes room, and what found none is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")


def in_a_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run with three MB mounted at `folder`, seen by this process alone and gone with it."""
    mount = 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "-r", "-m", "sh", "-c", mount, str(folder), *command], capture_output=True, text=True, timeout=200, check=False
    )


def can_mount(folder: Path) -> bool:
    try:
        return in_a_small_disk(folder, "true").returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_is_emptied_by_the_shipper_and_what_found_no_room_is_counted(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("no small disk can be mounted here")
    done = in_a_small_disk(tmp_path, sys.executable, str(SCRIPT), str(tmp_path / "spool"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for account in told["accounts"]:
        assert (account["emitted"], account["in_spool"], account["unexplained"]) == (12_002, 0, 0)
        assert set(account["dropped"]) == {"write_failed"}
        assert account["delivered"] == 12_002 - account["dropped"]["write_failed"] == told["rows"]
    assert told["names"] == ["after", "before", "much"], "the shipper made room for what came after"
