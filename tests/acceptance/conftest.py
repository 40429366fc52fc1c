"""A state folder with a running server for a module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import e2i


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A state folder with a running server, stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="e2i-acc-"))
    state = folder / "state"
    started = e2i("up", home=state)
    assert started.code == 0, started.err
    yield state
    e2i("down", home=state)
    shutil.rmtree(folder, ignore_errors=True)
