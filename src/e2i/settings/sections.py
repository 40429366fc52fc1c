"""The shape of every settings file beside this one: one class per section, one row per key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Share = Field(ge=0, le=1)
_WEEK_S = 604_800
Pause = Field(gt=0, le=_WEEK_S)
"""seconds; waiting for ever is no setting of a pipeline"""
PauseOrNone = Field(ge=0, le=_WEEK_S)
Name = Field(min_length=1)
SpanBytes = Field(ge=64)
"""less holds not even the marker of a cut"""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def parse_headers(text: str) -> dict[str, str]:
    """`name=value,name=value` with percent-encoded values, as OTEL_EXPORTER_OTLP_HEADERS is written.

    Raises
    ------
    PydanticCustomError
        It is not written so, or HTTP cannot carry a name or value. The values are secrets: none is shown.
    """
    found = {}
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not _HEADER_NAME.fullmatch(name):
            raise _wrong("header {number} is not name=value with a name of ASCII letters, digits and hyphens", number=number)
        found[name.lower()] = _sendable(unquote(value))
    return found


def _wrong(message: str, **values: Any) -> PydanticCustomError:
    return PydanticCustomError("e2i", message, values)


def _sendable(value: str) -> str:
    """What fits into an HTTP header."""
    if not value.isascii() or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise _wrong("goes into an HTTP header: only printable ASCII characters, no line end")
    return value


def _sendable_secret(value: SecretStr) -> SecretStr:
    _sendable(value.get_secret_value())
    return value


def _headers(value: SecretStr) -> SecretStr:
    parse_headers(value.get_secret_value())
    return value


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or a bracket without its other half
        is_good = False
    is_good = is_good and not re.search(r"[\s\x00-\x1f\x7f?#]", value)
    if value and not is_good:
        raise _wrong("is no address: write http://host:port or https://host/path, or leave it empty for none")
    return value


def _key_word(value: str) -> str:
    if not re.search(r"[A-Za-z0-9]", value):
        raise _wrong("a word needs a letter a-z or a digit; remove an empty one")
    return value


def _windows(value: dict[str, float]) -> dict[str, float]:
    for window in value:
        if not re.fullmatch(r"default|[1-9][0-9]{0,5}[hd]", window):
            raise _wrong("{window} is no window: write hours or days (1h, 7d), or default for every other one", window=repr(window))
    return value


HttpAddress = Annotated[str, AfterValidator(_address)]
HeaderText = Annotated[str, AfterValidator(_sendable)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_sendable_secret)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """`default_rate = true` would be a rate of 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise _wrong("is a number, not true or false")
        return value


class DatabaseSection(Section):
    url: SecretStr
    port: int = Field(ge=0, le=65535)


class LargeFilesSection(Section):
    threshold_gb: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    threads: int = Field(gt=0)


class RaySection(Section):
    address: str = Field(min_length=1)


class RetrySection(Section):
    max_attempts: int = Field(gt=0)
    backoff_factor: float = Field(ge=0)
    max_backoff: float = Field(ge=0)


class TrackingSection(Section):
    uri: SecretStr
    username: str
    password: SecretStr
    token: HeaderSecret
    artifact_location: str
    request_timeout: float = Field(gt=0)
    retry: RetrySection


class ExperimentsSection(Section):
    default_tags: dict[str, str]


class RegistrySection(Section):
    naming_pattern: str


class CircuitBreakerSection(Section):
    failure_threshold: int = Field(gt=0)
    reset_timeout_seconds: float = Pause
    half_open_max_calls: int = Field(gt=0)
    success_threshold: int = Field(gt=0)


class MlflowSection(Section):
    tracking: TrackingSection
    experiments: ExperimentsSection
    registry: RegistrySection
    circuit_breaker: CircuitBreakerSection


class OptunaStorageSection(Section):
    url: SecretStr


class TpeSection(Section):
    n_startup_trials: int = Field(ge=0)
    multivariate: bool
    prior_weight: float = Field(gt=0)


class SamplerSection(Section):
    tpe: TpeSection


class HyperbandSection(Section):
    min_resource: int = Field(gt=0)
    reduction_factor: int = Field(gt=1)


class PrunerSection(Section):
    hyperband: HyperbandSection


class OptimizationSection(Section):
    default_n_trials: int = Field(gt=0)


class WarmstartSection(Section):
    enabled: bool
    min_similarity: float = Field(ge=0, le=1)
    max_import_trials: int = Field(ge=0)
    enqueue_trials: int = Field(ge=0)


