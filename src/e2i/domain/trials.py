"""A planned experiment: what the study section `experiment` asks, and the plan that answers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from e2i.domain.data_spec import DataSpec
from e2i.domain.disclosure import visible_counts
from e2i.domain.plain import plain

OutcomeType = Literal["continuous", "binary", "count", "time_to_event"]
TrialDesign = Literal["rct", "stratified", "cluster_rct", "matched_pairs", "geo"]
Analysis = Literal["difference", "ancova", "double_difference", "paired", "log_rank", "geo_gap"]
Spending = Literal["obrien_fleming", "pocock"]
Formality = Literal["light", "medium", "heavy"]
Level = Literal["low", "medium", "high"]
ThreatType = Literal["selection_bias", "confounding", "measurement", "contamination", "temporal", "attrition"]
ValidityScore = Literal["strong", "moderate", "weak"]
Recommendation = Literal["proceed", "proceed_with_caution", "redesign_needed"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaselineSpec(_Strict):
    """What is known of the outcome without treatment, where there is no table to measure it in; a given value overrules a measured one."""

    mean: float | None = Field(default=None, description="mean, or the share of 1s of a 0/1 outcome, or events per unit of a count")
    sd: float | None = Field(default=None, gt=0, description="between units")
    icc: float | None = Field(default=None, ge=0, lt=1, description="share of the variance that lies between clusters")
    cluster_size: float | None = Field(default=None, gt=0, description="mean units per cluster")
    cluster_cv: float | None = Field(default=None, ge=0, description="coefficient of variation of the cluster sizes")
    r2: float | None = Field(default=None, ge=0, lt=1, description="share of the variance that covariates and strata explain")
    dispersion: float | None = Field(default=None, ge=0, description="of a count: variance = mean + dispersion x mean^2")
    event_share: float | None = Field(default=None, gt=0, le=1, description="units with an event by the end of follow-up")


class GeoSpec(_Strict):
    """Which regions may be test markets."""

    treated: int | tuple[int, ...] = Field(default=(1, 2, 3), description="how many regions the test may take")
    candidates: tuple[str, ...] = Field(default=(), description="regions that may be treated; default: all")
    excluded: tuple[str, ...] = Field(default=(), description="regions that are neither test nor control")
    weeks: int = Field(default=8, ge=1, description="periods that the test lasts")
    cost_per_region: float | None = Field(default=None, gt=0, description="US dollars")
    cost_column: str | None = Field(default=None, description="cost of a region, US dollars; one value per region")
    budget: float | None = Field(default=None, gt=0, description="US dollars")
    maximum_share: float = Field(default=0.5, gt=0, lt=1, description="of the outcome's volume that test regions may hold")


class ExperimentSpec(_Strict):
    """The study section `experiment`. Effects: a difference (continuous, binary), a ratio of rates (count), of hazards (time_to_event)."""

    question: str = Field(min_length=5)
    treatment: str = Field(default="treatment", description="name of what is tried; the column in the later table")
    outcome: str
    outcome_type: Literal["auto", "continuous", "binary", "count", "time_to_event"] = "auto"
    data: DataSpec | None = Field(default=None, description="own table from before the experiment; default: the study's own")
    unit: str | None = None
    time: str | None = Field(default=None, description="makes the table a panel: unit x period")
    event: str | None = Field(default=None, description="time_to_event: 0/1 column, 1 where the event was seen")
    design: Literal["auto", "rct", "stratified", "cluster_rct", "matched_pairs", "geo"] = "auto"
    analysis: Literal["auto", "difference", "ancova", "double_difference"] = "auto"
    cluster: str | None = Field(default=None, description="assigned as one: practice, territory")
    strata: tuple[str, ...] = Field(default=(), description="chance assigns within their levels")
    covariates: tuple[str, ...] = Field(default=(), description="numbers known before assignment that the analysis adjusts for")
    candidate_covariates: tuple[str, ...] = Field(default=(), description="more such columns, taken when power is short")
    shared: tuple[str, ...] = Field(default=(), description="columns over which treatment can leak: practice, territory")
    negative_controls: tuple[str, ...] = ()
    expected_effect: float | None = None
    minimum_detectable: float | None = Field(default=None, description="smallest effect worth finding; sample size is solved for it")
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.80, ge=0.5, le=0.99)
    treated_share: float = Field(default=0.5, gt=0, lt=1)
    units_available: int | None = Field(default=None, ge=4)
    clusters_available: int | None = Field(default=None, ge=4)
    accrual_per_week: float | None = Field(default=None, gt=0, description="units; without it all start at once")
    follow_up: int = Field(default=12, ge=1, description="weeks, or periods of the panel, in which the outcome is measured")
    pre_periods: int = Field(default=12, ge=1, description="panel: periods before the start that the analysis uses")
    maximum_follow_up: int | None = Field(default=None, ge=1, description="how far the redesign may stretch follow_up")
    expected_attrition: float = Field(default=0.0, ge=0, lt=1)
    baseline: BaselineSpec = BaselineSpec()
    geo: GeoSpec = GeoSpec()
    interim_looks: int = Field(default=0, ge=0, le=9, description="looks before the final one")
    spending: Spending = "obrien_fleming"
    formality: Formality = "medium"
    max_redesign_iterations: int = Field(default=2, ge=0, le=5)
    simulations: int = Field(default=500, ge=200, le=5000)

    @model_validator(mode="after")
    def _is_consistent(self) -> ExperimentSpec:
        problems = [
            (
                self.design == "cluster_rct" and self.cluster is None and self.baseline.cluster_size is None,
                "design `cluster_rct` needs `cluster`, or `baseline.cluster_size` and `baseline.icc`",
            ),
            (self.design == "stratified" and not (self.strata or self.covariates), "design `stratified` needs `strata` or `covariates`"),
            (self.design == "geo" and (self.unit is None or self.time is None), "design `geo` needs `unit` (the region) and `time`"),
            (
                self.outcome_type == "time_to_event" and self.event is None and self.baseline.event_share is None,
                "outcome_type `time_to_event` needs `event` or `baseline.event_share`",
            ),
            (self.treatment == self.outcome, "a treatment cannot be its own outcome"),
            (self.outcome in {*self.covariates, *self.candidate_covariates, *self.strata}, "the outcome cannot be a covariate or stratum"),
            (self.target == 0, "an effect of 0 cannot be detected"),
            (
                self.is_ratio and self.target is not None and (self.target <= 0 or self.target == 1),
                f"an effect on a {self.outcome_type} outcome is a ratio: above 0, and not 1",
            ),
            (self.maximum_follow_up is not None and self.maximum_follow_up < self.follow_up, "`maximum_follow_up` is below `follow_up`"),
            (self.design == "matched_pairs" and self.treated_share != 0.5, "in matched pairs half is treated: leave out `treated_share`"),
        ]
        for is_wrong, message in problems:
            if is_wrong:
                raise ValueError(message)
        return self

    @property
    def target(self) -> float | None:
        """The effect that sample size is solved for."""
        return self.minimum_detectable if self.minimum_detectable is not None else self.expected_effect

    @property
    def is_ratio(self) -> bool:
        """Effects are ratios."""
        return self.outcome_type in ("count", "time_to_event")


@dataclass(frozen=True, kw_only=True)
class PowerPoint:
    """One point of a power curve."""

    n: int
    effect: float
    power: float


@dataclass(frozen=True, kw_only=True)
class SimulatedPower:
    """Rates over resamples of the user's own table, each with its 95 % Wilson interval, beside the formula's."""

    analysis: Analysis
    n: int
    effect: float
    simulations: int
    size: float
    size_interval: tuple[float, float]
    nominal_size: float
    power: float
    power_interval: tuple[float, float]
    nominal_power: float
    agrees: bool
    """nominal values lie within the intervals widened by 0.02: what the formula may be off and still be of use"""


@dataclass(frozen=True, kw_only=True)
class PowerAnalysis:
    """How many units, for which effect. `None`: the question or the data do not say."""

    outcome_type: OutcomeType
    analysis: Analysis
    method: str
    alpha: float
    target_power: float
    target_effect: float | None
    effect_scale: Literal["difference", "rate_ratio", "hazard_ratio"]
    required_n: int | None
    """all arms, before attrition; None where no sample size reaches the power"""
    planned_n: int
    analysed_n: int
    """planned, less the expected attrition"""
    planned_clusters: int | None
    achieved_power: float | None
    mde: float | None
    mde_share_of_baseline: float | None
    design_effect: float
    variance_kept: float
    """of the outcome's variance after covariates and strata"""
    interim_inflation: float
    inputs: dict[str, float]
    curve: tuple[PowerPoint, ...]
    sensitivity: dict[str, float]
    """power at effect or sd off by 10 and 20 %"""
    simulated: SimulatedPower | None = None


