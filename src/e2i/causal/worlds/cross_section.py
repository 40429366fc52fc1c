"""Small worlds of one row per unit with known effects: the ground on which estimators, refuters and the gate are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.causal.estimators.linear_models import sigmoid
from e2i.domain.study import EffectSpec

_TRUTH_ROWS = 400_000
_TRUTH_SEED = 20_240_229
_WIDTH = 10
_PERIODS = 3

Surface = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, kw_only=True)
class World:
    """A generative story. `outcome` says how noise is added: `normal`, `binary` or `count`.

    `propensity` maps covariates to a probability; `untreated` and `treated` map them to conditional means.
    `hidden` is the strength with which an unrecorded trait moves treatment, outcome, earlier outcomes, negative control outcome
    and negative control exposure; `hidden_growth` that of one which only sets in over time. `bad_control` names what stands among
    the confounders and must not: `mediator` or `collider`. `aimed` is how strongly treatment is aimed at the last outcome before it.
    """

    name: str
    propensity: Surface
    untreated: Surface
    treated: Surface
    outcome: str = "normal"
    noise: float = 1.0
    hidden: float = 0.0
    hidden_growth: float = 0.0
    aimed: float = 0.0
    bad_control: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether an honest analysis of the question that `effect` asks may be told."""
        return self.hidden == 0.0 and self.hidden_growth == 0.0 and self.bad_control is None and self.name != "no_overlap"

    def draw(self, rows: int, *, seed: int) -> pl.DataFrame:
        """A table with columns x0 … x8, `group` (text), `treatment`, `outcome`, `negative_control`, `negative_exposure`.

        Further `before_3`, `before_2`, `before_1`: the outcome three periods to one period before treatment; `visits` in worlds with
        a mediator or collider.
        """
        rng = np.random.default_rng(seed)
        covariates = _covariates(rng, rows)
        trait = rng.normal(size=rows)
        base = np.clip(self.propensity(covariates), 1e-6, 1 - 1e-6)
        growth, earlier = self._earlier(covariates, trait, rows, seed)
        lift = self.hidden * trait + self.hidden_growth * growth
        standardised = (earlier[:, -1] - earlier[:, -1].mean()) / earlier[:, -1].std()
        propensity = sigmoid(np.log(base / (1 - base)) + lift + self.aimed * standardised)
        treatment = (rng.random(rows) < propensity).astype(np.float64)
        mean = np.where(treatment == 1, self.treated(covariates), self.untreated(covariates))
        control = covariates[:, 0] - 0.5 * covariates[:, 1] + self.hidden * trait + rng.normal(size=rows)
        columns: dict[str, object] = {f"x{i}": covariates[:, i] for i in range(_WIDTH - 1)}
        columns["group"] = np.array(["a", "b", "c"])[covariates[:, _WIDTH - 1].astype(int)]
        columns["treatment"] = treatment.astype(int)
        more = np.random.default_rng((seed, 1))
        after = treatment + 0.7 * more.normal(size=rows)
        if self.bad_control == "mediator":
            mean = mean + 0.8 * after
        if self.aimed:
            mean = mean + 0.8 * earlier[:, -1]
        columns["outcome"] = outcome = self._with_noise(rng, mean + lift)
        columns["negative_control"] = control
        columns["negative_exposure"] = (more.random(rows) < sigmoid(0.5 * covariates[:, 0] + self.hidden * trait)).astype(int)
        columns |= {f"before_{_PERIODS - place}": earlier[:, place] for place in range(_PERIODS)}
        if self.bad_control is not None:
            columns["visits"] = after if self.bad_control == "mediator" else treatment + 0.8 * outcome + more.normal(size=rows)
        return pl.DataFrame(columns)

    def _earlier(self, covariates: FloatArray, trait: FloatArray, rows: int, seed: int) -> tuple[FloatArray, FloatArray]:
        """The hidden growth of each unit, and outcomes three to one periods before treatment, shape (n, 3)."""
        rng = np.random.default_rng((seed, 2))
        growth = rng.normal(size=rows)
        mean = self.untreated(covariates)
        drift = np.linspace(0.0, 2.0 / 3.0, _PERIODS)  # at the outcome's own period it is 1
        hidden = (self.hidden * trait)[:, None] + self.hidden_growth * growth[:, None] * drift
        return growth, np.column_stack([self._with_noise(rng, mean + hidden[:, place]) for place in range(_PERIODS)])

    def truth(self, estimand: str) -> float:
        """Population effect: ATE, ATT or ATO by a fixed draw of 400,000 units (Monte Carlo error below 0.5 % of the effects here)."""
        return _truths(self)[estimand] + (0.8 if self.bad_control == "mediator" else 0.0)

    def effect(
        self, *, estimand: str = "ATE", negative_control: bool = True, earlier: bool = False, negative_exposure: bool = False
    ) -> EffectSpec:
        """The causal question that `draw` answers; `earlier` names the outcomes before treatment."""
        outcomes = tuple(f"before_{period}" for period in range(_PERIODS, 0, -1))
        extra = () if self.bad_control is None else ("visits",)
        return EffectSpec(
            treatment="treatment",
            outcome="outcome",
            confounders=(*(f"x{i}" for i in range(_WIDTH - 1)), "group", *(("before_1",) if self.aimed else ()), *extra),
            negative_controls=("negative_control",) if negative_control else (),
            negative_exposures=("negative_exposure",) if negative_exposure else (),
            pre_outcomes=outcomes if earlier else (),
            estimand="ATE" if estimand == "ATE" else "ATT",
        )

    def _with_noise(self, rng: np.random.Generator, mean: FloatArray) -> FloatArray:
        if self.outcome == "binary":
            return (rng.random(len(mean)) < mean).astype(np.float64)
        if self.outcome == "count":
            return rng.poisson(np.maximum(mean, 0.0)).astype(np.float64)
        return mean + self.noise * rng.normal(size=len(mean))


