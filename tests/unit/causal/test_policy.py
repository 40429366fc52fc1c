from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.cate.dr_learner import Scores
from e2i.causal.policy import MINIMUM_LEAF, Questions, ask, describe, learn, mean_interval, value


def scores_of(effect: np.ndarray, treatment: np.ndarray | None = None, cluster: np.ndarray | None = None) -> Scores:
    t = (np.arange(len(effect)) % 2).astype(float) if treatment is None else treatment
    return Scores(estimand="ATE", effect=effect, treated_effect=t * effect, treatment=t, weights=np.ones(len(effect)), cluster=cluster)


def brute_force(reward: np.ndarray, questions: Questions) -> float:
    """The best sum over all trees with at most two levels, one by one."""
    leaf = max(MINIMUM_LEAF, 0.02 * len(reward))
    best = max(reward.sum(), 0.0)
    q = questions.answers
    for first in range(q.shape[1]):
        side_values = []
        for side in (q[:, first], ~q[:, first]):
            options = [max(reward[side].sum(), 0.0)] if side.sum() >= leaf else []
            for second in range(q.shape[1]):
                yes, no = side & q[:, second], side & ~q[:, second]
                if min(yes.sum(), no.sum()) >= leaf:
                    options += [max(reward[yes].sum(), 0.0) + max(reward[no].sum(), 0.0)]
            side_values.append(max(options, default=-np.inf))
        best = max(best, sum(side_values))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_tree_is_the_best_of_all_trees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"a": rng.normal(size=300), "b": rng.choice(["x", "y", "z"], size=300), "c": rng.integers(0, 4, size=300)})
    reward = rng.normal(size=300) + (frame["a"].to_numpy() > 0.3) * (frame["c"].to_numpy() > 1) - 0.3
    questions = ask(frame, ["a", "b", "c"])
    learned = learn(reward, scores_of(reward), questions, seed=1)
    assert reward[learned.tree.treats(questions.answers)].sum() == pytest.approx(brute_force(reward, questions))


def test_a_planted_rule_is_found_and_told_in_words() -> None:
    rng = np.random.default_rng(1)
    decile, kind = rng.integers(1, 11, size=4000), rng.choice(["onc", "hem"], size=4000)
    truth = np.where((decile > 6) & (kind == "onc"), 2.0, -1.0)
    frame = pl.DataFrame({"decile": decile, "kind": kind})
    scores = scores_of(truth + rng.normal(size=4000))
    learned = learn(scores.effect, scores, ask(frame, ["decile", "kind"]), seed=1)
    treated = [leaf for leaf in describe(learned, scores.weights) if leaf.treat]
    assert [set(leaf.conditions) for leaf in treated] == [{"kind is not hem", "decile above 6"}] or [
        set(leaf.conditions) for leaf in treated
    ] == [{"kind is onc", "decile above 6"}]
    assert (learned.decided == (truth > 0)).mean() > 0.99


def test_everybody_or_nobody_is_treated_when_no_question_helps() -> None:
    frame = pl.DataFrame({"a": np.arange(200.0)})
    for level in (1.0, -1.0):
        scores = scores_of(np.full(200, level))
        learned = learn(scores.effect, scores, ask(frame, ["a"]), seed=1)
        assert [(leaf.conditions, leaf.treat) for leaf in describe(learned, scores.weights)] == [((), level > 0)]
    nothing = learn(scores.effect, scores, Questions(yes=(), no=(), answers=np.empty((200, 0), dtype=bool)), seed=1)
    assert not nothing.decided.any()


def test_a_budget_is_kept_by_treating_those_who_gain_most() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(4000)
    scores = scores_of(1.0 + 2 * a + 0.1 * rng.normal(size=4000))
    free = learn(scores.effect, scores, ask(pl.DataFrame({"a": a}), ["a"]), seed=1)
    assert free.decided.all()
    bound = learn(scores.effect, scores, ask(pl.DataFrame({"a": a}), ["a"]), budget_share=0.3, seed=1)
    treated = bound.tree.treats(bound.questions.answers)
    assert 0.1 < treated.mean() <= 0.3
    assert a[treated].min() > a[~treated].max() - 0.1


def test_value_out_of_sample_is_honest_where_nothing_can_be_gained() -> None:
    """In-sample the best tree on pure noise looks good; on held-out rows it must not."""
    inside, outside = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        frame = pl.DataFrame({f"x{j}": rng.normal(size=300) for j in range(5)})
        scores = scores_of(rng.normal(size=300))
        learned = learn(scores.effect, scores, ask(frame, frame.columns), seed=seed)
        inside.append((learned.tree.treats(learned.questions.answers) * scores.effect).mean())
        outside.append((learned.decided * scores.effect).mean())
    assert np.mean(inside) > 0.08
    assert abs(np.mean(outside)) < 0.04


def test_the_gain_over_present_practice_is_paired() -> None:
    rng = np.random.default_rng(1)
    effect = rng.normal(1, 1, size=500)
    scores = scores_of(effect)
    now = scores.treated_effect
    same = value("current", now, share=0.5, current=now, scores=scores)
    assert same.gain_over_current.low == same.gain_over_current.high == 0.0
    assert same.value.estimate == pytest.approx(now.mean())
    total = mean_interval(effect, scores, 500.0, times=500.0)
    assert total.estimate == pytest.approx(effect.sum())
    assert total.high - total.estimate == pytest.approx(1.96 * effect.std() * np.sqrt(500), rel=0.01)


def test_missing_values_and_dates_are_asked_about() -> None:
    frame = pl.DataFrame({"a": [1.0, None, 3.0, 4.0], "d": pl.Series(["2024-01-01", "2024-01-02", "2024-01-03", None]).str.to_date()})
    questions = ask(frame, ["a", "d"])
    assert "a at most 1 or missing" in questions.no
    assert "d above 2024-01-01" in questions.yes
    assert not questions.answers[1, questions.yes.index("a above 1")]


def test_a_wide_study_asks_a_bounded_number_of_questions() -> None:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({f"x{j}": rng.normal(size=200) for j in range(80)})
    assert ask(frame, frame.columns).answers.shape == (200, 120)
