"""Where a scarce resource should go: the study section, and the plan that answers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from e2i.domain.data_spec import DataSpec, Strict
from e2i.domain.plain import plain

Curve = Literal["linear", "saturating", "hill", "log"]
Objective = Literal["maximize_outcome", "maximize_roi", "minimize_cost", "balance"]
Status = Literal["optimal", "feasible", "infeasible", "refused"]
"""refused: the effect that the responses would come from may not be told"""
Scalar = str | float | bool | None


class ResponseSpec(Strict):
    """What one entity gives for x units. Columns or numbers; every curve is 0 at 0.

    linear: a·x. saturating: a·(1 - exp(-x/b)). hill: a·x^n / (x^n + b^n), n at most 1. log: a·ln(1 + x/b).
    """

    curve: Curve = "linear"
    coefficient: str | float | None = Field(default=None, description="a")
    low: str | float | None = Field(default=None, description="lower end of a's 95 % interval")
    high: str | float | None = None
    scale: str | float | None = Field(default=None, description="b, in units of the resource")
    exponent: str | float = Field(default=1.0, description="n of `hill`")
    effect_by: str | None = Field(default=None, description="segment column; a comes from the measured effect of the entity's segment")

    @model_validator(mode="after")
    def _is_whole(self) -> ResponseSpec:
        if (self.coefficient is None) == (self.effect_by is None):
            msg = "give either `coefficient` or `effect_by`"
            raise ValueError(msg)
        if (self.low is None) != (self.high is None):
            msg = "give both `low` and `high`, or neither"
            raise ValueError(msg)
        if self.curve != "linear" and self.scale is None:
            msg = f"the curve `{self.curve}` needs `scale`"
            raise ValueError(msg)
        return self


class GroupLimits(Strict):
    """Dollars that groups of entities may, or must, get."""

    by: str
    maximum: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    minimum: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class FairnessSpec(Strict):
    """Nobody's group is left behind. Shares are of the resource; a group's proportion is its share of the entities."""

    by: str
    minimum_share: float | None = Field(default=None, gt=0, le=1, description="each group gets at least this part of its proportion")
    maximum_disparity: float | None = Field(
        default=None, ge=1, description="largest allocation per entity of a group over the smallest, at most"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> FairnessSpec:
        if self.minimum_share is None and self.maximum_disparity is None:
            msg = "give `minimum_share` or `maximum_disparity`"
            raise ValueError(msg)
        return self


class AllocationSpec(Strict):
    """The study section `allocation`."""

    resource: str
    data: DataSpec | None = None
    entities: tuple[dict[str, Scalar], ...] = Field(default=(), description="rows given inline")
    entity: str = "entity_id"
    current: str | float = 0.0
    minimum: str | float = 0.0
    minimum_if_selected: str | float | None = Field(default=None, description="an entity gets nothing, or at least this")
    maximum: str | float | None = None
    unit_cost: str | float = Field(default=1.0, description="US dollars for a unit of the resource")
    value_per_unit: float | None = Field(default=None, gt=0, description="US dollars for a unit of the outcome")
    response: ResponseSpec
    objective: Objective = "maximize_outcome"
    budget: float | None = Field(default=None, ge=0, description="US dollars; with unit_cost 1, units of the resource")
    min_total: float | None = Field(default=None, ge=0, description="units of the resource")
    exact_total: float | None = Field(default=None, ge=0)
    required_outcome: float | None = Field(default=None, gt=0)
    cardinality: int | None = Field(default=None, ge=0, description="entities that may get anything, at most")
    integer: bool = False
    max_change_share: float | None = Field(default=None, ge=0, description="change against current, relative")
    max_change: float | None = Field(default=None, ge=0, description="change against current, in units")
    groups: tuple[GroupLimits, ...] = ()
    fairness: tuple[FairnessSpec, ...] = ()
    pdrp_column: str = Field(default="pdrp_opt_out", description="who is flagged gets nothing and is never listed; used where it exists")
    balance_weight: float = Field(default=0.5, gt=0, lt=1, description="of the outcome against the cost, objective `balance`")
    time_limit_s: float = Field(default=10.0, gt=0, le=60)
    gap_tolerance: float = Field(default=0.001, ge=0, le=0.1, description="relative distance to the bound at which the search may end")
    top: int | None = Field(default=None, ge=1, description="entities of the scenario `focus_top`; default: a tenth")
    draws: int = Field(default=100, ge=20, le=2000)

    @model_validator(mode="after")
    def _can_be_solved(self) -> AllocationSpec:
        if bool(self.entities) and self.data is not None:
            msg = "give either `data` or `entities`, not both"
            raise ValueError(msg)
        if self.objective in ("maximize_outcome", "balance") and self.budget is None:
            msg = f"the objective `{self.objective}` needs a `budget`"
            raise ValueError(msg)
        if self.objective == "minimize_cost" and self.required_outcome is None:
            msg = "the objective `minimize_cost` needs a `required_outcome`"
            raise ValueError(msg)
        floors = (self.min_total, self.exact_total, self.required_outcome)
        if self.objective == "maximize_roi" and (self.value_per_unit is None or not any(floors)):
            msg = "the objective `maximize_roi` needs `value_per_unit`, and `min_total`, `exact_total` or `required_outcome` above 0"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, kw_only=True)
class SegmentResponse:
    """A measured effect of one segment with its 95 % interval, as a response coefficient; None where few people hide it."""

    segment: str
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class EntityAllocation:
    """What one entity gets. `marginal_roi` is what the next dollar returns: value · f'(x) / cost - 1."""

    entity: str
    current: float
    allocated: float
    change: float
    expected_outcome: float
    expected_change: float
    marginal_outcome: float
    marginal_roi: float | None
    kept_share: float | None
    """share of draws of the responses in which the entity gets anything; None where the responses have no interval"""
    robust: float | None
    """what it gets when every response is at its lower bound"""


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """One way to spend. `roi` is (value - cost) / cost; None without a value per unit, or at no cost."""

    name: str
    total: float
    cost: float
    outcome: float
    outcome_low: float | None
    outcome_high: float | None
    roi: float | None
    violations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConflictMember:
    """One constraint of a set that cannot hold together, and by how much it would have to give if the others of the set stay."""

    constraint: str
    words: str
    must_give: float | None
    unit: str
    is_enough: bool = True
    """a plan is possible once it gives so much; else another conflict stands beside this one"""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How much the plan hangs on responses that are not exactly known."""

    draws: int
    plan_low: float
    plan_high: float
    """95 % interval of the plan's outcome, the plan fixed"""
    optimism: float
    """by how much an optimum over noisy responses promises too much, on average: the winner's curse"""
    corrected_outcome: float
    robust_outcome_at_low: float
    plan_outcome_at_low: float
    overlap: float
    """share of the resource that plan and draws have in common, on average"""
    note: str


