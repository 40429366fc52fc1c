"""What `e2i doctor` says of a sink."""

from __future__ import annotations

from typing import Any

from e2i.app.health import Check, _examine_sink
from e2i.domain.telemetry import SinkAccount


def check(**changes: Any) -> Check:
    given: dict[str, Any] = {
        "sink": "opik", "emitted": 10, "delivered": 10, "in_spool": 0, "sampled_out": 0, "dropped": {}, "last_error": None,
        "breaker": "closed", "lag_s": 0.0,
    }  # fmt: skip
    return _examine_sink(SinkAccount(**{**given, **changes}))


def test_a_sink_that_has_everything_is_in_order() -> None:
    found = check()
    assert (found.ok, found.advice) == (True, None)
    assert found.detail == "10 delivered, 0 waiting, 0 sampled out, 0 lost"


def test_a_sink_that_is_away_fails_nothing_and_is_told_with_advice() -> None:
    found = check(delivered=4, in_spool=6, last_error="opik at h: no answer.")
    assert found.ok
    assert found.detail == "waiting: 4 delivered, 6 waiting, 0 sampled out, 0 lost; opik at h: no answer."
    assert "Nothing is lost" in str(found.advice)


def test_spans_that_only_wait_are_no_trouble() -> None:
    found = check(delivered=4, in_spool=6)
    assert (found.ok, found.advice) == (True, None)
    assert not found.detail.startswith("waiting")


def test_a_loss_is_not_in_order_and_its_advice_goes_first() -> None:
    found = check(delivered=3, in_spool=6, dropped={"disk_budget": 1}, last_error="away.")
    assert not found.ok
    assert "how they were lost" in str(found.advice)
