"""The Outbox contract on each implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contracts.outbox_contract import OutboxContract
from contracts.sqlite_outbox import SqliteOutbox

if TYPE_CHECKING:
    from pathlib import Path


class TestSqliteOutbox(OutboxContract):
    """The one that the tests of delivery use."""

    @pytest.fixture
    def outbox(self, tmp_path: Path) -> SqliteOutbox:
        return SqliteOutbox(tmp_path / "outbox.db")
