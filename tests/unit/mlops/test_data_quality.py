from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from e2i.data.sources import LocalFrameSource
from e2i.data.study_file import load_study
from e2i.data.synthetic.world import SMALLEST, TABLE_NAMES, generate_tables
from e2i.domain.data_spec import DataSpec
from e2i.domain.quality import GATE_SCORE, SCORE_WEIGHTS, CheckResult, QCIssue, QCReport, crashed_check
from e2i.domain.study import EffectSpec, PredictionSpec, Study
from e2i.domain.vocabulary import TABLES
from e2i.errors import ConfigError
from e2i.mlops.data_quality import DataQualityValidator, _Evidence, _report
from e2i.mlops.pandera_schemas import SCHEMAS, examine
from e2i.mlops.quality_alerts import DataQualityAlerter, severity_of
from e2i.mlops.quality_checks import check_stated_rates
from e2i.mlops.quality_suites import SUITES, Rule, run_rules

TODAY = date(2026, 1, 1)
ROWS = 1_200
STUDY = Study(
    name="lift",
    data=DataSpec(source="panel.parquet"),
    unit="npi",
    effect=EffectSpec(treatment="treated", outcome="change", confounders=("decile", "specialty")),
    prediction=PredictionSpec(target="converted", event_time="index_date", protected=("age_group",)),
)
VALIDATOR = DataQualityValidator(today=TODAY)


def good(rows: int = ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "npi": [f"n{row}" for row in range(rows)],
            "index_date": [date(2025, 11, 1) + timedelta(days=row % 28) for row in range(rows)],
            "decile": rng.integers(1, 11, rows),
            "specialty": rng.choice(["oncology", "hematology"], rows),
            "calls": rng.poisson(3.0, rows).astype(float),
            "nrx": rng.poisson(3.0, rows),
            "trx": rng.poisson(3.0, rows) + 20,
            "treated": rng.integers(0, 2, rows),
            "change": rng.normal(size=rows),
            "converted": rng.integers(0, 2, rows),
            "age_group": rng.choice(["18-34", "65+"], rows),
        }
    )


def judge(frame: pl.DataFrame, study: Study = STUDY, *, table: str = "panel") -> QCReport:
    return VALIDATOR.validate(frame, study=study, table=table, data_sha256="0" * 64)


