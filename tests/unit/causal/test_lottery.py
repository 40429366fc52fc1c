"""A treatment that chance assigned: what is asked of it all the same, and what is not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import prepare
from e2i.causal.designs.lottery import concerns_about_the_lottery
from e2i.causal.estimators.unadjusted import RegressionAdjusted
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import TooFewRows


def trial(seed: int, *, regions: int = 40, each: int = 50, bent: float = 0.0) -> pl.DataFrame:
    """Whole regions drawn; `x` is like within a region, `bent` of it decides who is drawn."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(3, regions))
    score = bent * level[0] + rng.normal(size=regions)
    drawn = (score > np.median(score)).astype(int)
    place = np.repeat(np.arange(regions), each)
    columns = {f"x{j}": level[j][place] + 0.3 * rng.normal(size=len(place)) for j in range(3)}
    y = drawn[place] + columns["x0"] + rng.normal(size=regions)[place] + rng.normal(size=len(place))
    return pl.DataFrame({"region": place, "t": drawn[place], "y": y, **columns})


def unit_rows(seed: int, rows: int = 800) -> pl.DataFrame:
    """A dose and a level that chance assigned, and others that people chose by `x`."""
    rng = np.random.default_rng(seed)
    x, dose = rng.normal(size=rows), rng.normal(size=rows)
    names = np.array(["none", "low", "high"])
    chosen = np.clip(np.round(1.0 + x + rng.normal(size=rows)), 0, 2).astype(int)
    return pl.DataFrame(
        {
            "x": x,
            "dose": dose,
            "level": names[rng.integers(0, 3, rows)],
            "chosen_dose": dose + 0.5 * x,
            "chosen_level": names[chosen],
            "y": dose + x + rng.normal(size=rows),
        }
    )


SPEC = EffectSpec(treatment="t", outcome="y", confounders=("x0", "x1", "x2"), cluster="region", randomised=True)


def test_a_lottery_over_clusters_is_not_blocked_because_rows_of_a_cluster_are_alike() -> None:
    blocked = 0
    for seed in range(20):
        sample = prepare(frame := trial(seed), identify(SPEC, frame))
        blocked += bool(concerns_about_the_lottery(sample))
    assert blocked == 0


def test_few_clusters_that_chance_made_alike_are_no_proof_that_somebody_chose() -> None:
    regions = np.repeat(np.arange(8), 40)
    drawn = (np.arange(8) % 2)[regions]
    noise = np.random.default_rng(1).normal(size=len(regions))
    frame = pl.DataFrame({"region": regions, "t": drawn, "x0": drawn, "x1": noise, "x2": noise[::-1], "y": drawn + noise})
    frame = frame.with_columns(x0=pl.col("x0") + 0.01 * pl.Series(noise))
    assert concerns_about_the_lottery(prepare(frame, identify(SPEC, frame))) == ()


def test_clusters_that_somebody_chose_are_no_lottery() -> None:
    finding = analyse(trial(1, bent=5.0), effect=SPEC, seed=1)
    assert finding.verdict.name == "block"
    assert "`x0`" in finding.verdict.reasons[0]


@pytest.mark.parametrize("treatment", ["dose", "level"])
def test_a_dose_or_a_level_that_is_called_randomised_must_look_like_it(treatment: str) -> None:
    spec = EffectSpec(
        treatment=treatment, outcome="y", confounders=("x",), randomised=True, reference="none" if treatment == "level" else None
    )
    fair, chosen = (
        concerns_about_the_lottery(prepare(frame, identify(asked, frame)))
        for frame in (unit_rows(1),)
        for asked in (spec, spec.model_copy(update={"treatment": f"chosen_{treatment}"}))
    )
    assert fair == ()
    assert [concern.severity for concern in chosen] == ["block"]
    finding = analyse(unit_rows(1), effect=spec.model_copy(update={"treatment": f"chosen_{treatment}"}), seed=1)
    assert finding.verdict.name == "block"


def test_outcomes_lost_in_one_arm_spoil_a_lottery_without_covariates_too() -> None:
    rng = np.random.default_rng(3)
    t = rng.integers(0, 2, 600)
    y = t + rng.normal(size=600)
    lost = (t == 1) & (y > 1.2)
    frame = pl.DataFrame({"t": t, "y": np.where(lost, np.nan, y)}).with_columns(pl.col("y").fill_nan(None))
    spec = EffectSpec(treatment="t", outcome="y", randomised=True)
    finding = analyse(frame, effect=spec, seed=1)
    assert finding.verdict.name == "review"
    assert any("outcome is missing" in reason for reason in finding.verdict.reasons)


def test_covariates_of_whole_clusters_need_clusters_not_rows() -> None:
    frame = trial(4, regions=12).with_columns(**{f"x{j}": pl.col(f"x{j}").mean().over("region") for j in range(3)})
    identification = identify(SPEC, frame)
    with pytest.raises(TooFewRows, match="whole clusters"):
        RegressionAdjusted().fit(prepare(frame, identification), identification, seed=1)
    finding = analyse(frame, effect=SPEC, seed=1)
    assert finding.effect is not None
    assert finding.effect.estimator == "difference in means"
    assert any("left aside" in hazard.text for hazard in finding.hazards)
