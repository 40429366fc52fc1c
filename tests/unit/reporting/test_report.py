"""The report: one self-contained page and one JSON file for every state a run can end in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import report_samples

from e2i.domain.experiments import SplitPlan
from e2i.domain.report import EffectSummary, StudyReport, visible_counts
from e2i.errors import StorageError
from e2i.reporting.html import HtmlReportWriter
from e2i.reporting.numbers import format_number

VOID = {"meta", "br", "hr", "img", "input", "link", "line", "rect", "circle"}
STATES = (
    "complete",
    "review",
    "block",
    "null_effect",
    "refused",
    "blocked",
    "effect_only",
    "prediction_only",
    "regression",
    "failed",
    "failed_late",
    "refused_only",
    "planned",
    "impossible_plan",
    "effect_alone",
    "effect_alone_blocked",
    "effect_alone_review",
)
write_report = HtmlReportWriter().write_report
NAMES = ("study", "status", "experiment_id", "trace_id", "synthetic", "data", "qc", "splits", "model", "explanation", "effect", "timings_s")


class Page(HTMLParser):
    """Checks nesting, and collects text, attributes and numbers."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.stack, self.words, self.attributes, self.numbers, self.tags = [], [], [], {}, []
        self._number = None
        self.feed(html)
        self.close()
        assert self.stack == [], f"left open: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "data":
            self._number = dict(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.stack
        assert self.stack[-1] == tag, f"{tag} closes {self.stack[-1]}"
        self.stack.pop()

    def handle_data(self, text):
        if self.stack and self.stack[-1] == "style":
            return
        if self._number is not None:
            self.numbers.setdefault(self._number["data-path"], []).append((self._number["value"], text))
            self._number = None
        self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, (report, evidence) in report_samples.states(folder).items():
        html, data = write_report(report, evidence, folder / name)
        found[name] = (html.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8")))
    assert set(found) == set(STATES)
    return found


def at(content, path):
    for key in path.split("/"):
        name = key.replace("~1", "/").replace("~0", "~")
        content = content[int(name)] if isinstance(content, list) else content[name]
    return content


@pytest.mark.parametrize("state", STATES)
def test_the_page_is_well_formed_and_has_every_key_of_the_json(written, state):
    html, content = written[state]
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert ("html", {"lang": "en"}) in page.tags
    assert set(NAMES) <= set(content)


@pytest.mark.parametrize("state", STATES)
def test_the_page_asks_no_other_file_or_host_for_anything(written, state):
    html, _ = written[state]
    page = Page(html)
    asking = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}
    assert [attribute for attribute in page.attributes if attribute[0] in asking] == []
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert any(a.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in a["content"] for _, a in page.tags)


@pytest.mark.parametrize("state", STATES)
def test_every_number_on_the_page_is_the_one_in_the_json(written, state):
    html, content = written[state]
    page = Page(html)
    assert page.numbers or state == "failed"
    for path, told in page.numbers.items():
        for value, text in told:
            assert float(value) == at(content, path), path
            styles = ("number", "signed", "percent", "points", "count", "seconds", "dollars", "short_dollars")
            assert text in {format_number(float(value), style) for style in styles}, path


@pytest.mark.parametrize("state", STATES)
def test_every_plot_has_a_title_and_a_description(written, state):
    html, _ = written[state]
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        title, description = re.search(r'aria-labelledby="(\S+) (\S+)"', svg).groups()
        assert re.search(rf'<title id="{title}">[^<]+</title><desc id="{description}">[^<]+</desc>', svg)
        assert 'role="img"' in svg
    names = re.findall(r'<title id="([^"]+)"', html)
    assert len(names) == len(set(names))


def test_a_complete_run_has_all_plots_and_the_whole_answer(written):
    html, content = written["complete"]
    drawn = set(re.findall(r'<title id="([^"]+)-t"', html))
    assert drawn == {"quality", "roc", "pr", "calibration", "beeswarm", "overlap", "balance", "effect", "fairness-0"}
    text = Page(html).text
    assert "Speaker program raised NRx: on average a change of +1.23 per unit that received it" in text
    assert "Ranking units by will convert" in text
    assert "Not reached" not in text
    assert content["model"]["metrics"]["roc_auc"] == {"value": 0.8137, "low": 0.7951, "high": 0.8309}
    assert content["effect"]["interval"] == pytest.approx([1.234 - 1.959964 * 0.171, 1.234 + 1.959964 * 0.171], abs=1e-5)
    assert content["lineage"]["model_version"] == "3"
    assert content["model"]["success_criteria"]["minimum_auc"] == {"required": 0.75, "value": 0.8137, "met": True}


def test_synthetic_data_are_named_on_the_page_and_real_data_are_not(written):
    assert "Synthetic data." in Page(written["complete"][0]).text
    assert written["complete"][1]["synthetic"] is True
    assert "Synthetic data." not in Page(written["review"][0]).text


def test_an_effect_that_did_not_survive_its_checks_is_not_told(written):
    html, content = written["block"]
    page = Page(html)
    assert content["effect"]["estimate"] == 1.234
    assert "did not survive its checks" in page.text
    assert "Negative control failed" in page.text
    assert 'id="effect-t"' not in html
    estimates = ("effect/estimate", "effect/interval/0", "effect/diagnostics/weighting_estimate", "effect/standard_error")
    assert not set(estimates) & set(page.numbers)
    assert "1.23" not in html
    assert "1.20" not in html


def test_an_effect_under_review_is_in_the_table_and_not_in_the_answer(written):
    html, _ = written["review"]
    answer = Page(re.search(r'<section class="answers".*?</section>', html, re.DOTALL).group())
    assert "may not be told before somebody has reviewed it" in answer.text
    assert not [path for path in answer.numbers if path.startswith("effect/")]
    assert "effect/estimate" in Page(html).numbers


def test_an_interval_over_zero_is_told_as_no_clear_effect(written):
    text = Page(written["null_effect"][0]).text
    assert "No clear effect of speaker program on NRx" in text
    assert "raised" not in text.split("What will happen?")[0]


def test_a_refused_estimation_has_no_numbers(written):
    html, content = written["refused"]
    assert content["effect"]["estimate"] is None
    assert content["effect"]["interval"] is None
    assert content["effect"]["verdict"] == "block"
    assert "cannot be compared" in Page(html).text
    assert not [path for path in Page(html).numbers if path.startswith("effect/")]


def test_a_run_whose_only_question_was_refused_does_not_blame_the_data(written):
    text = Page(written["refused_only"][0]).text
    assert "was not estimated" in text
    assert "did not pass the quality gate" not in text
    assert "Not reached" not in text, "no prediction was asked for"


def test_a_blocked_run_says_what_to_mend(written):
    html, content = written["blocked"]
    text = Page(html).text
    assert content["qc"]["blocking_issues"][0] == {
        "check": "target_copy",
        "column": "nrx_next_month",
        "detail": "It repeats the target: AUC 1.000 from this column alone.",
        "advice": "List it under `prediction.after_event`.",
    }
    assert all(content[key] is None for key in ("model", "explanation", "effect", "splits"))
    assert "Duplicate keys: npi" in text.replace(" :", ":")
    assert "Keep one row per HCP and week." in text
    assert "<code>prediction.after_event</code>" in html
    assert text.count("Not reached: the run was stopped at the quality gate") == 2


def test_a_failed_run_shows_its_error_and_invents_nothing(written):
    html, content = written["failed"]
    text = Page(html).text
    assert "The database does not answer." in text
    assert "Start it, then run again." in text
    assert {key for key in NAMES if content[key] is None} >= {"data", "qc", "splits", "model", "explanation", "effect", "timings_s"}
    assert "Meets its criteria" not in text


def test_a_question_that_was_not_asked_is_left_out(written):
    only_effect, only_model = Page(written["effect_only"][0]).text, Page(written["prediction_only"][0]).text
    assert "What did it cause?" in only_effect
    assert "What will happen?" not in only_effect
    assert "What will happen?" in only_model
    assert "What did it cause?" not in only_model
    assert "Not reached" not in only_effect + only_model


def test_a_model_that_does_not_beat_the_simple_rule_is_no_success(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    beaten = replace(report.model.trained, baseline_metrics={"roc_auc": 0.82})
    text = Page(write_report(replace(report, model=replace(report.model, trained=beaten)), evidence, tmp_path)[0].read_text()).text
    assert "Does not beat the simple rule" in text
    assert "The criteria are met, but the simple rule is as good." in text
    assert "Meets its criteria" not in text


def test_a_score_that_no_check_gave_is_unknown(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    scores = {"completeness": 0.9}
    html = write_report(replace(report, qc=replace(report.qc, scores=scores)), evidence, tmp_path)[0].read_text(encoding="utf-8")
    assert html.count(">unknown</text>") == 4


def test_a_regression_model_is_told_by_its_error(written):
    html, content = written["regression"]
    text = Page(html).text
    assert "The model predicts NRx with a typical error of 2.31" in text
    assert "Misses its criteria" in text
    assert content["model"]["metrics"]["r2"]["value"] is None, "NaN is no content"
    assert "unknown" in text


HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


def test_names_from_the_data_cannot_become_markup(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    effect = report_samples.effect()
    finding = effect.finding
    rows = (replace(finding.balance[0], covariate=HOSTILE), *finding.balance[1:])
    hostile_effect = EffectSummary(
        treatment=HOSTILE,
        outcome=HOSTILE,
        finding=replace(finding, balance=rows, refutations=(replace(finding.refutations[0], test=HOSTILE, detail=f"`{HOSTILE}`"),)),
    )
    top = report.explanation.explanation.top_features
    explanation = replace(report.explanation.explanation, top_features=(replace(top[0], feature=HOSTILE), *top[1:]))
    fairness = {HOSTILE: {f"n[{HOSTILE}]": 50.0, f"selection_rate[{HOSTILE}]": 0.5}}
    model = replace(report.model, target=HOSTILE, trained=replace(report.model.trained, fairness=fairness, algorithm=HOSTILE))
    issue = replace(report.qc.issues[0], column=HOSTILE, detail=HOSTILE)
    hostile = replace(
        report,
        study=HOSTILE,
        description=HOSTILE,
        brand=HOSTILE,
        model=model,
        effect=hostile_effect,
        explanation=replace(report.explanation, explanation=explanation),
        qc=replace(report.qc, issues=(issue,), scores={HOSTILE: 0.5}),
        warnings=(HOSTILE,),
        timings_s={HOSTILE: 1.0},
    )
    html, data = write_report(hostile, evidence, tmp_path)
    text = html.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in text.lower()
    assert "49" not in re.findall(r"alert\(1\).{0,40}", page.text)[0]
    assert json.loads(data.read_text())["study"] == HOSTILE
    for path, told in page.numbers.items():
        assert float(told[0][0]) == at(json.loads(data.read_text()), path)


def test_small_groups_of_people_are_not_shown(written, tmp_path):
    html, content = written["complete"]
    fairness = content["model"]["fairness"]["age_group"]
    assert "n[18-44]" in fairness
    assert not [key for key in fairness if key.endswith("[unknown]")]
    assert "0.4286" not in html
    report, evidence = report_samples.complete(tmp_path)
    few = report.effect.finding.effect
    few = replace(report.effect, finding=replace(report.effect.finding, effect=replace(few, n_treated=7, n_untreated=4993)))
    splits = SplitPlan(
        strategy="random", rows={"train": 60, "validation": 20, "test": 15, "holdout": 5}, boundaries={}, gap_days=0, gap_rows=0, seed=1
    )
    content = replace(report, effect=few, splits=splits).to_dict()
    assert (content["effect"]["treated"], content["effect"]["untreated"]) == (None, None)
    assert content["splits"] == {"train": 60, "validation": 20, "test": None, "holdout": None}
    assert visible_counts({"a": 0, "b": 11}) == {"a": 0, "b": 11}
    page = write_report(replace(report, effect=few), evidence, tmp_path)[0].read_text(encoding="utf-8")
    assert "4,993" not in page
    assert 'class="treated"' not in page, "bars of a hidden group have no true height"


def test_a_plot_whose_file_is_gone_is_named(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    evidence = replace(evidence, curves_ref=str(tmp_path / "gone.json"), shap_ref=str(tmp_path / "gone.npz"))
    text = Page(write_report(report, evidence, tmp_path)[0].read_text(encoding="utf-8")).text
    assert "Not drawn because their files are gone: ROC, precision-recall and calibration curves, SHAP values by row." in text


def test_a_folder_that_cannot_be_written_is_one_clear_error_and_leaves_nothing(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(report, evidence, tmp_path / "file" / "reports")
    # A folder where the page should be: the write fails at its last step.
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError):
        write_report(report, evidence, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_writing_again_replaces_the_report_and_is_the_same_to_the_byte(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    first = [path.read_bytes() for path in write_report(report, evidence, tmp_path / "out")]
    second = [path.read_bytes() for path in write_report(report, evidence, tmp_path / "out")]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_a_full_report_fits_into_a_mail(tmp_path):
    report, evidence = report_samples.complete(tmp_path)
    html, _ = write_report(report, evidence, tmp_path)
    assert html.stat().st_size < 1_000_000


def test_importing_the_writer_loads_no_plotting_and_no_template_engine():
    code = (
        "import sys, e2i.reporting.html, e2i.domain.report; "
        "print([name for name in ('matplotlib', 'jinja2', 'numpy', 'polars', 'pydantic') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_empty_report_has_only_nulls():
    report = StudyReport(
        study="s", status="failed", run_id="r", experiment_id=None, trace_id=None, synthetic=False, created_at=report_samples.WHEN
    )
    content = report.to_dict()
    told = {"study", "status", "run_id", "asked", "synthetic", "created_at", "lineage"}
    assert {key for key, value in content.items() if value is not None} == told
    assert content["lineage"] == {**dict.fromkeys(content["lineage"]), "run_id": "r"}
