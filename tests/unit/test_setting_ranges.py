"""Values that no pipeline can work with are refused when the settings are read, and the message names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2i import config
from e2i.errors import ConfigError

SECONDS = [
    "sampling.decision_wait_seconds",
    "spool.fsync_interval_seconds",
    "batching.max_wait_seconds",
    "batching.flush_timeout_seconds",
    "batching.retry.retry_delay_seconds",
    "batching.retry.max_delay_seconds",
    "circuit_breaker.reset_timeout_seconds",
]


def refused(folder: Path, key: str, value: str) -> str:
    section, _, name = f"observability.{key}".rpartition(".")
    path = folder / "e2i.toml"
    path.write_text(f"[{section}]\n{name} = {value}\n")
    with pytest.raises(ConfigError) as found:
        config.load(toml=path)
    return str(found.value)


@pytest.mark.parametrize("key", SECONDS)
@pytest.mark.parametrize("value", ["inf", "1e308", "604_801", "nan", "-1"])
def test_a_pause_without_an_end_is_refused(tmp_path: Path, key: str, value: str) -> None:
    assert f"observability.{key}: " in refused(tmp_path, key, value)


@pytest.mark.parametrize("key", ["sampling.default_rate", "sampling.production_rate", "batching.max_batch_size", "retention.span_ttl_days"])
def test_true_is_no_number(tmp_path: Path, key: str) -> None:
    assert f"observability.{key}: is a number, not true or false" in refused(tmp_path, key, "true")


def test_a_ttl_that_reaches_behind_the_calendar_is_refused(tmp_path: Path) -> None:
    assert "span_ttl_days: Input should be less than or equal to 36500" in refused(tmp_path, "retention.span_ttl_days", "1_000_000")


@pytest.mark.parametrize("value", ["{nobody = 5.0}", "{1m = 5.0}", "{0h = 5.0}"])
def test_a_cache_is_kept_for_windows_that_can_be_asked_for(tmp_path: Path, value: str) -> None:
    assert "observability.cache.ttl: " in (told := refused(tmp_path, "cache.ttl", value))
    assert "is no window" in told


@pytest.mark.parametrize("value", ["{1h = -1.0}", "{7d = inf}"])
def test_a_cache_is_kept_for_a_time(tmp_path: Path, value: str) -> None:
    assert "observability.cache.ttl." in refused(tmp_path, "cache.ttl", value)


@pytest.mark.parametrize("key", ["service_name", "opik.project_name", "mlflow.experiment"])
def test_names_that_other_systems_file_spans_under_are_not_empty(tmp_path: Path, key: str) -> None:
    assert f"observability.{key}: " in refused(tmp_path, key, '""')