@dataclass(frozen=True, kw_only=True)
class ValidityThreat:
    """A way in which the experiment could mislead, and the fact of the data that says how likely that is."""

    threat_type: ThreatType
    description: str
    likelihood: Level
    severity: Level
    mitigation: str
    difficulty: Level
    evidence: str
    measured: float | None = None
    mitigated: bool = False
    """the plan already holds the mitigation"""


@dataclass(frozen=True, kw_only=True)
class RedesignStep:
    """One change of the design and what it did to power."""

    action: str
    power_before: float | None
    power_after: float | None
    mde_before: float | None
    mde_after: float | None


@dataclass(frozen=True, kw_only=True)
class InterimLook:
    """One look: stop for efficacy when |z| reaches the boundary."""

    look: int
    information: float
    n: int
    week: float | None
    z_boundary: float
    nominal_p: float
    alpha_spent: float


@dataclass(frozen=True, kw_only=True)
class MonitoringRule:
    """What is watched, and what happens when a threshold is passed."""

    name: str
    threshold: str
    action: str


@dataclass(frozen=True, kw_only=True)
class MonitoringPlan:
    """Looks and rules. `expected_shares`: arm -> share, for the sample-ratio check (chi-square, p < 0.001)."""

    spending: Spending
    looks: tuple[InterimLook, ...]
    rules: tuple[MonitoringRule, ...]
    expected_shares: dict[str, float]
    sample_ratio_alpha: float


