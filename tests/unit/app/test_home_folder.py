"""A home that cannot be is told by its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2i.bootstrap.platform import check_disk
from e2i.errors import StorageError


@pytest.mark.parametrize("place", ["/proc/nope", "/proc/nope/below", "/dev/null/state", "/dev/null", "{here}/file", "{here}/file/state"])
def test_a_home_that_cannot_be_made_is_told_as_that_and_not_as_a_full_disk(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be made") as caught:
        check_disk(Path(place.format(here=tmp_path)))
    assert "are free" not in str(caught.value)
    assert "E2I_HOME" in str(caught.value.advice)


def test_a_home_that_is_not_there_yet_leaves_no_trace(tmp_path: Path) -> None:
    check_disk(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
