"""Answers in print, found again through the public entry on the same real data; libraries beside ours.

The table of cases is `tests/published`; `benchmarks/published_answers.py` prints it with our answers.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.data.sources import LocalFrameSource
from e2i.data.study_file import load_study
from e2i.domain.evidence import CausalFinding, Effect
from published import CASES, Case
from published.case import read

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "benchmarks-causal.md").read_text()
PARAMETERS = [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.is_slow else []) for case in CASES]


def compared(finding: CausalFinding, case: Case) -> Effect:
    """The estimate that the published figure belongs to."""
    assert finding.effect is not None, finding.refusal
    if not case.beside:
        return finding.effect
    return next(effect for effect in finding.alternatives if effect.estimator == case.beside)


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_published_answer_is_found_and_the_library_agrees(case: Case) -> None:
    frame = case.frame()
    finding = analyse(frame, effect=case.effect, unit=case.unit, time=case.time, seed=1)
    ours = compared(finding, case)
    low, high = ours.interval()
    assert low < ours.estimate < high
    if case.published is not None:
        assert abs(ours.estimate - case.published) <= case.tolerance
        assert low < case.published < high
    if case.error_tolerance is not None:
        assert case.published_error is not None
        assert abs(ours.standard_error - case.published_error) <= case.error_tolerance
    if case.library is not None and case.library_tolerance is not None:
        peer = case.library(frame, case)
        assert ours.estimate == pytest.approx(peer.estimate, rel=case.library_tolerance)


def test_the_cases_are_at_least_twenty_over_all_kinds_of_design() -> None:
    assert len(CASES) >= 20
    assert len({case.source for case in CASES}) >= 20
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.tolerance > 0 or case.published is None for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_page_lists_the_case_with_its_source(case: Case) -> None:
    assert f"| {case.name} | {case.reference} |" in PAGE


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [("college_nearby", 0.124, 0.0005), ("castle_doctrine", 0.08, 0.005), ("texas_prisons", 21_013, 210)],
)
def test_a_study_file_leads_to_the_answer_of_its_case(name: str, published: float, tolerance: float) -> None:
    study = load_study(ROOT / "studies" / f"{name}.yaml")
    assert study.effect is not None
    frame = LocalFrameSource().load(study.data, base=ROOT / "studies").frame
    finding = analyse(frame, effect=study.effect, unit=study.unit, time=study.time, seed=study.seed)
    assert finding.effect is not None
    assert abs(finding.effect.estimate - published) <= tolerance


def test_the_example_file_is_the_packages_with_the_treatment_added() -> None:
    example = pl.read_csv(ROOT / "examples" / "data" / "texas_prisons.csv")
    packaged = read("causaldata/texas/texas.dta")
    assert example["bmprison"].to_list() == packaged["bmprison"].to_list()
    assert example["state"].to_list() == packaged["state"].to_list()
    assert example.filter(pl.col("expansion") == 1).select("state", "year").rows() == [("Texas", year) for year in range(1993, 2001)]