@dataclass(frozen=True, kw_only=True)
class BalanceRow:
    """A covariate's standardised mean difference between the arms, as assigned."""

    covariate: str
    treatment_mean: float
    control_mean: float
    smd: float


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """How arms were drawn. The list of units itself is a frame of the run, for operations and not for a report."""

    method: str
    seed: int
    balance: tuple[BalanceRow, ...]
    counts: dict[str, int]
    sample_ratio_p: float | None
    """None for clusters, whose sizes are not drawn"""


@dataclass(frozen=True, kw_only=True)
class MarketCandidate:
    """A set of test regions with its controls, and the effect it could detect."""

    test: tuple[str, ...]
    controls: dict[str, float]
    """region -> weight"""
    pre_fit_rmse: float
    pre_fit_r2: float
    placebo_bias: float
    placebo_rmse: float
    mde: float
    mde_share: float
    volume_share: float
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class MarketSelection:
    """Candidate sets by smallest detectable effect; the first is recommended."""

    method: str
    searched: int
    is_exhaustive: bool
    windows: int
    candidates: tuple[MarketCandidate, ...]
    skipped: dict[str, int]
    """why sets were not considered -> how many"""
    mde_confirmed: float
    """of the recommended set's volume: each window judged the set that is best on the other windows, so that the best of many sets does
    not look better than it is"""

    @property
    def recommended(self) -> MarketCandidate:
        """The set with the smallest MDE."""
        return self.candidates[0]


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """The answer of experiment_designer."""

    refined_hypothesis: str
    treatment: str
    outcome: str
    outcome_type: OutcomeType
    design_type: TrialDesign
    design_rationale: str
    stratification_vars: tuple[str, ...]
    blocking_strategy: str | None
    anticipated_confounders: tuple[str, ...]
    required_sample_size: int | None
    achievable_mde: float | None
    power: float | None
    estimated_duration_weeks: int
    power_analysis_details: PowerAnalysis
    threats: tuple[ValidityThreat, ...]
    external_validity_limits: tuple[str, ...]
    statistical_concerns: tuple[str, ...]
    validity_score: ValidityScore
    proceed_recommendation: Recommendation
    redesigns: tuple[RedesignStep, ...]
    monitoring: MonitoringPlan
    assignment: Assignment | None
    markets: MarketSelection | None
    causal_dag: tuple[str, ...]
    preregistration_doc: str
    analysis_study: str
    """YAML that `e2i effect` reads once the results are in"""
    warnings: tuple[str, ...]

    @property
    def redesign_iterations(self) -> int:
        """How often the design was changed to gain power."""
        return len(self.redesigns)

    def summary(self) -> str:
        """One line: design, size, detectable effect, verdict."""
        planned, required = self.power_analysis_details.planned_n, self.required_sample_size
        unit = "test regions" if self.design_type == "geo" else "units"
        size = f"{planned} {unit}" if required is None else f"{planned} {unit} of {required} required"
        mde = f"{self.achievable_mde:.3g}" if self.achievable_mde is not None else "unknown"
        return f"{self.design_type}: {size}, detectable effect {mde}, validity {self.validity_score}, {self.proceed_recommendation}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data; small counts hidden, numbers that are not finite are None."""
        found: dict[str, Any] = plain(asdict(self))
        if self.assignment is not None:
            found["assignment"]["counts"] = visible_counts(self.assignment.counts)
        return {**found, "redesign_iterations": self.redesign_iterations}
