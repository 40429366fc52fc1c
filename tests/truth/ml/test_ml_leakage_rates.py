"""How often leakage detectors cry wolf on clean data, and how often they miss what was planted."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from e2i.domain.quality import QCIssue
from e2i.ml.leakage import LeakageRoles, find_leakage
from e2i.ml.splits import plan_splits

FRAMES = 60


def clean(seed: int, *, is_binary: bool) -> tuple[pl.DataFrame, list[str]]:
    """A plausible table: strong and weak predictors, counts, skewed amounts, holes, categories, flags, dates; sizes and rates vary."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([250, 600, 2000, 3000]))
    z = rng.normal(size=n)
    rate = rng.choice([0.03, 0.1, 0.3, 0.5])
    strength = rng.choice([0.5, 1.5, 3.0])
    score = strength * z + rng.logistic(size=n)
    target = (score > np.quantile(score, 1 - rate)).astype(np.int64) if is_binary else score
    columns: dict[str, object] = {
        "risk": z,
        "trx": rng.poisson(np.exp(1 + 0.3 * z)),
        "spend": np.round(np.exp(rng.normal(size=n) * 2 + 5), 2),
        "visits": rng.integers(0, 5000, n),
        "age": rng.integers(18, 95, n),
        "specialty": rng.choice(["onc", "gp", "derm", "rheum"], n),
        "zip3": rng.integers(100, 999, n).astype(str),
        "region": np.array(["low", "middle", "high"])[np.digitize(z + rng.normal(size=n), [-1, 1])],
        "flag": rng.random(n) < 0.02,
        "start": [date(2022, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 700, n)],
        "index_date": [date(2024, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 300, n)],
        "target": target,
    }
    frame = pl.DataFrame(columns).with_columns(
        pl.when(pl.Series(rng.random(n) < 0.3)).then(None).otherwise(pl.col("trx")).alias("trx"),
        pl.when(pl.Series(rng.random(n) < 0.9)).then(None).otherwise(pl.col("spend")).alias("spend"),
    )
    frame = frame.with_columns(pl.Series(f"noise{index}", rng.standard_t(3, size=n)) for index in range(15))
    if rng.random() < 0.5:
        frame = frame.sort("target")
    return frame, [name for name in frame.columns if name not in ("target", "index_date")]


def roles(*, is_binary: bool) -> LeakageRoles:
    return LeakageRoles(
        target="target", problem_type="binary_classification" if is_binary else "regression", time="index_date", event_time="index_date"
    )


@pytest.mark.parametrize("is_binary", [True, False], ids=["classes", "numbers"])
def test_clean_tables_raise_no_blocking_alarm(is_binary: bool) -> None:
    alarms: list[tuple[int, QCIssue]] = []
    warned = 0
    for seed in range(FRAMES):
        frame, features = clean(seed, is_binary=is_binary)
        issues = find_leakage(frame, features=features, roles=roles(is_binary=is_binary))
        alarms += [(seed, issue) for issue in issues if issue.severity == "blocking"]
        warned += bool(issues)
    assert alarms == []
    assert warned <= 0.05 * FRAMES


def test_planned_splits_of_clean_tables_raise_no_alarm() -> None:
    for seed in range(20):
        frame, features = clean(seed, is_binary=False)
        plan, labels = plan_splits(frame, time="index_date", target="target", seed=seed)
        assert find_leakage(frame, features=features, roles=roles(is_binary=False), labels=labels, plan=plan) == ()


PLANTED = {
    "added noise": lambda y, rng: y + rng.normal(0, 0.3, len(y)),
    "one row in two hundred wrong": lambda y, rng: np.where(rng.random(len(y)) < 0.005, 1 - y, y),
    "recoded levels": lambda y, rng: np.where(y == 1, rng.choice(["won", "kept"], len(y)), rng.choice(["lost", "open"], len(y))),
    "scattered codes": lambda y, rng: np.where(y == 1, rng.choice([2, 8, 11], len(y)), rng.choice([1, 5, 9], len(y))),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_leaks_are_found(kind: str) -> None:
    found = 0
    for seed in range(FRAMES):
        rng = np.random.default_rng(seed + 500)
        frame, features = clean(seed, is_binary=True)
        frame = frame.with_columns(pl.Series("leak", PLANTED[kind](frame["target"].to_numpy(), rng)))
        issues = find_leakage(frame, features=[*features, "leak"], roles=roles(is_binary=True))
        found += any(issue.column == "leak" and issue.severity == "blocking" for issue in issues)
    assert found >= 0.9 * FRAMES


def test_planted_leaks_of_a_number_are_found_through_a_curve_or_through_noise() -> None:
    for seed in range(FRAMES):
        rng = np.random.default_rng(seed + 500)
        frame, features = clean(seed, is_binary=False)
        target = frame["target"].to_numpy()
        spread = target.std()
        leak = np.exp(-target / spread) if seed % 2 else target + rng.normal(size=len(target)) * 0.3 * spread
        frame = frame.with_columns(pl.Series("leak", leak))
        issues = find_leakage(frame, features=[*features, "leak"], roles=roles(is_binary=False))
        assert any(issue.column == "leak" and issue.severity == "blocking" for issue in issues), seed
