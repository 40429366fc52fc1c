"""Power of a planned comparison, by closed form. n is the number of units in both arms together.

A design knows the standard error of its estimate at n; what is solved for (n, effect or power) is the business of `solve`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from e2i.errors import ConfigError

WHERE = "experiment"


class Comparison(Protocol):
    """A planned two-arm comparison. An effect is a difference, or a ratio where `null` is 1."""

    @property
    def null(self) -> float:
        """The value of no effect."""
        ...

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided test rejects."""
        ...

    def is_possible(self, effect: float) -> bool:
        """Whether the outcome can move by so much."""
        ...


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Units are assigned in clusters. Variance grows by 1 + ((1 + cv²) m - 1) ICC (Eldridge, Ashby & Kerry 2006)."""

    size: float
    icc: float
    cv: float = 0.0

    @property
    def design_effect(self) -> float:
        """Factor on the variance; not below 1 where a cluster holds one unit or less."""
        return max(1.0, 1.0 + ((1.0 + self.cv**2) * self.size - 1.0) * self.icc)

    def count(self, n: float) -> float:
        """Clusters among n units."""
        return n / self.size


def t_power(shift: float, df: float, *, alpha: float) -> float:
    """Power of the two-sided t test at non-centrality `shift`; df may be infinite (normal), must be above 0.

    >>> round(t_power(0.5 * 64**0.5 / 2**0.5, 126, alpha=0.05), 4)
    0.8015
    """
    return _beyond(abs(shift), df, alpha=alpha)


def _beyond(shift: float, df: float, *, alpha: float, stretch: float = 1.0) -> float:
    """Chance that a t with this non-centrality, 0 or more, passes the two-sided critical value times `stretch`."""
    from scipy import special

    if df <= 0:
        return 0.0
    if math.isinf(df):
        cut = special.ndtri(1.0 - alpha / 2.0) * stretch
        return float(special.ndtr(shift - cut) + special.ndtr(-shift - cut))
    cut = special.stdtrit(df, 1.0 - alpha / 2.0) * stretch
    if shift > 35.0:
        return float(special.ndtr(shift - cut))
    return float(1.0 - special.nctdtr(df, shift, cut) + special.nctdtr(df, shift, -cut))


class _Difference:
    """No effect is 0; a mean may move by any finite amount."""

    @property
    def null(self) -> float:
        """The value of no effect."""
        return 0.0

    def is_possible(self, effect: float) -> bool:
        """Whether the outcome can move by so much."""
        return math.isfinite(effect)


class _Ratio:
    """No effect is 1; a ratio is above 0."""

    @property
    def null(self) -> float:
        """The value of no effect."""
        return 1.0

    def is_possible(self, effect: float) -> bool:
        """Whether the outcome can move by so much."""
        return effect > 0.0


@dataclass(frozen=True, kw_only=True)
class Means(_Difference):
    """Difference of two means; `kept` is the share of the variance that covariates and strata leave (ANCOVA: 1 - R²).

    Degrees of freedom: units less two and less one per covariate, or, with clusters, clusters less two (Donner & Klar 2000).
    """

    sd: float
    treated: float = 0.5
    kept: float = 1.0
    covariates: int = 0
    clusters: Clusters | None = None

    def standard_error(self, n: float) -> float:
        """Of the difference, in units of the outcome."""
        effect = self.clusters.design_effect if self.clusters else 1.0
        return self.sd * math.sqrt(self.kept * effect / (n * self.treated * (1.0 - self.treated)))

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided t test rejects."""
        return t_power(effect / self.standard_error(n), _df(n, self.clusters, self.covariates), alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class Proportions(_Difference):
    """Difference of two proportions: pooled variance under no effect, own variances under the effect (Fleiss, Levin & Paik 2003)."""

    base: float
    treated: float = 0.5
    kept: float = 1.0
    covariates: int = 0
    clusters: Clusters | None = None

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided test rejects; with clusters against a t with clusters - 2 degrees of freedom."""
        other = self.base + effect
        if not 0.0 <= other <= 1.0:
            return 0.0
        pi = self.treated
        pooled = pi * other + (1.0 - pi) * self.base
        factor = self.kept * (self.clusters.design_effect if self.clusters else 1.0) / n
        null = math.sqrt(pooled * (1.0 - pooled) / (pi * (1.0 - pi)) * factor)
        own = math.sqrt((other * (1.0 - other) / pi + self.base * (1.0 - self.base) / (1.0 - pi)) * factor)
        if own == 0.0:
            return 1.0 if effect else alpha
        df = _df(n, self.clusters, self.covariates) if self.clusters else math.inf
        return _beyond(abs(effect) / own, df, alpha=alpha, stretch=null / own)

    def is_possible(self, effect: float) -> bool:
        """A proportion stays within 0 and 1."""
        return 0.0 <= self.base + effect <= 1.0


@dataclass(frozen=True, kw_only=True)
class Rates(_Ratio):
    """Ratio of two rates of counts with variance mean + dispersion x mean² (Zhu & Lakkis 2014, variance under the alternative)."""

    base: float
    dispersion: float
    treated: float = 0.5
    kept: float = 1.0
    covariates: int = 0
    clusters: Clusters | None = None

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided Wald test of the log ratio rejects."""
        if effect <= 0.0:
            return 0.0
        pi = self.treated
        variance = (1.0 / (self.base * effect) + self.dispersion) / pi + (1.0 / self.base + self.dispersion) / (1.0 - pi)
        factor = self.kept * (self.clusters.design_effect if self.clusters else 1.0) / n
        df = _df(n, self.clusters, self.covariates) if self.clusters else math.inf
        return t_power(math.log(effect) / math.sqrt(variance * factor), df, alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class Survival(_Ratio):
    """Hazard ratio by log-rank or Cox: the number of events decides (Schoenfeld 1981, 1983)."""

    event_share: float
    treated: float = 0.5
    kept: float = 1.0
    clusters: Clusters | None = None

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided test rejects. `event_share` is over both arms; the far tail is left out, as by Schoenfeld."""
        from scipy import special

        if effect <= 0.0:
            return 0.0
        factor = self.kept * (self.clusters.design_effect if self.clusters else 1.0)
        shift = abs(math.log(effect)) * math.sqrt(n * self.event_share * self.treated * (1.0 - self.treated) / factor)
        return float(special.ndtr(shift - special.ndtri(1.0 - alpha / 2.0)))


@dataclass(frozen=True, kw_only=True)
class Pairs(_Difference):
    """Matched pairs: t test of the differences within n / 2 pairs. `correlation` is that of the two members' outcomes."""

    sd: float
    correlation: float

    def power(self, effect: float, n: float, *, alpha: float) -> float:
        """Chance that the two-sided paired t test rejects."""
        pairs = n / 2.0
        spread = self.sd * math.sqrt(2.0 * (1.0 - self.correlation))
        return t_power(effect / (spread / math.sqrt(pairs)), pairs - 1.0, alpha=alpha)


def require_spread(sd: float, *, outcome: str) -> None:
    """Raise ConfigError where the outcome does not vary: nothing can be planned on it."""
    if not (math.isfinite(sd) and sd > 0.0):
        raise ConfigError(f"outcome `{outcome}` does not vary (standard deviation {sd:g}).", where=WHERE, advice="Name another outcome.")


def _df(n: float, clusters: Clusters | None, covariates: int) -> float:
    return (n if clusters is None else clusters.count(n)) - 2.0 - covariates
