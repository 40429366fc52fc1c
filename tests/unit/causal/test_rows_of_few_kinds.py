"""Tables of yes/no and categorical columns, where rows agree by the hundred and are still different people."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Sample, prepare
from e2i.causal.hazards import dependent_rows
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec

ASKED = EffectSpec(treatment="first_class", outcome="survived", confounders=("age", "sex"))


def _titanic() -> pl.DataFrame:
    from causaldata import titanic

    data = titanic.load_pandas().data
    columns = {"age": data["age"].astype(str), "sex": data["sex"].astype(str)}
    return pl.DataFrame(
        {name: values.tolist() for name, values in columns.items()}
        | {"first_class": (data["class"] == "1st class").astype(int).tolist(), "survived": (data["survived"] == "yes").astype(int).tolist()}
    )


def _survey(n: int, *, seed: int) -> pl.DataFrame:
    """Region, wave and a yes/no trait move both; the effect is 0.2 in every cell."""
    rng = np.random.default_rng(seed)
    region, wave, trait = rng.integers(0, 8, n), rng.integers(1, 5, n), rng.integers(0, 2, n)
    treated = rng.random(n) < 0.25 + 0.04 * region + 0.2 * trait
    outcome = rng.random(n) < 0.15 + 0.03 * region + 0.2 * trait + 0.2 * treated
    return pl.DataFrame(
        {"region": [f"r{k}" for k in region], "wave": wave, "trait": trait, "treated": treated.astype(int), "outcome": outcome.astype(int)}
    )


def _sample(frame: pl.DataFrame, asked: EffectSpec) -> Sample:
    return prepare(frame, identify(asked, frame))


def test_the_titanic_answers_as_its_cells_do() -> None:
    frame = _titanic()
    cells = frame.group_by("age", "sex").agg(
        pl.len(),
        up=pl.col("survived").filter(pl.col("first_class") == 1).mean(),
        down=pl.col("survived").filter(pl.col("first_class") == 0).mean(),
    )
    exact = float(np.average((cells["up"] - cells["down"]).to_numpy(), weights=cells["len"].to_numpy()))
    finding = analyse(frame, effect=ASKED, seed=1)
    assert finding.effect is not None
    assert finding.effect.estimate == pytest.approx(exact, abs=0.01)
    assert finding.effect.standard_error < 0.04
    assert [each.test for each in finding.refutations if not each.passed] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_survey_of_categories_alone_is_answered(seed: int) -> None:
    asked = EffectSpec(treatment="treated", outcome="outcome", confounders=("region", "wave", "trait"))
    finding = analyse(_survey(4_000, seed=seed), effect=asked, seed=1)
    assert finding.effect is not None
    assert abs(finding.effect.estimate - 0.2) < 3 * finding.effect.standard_error
    assert finding.effect.standard_error < 0.02
    assert finding.verdict.name == "review", "nothing sees a hidden cause, but nothing else is wrong"
    assert len(finding.verdict.reasons) == 1


def test_people_who_agree_in_all_few_valued_columns_stand_alone() -> None:
    sample = _sample(_survey(2_000, seed=3), EffectSpec(treatment="treated", outcome="outcome", confounders=("region", "wave", "trait")))
    assert len(np.unique(sample.groups)) < 400
    assert len(np.unique(dependent_rows(sample))) == 2_000


def test_copies_of_a_row_with_a_value_of_its_own_stay_together() -> None:
    rng = np.random.default_rng(4)
    frame = _survey(600, seed=4).with_columns(spend=pl.Series(rng.normal(size=600)))
    twice = pl.concat([frame, frame.head(50)])
    sample = _sample(twice, EffectSpec(treatment="treated", outcome="outcome", confounders=("region", "spend")))
    found = dependent_rows(sample)
    assert len(np.unique(found)) == 600
    assert (found[600:] == found[:50]).all()


def test_a_table_that_was_read_twice_keeps_its_copies_together() -> None:
    frame = _survey(500, seed=5)
    sample = _sample(pl.concat([frame, frame]), EffectSpec(treatment="treated", outcome="outcome", confounders=("region", "wave", "trait")))
    assert (dependent_rows(sample) == sample.groups).all()


def _encouraged(n: int, *, seed: int) -> pl.DataFrame:
    """Everything takes few values; treatment moves the outcome by 0.2, in half by way of `used`."""
    rng = np.random.default_rng(seed)
    letter, region = rng.integers(0, 2, n), rng.integers(0, 3, n)
    taken = rng.random(n) < 0.2 + 0.4 * letter + 0.1 * region
    used = rng.random(n) < 0.2 + 0.4 * taken
    chances = {"outcome": 0.2 + 0.2 * taken + 0.1 * region, "through": 0.2 + 0.5 * used}
    drawn = {name: (rng.random(n) < chance).astype(int) for name, chance in chances.items()}
    return pl.DataFrame({"letter": letter, "region": region, "taken": taken.astype(int), "used": used.astype(int), **drawn})


def test_an_instrument_among_yes_no_columns_has_estimators_that_agree() -> None:
    asked = EffectSpec(treatment="taken", outcome="outcome", instruments=("letter",), confounders=("region",))
    finding = analyse(_encouraged(4_000, seed=6), effect=asked, seed=1)
    assert finding.verdict.name == "review", finding.verdict.reasons
    beside = next(other for other in finding.alternatives if other.estimator.startswith("DML-IV"))
    assert abs(beside.estimate - 0.2) < 3 * beside.standard_error


def test_a_front_door_of_yes_no_columns_does_not_hang_on_the_folds() -> None:
    asked = EffectSpec(treatment="taken", outcome="through", edges=("taken -> used", "used -> through", "taken <-> through"))
    finding = analyse(_encouraged(4_000, seed=7), effect=asked, seed=1)
    assert finding.verdict.name == "review", finding.verdict.reasons
    assert finding.effect is not None
    assert abs(finding.effect.estimate - 0.2) < 3 * finding.effect.standard_error