@lru_cache(maxsize=32)
def _truths(world: World) -> dict[str, float]:
    covariates = _covariates(np.random.default_rng(_TRUTH_SEED), _TRUTH_ROWS)
    gain = world.treated(covariates) - world.untreated(covariates)
    propensity = world.propensity(covariates)
    weights = {"ATE": np.ones(len(gain)), "ATT": propensity, "ATO": propensity * (1.0 - propensity)}
    return {estimand: float(np.average(gain, weights=weight)) if weight.any() else float("nan") for estimand, weight in weights.items()}


def covariates_of(rows: int, *, seed: int) -> FloatArray:
    """The covariates that `World.draw` has with this seed, shape (rows, 10)."""
    return _covariates(np.random.default_rng(seed), rows)


def _covariates(rng: np.random.Generator, rows: int) -> FloatArray:
    """Correlated normals, one skewed, one binary, one group code 0-2."""
    covariates = rng.normal(size=(rows, _WIDTH))
    covariates[:, 1] = 0.5 * covariates[:, 0] + np.sqrt(0.75) * covariates[:, 1]
    covariates[:, 6] = np.exp(0.7 * covariates[:, 6])
    covariates[:, 7] = (covariates[:, 7] > 0.3).astype(np.float64)
    covariates[:, 9] = rng.integers(0, 3, size=rows)
    return covariates


def _linear_score(x: FloatArray) -> FloatArray:
    score: FloatArray = 0.6 * x[:, 0] - 0.4 * x[:, 1] + 0.3 * x[:, 2] + 0.4 * x[:, 7] + 0.3 * (x[:, 9] == 2) - 0.3
    return score


def _linear_mean(x: FloatArray) -> FloatArray:
    mean: FloatArray = 1.0 + x[:, 0] + 0.7 * x[:, 1] + 0.5 * x[:, 2] + 0.6 * x[:, 7] + 0.5 * (x[:, 9] == 2)
    return mean


def _curved_score(x: FloatArray) -> FloatArray:
    score: FloatArray = 0.5 * x[:, 0] + 0.5 * x[:, 0] * x[:, 1] + 0.3 * (x[:, 2] ** 2 - 1) - 0.2 * x[:, 3]
    return score


