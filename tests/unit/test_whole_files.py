"""Files that take their place as a whole, or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from e2i.whole_files import beside, place, replace_text, replacing

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_block_that_fails_leaves_every_file_as_it_was_and_nothing_beside(tmp_path: Path) -> None:
    page, data = tmp_path / "page", tmp_path / "data"
    replace_text(page, "old")

    def half() -> None:
        with replacing(page, data) as (first, _):
            first.write_text("new")
            raise OSError("half")

    with pytest.raises(OSError, match="half"):
        half()
    assert names(tmp_path) == ["page"]
    assert page.read_text() == "old"


def test_two_files_take_their_places_together(tmp_path: Path) -> None:
    with replacing(tmp_path / "page", tmp_path / "data") as (page, data):
        page.write_text("1")
        data.write_text("2")
        assert "page" not in names(tmp_path)
    assert [(path.name, path.read_text()) for path in sorted(tmp_path.iterdir())] == [("data", "2"), ("page", "1")]


def test_a_file_has_the_mode_of_the_users_umask_and_a_private_one_is_the_users_alone(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        replace_text(tmp_path / "export", "x")
        replace_text(tmp_path / "key", "x", is_private=True)
        with replacing(tmp_path / "other", is_private=True) as (part,):
            assert mode_of(part) == 0o600
    finally:
        os.umask(old)
    assert (mode_of(tmp_path / "export"), mode_of(tmp_path / "key")) == (0o640, 0o600)


def test_what_is_begun_beside_a_file_and_not_placed_is_gone(tmp_path: Path) -> None:
    target = tmp_path / "days"
    with beside(target) as part:
        part.write_text("1")
    assert names(tmp_path) == []
    with beside(target) as part:
        part.write_text("2")
        place(part, target)
    assert (names(tmp_path), target.read_text()) == (["days"], "2")


def test_what_a_killed_process_left_goes_and_what_a_living_one_or_another_machine_writes_stays(tmp_path: Path) -> None:
    killed = "import os, sys; from pathlib import Path; from e2i.whole_files import replacing\n"
    killed += "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    ended = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "a[1].txt")], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    (tmp_path / left.replace(os.uname().nodename, "elsewhere")).touch()
    with beside(tmp_path / "a[1].txt") as living:
        replace_text(tmp_path / "a[1].txt", "whole")
        assert names(tmp_path) == sorted(["a[1].txt", living.name, left.replace(os.uname().nodename, "elsewhere")])
