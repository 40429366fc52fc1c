from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import resources

import polars as pl
import pytest

from e2i.domain.data_spec import DataSpec
from e2i.domain.runs import Tier
from e2i.domain.study import EffectSpec, PredictionSpec, Study
from e2i.domain.vocabulary import ENUMS, TABLES
from e2i.mlops.pandera_schemas import (
    SCHEMAS,
    AgentActivitySchema,
    BusinessMetricSchema,
    CausalPathSchema,
    PatientJourneySchema,
    PredictionSchema,
    TriggerSchema,
    examine,
    study_schema,
)

GOOD = {
    "business_metrics": {
        "metric_id": ["m1", "m2"],
        "metric_date": [date(2025, 1, 1), date(2025, 1, 2)],
        "brand": ["Kisqali", None],
        "region": ["west", "south"],
        "achievement_rate": [0.9, 1.1],
    },
    "ml_predictions": {"prediction_id": ["p1", "p2"], "prediction_type": ["churn", "next_best_action"], "prediction_value": [0.0, 1.0]},
    "triggers": {
        "trigger_id": ["t1", "t2"],
        "patient_id": ["a", "a"],
        "trigger_timestamp": [datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)],
        "priority": ["critical", "low"],
        "lead_time_days": [0, 7],
    },
    "patient_journeys": {
        "patient_journey_id": ["j1", "j2"],
        "patient_id": ["a", "a"],
        "journey_start_date": [date(2025, 1, 1), date(2025, 1, 2)],
        "journey_stage": ["treatment_switch", "diagnosis"],
        "source_match_confidence": [0.8, None],
    },
    "causal_paths": {"path_id": ["c1", "c2"], "start_node": ["calls", "calls"], "path_length": [1, 4], "causal_effect_size": [-1.0, 0.4]},
    "agent_activities": {"activity_id": ["a1", "a2"], "agent_tier": ["ml_foundation", "self_improvement"], "confidence_level": [0.1, 1]},
}
BROKEN = [
    ("business_metrics", "metric_id", ["m1", "m1"], "duplicate_keys"),
    ("business_metrics", "metric_date", [date(2025, 1, 1), None], "missing_values"),
    ("business_metrics", "metric_date", ["2025-01-01", "soon"], "wrong_type"),
    ("business_metrics", "brand", ["Kisqali", "All_Brands"], "allowed_values"),
    ("business_metrics", "region", ["west", "West"], "allowed_values"),
    ("business_metrics", "achievement_rate", [-0.1, 1.0], "range"),
    ("ml_predictions", "prediction_type", ["churn", "guess"], "allowed_values"),
    ("ml_predictions", "prediction_value", [0.5, 1.01], "range"),
    ("ml_predictions", "patient_id", ["a", None], "missing_values"),
    ("triggers", "patient_id", ["a", None], "missing_values"),
    ("triggers", "priority", ["urgent", "low"], "allowed_values"),
    ("triggers", "lead_time_days", [-1, 3], "range"),
    ("triggers", "lead_time_days", [0.5, 3.0], "wrong_type"),
    ("patient_journeys", "journey_stage", ["cured", "diagnosis"], "allowed_values"),
    ("patient_journeys", "source_match_confidence", [1.2, 0.4], "range"),
    ("causal_paths", "path_length", [0, 3], "range"),
    ("causal_paths", "causal_effect_size", [-1.5, 0.0], "range"),
    ("agent_activities", "agent_tier", ["learning", "monitoring"], "allowed_values"),
]


def frame(table: str) -> pl.DataFrame:
    return pl.DataFrame(GOOD[table])


@pytest.mark.parametrize("table", sorted(GOOD))
def test_a_good_table_passes_its_schema(table: str) -> None:
    checks, failures = examine(frame(table), SCHEMAS[table], suite="x")
    assert failures == []
    assert checks
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(("table", "column", "values", "code"), BROKEN)
def test_a_broken_column_is_named_with_its_rule(table: str, column: str, values: list[object], code: str) -> None:
    broken = frame(table).with_columns(pl.Series(column, values, strict=False))
    checks, failures = examine(broken, SCHEMAS[table], suite="x")
    assert [(failure.check, failure.column) for failure in failures] == [(code, column)]
    assert [check.column for check in checks if not check.passed] == [column]


def test_every_schema_requires_its_key_and_allows_unknown_columns() -> None:
    for name, schema in SCHEMAS.items():
        key = next(column.name for column in TABLES[name].columns if column.unique)
        _, failures = examine(frame(name).drop(key).with_columns(extra=pl.lit(1)), schema, suite="x")
        assert [(failure.check, failure.column) for failure in failures] == [("missing_column", key)], name


def test_missing_optional_columns_never_fail() -> None:
    assert examine(pl.DataFrame({"prediction_id": ["p"]}), PredictionSchema, suite="x")[1] == []


def test_values_are_cast_where_nothing_is_lost() -> None:
    table = pl.DataFrame(
        {"metric_id": [1, 2], "metric_date": [datetime(2025, 1, 1, tzinfo=UTC)] * 2, "achievement_rate": [Decimal("0.95"), None]}
    )
    assert examine(table, BusinessMetricSchema, suite="x")[1] == []


