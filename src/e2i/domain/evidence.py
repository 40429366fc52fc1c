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


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Propensity overlap. `share_outside` is the share of rows whose propensity leaves [0.01, 0.99]."""

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


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An estimated effect on the outcome's own scale."""

    estimand: str
    design: str
    estimator: str
    estimate: float
    standard_error: float
    n_treated: int
    n_untreated: int
    naive_difference: float
    outcome_mean_untreated: float
    diagnostics: dict[str, float] = field(default_factory=dict)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal-theory interval at `level` in (0, 1)."""
        from statistics import NormalDist

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
class CausalFinding:
    """The effect with everything needed to judge it; `effect` is None when estimation was refused."""

    effect: Effect | None
    verdict: Verdict
    overlap: Overlap | None
    balance: tuple[BalanceRow, ...]
    refutations: tuple[Refutation, ...]
    refusal: str | None = None
