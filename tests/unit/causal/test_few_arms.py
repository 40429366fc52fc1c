"""One to four clusters in an arm: the interval comes from whole clusters' changes, and covers; one against one is refused in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Identification
from e2i.causal.panel.few_treated import changes, has_few_treated
from e2i.causal.panel.prepare import make_panel
from e2i.domain.study import EffectSpec

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t")
QUESTION = EffectSpec(treatment="d", outcome="y", design="did")


def arms(treated: int, untreated: int, *, seed: int, periods: int = 16) -> pl.DataFrame:
    """The first units are treated in the last six periods, by 3."""
    rng = np.random.default_rng([seed, 3])
    units = treated + untreated
    on = (np.arange(units)[:, None] < treated) & (np.arange(periods) >= periods - 6)
    y = 20.0 + 2.0 * rng.normal(size=(units, 1)) + rng.normal(size=periods).cumsum() + 3.0 * on + rng.normal(size=on.shape)
    u, t = np.divmod(np.arange(units * periods), periods)
    return pl.DataFrame({"u": u, "t": t, "d": on.astype(int).ravel(), "y": y.ravel()})


@pytest.mark.parametrize(("treated", "untreated"), [(1, 2), (1, 4), (2, 2), (10, 1), (4, 4)])
def test_intervals_of_a_handful_of_units_cover(treated: int, untreated: int) -> None:
    """Of 200 draws 95 % are covered; fewer than 179 has probability 0.0005. Clustered errors cover 40 to 80 % here."""
    covered = 0
    for seed in range(200):
        panel = make_panel(arms(treated, untreated, seed=seed), SPEC)
        assert has_few_treated(panel)
        found = changes(panel, 10, np.ones(len(panel.unit), dtype=np.bool_))
        assert found is not None
        assert found.degrees == treated + untreated - 2
        low, high = found.around(found.estimate)
        covered += low < 3.0 < high
    assert 179 <= covered < 200


def test_few_controls_are_seldom_blocked_and_never_told_unseen() -> None:
    verdicts = [analyse(arms(10, 1, seed=seed), effect=QUESTION, unit="u", time="t", seed=1).verdict.name for seed in range(10)]
    assert "proceed" not in verdicts
    assert verdicts.count("block") <= 1


def test_the_interval_of_two_against_two_says_where_its_width_comes_from() -> None:
    finding = analyse(arms(2, 2, seed=1), effect=QUESTION, unit="u", time="t", seed=1)
    assert finding.effect is not None
    assert "both arms" in finding.effect.interval_method
    assert any("changes of all of them" in hazard.text for hazard in finding.hazards)
    assert {"few_treated", "few_controls"} <= {hazard.code for hazard in finding.hazards}


def test_one_against_one_is_refused_with_a_way_out_that_works() -> None:
    frame = arms(1, 1, seed=1, periods=60)
    refused = analyse(frame, effect=QUESTION, unit="u", time="t", seed=1)
    assert refused.effect is None
    assert "one treated and one untreated cluster" in str(refused.refusal)
    own, other = (frame.filter(pl.col("u") == unit) for unit in (0, 1))
    series = own.with_columns(y=own["y"] - other["y"])
    finding = analyse(series, effect=EffectSpec(treatment="d", outcome="y"), time="t", seed=1)
    assert finding.effect is not None
    low, high = finding.effect.interval()
    assert low < 3.0 < high


def test_clusters_that_hold_both_arms_are_not_taken_for_one_number_each() -> None:
    frame = arms(6, 6, seed=1).with_columns(c=pl.col("u") % 4)
    panel = make_panel(frame, replace(SPEC, cluster="c"))
    assert not has_few_treated(panel)