@dataclass(frozen=True, kw_only=True)
class AllocationPlan:
    """The answer of resource_optimizer; without a feasible plan `allocations` is empty and `conflict`, or a refusal's summary, says why."""

    resource: str
    objective: Objective
    status: Status
    solver: str
    allocations: tuple[EntityAllocation, ...]
    objective_value: float | None
    upper_bound: float | None
    """no plan can be better; outcome, ROI, dollars or balance, as the objective"""
    error_bound: float | None
    """distance of the objective to that bound: curves cut into lines, and a search that was ended"""
    total: float
    cost: float
    outcome: float
    outcome_change: float
    roi: float | None
    shadow_prices: dict[str, float]
    """constraint -> what its limit moves the objective by per unit; linear programs only"""
    marginal_roi: float | None
    """value of the outcome that the budget's next dollar buys, less that dollar"""
    outcome_by_group: dict[str, dict[str, float]]
    scenarios: tuple[ScenarioResult, ...]
    sensitivity: Sensitivity | None
    conflict: tuple[ConflictMember, ...]
    eligible: int
    excluded: int | None
    """opted out (PDRP); None for 1 to 10 people, and where it would tell such a number of others"""
    summary_text: str
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """The plan in a few sentences."""
        return self.summary_text

    def to_dict(self) -> dict[str, Any]:
        """Plain data, where numbers that are not finite are None."""
        found: dict[str, Any] = plain(asdict(self))
        return found
