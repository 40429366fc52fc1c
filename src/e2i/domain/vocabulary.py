"""The columns of the domain tables, once: Pandera schemas, Great Expectations suites and SQL all use these names and enums.

`required` means that a frame without the column, or with an empty value in it, is refused; `nullable=False` means the same
for values, but the column may be absent. Columns that no rule speaks about are not listed: extra columns are allowed.

Names that older schemas and suites used, and what they are called here (the SQL tables decide):

============================  ===========================================================
current_stage                 patient_journeys.journey_stage
source_node, target_node      causal_paths.start_node, causal_paths.end_node
effect_strength               causal_paths.causal_effect_size
execution_time_ms             agent_activities.processing_duration_ms
metric_value, created_at      business_metrics.value, business_metrics.metric_date
confidence                    ml_predictions.confidence_score
id                            the table's own key: metric_id, prediction_id, trigger_id …
p_value                       no such column in causal_paths: no rule
event_type, event_date        columns of treatment events, not of patient_journeys: no rule
All_Brands                    not a brand of the SQL enum; competitor and other are
learning                      self_improvement (and ml_foundation is a tier, too)
============================  ===========================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from e2i.domain.runs import Tier

ColumnType = Literal["string", "integer", "number", "date", "timestamp"]

ENUMS: dict[str, tuple[str, ...]] = {
    "brand_type": ("Remibrutinib", "Fabhalta", "Kisqali", "competitor", "other"),
    "region_type": ("northeast", "south", "midwest", "west"),
    "priority_type": ("critical", "high", "medium", "low"),
    "journey_stage_type": ("diagnosis", "initial_treatment", "treatment_optimization", "maintenance", "treatment_switch"),
    "journey_status_type": ("active", "stable", "transitioning", "completed"),
    "prediction_type": ("trigger", "propensity", "risk", "churn", "next_best_action"),
    "agent_tier_enum": tuple(tier.value for tier in Tier),
}
"""SQL enum -> its values, in SQL order"""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column and its rules. `enum` is a key of ENUMS; `minimum` and `maximum` are inclusive."""

    name: str
    type: ColumnType
    required: bool = False
    nullable: bool = True
    unique: bool = False
    enum: str | None = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def allowed(self) -> tuple[str, ...]:
        """The values that the enum allows; empty when any value is allowed."""
        return ENUMS[self.enum] if self.enum else ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A domain table. `ordered` are pairs (early, late) where late must not come before early."""

    name: str
    schema: str
    """name of the Pandera schema"""
    suite: str | None
    """name of the Great Expectations suite"""
    columns: tuple[Column, ...]
    ordered: tuple[tuple[str, str], ...] = ()

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError."""
        return {column.name: column for column in self.columns}[name]


def _key(name: str) -> Column:
    return Column(name=name, type="string", required=True, nullable=False, unique=True)


def _text(name: str) -> Column:
    return Column(name=name, type="string")


def _share(name: str) -> Column:
    return Column(name=name, type="number", minimum=0, maximum=1)


BUSINESS_METRICS = Table(
    name="business_metrics",
    schema="BusinessMetricSchema",
    suite="business_metrics",
    columns=(
        _key("metric_id"),
        Column(name="metric_date", type="date", required=True, nullable=False),
        _text("metric_type"),
        _text("metric_name"),
        Column(name="brand", type="string", enum="brand_type"),
        Column(name="region", type="string", enum="region_type"),
        Column(name="value", type="number"),
        Column(name="target", type="number"),
        Column(name="achievement_rate", type="number", minimum=0),
        Column(name="confidence_interval_lower", type="number"),
        Column(name="confidence_interval_upper", type="number"),
    ),
    ordered=(("confidence_interval_lower", "confidence_interval_upper"),),
)

ML_PREDICTIONS = Table(
    name="ml_predictions",
    schema="PredictionSchema",
    suite="predictions",
    columns=(
        _key("prediction_id"),
        Column(name="prediction_timestamp", type="timestamp", nullable=False),
        Column(name="patient_id", type="string", nullable=False),
        _text("hcp_id"),
        _text("model_version"),
        _text("model_type"),
        Column(name="prediction_type", type="string", enum="prediction_type"),
        _share("prediction_value"),
        _share("confidence_score"),
    ),
)

TRIGGERS = Table(
    name="triggers",
    schema="TriggerSchema",
    suite="triggers",
    columns=(
        _key("trigger_id"),
        Column(name="patient_id", type="string", required=True, nullable=False),
        _text("hcp_id"),
        Column(name="trigger_timestamp", type="timestamp", nullable=False),
        _text("trigger_type"),
        Column(name="priority", type="string", enum="priority_type"),
        _share("confidence_score"),
        Column(name="lead_time_days", type="integer", minimum=0),
        Column(name="delivery_timestamp", type="timestamp"),
        Column(name="view_timestamp", type="timestamp"),
    ),
    ordered=(("trigger_timestamp", "delivery_timestamp"), ("delivery_timestamp", "view_timestamp")),
)

PATIENT_JOURNEYS = Table(
    name="patient_journeys",
    schema="PatientJourneySchema",
    suite="patient_journeys",
    columns=(
        _key("patient_journey_id"),
        Column(name="patient_id", type="string", required=True, nullable=False),
        Column(name="journey_start_date", type="date", nullable=False),
        Column(name="journey_end_date", type="date"),
        Column(name="journey_stage", type="string", enum="journey_stage_type"),
        Column(name="journey_status", type="string", enum="journey_status_type"),
        Column(name="brand", type="string", enum="brand_type"),
        Column(name="geographic_region", type="string", enum="region_type"),
        _text("age_group"),
        _text("gender"),
        _share("source_match_confidence"),
    ),
    ordered=(("journey_start_date", "journey_end_date"),),
)

CAUSAL_PATHS = Table(
    name="causal_paths",
    schema="CausalPathSchema",
    suite="causal_paths",
    columns=(
        _key("path_id"),
        Column(name="discovery_date", type="date", nullable=False),
        _text("start_node"),
        _text("end_node"),
        Column(name="path_length", type="integer", minimum=1),
        Column(name="causal_effect_size", type="number", minimum=-1, maximum=1),
        _share("confidence_level"),
        _text("method_used"),
    ),
)

AGENT_ACTIVITIES = Table(
    name="agent_activities",
    schema="AgentActivitySchema",
    suite=None,
    columns=(
        _key("activity_id"),
        _text("agent_name"),
        Column(name="agent_tier", type="string", enum="agent_tier_enum"),
        Column(name="activity_timestamp", type="timestamp", nullable=False),
        _text("activity_type"),
        Column(name="processing_duration_ms", type="integer", minimum=0),
        _share("confidence_level"),
        Column(name="impact_estimate", type="number"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (BUSINESS_METRICS, ML_PREDICTIONS, TRIGGERS, PATIENT_JOURNEYS, CAUSAL_PATHS, AGENT_ACTIVITIES)
}
"""SQL table name -> its definition"""
