"""What the page says about checks and tests of an effect, apart from its numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import report_samples

from e2i.domain.evidence import Hazard, Refutation, VerdictName
from e2i.domain.report import ReportEvidence
from e2i.reporting.html import render

UNTESTED = Refutation(
    test="untested_negative_control:nrx_other",
    passed=True,
    detail="`nrx_other` could not be tested: it hardly varies.",
    is_reported_only=True,
)
HAZARDS = (
    Hazard(code="two_scales", action="review", text="the values of `nrx` fall into two groups.", remedy="Bring them to one unit."),
    Hazard(code="note", action="warn", text="3 columns were left out."),
)


def page(folder: Path, verdict: VerdictName = "proceed") -> str:
    report, _ = report_samples.complete(folder)
    report = replace(report, effect=report_samples.effect(verdict))
    assert report.effect is not None
    finding = report.effect.finding
    finding = replace(finding, refutations=(*finding.refutations, UNTESTED), hazards=HAZARDS)
    report = replace(report, effect=replace(report.effect, finding=finding), derived={"high": "decile >= 8"})
    return render(report.to_dict(), ReportEvidence())


def test_what_could_not_be_tested_stands_apart_from_the_tests_that_passed(tmp_path: Path) -> None:
    html = page(tmp_path)
    table, _, rest = html.partition("What could not be tested")
    assert "it hardly varies" not in table
    assert "<strong>Negative control: NRx other.</strong>" in rest
    assert "What could not be tested" not in render(report_samples.complete(tmp_path)[0].to_dict(), ReportEvidence())


def test_checks_carry_what_they_do_and_notes_are_no_warnings(tmp_path: Path) -> None:
    checks = page(tmp_path).partition("What the checks of the data said")[2]
    assert re.search(r'class="chip warn">Review</span> <div><strong>Two scales\.</strong>', checks)
    assert "<li>3 columns were left out.</li>" in checks
    assert "3 columns were left out" not in page(tmp_path, "block")


def test_derived_columns_stand_in_the_lineage_with_their_expressions(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "Derived column <code>high</code></th><td><code>decile &gt;= 8</code>" in html
    report, _ = report_samples.complete(tmp_path)
    assert report.to_dict()["lineage"]["derived"] is None


def of_levels(folder: Path, *, low: float = 0.66) -> str:
    report, _ = report_samples.complete(folder)
    assert report.effect is not None
    finding = report.effect.finding
    assert finding.effect is not None
    main = replace(finding.effect, estimator="doubly robust, level rep against none", estimate=1.05, bounds=(low, 1.44), n_treated=7)
    other = replace(main, estimator="doubly robust, level e-mail against none", estimate=0.27, bounds=(-0.1, 0.64))
    finding = replace(finding, effect=main, alternatives=(other,))
    report = replace(report, effect=replace(report.effect, finding=finding))
    return render(report.to_dict(), ReportEvidence())


def test_the_answer_for_several_levels_says_which_levels_it_compares(tmp_path: Path) -> None:
    raised = re.search(r'<p class="lead">([^<]*\(rep against none\) raised)', of_levels(tmp_path))
    assert raised is not None
    assert "(rep against none) on" in of_levels(tmp_path, low=-0.2)
    assert "against none)" not in page(tmp_path)


def test_the_plot_of_several_levels_names_levels_and_not_estimators_that_agree(tmp_path: Path) -> None:
    html = of_levels(tmp_path)
    assert "What does each level do?" in html
    assert "Do other estimators agree?" not in html
    assert "e-mail against none (A" in html


def test_a_count_that_is_withheld_is_not_called_unknown(tmp_path: Path) -> None:
    assert '<dt>Treated</dt><dd><span class="unknown">not shown</span>' in of_levels(tmp_path)


def balanced(folder: Path, *, after: float) -> str:
    report, _ = report_samples.complete(folder)
    content = replace(report, effect=report_samples.effect("proceed")).to_dict()
    content["effect"]["balance"] = [{"covariate": "nrx_pre", "smd_before": 0.107, "smd_after": after}]
    return render(content, ReportEvidence())


def test_after_a_lottery_the_balance_is_the_arms_own_and_nothing_is_called_weighted(tmp_path: Path) -> None:
    html = balanced(tmp_path, after=0.107)
    assert "Are the arms alike?" in html
    assert "weighting<" not in html.partition("Are the arms alike?")[2].partition("</figure>")[0]
    weighted = balanced(tmp_path, after=0.01)
    assert "Are they alike after weighting?" in weighted
    assert "</span>before weighting<" in weighted


def test_a_dose_has_no_untreated_units_to_count(tmp_path: Path) -> None:
    report, _ = report_samples.complete(tmp_path)
    content = replace(report, effect=report_samples.effect("proceed")).to_dict()
    assert "<dt>Untreated</dt>" in render(content, ReportEvidence())
    content["effect"]["estimand"] = "APE"
    html = render(content, ReportEvidence())
    assert "<dt>Treated</dt>" not in html
    assert "<dt>Untreated</dt>" not in html
