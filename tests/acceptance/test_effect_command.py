"""`e2i effect` as a user runs it: every design by its own study file, refusals with codes, and what is left in the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from commands import e2i, write
from e2i.causal.worlds import PANEL_WORLDS, WORLDS


def question(world: str, **changes: Any) -> dict[str, Any]:
    return {**WORLDS[world].effect().model_dump(exclude_defaults=True), **changes}


def asked(folder: Path, frame: pl.DataFrame, home: Path, **study: Any) -> tuple[int, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    write(folder, frame, {"name": "asked", "data": {"source": "visits.csv"}, **study})
    done = e2i("effect", folder / "study.yaml", "--json", "--quiet", home=home)
    assert "Traceback" not in done.err
    return done.code, done.json


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, Any]:
    code, report = asked(tmp_path_factory.mktemp("proven"), WORLDS["linear"].draw(1_500, seed=3), home, effect=question("linear"))
    assert code == 0
    return report


def test_a_planted_effect_is_found_and_may_be_told(proven: dict[str, Any]) -> None:
    effect = proven["effect"]
    low, high = effect["interval"]
    assert low < WORLDS["linear"].truth("ATE") < high
    assert (effect["verdict"], effect["design"], effect["estimand"]) == ("proceed", "cross_section", "ATE")
    assert f"{effect['estimate']:.3g}" in effect["narrative"]
    assert len(effect["specifications"]) > 5
    assert proven["model"] is None
    assert proven["qc"] is None


def test_the_finding_is_kept_under_its_run(proven: dict[str, Any]) -> None:
    assert proven["effect"]["path_id"] == f"{proven['run_id']}_effect"
    assert proven["lineage"]["data_sha256"] == proven["data"]["sha256"]


def test_a_hidden_confounder_is_blocked_with_exit_code_3_and_its_estimate_is_not_put_into_words(tmp_path: Path, home: Path) -> None:
    frame = WORLDS["hidden_confounder"].draw(1_500, seed=1)
    code, report = asked(tmp_path, frame, home, effect=question("hidden_confounder"))
    assert code == 3
    assert report["status"] == "blocked"
    assert report["effect"]["verdict"] == "block"
    assert report["effect"]["estimate"] is not None
    assert report["effect"]["narrative"] is None


def test_a_staggered_panel_is_answered_by_group_time_effects_with_an_event_study(tmp_path: Path, home: Path) -> None:
    world = next(world for name, world in PANEL_WORLDS.items() if "staggered" in name or "fade" in name)
    frame = world.draw(200, seed=5)
    spec = world.effect().model_dump(exclude_defaults=True)
    code, report = asked(tmp_path, frame, home, unit="unit", time="time", effect=spec)
    assert code in (0, 3)
    effect = report["effect"]
    assert effect["estimator"].startswith("Callaway-Sant'Anna")
    assert {point["period"] for point in effect["event_study"]} >= {-1, 0, 1}
    low, high = effect["interval"]
    assert low < high
    assert any(other["estimator"].startswith("imputation") for other in effect["alternatives"])


def test_an_instrument_leads_to_two_stage_least_squares(tmp_path: Path, home: Path) -> None:
    rng = np.random.default_rng(2)
    hidden, z = rng.normal(size=3_000), rng.integers(0, 2, 3_000)
    dose = 0.8 * z + hidden + rng.normal(size=3_000)
    frame = pl.DataFrame({"z": z, "dose": dose, "y": 0.5 * dose - 2.0 * hidden + rng.normal(size=3_000), "age": rng.normal(50, 9, 3_000)})
    spec = {"treatment": "dose", "outcome": "y", "confounders": ["age"], "instruments": ["z"]}
    code, report = asked(tmp_path, frame, home, effect=spec)
    assert code == 0
    low, high = report["effect"]["interval"]
    assert low < 0.5 < high
    assert report["effect"]["design"] == "iv"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (pl.lit(1).alias("treatment"), "constant_treatment"),
        (pl.lit(2.5).alias("outcome"), "constant_outcome"),
        (pl.when(pl.int_range(pl.len()) == 7).then(float("inf")).otherwise(pl.col("outcome")).alias("outcome"), "infinite_values"),
    ],
)
def test_data_that_cannot_answer_are_refused_with_a_code_and_a_remedy(change: pl.Expr, code: str, tmp_path: Path, home: Path) -> None:
    exit_code, report = asked(tmp_path, WORLDS["linear"].draw(400, seed=1).with_columns(change), home, effect=question("linear"))
    assert exit_code == 3
    assert report["effect"]["refusal"].startswith(f"{code}: ")
    assert report["effect"]["estimate"] is None


def test_a_study_without_an_effect_is_a_usage_error(tmp_path: Path, home: Path) -> None:
    write(
        tmp_path,
        WORLDS["binary"].draw(300, seed=1),
        {"name": "no_effect", "data": {"source": "visits.csv"}, "prediction": {"target": "outcome"}},
    )
    done = e2i("effect", tmp_path / "study.yaml", home=home)
    assert done.code == 2
    assert "has no `effect`" in done.err


def test_the_json_is_strict(proven: dict[str, Any]) -> None:
    assert json.loads(json.dumps(proven, allow_nan=False)) == proven