class ProblemTypeSection(Section):
    default_metric: str
    cv_folds: int = Field(ge=2)


class OptunaSection(Section):
    storage: OptunaStorageSection
    sampler: SamplerSection
    pruner: PrunerSection
    optimization: OptimizationSection
    warmstart: WarmstartSection
    problem_types: dict[str, ProblemTypeSection]
    search_space_presets: dict[str, dict[str, dict[str, Any]]]


class AlertingSection(Section):
    minimum_severity: Literal["info", "warning", "error", "critical"]
    webhook_url: SecretStr
    webhook_timeout_seconds: float = Field(gt=0)
    max_listed_expectations: int = Field(gt=0)


class DataQualitySection(Section):
    alerting: AlertingSection


class OpikSection(Section):
    enabled: bool
    endpoint: HttpAddress
    api_key: HeaderSecret
    workspace: HeaderText
    project_name: str = Name


class OtlpSection(Section):
    enabled: bool
    endpoint: HttpAddress
    headers: Annotated[SecretStr, AfterValidator(_headers)]


class MlflowTracesSection(Section):
    enabled: bool
    experiment: str = Name


class SamplingSection(Section):
    default_rate: float = Share
    production_rate: float = Share
    environment_aware: bool
    always_sample_errors: bool
    always_sample_agents: tuple[str, ...]
    agent_overrides: dict[str, Annotated[float, Share]]
    decision_wait_seconds: float = PauseOrNone


class SpoolSection(Section):
    max_bytes: int = Field(ge=1_048_576)
    segment_bytes: int = Field(ge=65_536)
    fsync_interval_seconds: float = PauseOrNone
    quarantine_after: int = Field(gt=0)


class DeliveryRetrySection(Section):
    retry_delay_seconds: float = Pause
    max_delay_seconds: float = Pause


class BatchingSection(Section):
    max_batch_size: int = Field(gt=0, le=10_000)
    max_wait_seconds: float = Pause
    flush_timeout_seconds: float = PauseOrNone
    retry: DeliveryRetrySection


class CacheSection(Section):
    ttl: Annotated[dict[str, Annotated[float, PauseOrNone]], AfterValidator(_windows)]
    max_entries: int = Field(ge=0)


class ArchiveSection(Section):
    enabled: bool
    destination: str


class RetentionSection(Section):
    span_ttl_days: int = Field(gt=0, le=36_500)
    archive: ArchiveSection


class SpanDatabaseSection(Section):
    insert_batch_size: int = Field(gt=0, le=10_000)


class SpanLimitsSection(Section):
    include_input: bool
    include_output: bool
    max_input_size_bytes: int = SpanBytes
    max_output_size_bytes: int = SpanBytes
    max_metadata_size_bytes: int = SpanBytes
    redact_patterns: tuple[Annotated[str, AfterValidator(_key_word)], ...]


class ReceiverSection(Section):
    host: str
    port: int = Field(ge=0, le=65535)
    api_key: SecretStr
    max_body_bytes: int = Field(gt=0)
    max_in_flight: int = Field(gt=0)


class CallerSection(Section):
    traceparent: str
    tracestate: str


class ObservabilitySection(Section):
    service_name: str = Name
    caller: CallerSection
    opik: OpikSection
    otlp: OtlpSection
    mlflow: MlflowTracesSection
    sampling: SamplingSection
    spool: SpoolSection
    batching: BatchingSection
    circuit_breaker: CircuitBreakerSection
    cache: CacheSection
    retention: RetentionSection
    database: SpanDatabaseSection
    spans: SpanLimitsSection
    receiver: ReceiverSection


class ChainEntry(Section):
    provider: Literal["anthropic", "openai_compatible", "local"]
    model: str
    base_url: str = ""
    api_key: SecretStr = SecretStr("")


class PriceSection(Section):
    input: float = Field(ge=0)
    output: float = Field(ge=0)


class LlmSection(Section):
    chain: tuple[ChainEntry, ...]
    timeout_seconds: float = Field(gt=0)
    max_retries: int = Field(ge=0)
    temperature: float = Field(ge=0, le=2)
    anthropic_api_key: SecretStr
    openai_api_key: SecretStr
    prices: dict[str, PriceSection]


class AgentSection(Section):
    tier: Literal["ml_foundation", "coordination", "causal_analytics", "monitoring", "ml_predictions", "self_improvement"]
    budget_s: float = Field(gt=0)
    mlflow_experiment: str
    log_prompts: bool
    log_artifacts: bool
