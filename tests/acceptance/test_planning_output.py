"""What planning sections leave on standard output and in the report, run as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allocation_targets import hcps
from commands import e2i, write
from e2i.causal.worlds import WORLDS


@pytest.mark.parametrize("engine", ["process", "local"])
def test_a_search_over_whole_units_leaves_json_alone_on_standard_output(engine: str, tmp_path: Path, home: Path) -> None:
    """HiGHS writes lines of its own to the process's standard output in such a search."""
    section: dict[str, Any] = {
        "resource": "calls", "current": "calls", "maximum": 12, "unit_cost": "cost", "budget": 20_000, "integer": True,
        "cardinality": 50, "minimum_if_selected": 3, "gap_tolerance": 1e-7, "time_limit_s": 3, "draws": 20,
        "response": {"curve": "log", "coefficient": "lift", "scale": "scale"},
    }  # fmt: skip
    path = write(tmp_path, hcps(200), {"name": "calls", "data": {"source": "visits.csv"}, "unit": "entity_id", "allocation": section})
    done = e2i("run", path, "--json", "--quiet", "--engine", engine, home=home)
    assert done.code == 0, done.err
    plan = done.json["allocation"]
    assert "mixed-integer" in plan["solver"]
    assert plan["status"] in ("optimal", "feasible")


def test_a_study_may_ask_for_econmls_forest(tmp_path: Path, home: Path) -> None:
    effect = {**WORLDS["heterogeneous"].effect().model_dump(exclude_defaults=True), "modifiers": ["x0"], "unit_effects": "econml"}
    path = write(tmp_path, WORLDS["heterogeneous"].draw(800, seed=3), {"name": "units", "data": {"source": "visits.csv"}, "effect": effect})
    done = e2i("effect", path, "--json", "--quiet", home=home)
    assert "Traceback" not in done.err
    assert "EconML" in done.json["segments"]["methods"]["unit_effects"]