def _curved_mean(x: FloatArray) -> FloatArray:
    mean: FloatArray = x[:, 0] + x[:, 0] * x[:, 1] + 0.7 * (x[:, 2] ** 2 - 1) + 0.5 * x[:, 3] + 0.4 * np.log(x[:, 6])
    return mean


def _stepped_score(x: FloatArray) -> FloatArray:
    score: FloatArray = 0.9 * (x[:, 0] > 0) - 0.8 * ((x[:, 1] > 0.5) & (x[:, 2] < 0.5)) + 0.4 * x[:, 7] - 0.3
    return score


def _stepped_mean(x: FloatArray) -> FloatArray:
    mean: FloatArray = 1.5 * (x[:, 0] > 0) - 1.2 * ((x[:, 1] > 0.5) & (x[:, 2] < 0.5)) + 0.5 * x[:, 3]
    return mean


def _log_rate(x: FloatArray) -> FloatArray:
    rate: FloatArray = 0.8 + 0.3 * x[:, 0] + 0.2 * x[:, 1] + 0.2 * np.log(x[:, 6]) + 0.2 * x[:, 7]
    return rate


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World(
            name="linear",
            propensity=lambda x: sigmoid(_linear_score(x)),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 1.0,
        ),
        World(
            name="curved",
            propensity=lambda x: sigmoid(_curved_score(x)),
            untreated=_curved_mean,
            treated=lambda x: _curved_mean(x) + 1.0,
        ),
        World(
            name="heterogeneous",
            propensity=lambda x: sigmoid(_linear_score(x)),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 1.0 + 0.8 * x[:, 0] + 0.5 * (x[:, 9] == 2),
        ),
        World(
            name="stepped",
            propensity=lambda x: sigmoid(_stepped_score(x)),
            untreated=_stepped_mean,
            treated=lambda x: _stepped_mean(x) + 0.5 + 0.5 * (x[:, 0] > 0),
        ),
        World(
            name="binary",
            propensity=lambda x: sigmoid(_linear_score(x)),
            untreated=lambda x: sigmoid(_linear_mean(x) - 2.5),
            treated=lambda x: sigmoid(_linear_mean(x) - 1.8),
            outcome="binary",
        ),
        World(
            name="count",
            propensity=lambda x: sigmoid(_linear_score(x) - 0.5),
            untreated=lambda x: np.exp(_log_rate(x)),
            treated=lambda x: np.exp(_log_rate(x) + 0.3),
            outcome="count",
        ),
        World(
            name="rare_treatment",
            propensity=lambda x: sigmoid(_linear_score(x) - 1.7),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 1.0 + 0.3 * x[:, 0],
        ),
        World(
            name="hidden_confounder",
            propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
            untreated=_linear_mean,
            treated=_linear_mean,
            hidden=0.8,
        ),
        *(
            World(
                name=f"hidden_{strength}_{story}",
                propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
                untreated=_linear_mean,
                treated=treated,
                hidden=strength / 100,
            )
            for strength in (25, 50, 75, 120)
            for story, treated in (("null", _linear_mean), ("lift", lambda x: _linear_mean(x) + 1.0))
        ),
        World(
            name="trend_targeting",
            propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
            untreated=_linear_mean,
            treated=_linear_mean,
            hidden_growth=0.8,
        ),
        World(
            name="aimed_at_the_last_outcome",
            propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 1.0,
            aimed=0.7,
        ),
        World(
            name="mediator",
            propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 0.5,
            bad_control="mediator",
        ),
        World(
            name="collider",
            propensity=lambda x: sigmoid(0.5 * _linear_score(x)),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 1.0,
            bad_control="collider",
        ),
        World(
            name="no_effect",
            propensity=lambda x: sigmoid(_linear_score(x)),
            untreated=_linear_mean,
            treated=_linear_mean,
        ),
        World(
            name="no_overlap",
            propensity=lambda x: (x[:, 0] > 0).astype(np.float64),
            untreated=_linear_mean,
            treated=lambda x: _linear_mean(x) + 2.0,
        ),
    )
}
