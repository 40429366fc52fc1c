"""Chance that drew within strata, blocks or pairs, each with a share of its own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from pydantic import ValidationError

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec

SHARES = {"north": 0.5, "south": 0.67, "west": 0.3}


def regions(seed: int = 0, *, rows: int = 900, differing: float = 0.0) -> pl.DataFrame:
    """The outcome is higher where more are treated; the effect is 1 on average."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(np.arange(rows) % 3)
    t = np.zeros(rows, dtype=np.int64)
    for number, share in enumerate(SHARES.values()):
        own = rng.permutation(np.flatnonzero(place == number))
        t[own[: round(share * len(own))]] = 1
    x = rng.normal(size=rows) + place
    effect = 1.0 + differing * (place - 1.0)
    y = 3.0 * (place == 1) + x + effect * t + rng.normal(size=rows)
    names = np.array(list(SHARES))[place]
    return pl.DataFrame({"npi": np.arange(rows), "region": names, "block": place, "t": t, "x": x, "y": y})


def pairs(seed: int = 0, count: int = 80) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    level, first = np.repeat(2.0 * rng.normal(size=count), 2), rng.integers(0, 2, count)
    t = np.column_stack([first, 1 - first]).ravel()
    x = level + rng.normal(size=2 * count)
    y = level + 0.5 * x + t + rng.normal(size=2 * count)
    return pl.DataFrame({"npi": np.arange(2 * count), "pair": np.repeat(np.arange(count), 2), "t": t, "x": x, "y": y})


def asked(frame: pl.DataFrame, **roles: object) -> CausalFinding:
    spec = EffectSpec.model_validate({"treatment": "t", "outcome": "y", **roles})
    return analyse(frame, effect=spec, unit="npi" if "npi" in frame.columns else None, seed=1)


def test_regions_with_shares_of_their_own_proceed_once_the_study_names_them() -> None:
    told = asked(regions(), randomised_within=["region"], confounders=["x"])
    assert told.verdict.name == "proceed"
    assert told.effect is not None
    assert told.effect.estimator == "regression adjustment within strata"
    low, high = told.effect.interval()
    assert low < 1.0 < high
    assert told.effect.naive_difference is not None
    assert told.effect.naive_difference > high  # what leaving strata out would have told


def test_the_block_of_an_unnamed_stratum_says_what_to_write() -> None:
    told = asked(regions(), randomised=True, confounders=["x", "region"])
    assert told.verdict.name == "block"
    assert any("`randomised_within: [region]`" in reason for reason in told.verdict.reasons)


def test_without_covariates_it_is_the_post_stratified_difference_of_the_textbook() -> None:
    """Imbens and Rubin (2015), chapter 9: strata's differences by their size, and Neyman's variance of each."""
    frame = regions()
    effect = asked(frame, randomised_within=["region"]).effect
    assert effect is not None
    estimate = variance = 0.0
    for name in SHARES:
        own = frame.filter(pl.col("region") == name)
        arms = [own.filter(pl.col("t") == arm)["y"].to_numpy() for arm in (0, 1)]
        share = own.height / frame.height
        estimate += share * (arms[1].mean() - arms[0].mean())
        variance += share**2 * sum(arm.var(ddof=1) / len(arm) for arm in arms)
    assert effect.estimate == pytest.approx(estimate, abs=1e-10)
    assert effect.standard_error >= np.sqrt(variance) * 0.999999
    assert effect.standard_error == pytest.approx(np.sqrt(variance), rel=0.03)  # what strata's effects differ beyond chance adds


def test_pairs_are_the_paired_t_test() -> None:
    frame = pairs()
    effect = asked(frame, randomised_within=["pair"]).effect
    assert effect is not None
    wide = frame.sort("pair", "t")["y"].to_numpy().reshape(-1, 2)
    gaps = wide[:, 1] - wide[:, 0]
    assert effect.estimate == pytest.approx(gaps.mean(), abs=1e-10)
    assert effect.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(len(gaps)), rel=1e-9)
    assert "79.0 degrees of freedom" in effect.interval_method


def test_pairs_with_a_covariate_are_the_regression_of_differences_on_differences() -> None:
    frame = pairs().sort("pair", "t")
    effect = asked(frame, randomised_within=["pair"], confounders=["x"]).effect
    assert effect is not None
    y, x = (frame[name].to_numpy().reshape(-1, 2) for name in ("y", "x"))
    direct = sm.OLS(y[:, 1] - y[:, 0], sm.add_constant(x[:, 1] - x[:, 0])).fit()
    assert effect.estimate == pytest.approx(direct.params[0], abs=1e-9)
    assert effect.standard_error == pytest.approx(direct.bse[0], rel=0.05)


