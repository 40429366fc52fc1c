"""What every Outbox promises. Subclass it in a test file and give the fixture `outbox`."""

from __future__ import annotations

from typing import Any

import pytest

from e2i.domain.runs import OutboxMessage
from e2i.errors import NotFound
from e2i.ports.records import Outbox


def message(key: str = "run-1", operation: str = "log_batch", target: str = "mlflow", **payload: Any) -> OutboxMessage:
    """A message."""
    return OutboxMessage(target=target, key=key, operation=operation, payload=payload)


async def numbers(outbox: Outbox, **conditions: Any) -> list[int]:
    """Ids of what is pending."""
    return [found.message_id or 0 for found in await outbox.pending("mlflow", **conditions)]


class OutboxContract:
    """Run against every implementation."""

    async def test_what_was_appended_comes_back_whole_and_oldest_first(self, outbox: Outbox) -> None:
        payload: dict[str, Any] = {
            "params": {"hp_größe": "6"},
            "metrics": [["auc", 0.1 + 0.2, 1_700_000_000_123, 0]],
            "none": None,
            "deep": [{"a": [1]}],
        }
        first, second = await outbox.append([message(**payload), message(operation="finish_run")])
        (third,) = await outbox.append([message("run-2")])
        found = await outbox.pending("mlflow")
        assert [item.message_id for item in found] == [first, second, third]
        assert first < second < third
        assert found[0].payload == payload
        assert (found[0].target, found[0].key, found[0].operation, found[0].attempts, found[0].error) == (
            "mlflow",
            "run-1",
            "log_batch",
            0,
            None,
        )
        assert found[0].created_at is not None
        assert found[0].created_at.tzinfo is not None

    async def test_pending_can_be_limited_to_a_key_a_target_and_a_number(self, outbox: Outbox) -> None:
        first, other, third = await outbox.append([message("run-1"), message("run-2"), message("run-1")])
        await outbox.append([message("run-1", target="elsewhere")])
        assert await numbers(outbox, key="run-1") == [first, third]
        assert await numbers(outbox, key="run-2") == [other]
        assert await numbers(outbox, limit=2) == [first, other]
        assert await numbers(outbox, key="nobody") == []

    async def test_a_delivered_message_is_gone_and_its_results_stay(self, outbox: Outbox) -> None:
        start, log, model = await outbox.append([message(operation="start_run"), message(), message(operation="log_model")])
        assert await outbox.results("mlflow", "run-1") == {}
        await outbox.mark_delivered(start, {"run_id": "r1", "status": "early"})
        await outbox.mark_delivered(log, {})
        assert await numbers(outbox) == [model]
        await outbox.mark_delivered(model, {"model_uri": "models:/m-1", "status": "late"})
        assert await outbox.results("mlflow", "run-1") == {"run_id": "r1", "model_uri": "models:/m-1", "status": "late"}
        assert await outbox.results("mlflow", "run-2") == {}
        assert await outbox.results("elsewhere", "run-1") == {}

    async def test_a_message_behind_a_failed_one_of_its_key_waits_and_other_keys_do_not(self, outbox: Outbox) -> None:
        first, second, other = await outbox.append([message("run-1"), message("run-1"), message("run-2")])
        await outbox.mark_failed(first, "connection refused", quarantine=False)
        assert await numbers(outbox) == [first, other]
        (failed,) = await outbox.pending("mlflow", key="run-1")
        assert (failed.attempts, failed.error) == (1, "connection refused")
        await outbox.mark_delivered(first, {})
        assert await numbers(outbox, key="run-1") == [second]

    async def test_a_quarantined_message_blocks_nothing_any_more(self, outbox: Outbox) -> None:
        first, second = await outbox.append([message(), message()])
        await outbox.mark_failed(first, "timeout", quarantine=False)
        await outbox.mark_failed(first, "no such parameter", quarantine=True)
        assert await numbers(outbox) == [second]
        assert await outbox.counts("mlflow") == {"pending": 1, "delivered": 0, "quarantined": 1}

    async def test_counts_name_every_state_of_one_target(self, outbox: Outbox) -> None:
        assert await outbox.counts("mlflow") == {"pending": 0, "delivered": 0, "quarantined": 0}
        first, _, _ = await outbox.append([message(), message("run-2"), message("run-3")])
        await outbox.append([message(target="elsewhere")])
        await outbox.mark_delivered(first, {})
        assert await outbox.counts("mlflow") == {"pending": 2, "delivered": 1, "quarantined": 0}

    async def test_an_unknown_message_cannot_be_marked(self, outbox: Outbox) -> None:
        with pytest.raises(NotFound):
            await outbox.mark_delivered(10**9, {})
        with pytest.raises(NotFound):
            await outbox.mark_failed(10**9, "x", quarantine=True)
