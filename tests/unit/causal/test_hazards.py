"""What other libraries answer in silence: here each hazard is refused, flagged, or answered rightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import Estimation, analyse, conclude, estimate
from e2i.causal.design import prepare
from e2i.causal.estimation import refused_by
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.hazards import concerns_about_rows, copied_share, refuse_hopeless
from e2i.causal.router import identify
from e2i.domain.evidence import CausalFinding, Hazard
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch, TooFewRows

EFFECT = EffectSpec(treatment="t", outcome="y", confounders=("a", "b", "segment"))
TRUE_EFFECT = 2.0


def clean(rows: int = 500, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    segment = rng.choice(["north", "south", "west"], rows)
    t = (rng.random(rows) < sigmoid(0.5 * a - 0.3 * b)).astype(int)
    y = TRUE_EFFECT * t + a + 0.5 * b + 0.4 * (segment == "west") + rng.normal(size=rows)
    return pl.DataFrame({"a": a, "b": b, "segment": segment, "t": t, "y": y})


def with_values(column: str, values: object, rows: list[int]) -> pl.DataFrame:
    changed = clean()[column].cast(pl.Float64).to_list()
    for row in rows:
        changed[row] = values
    return clean().with_columns(pl.Series(column, changed, dtype=pl.Float64))


def estimated(frame: pl.DataFrame) -> Estimation:
    result = estimate(frame, effect=EFFECT, identification=identify(EFFECT, frame), seed=1)
    assert isinstance(result, Estimation), result
    return result


def finding(frame: pl.DataFrame, effect: EffectSpec = EFFECT, unit: str | None = None) -> CausalFinding:
    return analyse(frame, effect=effect, unit=unit, seed=1)


REFUSED: dict[str, tuple[Callable[[], pl.DataFrame], str]] = {
    "no overlap": (lambda: clean().with_columns(t=(pl.col("a") > 0).cast(pl.Int64)), "perfect_separation"),
    "all control": (lambda: clean().with_columns(t=pl.lit(0)), "constant_treatment"),
    "all treated": (lambda: clean().with_columns(t=pl.lit(1)), "constant_treatment"),
    "constant outcome": (lambda: clean().with_columns(y=pl.lit(3.5)), "constant_outcome"),
    "outcome repeats the treatment": (lambda: clean().with_columns(y=2.0 * pl.col("t")), "outcome_repeats_treatment"),
    "treatment as covariate": (lambda: clean().with_columns(a=pl.col("t").cast(pl.Float64)), "confounder_is_treatment"),
    "all treated in a segment": (
        lambda: clean().with_columns(t=pl.when(pl.col("segment") == "west").then(1).otherwise(pl.col("t"))),
        "segment_with_one_arm",
    ),
    "confounder never measured": (lambda: clean().with_columns(a=pl.lit(None, dtype=pl.Float64)), "confounder_without_values"),
    "one treated": (lambda: clean().with_columns(t=(pl.int_range(pl.len()) == 7).cast(pl.Int64)), "few_per_arm"),
    "3 rows": (lambda: clean().with_columns(t=pl.int_range(pl.len()) % 2).head(3), "too_few_rows"),
    "infinite outcome": (lambda: with_values("y", float("inf"), [5]), "infinite_values"),
    "infinite covariate": (lambda: with_values("a", float("-inf"), [5]), "infinite_values"),
    "1e308 in the outcome": (lambda: with_values("y", 1e308, [5]), "extreme_value"),
    "outcome in two units": (
        lambda: clean().with_columns(y=pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.col("y") * 1000).otherwise(pl.col("y"))),
        "units_mixed",
    ),
    "outcome as covariate": (lambda: clean().with_columns(a=3 * pl.col("y") - 1), "confounder_is_outcome"),
    "nothing but missing outcomes": (lambda: clean().with_columns(y=pl.lit(None, dtype=pl.Float64)), "too_few_rows"),
}


@pytest.mark.parametrize("hazard", REFUSED)
def test_an_effect_that_the_data_cannot_tell_is_refused_with_its_code_and_a_remedy(hazard: str) -> None:
    build, code = REFUSED[hazard]
    result = finding(build())
    assert result.effect is None
    assert result.verdict.name == "block"
    assert result.refusal is not None
    assert result.refusal.startswith(f"{code}: ")
    (named,) = [each for each in result.hazards if each.code == code]
    assert named.remedy


def test_more_confounders_than_the_rows_carry_are_refused_and_a_lottery_may_name_them() -> None:
    noise = np.random.default_rng(9).normal(size=(500, 60))
    wide = clean().with_columns(**{f"x{place}": noise[:, place] for place in range(60)})
    names = ("a", "b", *(f"x{place}" for place in range(60)))
    result = finding(wide, EffectSpec(treatment="t", outcome="y", confounders=names))
    assert result.effect is None
    assert str(result.refusal).startswith("too_many_columns: 500 rows are complete, for 62 numeric confounders")
    (lottery,) = (finding(wide, EffectSpec(treatment="t", outcome="y", confounders=names, randomised=True)),)
    assert all(each.code != "too_many_columns" for each in lottery.hazards)
    assert finding(wide, EffectSpec(treatment="t", outcome="y", confounders=names[:40])).effect is not None


def test_a_refusal_for_lack_of_overlap_still_shows_the_overlap() -> None:
    result = finding(clean().with_columns(t=((pl.col("a") > 0) ^ (pl.int_range(pl.len()) % 100 == 0)).cast(pl.Int64)))
    assert result.effect is None
    assert "propensity" in str(result.refusal)
    assert result.overlap is not None
    assert result.overlap.share_outside > 0.05
    assert len(result.balance) == 4


UNFIT: dict[str, tuple[Callable[[], pl.DataFrame], str]] = {
    "treatment coded 1/2": (lambda: clean().with_columns(t=pl.col("t") + 1), "has the values 1"),
    "treatment as text": (lambda: clean().with_columns(t=pl.col("t").cast(pl.String)), "not numbers"),
    "outcome as text": (lambda: clean().with_columns(y=pl.col("y").cast(pl.String)), "not numbers"),
    "identifier as category": (lambda: clean().with_columns(segment=pl.int_range(pl.len()).cast(pl.String)), "500 levels"),
}


@pytest.mark.parametrize("hazard", UNFIT)
def test_a_column_that_cannot_be_read_is_an_error_that_names_it(hazard: str) -> None:
    build, words = UNFIT[hazard]
    with pytest.raises(SchemaMismatch, match=words) as raised:
        finding(build())
    assert raised.value.where is not None
    assert raised.value.advice is not None


def test_several_rows_of_one_unit_are_not_a_cross_section() -> None:
    result = finding(clean().with_columns(npi=pl.int_range(pl.len()) // 2), unit="npi")
    assert str(result.refusal).startswith("duplicate_units: ")


def test_a_person_may_let_a_check_pass_and_the_verdict_still_names_it() -> None:
    hazard = Hazard(code="odd", action="override", text="odd.", remedy="Look.")
    spec = identify(EFFECT, clean())
    refused = refused_by((hazard,), spec)
    assert refused is not None
    assert "override: [odd]" in str(refused.refusal)
    assert refused_by((hazard,), replace(spec, override=("odd",))) is None


def test_levels_that_make_more_columns_than_the_rows_carry_are_refused() -> None:
    """50 numbers are as many as 500 rows carry; the levels of a category come on top."""
    names = ("a", "b", *(f"z{j}" for j in range(48)))
    wide = clean().with_columns(**{name: pl.Series(np.random.default_rng(j).normal(size=500)) for j, name in enumerate(names[2:])})
    with pytest.raises(TooFewRows, match=r"5[1-3] adjusted columns"):
        finding(wide, EFFECT.model_copy(update={"confounders": (*names, "segment")}))


ANSWERED: dict[str, Callable[[], pl.DataFrame]] = {
    "clean": clean,
    "constant covariate": lambda: clean().with_columns(segment=pl.lit("all")),
    "repeated column": lambda: clean().with_columns(segment=2 * pl.col("a") + 1),
    "boolean treatment": lambda: clean().with_columns(t=pl.col("t") == 1),
    "missing covariates": lambda: with_values("b", None, list(range(0, 500, 9))),
    "missing outcomes at random": lambda: with_values("y", float("nan"), list(range(0, 500, 25))),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_harmless_oddities_do_not_hide_the_effect(case: str) -> None:
    result = estimated(ANSWERED[case]())
    low, high = result.effect.interval(0.99)
    assert low < TRUE_EFFECT < high
    assert conclude(result, (), identification=identify(EFFECT, clean())).verdict.name != "block"


def test_rows_without_outcome_are_counted() -> None:
    diagnostics = estimated(ANSWERED["missing outcomes at random"]()).effect.diagnostics
    assert (diagnostics["missing_outcome"], diagnostics["rows_used"]) == (20, 480)


def test_copied_rows_are_blocked_and_do_not_bias_the_estimate_through_the_folds() -> None:
    result = estimated(pl.concat([clean(200)] * 5))
    verdict = conclude(result, (), identification=identify(EFFECT, clean())).verdict
    assert verdict.name == "block"
    assert "80% of rows are exact copies" in verdict.reasons[0]
    assert abs(result.effect.estimate - TRUE_EFFECT) < 0.5


def test_rounded_outcomes_of_like_people_are_no_copies_and_repeated_rows_are() -> None:
    shares, doubled = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, t = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
        y = t + x + rng.normal(size=400)
        frame = pl.DataFrame({"a": x, "b": x, "segment": x, "t": t, "y": np.round(y, 2)})
        shares.append(copied_share(prepare(frame, identify(EFFECT, frame))))
        exact = frame.with_columns(y=pl.Series(np.round(y, 4)))
        again = pl.concat([exact, exact[:40]])
        doubled.append(copied_share(prepare(again, identify(EFFECT, again))))
    assert max(shares) < 0.01
    assert min(doubled) > 0.05


def test_coarse_rows_that_agree_by_chance_are_not_taken_for_copies() -> None:
    rng = np.random.default_rng(0)
    coarse = pl.DataFrame({name: rng.integers(0, 3, 500) for name in ("a", "b", "segment")} | {"t": rng.integers(0, 2, 500)})
    coarse = coarse.with_columns(y=pl.Series(rng.integers(0, 5, 500)))
    sample = prepare(coarse, identify(EFFECT, coarse))
    assert copied_share(sample) == 0.0
    assert copied_share(prepare(pl.concat([coarse] * 2), identify(EFFECT, coarse))) > 0.5


@pytest.mark.parametrize("tail", ["lognormal", "counts with many zeros", "cauchy"])
def test_long_tails_are_not_mistaken_for_two_units(tail: str) -> None:
    rng = np.random.default_rng(5)
    values = {
        "lognormal": rng.lognormal(0, 2, 500),
        "counts with many zeros": rng.poisson(rng.gamma(0.2, 5, 500)).astype(float),
        "cauchy": rng.standard_cauchy(500),
    }[tail]
    frame = clean().with_columns(y=pl.Series(values))
    refuse_hopeless(prepare(frame, identify(EFFECT, frame)))


def concerns(frame: pl.DataFrame) -> str:
    return " ".join(concern.text for concern in concerns_about_rows(prepare(frame, identify(EFFECT, frame))))


def test_an_outcome_that_goes_missing_by_arm_is_flagged() -> None:
    rows = [i for i in range(500) if clean()["t"][i] == 1 and i % 4 == 0]
    assert "of treated and 0% of untreated rows" in concerns(with_values("y", None, rows))
    assert concerns(clean()) == ""


@pytest.mark.parametrize("treatment", ["levels", "dose"])
def test_an_outcome_that_goes_missing_where_treatment_is_strong_is_flagged(treatment: str) -> None:
    rng = np.random.default_rng(4)
    values = rng.choice(["none", "email", "visit"], 900) if treatment == "levels" else rng.gamma(2.0, size=900)
    frame = clean(900).with_columns(t=pl.Series(values))
    strong = pl.col("t") == "visit" if treatment == "levels" else pl.col("t") > 2.0
    often = pl.Series(rng.random(900) < 0.3)
    reference = "none" if treatment == "levels" else None
    effect = EffectSpec(treatment="t", outcome="y", confounders=("a", "b"), reference=reference)
    holed = frame.with_columns(y=pl.when(strong & often).then(None).otherwise(pl.col("y")))
    found = " ".join(concern.text for concern in concerns_about_rows(prepare(holed, identify(effect, holed))))
    assert ("of `visit` and 0%" if treatment == "levels" else "of high-dose and 0%") in found
    assert concerns_about_rows(prepare(frame, identify(effect, frame))) == ()


def test_an_outcome_that_is_often_missing_is_flagged() -> None:
    assert "the outcome is missing in 25% of rows" in concerns(with_values("y", None, list(range(0, 500, 4))))


def test_a_near_copy_of_the_outcome_is_flagged() -> None:
    noise = 0.1 * pl.Series(np.random.default_rng(2).normal(size=500))
    assert "`a` alone explains" in concerns(clean().with_columns(a=pl.col("y") + noise))


@pytest.mark.parametrize("instruments", [(), ("z",)])
@pytest.mark.parametrize(("lacking", "asks"), [(0.03, False), (0.15, True)])
def test_doses_and_instruments_say_when_a_confounder_stands_at_its_median(instruments: tuple[str, ...], lacking: float, asks: bool) -> None:
    rng = np.random.default_rng(11)
    x, z = rng.normal(size=(2, 1_500))
    dose = x + z + rng.normal(size=1_500)
    gone = rng.random(1_500) < lacking
    frame = pl.DataFrame({"x": np.where(gone, np.nan, x), "z": z, "dose": dose, "y": dose + 2.0 * x + rng.normal(size=1_500)})
    effect = EffectSpec(treatment="dose", outcome="y", confounders=("x",), instruments=instruments)
    reasons = analyse(frame, effect=effect, seed=1).verdict.reasons
    assert any("its median and an indicator stand there" in reason for reason in reasons) is asks


def test_a_total_at_the_end_of_a_sheet_is_named_and_no_column_is_called_a_copy() -> None:
    frame = clean().with_columns(pl.col("a") + 5.0, pl.col("b") + 5.0, pl.col("y") + 9.0)
    total = frame.select(pl.lit(None, pl.String).alias(name) if name == "segment" else pl.col(name).sum() for name in frame.columns)
    found = finding(pl.concat([frame, total]))
    assert found.effect is None
    assert "is it a total" in str(found.refusal)
    assert "copy" not in str(found.refusal)


def test_numbers_in_text_are_found_though_most_values_are_their_own() -> None:
    frame = clean().with_columns(a=pl.col("a").round(2).cast(pl.String).str.replace(".", ",", literal=True))
    frame = pl.concat([frame, frame.with_columns(pl.lit("0,0").alias("a"), pl.col("y") + 0.1).head(30)])
    assert frame["a"].n_unique() > 0.5 * frame.height
    found = finding(frame)
    assert found.effect is None
    assert "100% of the values of confounder `a` are numbers" in str(found.refusal)
