"""A study: data plus question, in roles, never code."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from e2i.domain.allocation import AllocationSpec
from e2i.domain.data_spec import DataSpec, Strict
from e2i.domain.gaps import GapSpec
from e2i.domain.trials import ExperimentSpec

Estimand = Literal["ATE", "ATT", "ATO", "LATE"]
Design = Literal["auto", "cross_section", "matched", "did", "synthetic_control", "synthetic_did", "interrupted_time_series", "iv"]
Brand = Literal["Remibrutinib", "Fabhalta", "Kisqali", "competitor", "other"]


def _as_text(name: object) -> object:
    """A level as text: `1` in YAML is a number, `true` a yes."""
    return f"{float(name):g}" if isinstance(name, bool | int | float) else name


Level = Annotated[str, BeforeValidator(_as_text)]
PlannedShare = Annotated[float, Field(gt=0, lt=1)]


class EffectSpec(Strict):
    """The causal question, in roles of columns.

    A panel study has `unit` and `time`; its treatment is 0/1 per unit and period, or `cohort` names the column with the first
    treated period (empty, 0 or never reached: not treated), and `treatment` is then only a name.
    """

    treatment: str
    outcome: str
    confounders: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    unit_effects: Literal["own", "econml"] = Field(
        default="own", description="forest behind the effects of single units: ours, or EconML's CausalForestDML, several times as slow"
    )
    negative_controls: tuple[str, ...] = Field(default=(), description="outcomes that the treatment cannot move")
    negative_exposures: tuple[str, ...] = Field(default=(), description="treatments that cannot move the outcome")
    pre_outcomes: tuple[str, ...] = Field(default=(), description="the outcome before treatment, a column per period, oldest first")
    instruments: tuple[str, ...] = ()
    estimand: Estimand | None = None
    design: Design = "auto"
    cohort: str | None = None
    cluster: str | None = Field(default=None, description="rows of one cluster are not independent; default in a panel: the unit")
    place: str | None = Field(
        default=None,
        description="territory, account or region within which treatment of one unit may reach another; tested for spill-over",
    )
    weights: str | None = Field(default=None, description="sampling weights, positive")
    randomised: bool = Field(default=False, description="treatment was assigned by chance: no confounder is needed")
    randomised_within: tuple[str, ...] = Field(
        default=(), description="columns (strata, blocks, pairs) within whose levels chance assigned, each with a share of its own"
    )
    assigned_share: PlannedShare | dict[Level, PlannedShare] | None = Field(
        default=None,
        description="where chance assigned: planned share of the treated, or of each level, or of the treated in each stratum; "
        "the arms are checked against it",
    )
    edges: tuple[str, ...] = Field(default=(), description='the causal graph, "cause -> effect" each; adjustment is then checked or found')
    reference: str | None = Field(default=None, description="the level that the others of a treatment are compared with")
    treated_at: str | None = Field(default=None, description="column with the day of treatment, for checks of order")
    measured_at: str | None = Field(default=None, description="column with the day on which the outcome was measured")
    entered_at: str | None = Field(default=None, description="column with the day on which the unit came under observation")
    anticipation: int = Field(default=0, ge=0, description="periods before treatment in which the outcome may already react")
    override: tuple[str, ...] = Field(default=(), description="codes of checks that a person has looked at and lets pass; recorded")

    @model_validator(mode="before")
    @classmethod
    def _strata_say_that_chance_assigned(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("randomised_within") and "randomised" not in given:
            return {**given, "randomised": True}
        return given

    @model_validator(mode="after")
    def _strata_need_chance(self) -> EffectSpec:
        if self.randomised_within and not self.randomised:
            msg = "`randomised_within` says that chance assigned within strata; take `randomised: false` out"
            raise ValueError(msg)
        return self


class PredictionSpec(Strict):
    """The predictive question."""

    target: str
    problem_type: Literal["binary_classification", "regression"] | None = None
    horizon_days: int | None = Field(default=None, gt=0)
    event_time: str | None = None
    features: tuple[str, ...] | None = Field(default=None, description="candidate features; default: every column without another role")
    exclude: tuple[str, ...] = ()
    after_event: tuple[str, ...] = Field(default=(), description="columns known only after the event; never features")
    protected: tuple[str, ...] = ()
    group: str | None = Field(default=None, description="rows of one group stay in one split; default: the unit")


class BusinessSpec(Strict):
    """Money: value of one outcome unit and cost of one treated unit, in US dollars."""

    value_per_unit: float
    cost_per_treated: float
    horizon_months: int = Field(default=12, gt=0)


class SuccessSpec(Strict):
    """What the model must reach before it may leave development."""

    minimum_auc: float | None = Field(default=None, ge=0.5, le=1.0)
    minimum_precision_at_k: float | None = Field(default=None, ge=0, le=1)
    maximum_fpr: float | None = Field(default=None, ge=0, le=1)
    minimum_f1: float | None = Field(default=None, ge=0, le=1)
    maximum_brier: float | None = Field(default=None, ge=0, le=1)
    minimum_r2: float | None = Field(default=None, le=1)
    maximum_rmse: float | None = Field(default=None, gt=0)
    minimum_lift: float | None = Field(default=None, ge=0, description="relative gain over the baseline on the primary metric")


class SearchSpec(Strict):
    """How hard to look for a model; defaults come from settings."""

    algorithms: tuple[str, ...] | None = None
    trials: int | None = Field(default=None, gt=0)
    interpretable: bool = False


class Study(Strict):
    """Data plus questions: at least one of `effect`, `prediction`, `gaps`, `allocation`, `experiment`."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")
    description: str | None = None
    data: DataSpec
    unit: str | None = None
    time: str | None = None
    brand: Brand | None = None
    region: Literal["northeast", "south", "midwest", "west"] | None = None
    effect: EffectSpec | None = None
    prediction: PredictionSpec | None = None
    business: BusinessSpec | None = None
    gaps: GapSpec | None = Field(default=None, description="performance gaps and what closing them is worth")
    allocation: AllocationSpec | None = Field(default=None, description="who gets how much of a scarce resource")
    experiment: ExperimentSpec | None = Field(default=None, description="an experiment to be planned")
    success: SuccessSpec = SuccessSpec()
    search: SearchSpec = SearchSpec()
    seed: int = 42

    @model_validator(mode="after")
    def _asks_something(self) -> Study:
        if all(part is None for part in (self.effect, self.prediction, self.gaps, self.allocation, self.experiment)):
            msg = "a study asks something: give `effect`, `prediction`, `gaps`, `allocation` or `experiment`"
            raise ValueError(msg)
        return self
