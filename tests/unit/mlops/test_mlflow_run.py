"""A run whose records cannot be kept any more: what people are told, and what stays on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2i.errors import BackendUnavailable, StorageError
from e2i.mlops.mlflow_run import MLflowRun, RunContext


class Sends:
    """A Sender whose outbox is gone once `breaks_at` is asked for."""

    def __init__(self, staging: Path, *, breaks_at: str = "") -> None:
        self.staging = staging
        self.breaks_at = breaks_at
        self.asked: list[str] = []

    def now_ms(self) -> int:
        return 0

    async def send(self, operation: str, key: str, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        self.asked.append(operation)
        if operation == self.breaks_at:
            raise BackendUnavailable("the outbox is gone")
        return None


async def test_an_end_that_cannot_be_logged_hides_the_error_of_the_block_from_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sends(tmp_path, breaks_at="finish_run")
    with pytest.raises(ZeroDivisionError):
        async with RunContext(MLflowRun(sender, "k"), {}):
            _ = 1 / 0
    assert "the end of run k could not be logged" in caplog.text
    with pytest.raises(BackendUnavailable):
        async with RunContext(MLflowRun(sender, "k"), {}):
            pass


async def test_an_artifact_that_cannot_be_copied_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plot.txt").write_text("x")
    (tmp_path / "taken").write_text("a file where the folder would be")
    run = MLflowRun(Sends(tmp_path / "taken"), "k")
    with pytest.raises(StorageError, match="cannot be copied"):
        await run.log_artifact(tmp_path / "plot.txt")
