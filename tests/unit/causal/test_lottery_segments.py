"""Whom a lottery's treatment helps: segments start from nuisances that the difference in means does not need."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.analysis import estimate
from e2i.causal.cate.dr_learner import make_scores
from e2i.causal.design import Identification, prepare
from e2i.causal.estimation import Estimation
from e2i.causal.groupings import group
from e2i.causal.heterogeneity import reason_against
from e2i.causal.router import identify
from e2i.causal.segments import segment_effects
from e2i.domain.evidence import CausalFinding, Verdict
from e2i.domain.study import EffectSpec

ASKED = EffectSpec(treatment="t", outcome="y", modifiers=("kind",), randomised=True)


def dealt(rows: int, *, clusters: int = 0, seed: int = 0) -> pl.DataFrame:
    """Only oncologists gain, 3 each; a coin decides, by account where there are any."""
    rng = np.random.default_rng(seed)
    account = np.arange(rows) % (clusters or rows)
    kind = rng.choice(["onc", "hem"], size=rows)
    t = rng.permutation(np.arange(clusters or rows) % 2)[account]
    y = 2.0 * (kind == "hem") + 3.0 * t * (kind == "onc") + rng.normal(size=rows)
    return pl.DataFrame({"account": account, "kind": kind, "t": t, "y": y})


def estimated(frame: pl.DataFrame, effect: EffectSpec = ASKED) -> tuple[Identification, Estimation]:
    found = identify(effect, frame, unit=None, time=None)
    assert isinstance(found, Identification)
    result = estimate(frame, effect=effect, identification=found, seed=1)
    assert isinstance(result, Estimation)
    return found, result


def test_segments_of_a_lottery_cover_their_effects_over_12_draws() -> None:
    covered = 0
    for seed in range(12):
        frame = dealt(500, seed=seed)
        identification, result = estimated(frame)
        assert result.fit is not None
        assert result.propensity is not None
        scores = make_scores(prepare(frame, identification), result.fit, result.propensity, seed=1)
        for each in segment_effects(scores, [group(frame["kind"])], seed=1).by_modifier["kind"]:
            assert each.low is not None
            assert each.high is not None
            covered += each.low <= (3.0 if each.segment_value == "onc" else 0.0) <= each.high < each.low + 1.5
    assert covered >= 20


def test_the_average_stays_the_lotterys_own_and_segments_are_told() -> None:
    identification, result = estimated(dealt(500))
    assert result.effect is not None
    assert "doubly robust" not in result.effect.estimator
    finding = CausalFinding(effect=result.effect, verdict=Verdict(name="proceed", reasons=("by chance",)))
    assert reason_against(identification, finding, has_nuisances=result.fit is not None) is None


def test_without_modifiers_or_with_few_clusters_the_average_stands_alone() -> None:
    plain = EffectSpec(treatment="t", outcome="y", confounders=("kind",), randomised=True)
    assert estimated(dealt(800), plain)[1].fit is None
    few = EffectSpec(treatment="t", outcome="y", modifiers=("kind",), randomised=True, cluster="account")
    identification, result = estimated(dealt(800, clusters=8), few)
    assert result.fit is None
    finding = CausalFinding(effect=result.effect, verdict=Verdict(name="proceed", reasons=("by chance",)))
    assert "too few" in str(reason_against(identification, finding, has_nuisances=False))
