"""What coverage certificates are measured on: stories with a known effect, and the estimators that answer them.

A story draws one table per seed; every estimator of its question is fitted on it, and each interval covers the truth or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl

from certificate_panels import Told, factors, on_and_off, people, regions, series, world
from e2i.causal.arrays import FloatArray
from e2i.causal.certificate import Shape, shape_of_sample
from e2i.causal.design import prepare
from e2i.causal.estimators.aipw import AIPW
from e2i.causal.estimators.cross_fit import cross_fit
from e2i.causal.estimators.matched import Matched
from e2i.causal.estimators.overlap_weighted import OverlapWeighted
from e2i.causal.estimators.partially_linear import PartiallyLinear
from e2i.causal.estimators.random_dose import slope
from e2i.causal.estimators.ratio import PoissonRegression, RateRatio
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.causal.iv.dml_iv import DMLIV
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.causal.overlap import measure_overlap
from e2i.causal.router import identify
from e2i.causal.worlds.cross_section import WORLDS
from e2i.domain.study import EffectSpec


@dataclass(frozen=True, kw_only=True)
class Story:
    """One world at several sizes. `batch` seeds are one line of the table: few where a fit takes long."""

    world: str
    rows: tuple[int, ...]
    batch: int
    fit: Callable[[int, int], Iterator[Told]]
    """(rows, seed) -> answers"""


def _adjusted(world: str, clusters_of: int, rows: int, seed: int) -> Iterator[Told]:
    """AIPW for ATE and ATT, and overlap weighting, on one set of nuisances; `clusters_of` rows share a shock unless it is 1."""
    story = WORLDS[world]
    frame, effect = story.draw(rows, seed=seed), story.effect()
    if clusters_of > 1:
        place = np.arange(rows) // clusters_of
        shock = 0.5 * np.random.default_rng((seed, 9)).normal(size=place.max() + 1)[place]
        frame = frame.with_columns(pl.Series("site", place), pl.col("outcome") + pl.Series(shock))
        effect = effect.model_copy(update={"cluster": "site"})
    spec = identify(effect, frame)
    sample = prepare(frame, spec)
    nuisances = cross_fit(sample, seed=seed)

    def shape(estimand: str) -> Shape:
        overlap = measure_overlap(sample.treatment, nuisances.propensity.mean, "ATT" if estimand == "ATT" else "ATE")
        return shape_of_sample(sample, effective_share=overlap.effective_share)

    for estimand in ("ATE", "ATT"):
        yield Told.of(AIPW().estimate(sample, replace(spec, estimand=estimand), nuisances), story.truth(estimand), shape(estimand))
    yield Told.of(OverlapWeighted().estimate(sample, replace(spec, estimand="ATO"), nuisances), story.truth("ATO"), shape("ATO"))


_SURFACES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: 0.6 * x[:, 0] - 0.4 * x[:, 1] + 0.3 * x[:, 2],
    "curved": lambda x: 0.5 * x[:, 0] + 0.5 * x[:, 0] * x[:, 1] + 0.3 * (x[:, 2] ** 2 - 1.0),
    "stepped": lambda x: 0.9 * (x[:, 0] > 0) - 0.8 * ((x[:, 1] > 0.5) & (x[:, 2] < 0.5)),
}


def _dose(surface: str, rows: int, seed: int) -> Iterator[Told]:
    """A dose and an outcome that follow the same surface; the slope is 1 for everybody."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6))
    moved = _SURFACES[surface](x)
    dose = moved + rng.normal(size=rows)
    outcome = dose + 2.0 * moved + 0.5 * x[:, 3] + rng.normal(size=rows)
    frame = _frame(x, dose=dose, outcome=outcome)
    spec = identify(EffectSpec(treatment="dose", outcome="outcome", confounders=_names(x)), frame)
    sample = prepare(frame, spec)
    yield Told.of(PartiallyLinear().fit(sample, spec, seed=seed), 1.0, shape_of_sample(sample))