def some(frame: pl.DataFrame, column: str, value: object, *, rows: int = 3) -> pl.DataFrame:
    return frame.with_columns(pl.when(pl.int_range(pl.len()) < rows).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


def codes(report: QCReport, severity: str) -> set[tuple[str, str | None]]:
    return {(issue.check, issue.column) for issue in report.issues if issue.severity == severity}


@pytest.fixture(scope="module")
def clean() -> QCReport:
    return judge(good())


def test_a_good_table_passes_both_libraries_and_the_gate(clean: QCReport) -> None:
    assert clean.status == "passed"
    assert clean.gate_passed
    assert clean.score == pytest.approx(1.0)
    assert {"structure", "pandera:study", "great_expectations:study"} == {check.suite for check in clean.checks}
    assert (clean.rows, clean.columns) == good().shape
    assert clean.success_rate == 1.0


def test_a_real_table_of_1629_rows_is_large_enough() -> None:
    assert judge(good(1_629)).gate_passed


MUST_BLOCK: dict[str, tuple[pl.DataFrame, str, str | None]] = {
    "one class": (good().with_columns(converted=pl.lit(1)), "one_class", "converted"),
    "target column missing": (good().drop("converted"), "missing_column", "converted"),
    "target empty": (good().with_columns(converted=pl.lit(None, dtype=pl.Int64)), "all_missing_column", "converted"),
    "40 rows": (good(40), "too_few_rows", None),
    "no rows": (good().head(0), "too_few_rows", None),
    "few events": (good().with_columns(converted=(pl.int_range(ROWS) < 19).cast(pl.Int64)), "too_few_events", "converted"),
    "constant treatment": (good().with_columns(treated=pl.lit(1)), "constant_column", "treated"),
    "constant outcome": (good().with_columns(change=pl.lit(2.5)), "constant_column", "change"),
    "empty confounder": (good().with_columns(specialty=pl.lit(None, dtype=pl.String)), "all_missing_column", "specialty"),
    "infinite feature": (some(good(), "calls", float("inf")), "infinite_values", "calls"),
    "infinite outcome": (some(good(), "change", float("-inf")), "infinite_values", "change"),
    "duplicate keys": (pl.concat([good(), good().head(5)]), "duplicate_keys", None),
    "unit without a name": (some(good(), "npi", None, rows=1), "missing_values", "npi"),
    "future event": (some(good(), "index_date", date(2030, 1, 1)), "date_in_future", "index_date"),
    "event date as text": (good().with_columns(pl.col("index_date").cast(pl.String)), "date_as_text", "index_date"),
    "treatment of three kinds": (some(good(), "treated", 2), "treatment_not_binary", "treated"),
    "treatment with gaps": (some(good(), "treated", None), "missing_values", "treated"),
    "target as words": (good().with_columns(converted=pl.Series(["no", "yes"] * (ROWS // 2))), "wrong_type", "converted"),
    "identifier by content": (good().with_columns(code=pl.format("c{}", pl.int_range(ROWS))), "identifier_feature", "code"),
    "constant feature": (good().with_columns(calls=pl.lit(1.0)), "constant_column", "calls"),
    "empty feature": (good().with_columns(calls=pl.lit(None, dtype=pl.Float64)), "all_missing_column", "calls"),
    "feature of NaN": (good().with_columns(calls=pl.lit(float("nan"))), "all_missing_column", "calls"),
    "600 levels": (good().with_columns(plan=pl.format("p{}", pl.int_range(ROWS) % 600)), "high_cardinality", "plan"),
    "row number as feature": (good().with_row_index("row"), "identifier_feature", "row"),
}


@pytest.mark.parametrize("case", sorted(MUST_BLOCK))
def test_bad_input_blocks_with_one_clear_finding(case: str) -> None:
    frame, check, column = MUST_BLOCK[case]
    report = judge(frame)
    assert not report.gate_passed
    assert report.status == "failed"
    found = [issue for issue in report.blocking if (issue.check, issue.column) == (check, column)]
    assert len(found) == 1
    assert found[0].detail.endswith(".")
    assert found[0].advice
    others = {issue.check for issue in report.blocking} - {check}
    assert others <= {"too_few_rows"}


MUST_WARN: dict[str, tuple[pl.DataFrame, str, str]] = {
    "many gaps": (some(good(), "calls", None, rows=300), "many_gaps", "calls"),
    "outcome with gaps": (some(good(), "change", None, rows=60), "rows_without_label", "change"),
    "dates as text": (good().with_columns(seen=pl.col("index_date").cast(pl.String)), "date_as_text", "seen"),
    "future dates": (
        good().with_columns(planned=pl.lit(date(2030, 1, 1)) + pl.duration(days=pl.int_range(ROWS) % 9)),
        "date_in_future",
        "planned",
    ),
    "numbers and words": (good().with_columns(visits=pl.Series([*["3"] * (ROWS - 100), *["unknown"] * 100])), "mixed_types", "visits"),
    "two spellings": (some(good(), "specialty", " Oncology"), "inconsistent_labels", "specialty"),
    "NRx above TRx": (some(good(), "nrx", 99), "wrong_order", ""),
}


@pytest.mark.parametrize("case", sorted(MUST_WARN))
def test_odd_input_warns_and_passes(case: str) -> None:
    frame, check, column = MUST_WARN[case]
    report = judge(frame)
    assert (check, column or None) in codes(report, "warning")
    assert report.gate_passed
    assert report.status == "warning"


def test_a_category_of_10000_levels_blocks() -> None:
    frame = good(20_000).with_columns(plan=pl.format("p{}", pl.int_range(20_000) % 10_000))
    report = judge(frame)
    assert ("high_cardinality", "plan") in codes(report, "blocking")
    assert "10,000 levels in 20,000 rows" in next(issue.detail for issue in report.issues if issue.column == "plan")


def test_an_identifier_that_the_study_lists_as_a_feature_blocks() -> None:
    study = STUDY.model_copy(
        update={"unit": None, "effect": None, "prediction": PredictionSpec(target="converted", features=("npi", "calls"))}
    )
    assert ("identifier_feature", "npi") in codes(judge(good(), study), "blocking")


def test_columns_that_the_study_excludes_are_not_judged() -> None:
    frame = good().with_columns(junk=pl.lit(float("inf")))
    prediction = PredictionSpec(target="converted", event_time="index_date", exclude=("junk",))
    assert judge(frame, STUDY.model_copy(update={"prediction": prediction})).gate_passed


def test_a_study_that_asks_only_for_an_effect_is_judged_by_its_outcome_and_leaves_its_size_to_the_causal_part() -> None:
    study = STUDY.model_copy(update={"prediction": None})
    assert judge(good(48).drop("converted", "age_group"), study).gate_passed
    outcome = study.effect.outcome
    assert ("constant_column", outcome) in codes(judge(good(300).with_columns(pl.lit(4.0).alias(outcome)), study), "blocking")


def test_people_in_groups_over_time_are_no_duplicates_where_an_effect_alone_is_asked() -> None:
    twice = pl.concat([good(), good()])
    study = STUDY.model_copy(update={"prediction": None, "time": "index_date"})
    assert ("duplicate_keys", None) not in codes(judge(twice, study), "blocking")
    matched = study.model_copy(update={"effect": study.effect.model_copy(update={"design": "synthetic_control"})})
    assert ("duplicate_keys", None) in codes(judge(twice, matched), "blocking")
    assert ("duplicate_keys", None) in codes(judge(twice, STUDY.model_copy(update={"time": "index_date"})), "blocking")


def test_a_dose_a_float_and_levels_in_words_are_treatments() -> None:
    dose, real = pl.Series("treated", range(ROWS)) % 7, pl.col("treated").cast(pl.Float64)
    words = pl.when(pl.col("treated") == 1).then(pl.lit("rep")).otherwise(pl.lit("none"))
    levels = STUDY.model_copy(update={"effect": STUDY.effect.model_copy(update={"reference": "none"})})
    assert judge(good().with_columns(treated=dose)).gate_passed
    assert judge(good().with_columns(treated=real)).gate_passed
    assert ("wrong_type", "treated") in codes(judge(good().with_columns(treated=words)), "blocking")
    assert ("wrong_type", "treated") not in codes(judge(good().with_columns(treated=words), levels), "blocking")


def test_a_cohort_names_the_treatment_and_may_be_one_period() -> None:
    effect = STUDY.effect.model_copy(update={"treatment": "law", "cohort": "first"})
    study = STUDY.model_copy(update={"effect": effect, "prediction": None})
    frame = good().with_columns(first=pl.when(pl.col("treated") == 1).then(pl.lit(5)))
    assert not [code for code in codes(judge(frame, study), "blocking") if code[1] in ("law", "first")]


def test_several_events_of_one_unit_are_no_duplicates_in_a_predictive_study() -> None:
    study = STUDY.model_copy(update={"effect": None})
    twice = pl.concat([good(), good().with_columns(pl.col("index_date") - pl.duration(days=100))])
    assert judge(twice, study).gate_passed


def test_rows_that_repeat_are_counted_when_no_unit_is_named() -> None:
    study = STUDY.model_copy(update={"unit": None})
    frame = good().drop("npi")
    assert ("duplicate_rows", None) in codes(judge(pl.concat([frame, frame.head(7)]), study), "warning")


PLANTED = {
    "completeness": some(good(), "calls", None, rows=300),
    "validity": some(good(), "calls", float("inf"), rows=300),
    "consistency": some(good(), "specialty", "ONCOLOGY", rows=300),
    "uniqueness": pl.concat([good(), good().head(300)]),
}


@pytest.mark.parametrize("family", sorted(PLANTED))
def test_a_planted_failure_moves_its_own_score_and_no_other(family: str, clean: QCReport) -> None:
    scores = judge(PLANTED[family]).scores
    assert scores[family] < clean.scores[family] - 0.02
    assert {name: scores[name] for name in clean.scores if name != family} == {
        name: clean.scores[name] for name in clean.scores if name != family
    }


@pytest.mark.parametrize(("age", "score"), [(0, 1.0), (30, 1.0), (31, 0.7), (60, 0.7), (61, 0.4)])
def test_timeliness_follows_the_age_of_the_newest_row(age: int, score: float) -> None:
    newest = good()["index_date"].max()
    assert isinstance(newest, date)
    claimed = STUDY.model_copy(update={"data": DataSpec(source="panel.parquet", as_of=newest + timedelta(days=age))})
    report = judge(good(), claimed)
    assert report.scores["timeliness"] == pytest.approx(score)
    assert report.score == pytest.approx(1 - SCORE_WEIGHTS["timeliness"] * (1 - score))


def test_timeliness_without_a_claim_is_unknown_and_its_weight_is_left_out(clean: QCReport) -> None:
    assert "timeliness" not in clean.scores
    assert ("timeliness_unknown", None) in codes(clean, "info")
    assert clean.score == pytest.approx(1.0)


def test_dates_after_the_claimed_day_lie_in_the_future() -> None:
    claimed = STUDY.model_copy(update={"data": DataSpec(source="panel.parquet", as_of=date(2025, 11, 10))})
    assert ("date_in_future", "index_date") in codes(judge(good(), claimed), "blocking")


def test_a_crash_inside_a_check_blocks_and_names_the_check() -> None:
    # A column of Python objects: no library can count its distinct values.
    frame = good().with_columns(pl.Series("things", [object() for _ in range(ROWS)], dtype=pl.Object))
    report = judge(frame)
    crashed = [issue for issue in report.blocking if issue.check == "check_crashed"]
    assert crashed
    assert re.search(r"'check_\w+' did not end: \w+ at quality_\w+\.py:\d+$", crashed[0].detail)
    assert report.score is None
    assert not report.gate_passed


def test_a_crash_is_told_by_its_kind_and_not_in_words_that_may_name_a_cell() -> None:
    issue = crashed_check("check_rows", ValueError("could not convert 'Ann Smith'"))
    assert issue.severity == "blocking"
    assert issue.detail == "the check 'check_rows' did not end: ValueError"


@pytest.mark.parametrize(("passed", "is_open"), [(8, True), (7, False)])
def test_fewer_than_four_of_five_rules_passed_close_the_gate_although_the_score_is_high(passed: int, *, is_open: bool) -> None:
    rules = [
        CheckResult(suite="s", expectation=f"e{number}", family="validity", passed=number < passed, unexpected_share=0.01)
        for number in range(10)
    ]
    report = _report(_Evidence(checks=rules), frame=good(), table="panel", data_sha256="0")
    assert report.score == pytest.approx(0.99)
    assert report.gate_passed == is_open


def test_a_target_that_cannot_be_counted_blocks_instead_of_raising() -> None:
    frame = good().drop("converted").with_columns(pl.Series("converted", [object() for _ in range(ROWS)], dtype=pl.Object))
    report = judge(frame)
    assert ("check_crashed", None) in codes(report, "blocking")
    assert report.score is None


def report_with(
    score: float | None, *, issues: tuple[QCIssue, ...] = (), passed: int = 10, failed: int = 0, status: str = "passed"
) -> QCReport:
    check = CheckResult(suite="s", expectation="e", family="validity", passed=True)
    return QCReport(
        report_id="qc_1",
        table="panel",
        status=status,  # type: ignore[arg-type]
        score=score,
        scores={"validity": 1.0},
        issues=issues,
        checks=(check,) * passed + (replace(check, passed=False, column="calls"),) * failed,
        rows=10,
        columns=2,
        validated_at=datetime(2026, 1, 1, tzinfo=UTC),
        data_sha256="0" * 64,
    )


@pytest.mark.parametrize(("score", "opens"), [(GATE_SCORE, True), (GATE_SCORE - 1e-9, False), (None, False), (1.0, True)])
def test_the_gate_opens_at_080(score: float | None, opens: bool) -> None:
    assert report_with(score).gate_passed is opens


def test_a_low_score_is_told_as_a_blocking_finding() -> None:
    study = STUDY.model_copy(update={"effect": None, "prediction": PredictionSpec(target="converted")})
    labels = pl.Series([["a", "A ", " a", "A", "a "][row % 5] for row in range(ROWS)])
    frame = good().select("npi", "converted", "decile", "calls", "nrx", "trx", "change").with_columns(one=labels, two=labels)
    for column in ("decile", "calls", "nrx", "trx", "change", "one", "two"):
        frame = some(frame, column, None, rows=900)
    report = judge(frame, study)
    assert report.score is not None
    assert report.score < GATE_SCORE
    assert codes(report, "blocking") == {("low_quality_score", None)}
    assert "weakest: " in report.blocking[0].detail


def test_a_domain_table_is_judged_by_its_own_schema_and_suite() -> None:
    rng = np.random.default_rng(5)
    frame = pl.DataFrame(
        {
            "metric_id": [f"m{row}" for row in range(600)],
            "metric_date": [date(2025, 1, 1) + timedelta(days=row % 300) for row in range(600)],
            "brand": ["Kisqali", "Fabhalta"] * 300,
            "region": ["west", "south", "midwest"] * 200,
            "value": rng.uniform(50, 150, 600),
            "target": [100.0] * 600,
        }
    ).with_columns(achievement_rate=(pl.col("value") / pl.col("target")).round(3))
    prediction = PredictionSpec(target="value", problem_type="regression", exclude=("achievement_rate", "target"))
    study = Study(name="metrics", data=DataSpec(source="x.csv"), unit="metric_id", prediction=prediction)
    report = judge(frame, study, table="business_metrics")
    assert report.gate_passed
    assert {"pandera:business_metrics", "great_expectations:business_metrics"} <= {check.suite for check in report.checks}
    assert report.scores["accuracy"] == 1.0
    broken = judge(some(frame, "brand", "All_Brands"), study, table="business_metrics")
    assert ("allowed_values", "brand") in codes(broken, "blocking")
    restated = judge(some(frame, "achievement_rate", 9.0, rows=60), study, table="business_metrics")
    assert restated.scores["accuracy"] == pytest.approx(0.9)
    assert ("stated_rate_differs", "achievement_rate") in codes(restated, "warning")


def test_a_stated_rate_may_be_rounded_to_three_decimals_and_no_further() -> None:
    frame = pl.DataFrame({"value": [1.0, 1.0], "target": [3.0, 3.0], "achievement_rate": [0.333, 0.335]})
    (rule,) = check_stated_rates(frame).checks
    assert rule.unexpected_share == 0.5


DOMAIN_ROWS: dict[str, dict[str, list[object]]] = {
    "business_metrics": {
        "metric_id": ["a", "b"],
        "metric_date": [date(2025, 1, 1)] * 2,
        "brand": ["Kisqali", None],
        "achievement_rate": [0.5, 2],
    },
    "predictions": {"prediction_id": ["a", "b"], "prediction_value": [0, 1.0], "prediction_type": ["risk", "churn"]},
    "triggers": {"trigger_id": ["a", "b"], "patient_id": ["p", "p"], "priority": ["critical", "low"], "lead_time_days": [0, 3]},
    "patient_journeys": {
        "patient_journey_id": ["a", "b"],
        "patient_id": ["p", "q"],
        "journey_start_date": [date(2025, 1, 1)] * 2,
        "journey_end_date": [date(2025, 1, 1), None],
        "journey_stage": ["treatment_switch", "diagnosis"],
    },
    "causal_paths": {"path_id": ["a", "b"], "path_length": [1, 2], "causal_effect_size": [-1, 1.0]},
}
DOMAIN_FAULTS = {
    "business_metrics": ("achievement_rate", [-1.0, 1.0], "range"),
    "predictions": ("prediction_value", [0.5, 1.5], "range"),
    "triggers": ("priority", ["urgent", "low"], "allowed_values"),
    "patient_journeys": ("journey_end_date", [date(2024, 1, 1), None], "wrong_order"),
    "causal_paths": ("path_id", ["a", "a"], "duplicate_keys"),
}


@pytest.mark.parametrize("suite", sorted(DOMAIN_ROWS))
def test_each_of_the_five_suites_passes_good_rows_and_names_a_bad_column(suite: str) -> None:
    frame = pl.DataFrame(DOMAIN_ROWS[suite], strict=False)
    results = run_rules(frame, SUITES[suite], suite=suite)
    assert results
    assert [outcome.rule for outcome in results if not outcome.result.passed or outcome.crashed] == []
    column, values, check = DOMAIN_FAULTS[suite]
    failed = [
        outcome.rule
        for outcome in run_rules(frame.with_columns(pl.Series(column, values)), SUITES[suite], suite=suite)
        if not outcome.result.passed
    ]
    assert [(rule.check, column in rule.columns) for rule in failed] == [(check, True)]


def test_the_synthetic_worlds_domain_tables_obey_the_vocabulary() -> None:
    shared = sorted(set(TABLE_NAMES) & set(TABLES))
    assert shared == ["business_metrics", "patient_journeys", "triggers"]
    for name, frame in generate_tables(shared, seed=7, size=SMALLEST).items():
        assert examine(frame, SCHEMAS[name], suite=name)[1] == [], name


def test_the_real_nhefs_study_passes_the_gate() -> None:
    study = load_study(Path(__file__).parents[3] / "studies" / "nhefs.yaml")
    snapshot = LocalFrameSource().load(study.data, base=Path())
    report = VALIDATOR.validate(snapshot.frame, study=study, table=snapshot.table, data_sha256=snapshot.sha256)
    assert report.gate_passed
    assert ("rows_without_label", "wt82_71") in codes(report, "warning")


def test_heavy_libraries_load_only_when_a_table_is_judged() -> None:
    program = (
        "import sys; import e2i.mlops.data_quality; print([m for m in ('pandera', 'great_expectations', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_five_suites_are_those_of_the_vocabulary() -> None:
    assert set(SUITES) == {"business_metrics", "predictions", "triggers", "patient_journeys", "causal_paths"}
    assert {table.suite for table in TABLES.values()} - {None} == set(SUITES)


def test_an_expectation_that_crashes_is_told_as_a_crash_and_not_as_a_pass() -> None:
    rule = Rule(check="range", kind="between", family="validity", columns=("words",), minimum=0, maximum=1)
    (outcome,) = run_rules(pl.DataFrame({"words": ["a", "b"]}), (rule,), suite="words")
    assert outcome.crashed
    assert not outcome.result.passed


LEAK = QCIssue(check="target_copy", severity="blocking", detail="a copy.", advice="Remove it.", column="copy")


@pytest.mark.parametrize(
    ("report", "severity"),
    [
        (report_with(1.0), "info"),
        (report_with(0.9, status="warning"), "warning"),
        (report_with(0.7, status="failed", failed=3), "error"),
        (report_with(0.7, status="failed", failed=11), "critical"),
        (report_with(0.9, status="failed", issues=(LEAK,)), "critical"),
        (report_with(None, status="failed"), "critical"),
    ],
)
def test_severity_follows_status_share_and_leakage(report: QCReport, severity: str) -> None:
    assert severity_of(report) == severity


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, object]]]]:
    received: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_an_alert_reaches_log_and_webhook_with_at_most_ten_failures(caplog: pytest.LogCaptureFixture) -> None:
    report = report_with(0.7, status="failed", failed=14, issues=(LEAK,))
    with webhook() as (url, received), caplog.at_level(logging.INFO):
        await DataQualityAlerter(webhook_url=url).alert(report)
    (payload,) = received
    assert payload["severity"] == "critical"
    assert payload["table"] == "panel"
    assert payload["leakage"] is True
    assert payload["failed_total"] == 14
    assert len(payload["failed"]) == 10  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records if "qc_1" in record.getMessage()] == [logging.CRITICAL]


async def test_an_alert_below_the_minimum_is_not_sent() -> None:
    with webhook() as (url, received):
        await DataQualityAlerter(webhook_url=url).alert(report_with(1.0))
        await DataQualityAlerter(webhook_url=url, minimum_severity="error").alert(report_with(0.9, status="warning"))
    assert received == []


async def test_a_webhook_that_fails_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    with webhook(status=500) as (url, received):
        await DataQualityAlerter(webhook_url=url).alert(report_with(0.7, status="failed"))
    assert len(received) == 1
    await DataQualityAlerter(webhook_url="http://127.0.0.1:9/nobody", timeout_s=0.5).alert(report_with(0.7, status="failed"))
    assert sum("did not reach the webhook" in record.getMessage() for record in caplog.records) == 2


async def test_a_webhook_that_answers_in_another_language_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await DataQualityAlerter(webhook_url=url).alert(report_with(0.7, status="failed"))
    assert sum("did not reach the webhook" in record.getMessage() for record in caplog.records) == 1


def test_a_webhook_must_be_http() -> None:
    with pytest.raises(ConfigError, match="http"):
        DataQualityAlerter(webhook_url="file:///etc/passwd")