def test_one_bad_column_does_not_spoil_the_cast_of_the_others() -> None:
    table = pl.DataFrame({"metric_id": [1, 2], "metric_date": ["2025-01-01", "never"]})
    assert [failure.column for failure in examine(table, BusinessMetricSchema, suite="x")[1]] == ["metric_date"]


def test_the_six_schemas_carry_the_names_of_their_tables() -> None:
    schemas = (BusinessMetricSchema, PredictionSchema, TriggerSchema, PatientJourneySchema, CausalPathSchema, AgentActivitySchema)
    assert [schema.name for schema in schemas] == list(TABLES)
    assert {table.schema for table in TABLES.values()} == {
        "BusinessMetricSchema",
        "PredictionSchema",
        "TriggerSchema",
        "PatientJourneySchema",
        "CausalPathSchema",
        "AgentActivitySchema",
    }


def test_enums_that_sql_declares_have_the_same_values_in_the_vocabulary() -> None:
    folder = resources.files("e2i.storage.sql") / "migrations"
    sql = " ".join(file.read_text() for file in folder.iterdir() if file.name.endswith(".sql"))
    declared = {
        name: tuple(re.findall(r"'([^']*)'", values))
        for name, values in re.findall(r"create\s+type\s+(\w+)\s+as\s+enum\s*\(([^)]*)\)", sql, flags=re.IGNORECASE)
    }
    shared = set(declared) & set(ENUMS)
    assert {"brand_type", "region_type", "agent_tier_enum"} <= shared
    assert {name: ENUMS[name] for name in shared} == {name: declared[name] for name in shared}


def test_agent_tiers_are_the_platforms_tiers() -> None:
    assert TABLES["agent_activities"].column("agent_tier").allowed == tuple(tier.value for tier in Tier)


STUDY = Study(
    name="lift",
    data=DataSpec(source="x.csv"),
    unit="npi",
    time="week",
    effect=EffectSpec(treatment="treated", outcome="nrx"),
    prediction=PredictionSpec(target="converted", event_time="index_date"),
)
PANEL = pl.DataFrame(
    {
        "npi": ["a", "a", "b", "b"],
        "week": [date(2025, 1, 3), date(2025, 1, 10)] * 2,
        "treated": [0, 1, 0, 0],
        "nrx": [1.5, 2.5, 0.0, None],
        "converted": [True, False, True, False],
        "index_date": [datetime(2025, 1, 1, 12, tzinfo=UTC)] * 4,
        "calls": [1.0, None, float("nan"), 2.0],
    }
)


def broken(table: pl.DataFrame, **kwargs: str) -> list[tuple[str, str | None]]:
    schema = study_schema(STUDY, table, problem=kwargs.get("problem", "binary_classification"), today=date(2025, 6, 1))
    return [(failure.check, failure.column) for failure in examine(table, schema, suite="study")[1]]


def test_a_good_panel_passes_the_schema_of_its_study() -> None:
    assert broken(PANEL) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (pl.Series("treated", [1, 2, 2, 1]), ("treatment_not_binary", "treated")),
        (pl.Series("treated", [0, 1, None, 0]), ("missing_values", "treated")),
        (pl.Series("converted", [1, 2, 1, 2]), ("target_not_binary", "converted")),
        (pl.Series("converted", ["y", "n", "y", "n"]), ("wrong_type", "converted")),
        (pl.Series("nrx", ["1", "2", "3", "4"]), ("wrong_type", "nrx")),
        (pl.Series("nrx", [1.0, float("inf"), 2.0, 3.0]), ("infinite_values", "nrx")),
        (pl.Series("calls", [1.0, float("-inf"), 2.0, 3.0]), ("infinite_values", "calls")),
        (pl.Series("npi", ["a", None, "b", "b"]), ("missing_values", "npi")),
        (pl.Series("npi", ["a", "a", "a", "a"]), ("duplicate_keys", None)),
        (pl.Series("week", ["2025-01-03", "2025-01-10"] * 2), ("wrong_type", "week")),
        (pl.Series("week", [date(2025, 1, 3), date(2025, 1, 10), date(2025, 1, 3), date(2025, 6, 2)]), ("date_in_future", "week")),
        (pl.Series("index_date", [datetime(2025, 6, 2, tzinfo=UTC)] * 4), ("date_in_future", "index_date")),
        (pl.Series("index_date", [1, 2, 3, 4]), ("wrong_type", "index_date")),
    ],
)
def test_a_column_that_does_not_fit_its_role_is_named(change: pl.Series, code: tuple[str, str | None]) -> None:
    assert broken(PANEL.with_columns(change)) == [code]


def test_time_may_count_periods() -> None:
    assert broken(PANEL.with_columns(week=pl.Series([1, 2, 1, 2]))) == []


def test_a_number_is_a_good_target_of_a_regression() -> None:
    assert broken(PANEL.with_columns(converted=pl.Series([0.5, 2.5, 3.5, 9.0])), problem="regression") == []


def test_the_last_moment_of_today_is_not_the_future() -> None:
    today = pl.Series("index_date", [datetime(2025, 6, 1, 23, 59, tzinfo=UTC)] * 4)
    assert broken(PANEL.with_columns(today)) == []


def test_a_missing_key_column_is_one_finding_and_not_a_flood_of_duplicates() -> None:
    assert broken(PANEL.drop("week")) == [("missing_column", "week")]
