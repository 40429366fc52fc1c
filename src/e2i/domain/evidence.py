"""What an effect estimate is, and what it must carry to be believed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VerdictName = Literal["proceed", "review", "block"]


@dataclass(frozen=True, kw_only=True)
class BalanceRow:
    """Standardised mean difference (treated minus untreated, over the pooled standard deviation) of one covariate."""

    covariate: str
    smd_before: float
    smd_after: float
    error_after: float
    """standard error of `smd_after`, weights held"""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Propensity overlap.

    `share_outside` is the share of rows whose propensity leaves the support: [0.01, 0.99], wider where an arm holds less than a tenth
    of rows; for the ATT only its upper end counts.
    """

    share_outside: float
    effective_share: float
    """effective sample size of the weights over n, in 0-1"""
    propensity_auc: float
    bin_edges: tuple[float, ...]
    treated_density: tuple[float, ...]
    untreated_density: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Refutation:
    """A test that a wrong estimate should fail."""

    test: str
    passed: bool
    detail: str
    statistic: float | None = None
    p_value: float | None = None
    smallest_p: float | None = None
    """of a rank test: the least p-value that so many placebos can give"""
    estimate: float | None = None
    """the effect under the test, where there is one"""
    is_reported_only: bool = False
    """told, never a criterion of the gate"""


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """What a check of the data found before estimation.

    `refuse` ends the analysis; `override` does too unless the study names the code; `review` and `block` are weighed by the gate;
    `warn` is told.
    """

    code: str
    action: Literal["refuse", "override", "block", "review", "warn"]
    text: str
    """what is wrong, with the measured value in words"""
    remedy: str = ""
    measured: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class PeriodEffect:
    """One point of an event study: `period` 0 is the first treated period, negative ones lie before it."""

    period: int
    estimate: float
    low: float
    high: float
    n_treated: int | None = None
    is_reference: bool = False


@dataclass(frozen=True, kw_only=True)
class SpecificationPoint:
    """One defensible way to do it: estimator, sample and adjustment as people read them."""

    estimator: str
    sample: str
    adjustment: str
    estimate: float
    low: float
    high: float
    is_chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """Observed and counterfactual outcome of the treated in one period."""

    period: str
    observed: float
    counterfactual: float
    is_treated: bool


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An estimated effect on the outcome's own scale, unless `scale` says otherwise."""

    estimand: str
    design: str
    estimator: str
    estimate: float
    standard_error: float
    n_treated: int
    n_untreated: int
    naive_difference: float | None
    outcome_mean_untreated: float | None
    diagnostics: dict[str, float] = field(default_factory=dict)
    bounds: tuple[float, float] | None = None
    """the 95 % interval, where it is not the normal one"""
    interval_method: str = "normal, influence values"
    p_value: float | None = None
    scale: str = "outcome"
    certificate: str | None = None
    """measured coverage of the 95 % interval on data of this shape, or that there is none"""
    must_agree: bool = True
    """as an alternative: it estimates the same effect soundly, so that a clear gap to the chosen one speaks against both"""
    outcome_kind: str = "continuous"
    """binary: a change on the outcome's own scale is told in percentage points"""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval at `level` in (0, 1). Raises ConfigError for another level than 0.95 when the method gave only that one."""
        from statistics import NormalDist

        if self.bounds is not None:
            if level != 0.95:
                from e2i.errors import ConfigError

                raise ConfigError(f"{self.interval_method} gave the 95 % interval only.", where="interval", advice="Ask for level 0.95.")
            return self.bounds
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_error
        return self.estimate - half, self.estimate + half

    def to_dict(self) -> dict[str, object]:
        """Plain data, with the 95 % interval."""
        from dataclasses import asdict

        return {**asdict(self), "interval": list(self.interval())}

    def summary(self) -> str:
        """One line for people."""
        low, high = self.interval()
        return f"{self.estimand} {self.estimate:.4g} (95 % interval {low:.4g} to {high:.4g}), {self.estimator}, {self.design}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """May this effect be told? `reasons` says why not, or what to look at."""

    name: VerdictName
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An effect with what it rests on, before it is judged."""

    effect: Effect | None
    overlap: Overlap | None = None
    balance: tuple[BalanceRow, ...] = ()
    reasons: tuple[str, ...] = ()
    """why this design, and why not the others"""
    hazards: tuple[Hazard, ...] = ()
    alternatives: tuple[Effect, ...] = ()
    """the same question by other estimators, or other contrasts of the same treatment"""
    event_study: tuple[PeriodEffect, ...] = ()
    specifications: tuple[SpecificationPoint, ...] = ()
    path: tuple[PathPoint, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    """of the untreated units in a synthetic control, summing to 1"""


@dataclass(frozen=True, kw_only=True)
class CausalFinding(Answer):
    """The answer and whether it may be told; `effect` is None when estimation was refused."""

    verdict: Verdict
    refutations: tuple[Refutation, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProvenEffect:
    """An effect that passed the gate, as later questions may use it."""

    path_id: str
    run_id: str
    treatment: str
    outcome: str
    estimand: str
    design: str
    estimate: float
    low: float
    high: float
    """95 % interval"""

    def as_finding(self) -> CausalFinding:
        """As evidence for another question: the estimate with its interval, without the tests it passed then."""
        effect = Effect(
            estimand=self.estimand,
            design=self.design,
            estimator=f"earlier study, {self.path_id}",
            estimate=self.estimate,
            standard_error=float("nan"),
            n_treated=0,
            n_untreated=0,
            naive_difference=None,
            outcome_mean_untreated=None,
            bounds=(self.low, self.high),
            interval_method="as stored",
        )
        return CausalFinding(effect=effect, verdict=Verdict(name="proceed", reasons=(f"proven by {self.path_id}.",)))