def test_a_stratum_named_by_numbers_is_no_line() -> None:
    one, other = (asked(regions(), randomised_within=[name], confounders=["x"]).effect for name in ("region", "block"))
    assert one is not None
    assert other is not None
    assert one.estimate == pytest.approx(other.estimate, abs=1e-12)


def test_who_chose_within_strata_is_found_out() -> None:
    frame = regions()
    chosen = frame.with_columns(t=(pl.col("x") > pl.col("x").median().over("region")).cast(pl.Int64))
    noise = pl.Series(np.random.default_rng(2).random(frame.height) < 0.3)
    told = asked(
        chosen.with_columns(t=pl.when(noise).then(1 - pl.col("t")).otherwise("t")), randomised_within=["region"], confounders=["x"]
    )
    assert told.verdict.name == "block"
    assert "`x`" in told.verdict.reasons[0]


def test_sound_pairs_are_rarely_called_chosen() -> None:
    verdicts = [asked(pairs(seed, count=120), randomised_within=["pair"], confounders=["x"]).verdict.name for seed in range(40)]
    assert verdicts.count("block") == 0


@pytest.mark.parametrize(("shares", "blocked"), [(SHARES, False), (0.5, True), ({**SHARES, "west": 0.45}, True)])
def test_the_draw_is_held_against_the_plan_within_strata(shares: object, blocked: bool) -> None:
    told = asked(regions(), randomised_within=["region"], assigned_share=shares)
    assert ("sample_ratio" in {hazard.code for hazard in told.hazards}) is blocked
    if blocked:
        assert "`west`" in next(hazard.text for hazard in told.hazards if hazard.code == "sample_ratio")


def test_a_stratum_without_a_planned_share_is_named() -> None:
    refused = asked(
        regions(), randomised_within=["region"], assigned_share={name: share for name, share in SHARES.items() if name != "west"}
    )
    assert refused.effect is None
    assert "no share was planned for `west`" in str(refused.refusal)


def test_partners_that_are_missing_are_told_when_they_are_many() -> None:
    frame = pairs(count=150)
    kept = frame.filter(pl.Series(np.random.default_rng(0).random(frame.height) > 0.15))
    told = asked(kept, randomised_within=["pair"])
    assert told.verdict.name == "review"
    assert any("hold one arm only" in reason for reason in told.verdict.reasons)


def test_strata_without_both_arms_are_refused_with_what_to_do() -> None:
    frame = regions().with_columns(t=(pl.col("region") == "south").cast(pl.Int64))
    told = asked(frame, randomised_within=["region"])
    assert told.refusal is not None
    assert "no stratum holds both arms" in told.refusal


def test_levels_and_doses_are_compared_within_strata_too() -> None:
    rng, frame = np.random.default_rng(3), regions(rows=1_500)
    high = frame["block"].to_numpy() == 1
    arm = np.where(rng.random(1_500) < np.where(high, 0.3, 0.6), "none", np.where(rng.random(1_500) < 0.5, "rep", "email"))
    dose = rng.gamma(2.0, 1.0, 1_500) * (1.0 + high)
    level = 5.0 * high + rng.normal(size=1_500)
    frame = frame.with_columns(t=pl.Series(arm), dose=pl.Series(dose), y=pl.Series(level + 1.0 * (arm == "rep")), z=pl.Series(level + dose))
    rep = asked(frame, randomised_within=["region"], reference="none").effect
    slope = asked(frame, randomised_within=["region"], treatment="dose", outcome="z").effect
    for effect in (rep, slope):
        assert effect is not None
        low, high_end = effect.interval()
        assert low < 1.0 < high_end
        assert high_end - low < 0.6


def test_an_encouragement_that_was_drawn_within_blocks_is_no_unbalanced_instrument() -> None:
    rng, frame = np.random.default_rng(4), regions(rows=1_500)
    z = frame["t"].to_numpy()
    taken = z * (rng.random(1_500) < 0.6)
    frame = frame.with_columns(
        z=pl.Series(z), d=pl.Series(taken), y=pl.Series(3.0 * (frame["block"].to_numpy() == 1) + taken + rng.normal(size=1_500))
    )
    told = asked(frame, treatment="d", instruments=["z"], randomised_within=["block"])
    assert told.effect is not None
    low, high = told.effect.interval()
    assert low < 1.0 < high
    assert "instrument_unbalanced" not in {hazard.code for hazard in told.hazards}


def test_a_missing_stratum_is_refused() -> None:
    frame = regions().with_columns(region=pl.when(pl.col("npi") < 40).then(None).otherwise("region"))
    with pytest.raises(Exception, match="within which stratum"):
        asked(frame, randomised_within=["region"])


def test_strata_that_nobody_drew_from_are_a_contradiction() -> None:
    with pytest.raises(ValidationError, match="chance assigned within strata"):
        EffectSpec(treatment="t", outcome="y", randomised=False, randomised_within=("region",))
