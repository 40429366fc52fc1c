"""Segments, gaps and allocation on the page, and the plots of an effect in shapes that are hard to draw."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import report_samples
import section_samples
from test_report import HOSTILE, Page

from e2i.domain.evidence import Effect, PathPoint, PeriodEffect, SpecificationPoint
from e2i.reporting import causal_plots, segment_plots
from e2i.reporting.html import HtmlReportWriter, render

STATES = ("planned", "impossible_plan", "effect_alone", "effect_alone_blocked", "effect_alone_review")
LONG = "a_name_that_nobody_can_read_to_its_end_" * 3


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    found = report_samples.states(folder)
    return {name: written(found[name], folder / name) for name in STATES}


def written(state, folder):
    html, data = HtmlReportWriter().write_report(*state, folder)
    return html.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8"))


def section(html, heading):
    """The section whose heading holds these words."""
    parts = [part for part in re.findall(r"<section>.*?</section>", html, re.DOTALL) if heading in part.split("</h2>")[0]]
    assert len(parts) == 1, f"{len(parts)} sections are headed {heading}"
    return parts[0]


def drawn(html):
    return set(re.findall(r'<title id="([^"]+)-t"', html))


def test_segments_have_their_plots_rules_and_responders(pages):
    part = section(pages["planned"][0], "For whom")
    assert drawn(part) == {"segments-0", "segments-1", "cate-groups", "uplift", "policies"}
    text = Page(part).text
    assert "Treat where decile above 4 and specialty is not hematology: 41.2 % of people." in text
    assert "Do not treat where decile at most 4: share not shown." in text
    assert "Better than present practice" in text
    assert "Differences are proven" in text
    assert "$512.30 $472.30 to $552.30" in text
    assert "decile 5 to 8 High" in text


def test_a_segment_of_few_people_is_named_without_a_number(pages):
    part = section(pages["planned"][0], "For whom")
    assert "Not told: 9 to 10 (10 people or fewer)." in Page(part).text
    assert not [path for path in Page(part).numbers if path.startswith("segments/cate_by_segment/decile/2")]
    assert Page(part).numbers["segments/cate_by_segment/decile/1/size"]


def test_a_policy_that_is_not_better_is_not_praised(pages):
    text = Page(section(pages["effect_alone_review"][0], "For whom")).text
    assert "Not proven better than present practice" in text
    assert "Under review" in text
    assert "The average effect may not be told before somebody has reviewed it" in text


def test_segments_of_a_blocked_effect_are_withheld(pages):
    html, content = pages["effect_alone_blocked"]
    assert content["segments"]["overall_ate"], "the record is there, and the page keeps it back"
    part = section(html, "For whom")
    assert "Withheld" in Page(part).text
    assert Page(part).numbers == {}
    assert drawn(html) == {"overlap", "balance"}


def test_details_of_tests_that_tell_a_blocked_estimate_are_withheld(pages):
    text = Page(pages["effect_alone_blocked"][0]).text
    assert "Effect on nrx_other_product: 0.41." in text, "what failed is told"
    assert "Two halves differ" not in text
    assert "withheld with the estimate" in text


def test_refused_segments_say_why(pages):
    part = section(pages["impossible_plan"][0], "For whom")
    assert "Fewer than 200 people: 84 in all." in Page(part).text
    assert Page(part).numbers == {}
    assert drawn(part) == set()


def test_the_effect_alone_has_no_place_for_what_was_not_asked(pages):
    for state in ("effect_alone", "effect_alone_blocked", "effect_alone_review"):
        text = Page(pages[state][0]).text
        for words in ("quality gate", "Quality gate", "ot reached", "Splits", "Model", "MLflow", "What will happen?", "Allocation", "Gaps"):
            assert words not in text, f"{state}: {words}"
        assert "What did it cause?" in text


def test_the_effect_alone_that_fails_names_no_gate(tmp_path):
    report, evidence = report_samples.states(tmp_path)["failed"]
    html, _ = written((replace(report, experiment_id=None, asked=("effect",)), evidence), tmp_path / "out")
    assert (
        "gate"
        not in Page(section(html.replace('class="stopped"', "").replace("<section >", "<section>"), "Data")).text.split("Not reached")[0]
    )


def test_gaps_tell_their_basis_and_what_is_unknown(pages):
    html, content = pages["planned"]
    part = section(html, "Gaps, and what")
    page = Page(part)
    found = content["gaps"]
    assert found["opportunities"]
    assert {item["roi"]["basis"] for item in found["opportunities"]} == {"associational"}
    assert part.count('<span class="chip warn">Associational</span>') == len(found["opportunities"])
    for place, item in enumerate(found["opportunities"]):
        keys = {"rank", "gap/gap_percent", *(("roi/roi/estimate", "roi/roi/low") if item["roi"]["reason"] is None else ())}
        assert {f"gaps/opportunities/{place}/{key}" for key in keys} <= set(page.numbers)
        assert (item["roi"]["roi"]["estimate"] is None) == (item["roi"]["reason"] is not None)
        assert item["roi"]["reason"] is None or item["roi"]["reason"] in page.text
    assert len(found["unknown"]) == 3
    assert "What is unknown" in page.text
    assert page.text.count("No target is set") == 3
    assert all(warning.replace("`", "") in page.text for warning in found["warnings"])


def test_quick_wins_are_those_of_the_record(pages):
    html, content = pages["planned"]
    part = section(html, "Gaps, and what")
    ranks = [int(told[0][0]) for path, told in Page(part).numbers.items() if re.fullmatch(r"gaps/quick_wins/\d+", path)]
    assert ranks == content["gaps"]["quick_wins"]
    assert ranks, "TRx is cheap enough here"


def test_the_allocation_shows_the_fifty_that_change_most(pages):
    html, content = pages["planned"]
    part = section(html, "Allocation of calls")
    places = [int(path.split("/")[2]) for path in Page(part).numbers if path.endswith("/allocated")]
    rows = content["allocation"]["allocations"]
    assert len(rows) == 60
    assert len(places) == 50
    changes = [abs(rows[place]["change"]) for place in places]
    assert changes == sorted(changes, reverse=True)
    assert min(changes) >= max(abs(row["change"]) for place, row in enumerate(rows) if place not in places)
    assert "The 50 with the largest change, of 60 ; the others are in report.json." in Page(part).text


def test_the_allocation_has_scenarios_sensitivity_and_shadow_price(pages):
    html, content = pages["planned"]
    page = Page(section(html, "Allocation of calls"))
    assert {f"allocation/scenarios/{place}/outcome" for place in range(4)} <= set(page.numbers)
    assert "Spread evenly" in page.text
    assert content["allocation"]["sensitivity"]["note"] in page.text
    assert "allocation/sensitivity/corrected_outcome" in page.numbers
    assert "allocation/shadow_prices/budget" in page.numbers


def test_an_impossible_plan_names_the_limits_and_shows_no_totals(pages):
    html, content = pages["impossible_plan"]
    part = section(html, "Allocation of calls")
    members = content["allocation"]["conflict"]
    assert len(members) >= 2
    assert all(item["words"].lower() in Page(part).text.lower() for item in members)
    assert "No plan is possible" in Page(part).text
    assert {path.split("/")[1] for path in Page(part).numbers} == {"conflict"}
    assert "No allocation of calls meets all limits." in Page(html).text


def test_a_question_that_the_run_did_not_reach_is_told_as_such(tmp_path):
    report, evidence = report_samples.states(tmp_path)["blocked"]
    html, _ = written((replace(report, asked=("effect", "gaps", "allocation")), evidence), tmp_path / "out")
    text = Page(html).text
    assert text.count("Not reached: the run was stopped at the quality gate") == 3
    assert "Where is most to gain?" not in text


def test_names_of_segments_and_entities_cannot_become_markup(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    row = section_samples.segment(HOSTILE, HOSTILE, 1.5)
    plan = section_samples.allocation()
    gaps = section_samples.gaps()
    first = replace(gaps.opportunities[0], gap=replace(gaps.opportunities[0].gap, metric=HOSTILE, segment_value=HOSTILE))
    hostile = replace(
        report,
        segments=section_samples.segments(
            cate_by_segment={HOSTILE: (row, replace(row, status="too_few", estimate=None, reason=HOSTILE))}, key_insights=(HOSTILE,)
        ),
        gaps=replace(gaps, opportunities=(first,), warnings=(HOSTILE,)),
        allocation=replace(plan, allocations=(replace(plan.allocations[0], entity=HOSTILE),), shadow_prices={HOSTILE: 1.0}),
    )
    html, content = written((hostile, evidence), tmp_path / "out")
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in content["segments"]["cate_by_segment"]


def texts(svg):
    """(x, anchor, words) of every text, and the width of the plot."""
    found = re.findall(r'<text class="[^"]*" x="([-\d.]+)" y="[-\d.]+" text-anchor="(\w+)">([^<]*)<', svg)
    return [(float(x), anchor, words) for x, anchor, words in found], float(re.search(r'viewBox="0 0 ([\d.]+)', svg).group(1))


def assert_nothing_is_cut(svg):
    """By 6 pixels a letter, less than any common font takes on average."""
    found, width = texts(str(svg))
    assert found
    for x, anchor, words in found:
        length = 6.0 * len(words.replace("&#39;", "'"))
        start = x - {"start": 0.0, "middle": length / 2, "end": length}[anchor]
        assert start >= 0, words
        assert start + length <= width, words


def alternatives(number):
    ends = [(None, 5.0), (2.0, None), (None, None), (1.0, 4.0)]
    return [
        {"estimand": "ATT", "estimator": f"{LONG}{place}", "estimate": 3.0, "interval": list(ends[place % 4]), "scale": "outcome"}
        for place in range(number)
    ]


def specifications(number, *, chosen):
    rng = random.Random(4)
    return [
        {"estimator": LONG, "sample": f"sample {place % 3}", "adjustment": f"without {LONG}", "estimate": rng.gauss(2, 1),
         "interval": [None, 9.0], "chosen": place == chosen}
        for place in range(number)
    ]  # fmt: skip


def periods(first, last):
    ends = {k: [0.1 * k - 1, None if k == 3 else 0.1 * k + 1] for k in range(first, last)}
    return [{"period": k, "estimate": 0.1 * k, "interval": ends[k], "treated": 50, "reference": k == -1} for k in ends]


def test_long_names_and_open_intervals_are_not_cut():
    assert_nothing_is_cut(causal_plots.forest(alternatives(9), outcome=LONG))
    assert_nothing_is_cut(causal_plots.specification_curve(specifications(30, chosen=3), outcome=LONG))
    assert_nothing_is_cut(causal_plots.event_study(periods(-90, 120), outcome=LONG))
    rows = [{"period": f"2024-W{k:02d} {LONG}", "observed": float(k), "counterfactual": 1.0, "is_treated": k > 5} for k in range(40)]
    assert_nothing_is_cut(causal_plots.path(rows, outcome=LONG))
    content = section_samples.segments().to_dict()
    wide = [{**row, "segment_value": LONG, "low": None} for row in content["cate_by_segment"]["decile"]]
    assert_nothing_is_cut(segment_plots.modifier(LONG, wide, overall=3.1, outcome=LONG, index=0))
    assert_nothing_is_cut(segment_plots.gain(content["uplift"]["curve"], outcome=LONG))
    assert_nothing_is_cut(segment_plots.groups(content["calibration"]["groups"], outcome=LONG))
    assert_nothing_is_cut(segment_plots.policies(content["policy"]["values"], unit=LONG))


def test_names_of_estimators_and_specifications_stand_whole():
    name = "cross-fitted doubly robust (AIPW), stacked nuisances"
    sample = "propensity in [0.1, 0.9]: 83% of rows, another population"
    rows = [{**row, "estimator": name, "estimand": "ATE"} for row in alternatives(2)]
    assert f">{name} (ATE)<" in re.sub(r"<title>.*?</title>", "", str(causal_plots.forest(rows, outcome="nrx")))
    longer = "least squares without instruments (not the effect: shows what the instruments change)"
    rows = [{**row, "estimator": longer, "estimand": "association"} for row in alternatives(2)]
    found, _ = texts(str(causal_plots.forest(rows, outcome="nrx")))
    lines = [words for _, anchor, words in found if anchor == "end"]
    assert " ".join(lines[:2]) == f"{longer} (association)"
    curve = [{**row, "estimator": "regression", "sample": sample, "adjustment": "all"} for row in specifications(3, chosen=1)]
    assert f">{sample}<" in str(causal_plots.specification_curve(curve, outcome="nrx"))


def test_a_policy_without_money_is_in_units_of_the_outcome_and_names_no_cost_of_nothing(tmp_path):
    state, evidence = report_samples.states(tmp_path)["planned"]
    content = state.to_dict()
    everybody = [{"conditions": [], "treat": True, "share": 1.0}]
    content["segments"]["policy"] |= {"unit": "outcome", "cost_per_treated": 0.0, "leaves": everybody}
    part = section(render(content, evidence), "For whom")
    text = Page(part).text
    assert "Treat everybody: 100.0 % of people." in text
    assert "No cost of treatment is known" in text
    assert "Cost per treated person: $0" not in text
    assert "Unit: outcome" not in text
    assert "against treating nobody, outcome" not in part


def test_labels_of_the_time_axis_do_not_overlap():
    rows = [{"period": f"2024-01-{k:02d}", "observed": float(k), "counterfactual": 1.0, "is_treated": False} for k in range(1, 100)]
    found, _ = texts(str(causal_plots.path(rows, outcome="nrx")))
    labels = sorted((x, words) for x, anchor, words in found if words.startswith("2024-"))
    assert len(labels) >= 5
    assert all(b - a > 6.8 * len(words) for (a, words), (b, _) in pairwise(labels))


def test_an_interval_without_an_end_is_an_arrow_and_not_a_bound():
    closed = str(causal_plots.forest([{**row, "interval": [1.0, 4.0]} for row in alternatives(2)], outcome="nrx"))
    opened = str(causal_plots.forest([{**row, "interval": [1.0, None]} for row in alternatives(2)], outcome="nrx"))
    assert "unbounded" in opened
    assert "unbounded" not in closed
    assert opened.count('class="whisker"') == closed.count('class="whisker"') + 2, "an arrow has two lines, a cap one"


def test_a_long_specification_curve_keeps_both_ends_and_the_chosen_one():
    rows = specifications(301, chosen=150)
    svg = str(causal_plots.specification_curve(rows, outcome="nrx"))
    hints = re.findall(r"<title>([^<]*)</title></circle>", svg)
    known = sorted(row["estimate"] for row in rows)
    assert 80 <= len(hints) <= 81
    assert hints[0].startswith(f"{known[0]:.3f}".replace("-", "\N{MINUS SIGN}"))
    assert hints[-1].startswith(f"{known[-1]:.2f}")
    assert 'class="after"' in svg
    above = sum(value > 0 for value in known)
    assert f"301 specifications, {above} of them above zero." in svg


def test_a_reported_ratio_does_not_lend_its_dot_to_another_estimator():
    rows = [{**row, "scale": "ratio" if place == 0 else "outcome"} for place, row in enumerate(alternatives(3))]
    assert 'class="after"' not in str(causal_plots.forest(rows, outcome="nrx"))


def test_the_time_axis_of_an_event_study_always_names_the_first_treated_period():
    for first, last in ((-3, 4), (-41, 7), (-7, 93)):
        found, _ = texts(str(causal_plots.event_study(periods(first, last), outcome="nrx")))
        assert [words for _, _, words in found].count("0") >= 1


def test_every_plot_of_a_panel_finding_reaches_the_page(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    finding = report.effect.finding
    other = Effect(
        estimand="ATT", design="panel", estimator="imputation", estimate=1.1, standard_error=0.2, n_treated=50, n_untreated=90,
        naive_difference=None, outcome_mean_untreated=None, bounds=(-math.inf, 1.6),
    )  # fmt: skip
    panel = replace(
        finding,
        alternatives=(other,),
        event_study=tuple(PeriodEffect(period=k, estimate=0.2, low=-math.inf, high=0.7, is_reference=k == -1) for k in range(-3, 4)),
        specifications=tuple(
            SpecificationPoint(estimator=name, sample="all", adjustment="all", estimate=1.0, low=0.5, high=math.inf, is_chosen=name == "a")
            for name in "abc"
        ),
        path=tuple(PathPoint(period=str(k), observed=1.0 + k, counterfactual=1.0, is_treated=k > 3) for k in range(8)),
    )
    html, _ = written((replace(report, effect=replace(report.effect, finding=panel)), evidence), tmp_path / "out")
    assert {"forest", "event-study", "specifications", "path"} <= drawn(html)
    blocked = replace(panel, verdict=report_samples.effect("block").finding.verdict)
    html, _ = written((replace(report, effect=replace(report.effect, finding=blocked)), evidence), tmp_path / "blocked")
    assert not {"forest", "event-study", "specifications", "path", "effect"} & drawn(html)


def test_a_diagnostic_that_tells_a_blocked_effect_is_withheld_and_so_is_an_unknown_one(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    names = {"wald_low": 1.731, "least_squares": 1.732, "effect_joiners": 1.733, "leave_one_donor_out_high": 1.734, "pre_periods": 8.0}
    for verdict, shown in (("block", {"pre_periods"}), ("review", set(names))):
        summary = report_samples.effect(verdict)
        finding = replace(summary.finding, effect=replace(summary.finding.effect, diagnostics=names))
        html, _ = written((replace(report, effect=replace(summary, finding=finding)), evidence), tmp_path / verdict)
        told = {path.split("/")[2] for path in Page(html).numbers if path.startswith("effect/diagnostics/")}
        assert told & set(names) == shown
        assert ("1.73" in html) == (verdict == "review")


def test_periods_on_the_time_axis_are_evenly_spaced():
    rows = [{"period": str(year), "observed": float(year), "counterfactual": 1.0, "is_treated": False} for year in range(1985, 2001)]
    found, _ = texts(str(causal_plots.path(rows, outcome="nrx")))
    years = [int(words) for _, _, words in found if re.fullmatch(r"(19|20)\d\d", words)]
    assert len({b - a for a, b in pairwise(years)}) == 1
    assert len(years) >= 5


def test_a_run_of_plans_alone_names_no_quality_gate(tmp_path):
    report, _ = report_samples.states(tmp_path)["planned"]
    plans = replace(
        report, asked=("gaps", "allocation"), qc=None, splits=None, model=None, explanation=None, effect=None, segments=None, timings_s={}
    )
    text = Page(written((plans, report_samples.ReportEvidence()), tmp_path / "out")[0]).text
    assert "uality gate" not in text
    assert "ot reached" not in text
    assert "Where is most to gain?" in text
    assert "Who gets how much?" in text