_SITES = 20
_LIFT = 1.0


def _randomised(outcome: str, share: float, clusters: int, rows: int, seed: int) -> Iterator[Told]:
    """An experiment in which `share` are treated; with `clusters` whole clusters are assigned and share a shock."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    site = np.arange(rows) % clusters if clusters else np.arange(rows)
    units = clusters or rows
    chosen = np.zeros(units, dtype=np.int64)
    chosen[rng.permutation(units)[: round(share * units)]] = 1
    treatment, gain = chosen[site], 1.0 + 0.5 * x[:, 0]
    if outcome == "count":
        # The mean of the ratio is exp(0.6² / 2) times its median; the effect is 0.4 of the untreated mean.
        y = rng.poisson(np.exp(0.2 + 0.6 * x[:, 0]) * (1.0 + 0.4 * treatment)).astype(np.float64)
        truth = 0.4 * float(np.exp(0.2 + 0.5 * 0.6**2))
    else:
        y = x @ [1.0, 0.5, 0.0] + gain * treatment + rng.normal(size=rows)
        truth = _LIFT
    if clusters:
        y = y + 0.5 * rng.normal(size=clusters)[site]
    frame = _frame(x, treatment=treatment, outcome=y, site=site)
    for names, estimator in (((), DifferenceInMeans()), (_names(x), RegressionAdjusted())):
        effect = EffectSpec(
            treatment="treatment",
            outcome="outcome",
            confounders=names,
            randomised=True,
            cluster="site" if clusters else None,
            estimand="ATE",
        )
        spec = identify(effect, frame)
        sample = prepare(frame, spec)
        yield Told.of(estimator.fit(sample, spec, seed=seed), truth, shape_of_sample(sample))


def _instrument(strength: float, instruments: int, clusters: int, rows: int, seed: int, *, learned: bool) -> Iterator[Told]:
    """A dose moved by instruments and by a hidden cause of the outcome; errors vary with the instrument; the slope is 1."""
    rng = np.random.default_rng(seed)
    x, z, hidden = rng.normal(size=(rows, 3)), rng.normal(size=(rows, instruments)), rng.normal(size=rows)
    site = np.arange(rows) % clusters if clusters else np.arange(rows)
    shock = rng.normal(size=clusters)[site] if clusters else 0.0
    if clusters:
        z = 0.5 * z + rng.normal(size=(clusters, instruments))[site]
    dose = strength * z.sum(axis=1) + x[:, 0] + hidden + rng.normal(size=rows)
    outcome = dose + x @ [1.0, -1.0, 0.5] + 2.0 * hidden + rng.normal(size=rows) * (1.0 + 0.5 * np.abs(z[:, 0])) + shock
    named = {f"z{place}": column for place, column in enumerate(z.T)}
    frame = _frame(x, dose=dose, outcome=outcome, site=site, **named)
    effect = EffectSpec(
        treatment="dose", outcome="outcome", confounders=_names(x), instruments=tuple(named), cluster="site" if clusters else None
    )
    yield from _by_instrument(frame, effect, 1.0, seed, learned=learned)


def _encouraged(compliers: float, rows: int, seed: int, *, learned: bool) -> Iterator[Told]:
    """A yes/no offer that follows a covariate; always-takers with higher outcomes, never-takers, and compliers who gain 1.5."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    offered = (rng.random(rows) < 1.0 / (1.0 + np.exp(-x[:, 0]))).astype(np.int64)
    kind = rng.random(rows)
    always, complier = kind < 0.2, (kind >= 0.2) & (kind < 0.2 + compliers)
    treatment = np.where(always, 1, np.where(complier, offered, 0))
    outcome = 1.0 + x[:, 0] + np.sin(2.0 * x[:, 1]) + 1.5 * treatment + 2.0 * always + rng.normal(size=rows)
    frame = _frame(x, treatment=treatment, outcome=outcome, offered=offered)
    effect = EffectSpec(treatment="treatment", outcome="outcome", confounders=_names(x), instruments=("offered",))
    yield from _by_instrument(frame, effect, 1.5, seed, learned=learned)


