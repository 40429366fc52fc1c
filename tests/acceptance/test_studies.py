"""The two studies of the README, run for real: the pharma world with its known truth, and NHEFS with its published answer."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from commands import ROOT, e2i
from e2i.data.synthetic import study_world


@pytest.fixture(scope="module")
def speaker(home: Path) -> dict[str, Any]:
    result = e2i("run", "--json", home=home)
    assert result.code == 0, result.err
    return result.json


@pytest.fixture(scope="module")
def nhefs(home: Path) -> dict[str, Any]:
    result = e2i("run", ROOT / "studies" / "nhefs.yaml", "--json", home=home)
    assert result.code == 0, result.err
    return result.json


def test_the_bundled_study_finds_the_true_effect_where_the_plain_difference_does_not(speaker: dict[str, Any]) -> None:
    truth = study_world(seed=7, size=5000).truth.effect(table="hcp_speaker_study", outcome="nrx")
    effect = speaker["effect"]
    low, high = effect["interval"]
    assert speaker["synthetic"]
    assert low <= truth.att <= high
    assert effect["verdict"] == "proceed"
    assert not low <= effect["naive_difference"] <= high
    assert all(test["passed"] for test in effect["refutations"])


def test_the_bundled_model_meets_its_criterion_and_waits_in_staging(speaker: dict[str, Any]) -> None:
    model = speaker["model"]
    assert model["success_criteria"]["minimum_auc"]["met"]
    assert model["stage"] == "staging"
    assert model["metrics"]["roc_auc"]["value"] > model["baseline"]["roc_auc"]
    assert set(model["fairness"]) == {"age_group"}
    assert speaker["explanation"]["top_features"]
    assert not {"nrx", "trx_post", "calls_post", "conversion_date", "hcp_id", "age_group"} & set(model["feature_names"])


def test_nhefs_agrees_with_what_was_published(nhefs: dict[str, Any]) -> None:
    """Hernan and Robins: 3.4 kg by weighting, 3.5 kg by standardisation; the plain difference is 2.5."""
    effect = nhefs["effect"]
    low, high = effect["interval"]
    assert not nhefs["synthetic"]
    assert nhefs["data"]["rows"] == 1629
    assert effect["treated"] + effect["untreated"] == 1566
    assert 3.2 <= effect["estimate"] <= 3.7
    assert low < 3.4 < 3.5 < high
    assert effect["naive_difference"] == pytest.approx(2.54, abs=0.01)
    assert effect["verdict"] == "review", "without a negative control nobody can exclude hidden confounding"
    assert nhefs["model"]["metrics"]["roc_auc"]["value"] > 0.75


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_can_be_mailed_and_carries_its_lineage(speaker: dict[str, Any], home: Path) -> None:
    page = _Page()
    page.feed((home / "reports" / speaker["run_id"] / "report.html").read_text())
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    for value in (speaker["data"]["sha256"], speaker["model"]["mlflow_run_id"], speaker["trace_id"], speaker["model"]["model_sha256"]):
        assert value in page.text
    assert re.search(r"synthetic", page.text, re.IGNORECASE)


def test_a_second_study_finds_history_and_the_audit_trail_verifies(speaker: dict[str, Any], nhefs: dict[str, Any], home: Path) -> None:
    again = e2i("run", ROOT / "studies" / "nhefs.yaml", "--json", home=home)
    assert again.code == 0, again.err
    assert again.json["run_id"] != nhefs["run_id"], "a finished run is not resumed; asking again is a new run"
    assert again.json["effect"]["estimate"] == nhefs["effect"]["estimate"], "the same data and study give the same effect"
    assert int(again.json["model"]["version"]) == int(nhefs["model"]["version"]) + 1
    assert again.json["model"]["search"]["warm_start"] >= 1
    assert speaker["run_id"] != nhefs["run_id"]
    assert e2i("audit", "verify", "--json", home=home).json["ok"]
