"""A lottery is held against its plan: arms that do not hold their planned shares block."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec


def trial(*, treated: float = 0.5, lost: float = 0.0, n: int = 3_000, seed: int = 0) -> pl.DataFrame:
    """`lost`: share of the treated with a low outcome whose rows never arrived."""
    rng = np.random.default_rng(seed)
    arm = (rng.random(n) < treated).astype(int)
    outcome = 0.2 * arm + rng.normal(size=n)
    arrived = ~((arm == 1) & (outcome < 0.0) & (rng.random(n) < lost))
    level = np.where(arm == 1, np.where(np.arange(n) % 2 == 0, "rep", "email"), "none")
    return pl.DataFrame({"invited": arm, "nrx": outcome, "level": level, "x": rng.normal(size=n)}).filter(pl.Series(arrived))


def asked(frame: pl.DataFrame, **roles: object) -> CausalFinding:
    question = {"treatment": "invited", "outcome": "nrx", "randomised": True, **roles}
    return analyse(frame, effect=EffectSpec.model_validate(question), seed=1)


def codes(finding: CausalFinding) -> set[str]:
    return {hazard.code for hazard in finding.hazards}


def test_treated_rows_that_never_arrived_block_and_without_the_plan_nobody_sees_them() -> None:
    frame = trial(lost=0.4)
    blocked, blind = asked(frame, assigned_share=0.5), asked(frame)
    assert blocked.verdict.name == "block"
    assert "`1` 50.0%, found 46.5%" in blocked.verdict.reasons[0]
    assert blind.verdict.name == "proceed"
    assert blind.effect is not None
    assert blind.effect.interval()[0] > 0.2  # wrong, and nothing else shows it


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_sound_arms_are_rarely_blocked(share: float) -> None:
    alarms = sum("sample_ratio" in codes(asked(trial(treated=share, n=400, seed=seed), assigned_share=share)) for seed in range(60))
    assert alarms <= 1


def test_rows_whose_outcome_is_missing_count() -> None:
    frame = trial().with_columns(nrx=pl.when((pl.col("invited") == 1) & (pl.col("nrx") < 0)).then(None).otherwise("nrx"))
    assert "sample_ratio" not in codes(asked(frame, assigned_share=0.5))


def test_levels_are_held_against_a_share_each_and_whole_numbers_may_name_them() -> None:
    roles = {"treatment": "level", "reference": "none"}
    assert "sample_ratio" not in codes(asked(trial(), assigned_share={"none": 0.5, "rep": 0.25, "email": 0.25}, **roles))
    assert "sample_ratio" in codes(asked(trial(), assigned_share={"none": 0.34, "rep": 0.33, "email": 0.33}, **roles))
    assert "sample_ratio" not in codes(asked(trial(), assigned_share={0: 0.5, 1: 0.5}))


def test_clusters_that_were_drawn_whole_count_once() -> None:
    """Four of eight sites are treated, which hold three quarters of the rows."""
    site = np.repeat(np.arange(8), [90, 90, 90, 90, 30, 30, 30, 30])
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"invited": (site < 4).astype(int), "nrx": rng.normal(size=480), "site": site})
    assert "sample_ratio" not in codes(asked(frame, assigned_share=0.5, cluster="site"))
    assert "sample_ratio" in codes(asked(frame, assigned_share=0.5))


def test_with_an_instrument_its_own_share_counts() -> None:
    rng = np.random.default_rng(4)
    letter = (rng.random(2_000) < 0.3).astype(int)
    visit = letter * (rng.random(2_000) < 0.6)
    frame = pl.DataFrame({"letter": letter, "visit": visit.astype(int), "nrx": visit + rng.normal(size=2_000)})
    roles = {"treatment": "visit", "instruments": ("letter",)}
    assert "sample_ratio" not in codes(asked(frame, assigned_share=0.3, **roles))
    assert asked(frame, assigned_share=0.5, **roles).verdict.name == "block"


def test_a_unit_of_a_panel_counts_once() -> None:
    rng = np.random.default_rng(5)
    unit, month = np.repeat(np.arange(80), 6), np.tile(np.arange(6), 80)
    on = ((unit < 40) & (month >= 4)).astype(int)
    frame = pl.DataFrame({"hcp": unit, "month": month, "invited": on, "nrx": rng.normal(size=80)[unit] + rng.normal(size=480)})
    question = {"treatment": "invited", "outcome": "nrx", "randomised": True}
    for share, is_broken in ((0.5, False), (0.75, True)):
        effect = EffectSpec.model_validate(question | {"assigned_share": share})
        assert ("sample_ratio" in codes(analyse(frame, effect=effect, unit="hcp", time="month", seed=1))) == is_broken


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"assigned_share": 0.5, "randomised": False, "confounders": ["x"]}, "nothing says that chance assigned"),
        ({"assigned_share": {"yes": 0.5, "no": 0.5}}, "planned for `no`, `yes`; `invited` holds `0`, `1`"),
        ({"assigned_share": 0.5, "treatment": "level", "reference": "none"}, "is not 0/1: `email`, `none`, `rep`"),
    ],
)
def test_a_plan_that_does_not_fit_the_data_is_refused_in_words(roles: dict[str, object], said: str) -> None:
    refusal = asked(trial(), **roles).refusal
    assert refusal is not None
    assert said in refusal


def test_small_arms_are_not_told_by_their_share() -> None:
    frame = pl.DataFrame({"letter": [1] * 8 + [0] * 392, "invited": [1, 0] * 200, "nrx": np.random.default_rng(6).normal(size=400)})
    finding = asked(frame, assigned_share=0.5, instruments=("letter",))
    assert "sample_ratio" in codes(finding) or finding.refusal is not None
    assert all("found" not in hazard.text for hazard in finding.hazards if hazard.code == "sample_ratio")