def _by_instrument(frame: pl.DataFrame, effect: EffectSpec, truth: float, seed: int, *, learned: bool) -> Iterator[Told]:
    spec = identify(effect, frame)
    sample = prepare(frame, spec)
    estimator = DMLIV() if learned else TwoStageLeastSquares()
    yield Told.of(estimator.fit(sample, spec, seed=seed), truth, shape_of_sample(sample))


def _counted(base: float, rows: int, seed: int) -> Iterator[Told]:
    """Overdispersed counts whose rate treatment raises by the same factor for everybody; who is treated follows a covariate."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    treatment = (rng.random(rows) < 1.0 / (1.0 + np.exp(-0.6 * x[:, 0]))).astype(np.int64)
    rate = np.exp(base + 0.4 * x[:, 0] - 0.3 * x[:, 1] + 0.3 * treatment) * rng.gamma(2.0, 0.5, size=rows)
    frame = _frame(x, treatment=treatment, outcome=rng.poisson(rate))
    spec = identify(EffectSpec(treatment="treatment", outcome="outcome", confounders=_names(x), estimand="ATE"), frame)
    sample = prepare(frame, spec)
    for estimator in (RateRatio(), PoissonRegression(effect="ratio")):
        yield Told.of(estimator.fit(sample, spec, seed=seed), float(np.exp(0.3)), shape_of_sample(sample))


def _pairs(world: str, rows: int, seed: int) -> Iterator[Told]:
    """Matched test and control for the ATT."""
    story = WORLDS[world]
    frame = story.draw(rows, seed=seed)
    spec = replace(identify(story.effect(), frame), estimand="ATT")
    sample = prepare(frame, spec)
    yield Told.of(Matched().fit(sample, spec, seed=seed), story.truth("ATT"), shape_of_sample(sample))


def _random_dose(clusters: int, rows: int, seed: int) -> Iterator[Told]:
    """A dose drawn by lot, in whole clusters where there are any; noise grows with it, and the slope is 1."""
    rng = np.random.default_rng(seed)
    site = np.arange(rows) % clusters if clusters else np.arange(rows)
    units = clusters or rows
    dose = rng.gamma(2.0, size=units)[site]
    outcome = dose + rng.normal(size=rows) * (0.5 + 0.5 * dose) + (0.5 * rng.normal(size=units)[site] if clusters else 0.0)
    effect = EffectSpec(treatment="dose", outcome="outcome", randomised=True, cluster="site" if clusters else None)
    frame = _frame(np.empty((rows, 0)), dose=dose, outcome=outcome, site=site)
    sample = prepare(frame, identify(effect, frame))
    yield Told.of(slope(sample), 1.0, shape_of_sample(sample))


def _names(x: FloatArray) -> tuple[str, ...]:
    return tuple(f"x{place}" for place in range(x.shape[1]))


def _frame(x: FloatArray, **others: object) -> pl.DataFrame:
    return pl.DataFrame(dict(zip(_names(x), x.T, strict=True)) | others)


_ADJUSTED = ("linear", "curved", "heterogeneous", "stepped", "binary", "count", "rare_treatment", "no_effect")
_IN_SITES = ("linear", "curved")
_SINGLE = ("panel_lift", "panel_null", "panel_strong_targeting")
_STAGGERED = ("panel_staggered", "panel_fade_out")
_SMALL, _MIDDLE = (100, 200, 500, 1_000), (500, 1_000, 2_000, 5_000)
STORIES: tuple[Story, ...] = (
    *(Story(world=name, rows=_MIDDLE, batch=20, fit=partial(_adjusted, name, 1)) for name in _ADJUSTED),
    *(
        Story(world=f"{name}_in_sites", rows=(1_000, 2_000), batch=20, fit=partial(_adjusted, name, _SITES))
        for name in ("linear", "curved")
    ),
    *(Story(world=f"dose_{name}", rows=_MIDDLE, batch=20, fit=partial(_dose, name)) for name in _SURFACES),
    Story(world="randomised", rows=(*_SMALL, 2_000, 5_000), batch=400, fit=partial(_randomised, "normal", 0.5, 0)),
    Story(world="randomised_uneven", rows=(500, 1_000, 2_000), batch=400, fit=partial(_randomised, "normal", 0.12, 0)),
    Story(world="randomised_count", rows=(*_SMALL, 5_000), batch=400, fit=partial(_randomised, "count", 0.5, 0)),
    Story(world="randomised_12_sites", rows=(200, 1_000), batch=400, fit=partial(_randomised, "normal", 0.5, 12)),
    Story(world="randomised_60_sites", rows=(600, 2_000), batch=400, fit=partial(_randomised, "normal", 0.5, 60)),
    Story(world="dose_by_lot", rows=_SMALL, batch=400, fit=partial(_random_dose, 0)),
    Story(world="dose_by_lot_40_sites", rows=(400, 2_000), batch=400, fit=partial(_random_dose, 40)),
    Story(world="counts", rows=(500, 1_000), batch=20, fit=partial(_counted, 0.5)),
    Story(world="counts_mostly_zero", rows=(1_000, 2_000), batch=20, fit=partial(_counted, -1.2)),
    *(Story(world=f"{name}_pairs", rows=(500, 1_000, 2_000), batch=100, fit=partial(_pairs, name)) for name in ("linear", "curved")),
    Story(world="instruments", rows=_SMALL, batch=400, fit=partial(_instrument, 0.5, 2, 0, learned=False)),
    Story(world="instrument_weak", rows=_SMALL, batch=400, fit=partial(_instrument, 0.15, 1, 0, learned=False)),
    Story(world="instruments_60_sites", rows=(600, 2_000), batch=400, fit=partial(_instrument, 0.5, 2, 60, learned=False)),
    Story(world="encouraged", rows=_SMALL[1:], batch=400, fit=partial(_encouraged, 0.5, learned=False)),
    Story(world="encouraged_few_comply", rows=_SMALL[1:], batch=400, fit=partial(_encouraged, 0.15, learned=False)),
    Story(world="instruments_learned", rows=(500, 1_000, 2_000), batch=20, fit=partial(_instrument, 0.5, 2, 0, learned=True)),
    Story(world="encouraged_learned", rows=(500, 1_000, 2_000), batch=20, fit=partial(_encouraged, 0.5, learned=True)),
    *(Story(world=name, rows=(60, 200, 600), batch=400, fit=partial(world, name)) for name in (*_SINGLE, *_STAGGERED)),
    Story(world="panel_16_regions", rows=(200, 600), batch=400, fit=partial(regions, 16)),
    Story(world="panel_60_regions", rows=(200, 600), batch=400, fit=partial(regions, 60)),
    Story(world="on_and_off", rows=(60, 200, 600), batch=400, fit=on_and_off),
    *(
        Story(world=f"synthetic_control_{periods}", rows=(20, 40), batch=100, fit=partial(factors, "synthetic_control", periods, 1))
        for periods in (24, 60)
    ),
    Story(world="synthetic_did_3", rows=(40, 80), batch=100, fit=partial(factors, "synthetic_did", 24, 3)),
    Story(world="synthetic_did_15", rows=(60, 120), batch=100, fit=partial(factors, "synthetic_did", 24, 15)),
    Story(world="few_treated_3", rows=(40, 80), batch=400, fit=partial(factors, "did", 24, 3)),
    *(
        Story(world=f"series_{label}", rows=(48, 120), batch=400, fit=partial(series, serial))
        for label, serial in (("plain", 0.0), ("serial", 0.4))
    ),
    *(Story(world=f"people_in_{groups}_groups", rows=(1_000, 4_000), batch=400, fit=partial(people, groups)) for groups in (12, 50)),
)
