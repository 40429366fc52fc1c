from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from e2i.causal.cate.dr_learner import Scores
from e2i.causal.groupings import MISSING, Grouping, cuts_of, group
from e2i.causal.segments import adjusted, responder, segment_effects
from e2i.domain.segments import Interval, SegmentEffect


def scores_of(effect: np.ndarray, treatment: np.ndarray | None = None, *, cluster: np.ndarray | None = None, att: bool = False) -> Scores:
    n = len(effect)
    t = (np.arange(n) % 2).astype(float) if treatment is None else treatment
    return Scores(
        estimand="ATT" if att else "ATE", effect=effect, treated_effect=t * effect, treatment=t, weights=np.ones(n), cluster=cluster
    )


def by_letter(letters: list[str]) -> Grouping:
    return group(pl.Series("letter", letters))


def test_levels_numbers_dates_and_gaps_become_groups() -> None:
    assert group(pl.Series("s", ["b", None, "a"])).labels == (MISSING, "a", "b")
    assert group(pl.Series("b", [True, False, True])).labels == ("false", "true")
    assert group(pl.Series("few", [1, 2, 1, 3])).labels == ("1", "2", "3")
    many = group(pl.Series("many", [float(i) for i in range(300)] + [None, float("nan")], strict=False))
    assert many.labels == ("0 to 99", "100 to 199", "200 to 299", MISSING)
    assert np.bincount(many.codes).tolist() == [100, 100, 100, 2]
    days = group(pl.Series("day", [date(2024, 1, 1) + timedelta(days=i) for i in range(30)]))
    assert days.labels[0].startswith("2024-01-01 to ")
    assert len(group(pl.Series("n", list(range(2_000)))).labels) == 4
    assert len(group(pl.Series("n", list(range(6_000)))).labels) == 5


def test_ties_make_fewer_groups_and_no_empty_one() -> None:
    found = group(pl.Series("zeros", [0.0] * 90 + [float(i) for i in range(1, 11)]))
    assert found.labels == ("0", "1 to 10")
    assert np.bincount(found.codes).tolist() == [90, 10]


def test_rare_levels_beyond_thirty_are_one_group() -> None:
    found = group(pl.Series("zip", [f"z{i % 50:02d}" for i in range(500)]))
    assert len(found.labels) == 31
    assert found.labels[-1] == "(other levels)"


def test_thresholds_lie_between_values() -> None:
    assert cuts_of(np.array([1.0, 2.0, 3.0, np.nan]), most=12).tolist() == [1.0, 2.0]
    assert cuts_of(np.array([5.0, 5.0]), most=12).tolist() == []
    assert len(cuts_of(np.arange(1000.0), most=12)) == 12


def test_a_segments_effect_is_the_mean_of_its_scores() -> None:
    rng = np.random.default_rng(1)
    effect = rng.normal(1, 1, size=600)
    letters = rng.choice(["a", "b", "c"], size=600)
    found = segment_effects(scores_of(effect), [by_letter(list(letters))], seed=1)
    for segment in found.by_modifier["letter"]:
        inside = effect[letters == segment.segment_value]
        assert segment.estimate == pytest.approx(inside.mean())
        assert segment.standard_error == pytest.approx(inside.std() / np.sqrt(len(inside)), rel=2e-3)
        assert segment.size == len(inside)
        assert segment.low is not None
        assert segment.simultaneous_low is not None
        assert segment.simultaneous_low < segment.low
    assert found.overall.estimate == pytest.approx(effect.mean())


def test_the_effect_on_the_treated_is_told_among_the_segments_treated() -> None:
    rng = np.random.default_rng(1)
    effect = rng.normal(1, 1, size=600)
    t = (rng.random(600) < 0.3).astype(float)
    letters = rng.choice(["a", "b"], size=600)
    found = segment_effects(scores_of(effect, t, att=True), [by_letter(list(letters))], seed=1)
    assert found.by_modifier["letter"][0].estimate == pytest.approx(effect[(letters == "a") & (t == 1)].mean())


def test_small_cells_are_suppressed_with_a_second_count_and_one_arm_has_no_effect() -> None:
    letters = ["a"] * 200 + ["b"] * 30 + ["c"] * 7 + ["d"] * 50 + ["e"] * 40
    t = np.arange(327) % 2 * 1.0
    t[237:287] = 1.0
    t[287:327] = 0.0
    t[287:292] = 1.0
    found = segment_effects(scores_of(np.random.default_rng(1).normal(size=327), t), [by_letter(letters)], seed=1)
    by_name = {segment.segment_value: segment for segment in found.by_modifier["letter"]}
    assert by_name["c"].status == "suppressed"
    assert by_name["c"].size is None
    assert by_name["c"].estimate is None
    assert by_name["b"].size is None, "with one hidden count, the total would give it away"
    assert by_name["d"].status == "one_arm"
    assert by_name["e"].status == "too_few"
    assert by_name["e"].treatment_rate is None
    assert by_name["a"].size == 200
    told = " ".join(found.notes)
    assert "nobody here is untreated" in told
    assert "2 segment(s)" in told


