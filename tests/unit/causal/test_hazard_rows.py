"""Rows of single units: what stands for missing, adds up, repeats, or comes by another clock is told; what is sound is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Identification
from e2i.causal.iv.lost_rows import about_missing_instruments
from e2i.causal.panel.few_treated import changes, has_few_treated
from e2i.causal.panel.fixed_confounders import is_fixed
from e2i.causal.panel.hazard_people import about_people
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.on_off import fixed_effects
from e2i.causal.panel.periods import read_moments
from e2i.causal.panel.prepare import make_panel
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t")
N, T = 60, 12
U, Y, D = pl.col("u"), pl.col("y"), pl.col("d")


def sound(seed: int = 0, level: float = 30.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    u, t = np.repeat(np.arange(N), T), np.tile(np.arange(1, T + 1), N)
    d = ((u < 20) & (t > 6)).astype(int)
    y = level + rng.normal(size=N)[u] + d + rng.normal(size=N * T)
    return pl.DataFrame({"u": u, "t": t, "d": d, "y": y, "noise": rng.normal(size=N * T)})


def codes(frame: pl.DataFrame, spec: Identification = SPEC) -> dict[str, str]:
    return {hazard.code: hazard.action for hazard in panel_hazards(make_panel(frame, spec), spec)}


def test_zeros_for_missing_are_told_and_true_zeros_are_not() -> None:
    stray = sound().with_columns(y=pl.when(pl.int_range(pl.len()) % 13 == 0).then(0.0).otherwise(Y))
    assert codes(stray)["zero_for_missing"] == "review"
    rng = np.random.default_rng(4)
    assert "zero_for_missing" not in codes(sound().with_columns(y=pl.Series(rng.poisson(3.0, N * T).astype(float))))
    rare = pl.Series(rng.poisson(np.repeat(rng.gamma(2.0, 0.4, N), T)).astype(float))
    assert "zero_for_missing" not in codes(sound().with_columns(y=rare)), "units whose counts are now and then one"
    stopped = sound().with_columns(y=pl.when(D == 1).then(0.0).otherwise(Y))
    assert "zero_for_missing" not in codes(stopped), "treatment may have made them"


def test_totals_are_told_and_growth_is_not() -> None:
    total = sound().with_columns(y=Y.cum_sum().over("u", order_by="t"))
    assert codes(total)["running_total"] == "review"
    half_years = Y.cum_sum().over("u", pl.col("t") > 6, order_by="t")
    assert codes(sound().with_columns(y=half_years))["running_total"] == "review", "it starts anew for all at once"
    growth = sound().with_columns(y=1_000.0 + 40.0 * pl.col("t") + Y)
    assert "running_total" not in codes(growth)
    few = np.random.default_rng(0).poisson(4.0, 80)
    calls = pl.DataFrame({"u": 0, "t": np.arange(80), "d": (np.arange(80) > 50).astype(int), "y": few})
    assert "running_total" not in codes(calls, replace(SPEC, design="interrupted_time_series")), "a fall of the only series is no new start"
    assert "running_total" not in codes(sound())


def test_one_unit_under_two_names_is_told_and_has_to_be_let_pass_where_it_is_sure() -> None:
    named = sound().with_columns(u=pl.format("H{}", U))
    halves = named.with_columns(u=pl.when((pl.col("t") > 3) & (U.str.ends_with("7"))).then(U.str.to_lowercase()).otherwise(U))
    assert codes(halves)["units_alike"] == "override"
    both = pl.concat([named, named.filter(U.str.ends_with("7")).with_columns(u=pl.lit(" ") + U)])
    assert codes(both)["units_alike"] == "review"
    assert "units_alike" not in codes(named)


def test_two_rhythms_are_told_and_random_gaps_are_not() -> None:
    assert codes(sound().filter((U % 2 == 0) | (pl.col("t") % 3 == 0)))["rhythms_mixed"] == "review"
    assert "rhythms_mixed" not in codes(sound().filter(pl.col("noise") > -0.2))


def test_units_that_are_never_seen_together_have_two_clocks_unless_one_stretch_follows_the_other() -> None:
    shifted = sound().with_columns(t=pl.col("t") + 0.04 * (U % 2))
    assert codes(shifted)["clocks_mixed"] == "override", "a rotating panel has such groups too, and a person may say so"
    after = sound().with_columns(t=pl.col("t") + 100 * (U % 2))
    assert "clocks_mixed" not in codes(after, replace(SPEC, design="did"))


def test_one_row_or_one_weight_that_decides_is_told() -> None:
    once = sound().with_columns(y=pl.when(pl.int_range(pl.len()) == 80).then(1e5).otherwise(Y))
    assert codes(once)["one_row_decides"] == "review"
    weighted = sound().with_columns(w=pl.when(pl.int_range(pl.len()) == 80).then(1e6).otherwise(1.0))
    assert codes(weighted, replace(SPEC, weights="w"))["one_weight_decides"] == "review"
    heavy = sound().with_columns(y=pl.Series(np.random.default_rng(1).standard_t(3, N * T)))
    assert "one_row_decides" not in codes(heavy)


def test_rows_lost_after_treatment_are_told_where_treatment_comes_and_goes() -> None:
    rng = np.random.default_rng(2)
    on = pl.Series(rng.integers(0, 2, N * T))
    frame = sound().with_columns(d=on)
    spec = replace(SPEC, treatment_kind="on_off")
    assert "differential_attrition" not in codes(frame.filter(pl.col("noise") > -1.2), spec)
    selected = frame.filter((pl.col("d").shift(1).over("u").fill_null(0) == 0) | (pl.col("noise") > 0))
    assert codes(selected, spec)["differential_attrition"] == "review"


def test_nothing_further_is_measured_after_a_refusal_for_its_measure() -> None:
    assert list(codes(sound().with_columns(y=pl.when(pl.int_range(pl.len()) == 9).then(1e308).otherwise(Y)))) == ["extreme_outcome"]


def test_a_confounder_of_a_unit_is_known_from_its_other_rows() -> None:
    frame = (
        sound()
        .with_columns(x=(U % 7).cast(pl.Float64))
        .with_columns(x=pl.when(pl.int_range(pl.len()) % 17 == 0).then(None).otherwise(pl.col("x")))
    )
    panel = make_panel(frame, replace(SPEC, adjustment=("x",)))
    assert is_fixed(panel).all()
    assert (panel.covariates[:, 0] == frame["u"].to_numpy() % 7).all()
    moving = frame.with_columns(x=pl.when(pl.col("x").is_null()).then(None).otherwise(pl.col("noise")))
    assert not is_fixed(make_panel(moving, replace(SPEC, adjustment=("x",)))).all()


def test_a_covariate_of_which_only_rounding_is_left_is_left_out() -> None:
    panel = make_panel(sound().with_columns(x=(U % 7) * 1e6 + 0.1), replace(SPEC, adjustment=("x",)))
    same = fixed_effects(replace(panel, covariates=np.zeros((len(panel.unit), 0)), covariate_names=()), panel.treatment[:, None], ("d",))
    assert fixed_effects(panel, panel.treatment[:, None], ("d",)).coefficients == pytest.approx(same.coefficients)


def people(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    group, time = np.repeat(np.arange(20), 8 * 15), np.tile(np.repeat(np.arange(8), 15), 20)
    d = ((group < 8) & (time > 3)).astype(int)
    rows = len(group)
    return pl.DataFrame({"u": group, "t": time, "d": d, "y": d + rng.normal(size=rows), "x": rng.normal(size=rows)})


CROSS = replace(SPEC, is_repeated_cross_section=True, adjustment=("x",))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda frame: frame, {}),
        (lambda frame: pl.concat([frame, frame]), {"copied_rows": "block"}),
        (lambda frame: pl.concat([frame, frame.head(100)]), {"copied_rows": "review"}),
        (lambda frame: frame.filter((D == 0) | (Y > 0.5)), {"differential_attrition": "review"}),
        (lambda frame: frame.filter(pl.col("x") > -0.5), {}),
    ],
)
def test_people_given_twice_or_lost_with_treatment_are_told(
    change: Callable[[pl.DataFrame], pl.DataFrame], expected: dict[str, str]
) -> None:
    assert {each.code: each.action for each in about_people(make_panel(change(people()), CROSS))} == expected


def test_rows_without_an_instrument_must_be_like_the_others() -> None:
    rng = np.random.default_rng(3)
    z, x, noise = rng.integers(0, 2, 800), rng.normal(size=800), rng.normal(size=800)
    t = z + x + noise
    frame = pl.DataFrame({"z": z, "x": x, "t": t, "y": t + x + noise + rng.normal(size=800), "w": rng.normal(size=800)})
    effect = EffectSpec(treatment="t", outcome="y", confounders=("x",), instruments=("z",))

    def told(lost: pl.Expr) -> list[str]:
        return [
            each.code for each in about_missing_instruments(frame.with_columns(z=pl.when(lost).then(None).otherwise(pl.col("z"))), effect)
        ]

    assert told(pl.col("w") > 0.5) == []
    assert told(pl.col("x") > 0.5) == [], "what a confounder explains is adjusted for"
    assert "instrument_missing_selectively" in told(Y < -1)


def test_the_days_of_a_panel_are_in_order_or_a_person_lets_it_pass() -> None:
    frame = sound().with_columns(began=pl.lit(50), seen=pl.when(D == 1).then(pl.col("t") * 3).otherwise(0))
    effect = EffectSpec(treatment="d", outcome="y", treated_at="began", measured_at="seen")
    refused = analyse(frame, effect=effect, unit="u", time="t", seed=1)
    assert refused.effect is None
    assert "outcome measured before treatment" in str(refused.refusal)
    let = analyse(frame, effect=effect.model_copy(update={"override": ("outcome_before_treatment",)}), unit="u", time="t", seed=1)
    assert let.verdict.name == "review"
    right = analyse(frame.with_columns(began=pl.lit(7)), effect=effect, unit="u", time="t", seed=1)
    assert right.effect is not None
    assert "outcome_before_treatment" not in [hazard.code for hazard in right.hazards]


def test_three_treated_units_with_a_confounder_have_a_test_that_keeps_its_size() -> None:
    """Of 200 true nulls 5 % are rejected; the bounds hold with 99.8 % probability."""
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        u, t = np.repeat(np.arange(30), 8), np.tile(np.arange(8), 30)
        x, z = rng.normal(size=30)[u], rng.normal(size=240)
        y = 0.3 * x * t + z + rng.normal(size=240)
        frame = pl.DataFrame({"u": u, "t": t, "d": ((u < 3) & (t > 4)).astype(int), "y": y, "x": x, "z": z})
        panel = make_panel(frame, replace(SPEC, adjustment=("x", "z")))
        assert has_few_treated(panel)
        found = changes(panel, 5, np.ones(240, dtype=np.bool_))
        assert found is not None
        rejected += found.p_value < 0.05
    assert 0.01 <= rejected / 200 <= 0.105


def test_a_treatment_of_groups_that_ends_is_tested_for_what_stays_of_it() -> None:
    frame = people().with_columns(d=((U < 8) & pl.col("t").is_in([3, 4])).cast(pl.Int64))
    effect = EffectSpec(treatment="d", outcome="y", confounders=("x",))

    def failed(stays: float) -> list[str]:
        told = frame.with_columns(y=Y + 2.0 * D + stays * ((U < 8) & (pl.col("t") == 5)).cast(pl.Float64))
        finding = analyse(told, effect=effect, unit="u", time="t", seed=1)
        return [each.test for each in finding.refutations if not each.passed]

    assert "carry_over" not in failed(0.0)
    assert "carry_over" in failed(2.0)


def test_a_panel_treatment_of_two_other_values_is_not_taken_for_a_dose() -> None:
    effect = EffectSpec(treatment="d", outcome="y")
    with pytest.raises(SchemaMismatch, match=r"1\.0, 2\.0, not 0/1"):
        identify(effect, sound().with_columns(d=D + 1), unit="u", time="t")


def test_one_local_day_is_one_period_in_whatever_zone_it_was_written() -> None:
    both = read_moments(pl.Series("t", ["2024-01-05T00:00:00+02:00", "2024-01-05T00:00:00Z", "2024-01-12T00:00:00+00:00"]))
    assert both.form == "date"
    assert np.diff(both.values).tolist() == [0.0, 7.0]
    with pytest.raises(SchemaMismatch, match="`05/01/2024`, `2024-01-05`"):
        read_moments(pl.Series("t", ["2024-01-05", "2024-01-12", "05/01/2024", "12/01/2024"]))


@pytest.mark.parametrize("months", [(112023, 122023, 12024, 22024), ("Q101", "Q233", "Q417", "Q329")])
def test_numbers_that_may_or_may_not_be_periods_are_refused_rather_than_put_in_some_order(months: tuple[object, ...]) -> None:
    with pytest.raises(SchemaMismatch, match="order is not sure"):
        read_moments(pl.Series("period", months))


def test_quarters_of_two_figures_that_follow_one_another_are_quarters() -> None:
    found = read_moments(pl.Series("period", ["Q101", "Q201", "Q301", "Q401", "Q102"]))
    assert np.diff(found.values).tolist() == [1.0] * 4