def test_a_cluster_in_common_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(30), 20)
    effect = rng.normal(size=30)[cluster] + 0.1 * rng.normal(size=600)
    letters = by_letter(["ab"[i // 2 % 2] for i in range(600)])
    free = segment_effects(scores_of(effect), [letters], seed=1).by_modifier["letter"][0]
    tied = segment_effects(scores_of(effect, cluster=cluster), [letters], seed=1).by_modifier["letter"][0]
    assert free.standard_error is not None
    assert tied.standard_error is not None
    assert tied.standard_error > 2 * free.standard_error


def test_adjusted_p_values_are_those_of_statsmodels() -> None:
    p = np.random.default_rng(1).random(20) ** 3
    assert adjusted(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_a_responder_needs_a_difference_beyond_chance() -> None:
    overall = Interval(estimate=1.0, low=0.5, high=1.5)
    segment = SegmentEffect(segment_name="x", segment_value="a", status="estimated", estimate=2.0)
    assert responder(segment, overall) == "average"
    sure = SegmentEffect(segment_name="x", segment_value="a", status="estimated", estimate=2.0, differs=True)
    assert responder(sure, overall) == "high"
    assert responder(sure, Interval(estimate=1.0, low=-0.5, high=2.5)) is None
    low = SegmentEffect(segment_name="x", segment_value="a", status="estimated", estimate=0.4, differs=True)
    assert responder(low, overall) == "low"
    assert responder(low, Interval(estimate=-1.0, low=-1.5, high=-0.5)) == "low"


def test_planted_responders_are_found_and_shrunken_towards_the_rest() -> None:
    rng = np.random.default_rng(2)
    letters = rng.choice(["a", "b", "c"], size=3000)
    truth = np.select([letters == "a", letters == "b"], [0.2, 1.0], 2.0)
    found = segment_effects(scores_of(truth + rng.normal(size=3000)), [by_letter(list(letters))], seed=1)
    assert [segment.responder_type for segment in found.by_modifier["letter"]] == ["low", "average", "high"]
    first = found.by_modifier["letter"][0]
    assert first.shrunken is not None
    assert first.estimate is not None
    assert first.estimate < first.shrunken.estimate
    assert found.pooling["letter"].i2 > 0.9


def test_scores_without_any_spread_give_no_false_certainty() -> None:
    found = segment_effects(scores_of(np.ones(200)), [by_letter(["ab"[i // 2 % 2] for i in range(200)])], seed=1)
    assert all(segment.differs is False for segment in found.by_modifier["letter"])
    assert found.pooling == {}


def of_clusters(groups: int, *, seed: int, own: bool) -> tuple[Scores, Grouping, np.ndarray]:
    """480 rows without an effect; four segments, either across clusters or (`own`) of whole clusters."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(480) % groups
    effect = 2 * rng.normal(size=480) + rng.normal(size=groups)[cluster]
    places = cluster % 4 if own else rng.integers(0, 4, 480)
    t = np.arange(480) // groups % 2 * 1.0
    return scores_of(effect, t, cluster=cluster), by_letter(["abcd"[place] for place in places]), cluster


@pytest.mark.parametrize("own", [False, True])
def test_with_few_clusters_p_values_are_those_of_t_and_the_simultaneous_interval_is_the_wider_one(own: bool) -> None:
    scores, letters, cluster = of_clusters(8, seed=2, own=own)
    for place, segment in enumerate(segment_effects(scores, [letters], seed=2).by_modifier["letter"]):
        freedom = len(np.unique(cluster[letters.codes == place])) - 1
        assert freedom == (1 if own else 7)
        assert segment.estimate is not None
        assert segment.standard_error is not None
        assert segment.low is not None
        assert segment.simultaneous_low is not None
        assert segment.p_value == pytest.approx(2 * student.sf(abs(segment.estimate) / segment.standard_error, freedom))
        assert segment.estimate - segment.low == pytest.approx(student.ppf(0.975, freedom) * segment.standard_error)
        assert segment.simultaneous_low < segment.low


def test_a_segments_error_is_that_of_its_own_clusters_and_one_cluster_has_none() -> None:
    scores, letters, cluster = of_clusters(9, seed=1, own=True)
    found = segment_effects(scores, [letters], seed=1)
    by_name = {segment.segment_value: segment for segment in found.by_modifier["letter"]}
    means = np.array([scores.effect[cluster == one].mean() for one in (1, 5)])
    sizes = np.array([(cluster == one).sum() for one in (1, 5)])
    middle = sizes @ means / sizes.sum()
    assert by_name["b"].standard_error == pytest.approx(np.sqrt(2 * ((sizes * (means - middle)) ** 2).sum()) / sizes.sum())
    scores, letters, _ = of_clusters(4, seed=1, own=True)
    alone = segment_effects(scores, [letters], seed=1)
    assert {segment.status for segment in alone.by_modifier["letter"]} == {"one_cluster"}
    assert all(segment.estimate is None and not segment.is_significant for segment in alone.by_modifier["letter"])
    assert "one cluster" in " ".join(alone.notes)
