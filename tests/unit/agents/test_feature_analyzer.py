"""feature_analyzer: features that never know more than their row did; an explanation of this model on these rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from doubles import ScriptedLanguage
from e2i.agents.ml_foundation import data_preparer, model_selector, model_trainer, scope_definer
from e2i.agents.ml_foundation.feature_analyzer import SPEC, State
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.experiments import Explanation
from e2i.domain.numbers import without_foreign_numbers
from e2i.domain.study import PredictionSpec
from e2i.errors import BackendRejected, DataError, LeakageFound
from e2i.ml.features import FeaturePlan
from e2i.ml.training import fit
from e2i.mlops.model_store import NativeModelStore
from workshop import Chain, Prepared, Workshop, gate, select, study, table


def explanation_of(done: State) -> Explanation:
    assert done.explanation is not None
    return done.explanation


def test_the_explanation_is_of_the_judged_model_on_the_test_rows(chain: Chain) -> None:
    told, trained = explanation_of(chain.explained), chain.trained.trained
    assert trained is not None
    assert told.values_ref is not None
    kept = np.load(told.values_ref)
    rows = chain.frames.read_split("test", reader="feature_analyzer", purpose=trained.model_sha256)
    model = NativeModelStore().load(Path(trained.model_ref), expected_digest=trained.model_sha256)
    assert told.sample_size == rows.height
    log_odds = kept["values"].sum(axis=1) + told.base_value
    assert np.sort(1 / (1 + np.exp(-log_odds))) == pytest.approx(np.sort(model.raw_score(rows)), abs=1e-4)
    share = list(kept["features"]).index("share")
    assert np.sort(kept["data"][:, share]) == pytest.approx(np.sort(rows["share"].to_numpy()))
    assert {item.feature: item.importance for item in told.top_features} == pytest.approx(
        dict(zip(kept["features"].tolist(), np.abs(kept["values"]).mean(axis=0).tolist(), strict=True)), abs=1e-5
    )
    assert told.top_features[0].feature in {"decile", "share", "calls"}
    assert {item.feature: item.direction for item in told.top_features}["decile"] == "positive"


def test_the_analysis_is_written_down_once_on_the_models_row(chain: Chain) -> None:
    told = explanation_of(chain.explained)
    (row,) = chain.rows("select * from ml_shap_analyses")
    assert (str(row["id"]), str(row["model_registry_id"])) == (chain.explained.analysis_id, chain.trained.candidate.registry_id)
    assert row["global_importance"] == pytest.approx({item.feature: item.importance for item in told.top_features})
    assert row["key_drivers"] == [item.feature for item in told.top_features]


def test_without_a_language_model_there_is_no_narrative(chain: Chain) -> None:
    assert explanation_of(chain.explained).narrative is None
    (row,) = chain.rows("select * from ml_shap_analyses")
    assert row["natural_language_explanation"] is None


async def _lightgbm_that_ignores(workshop: Workshop, frame: pl.DataFrame, column: str) -> tuple[Prepared, State]:
    """A registered, judged lightgbm model for which `column` was constant in train."""
    prepared, trained = await workshop.train(frame)
    rows = workshop.frames.read_split("train", reader="model_trainer", purpose="x").with_columns(pl.lit(1.0).alias(column))
    features = ("decile", "share", column)
    model = fit("lightgbm", rows, "converts", {"n_estimators": 30}, problem_type="binary_classification", features=features, seed=1)
    folder = workshop.folder / "ignoring"
    digest = NativeModelStore().save(model, folder)
    assert trained.trained is not None
    record = replace(trained.trained, model_ref=str(folder), model_sha256=digest, features=features)
    plan = FeaturePlan(steps=(), selected=features, dropped={})
    return prepared, workshop.analyzer_state(prepared, plan=plan, trained=record, version=trained.candidate)


async def _explain_on(workshop: Workshop, state: State, test: pl.DataFrame, name: str) -> Explanation:
    """Explain on rows of a run of its own, in which this very model was judged."""
    assert state.trained is not None
    RunFrames(workshop.folder / name).save_split("test", test)
    RunFrames(workshop.folder / name).read_split("test", reader="model_trainer", purpose=state.trained.model_sha256)
    workshop.run_id = name
    return explanation_of(await workshop.run(SPEC, replace(state, run_id=name), part="explain"))


async def test_a_feature_that_the_model_ignores_has_no_importance_however_its_values_are_mixed(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    _, state = await _lightgbm_that_ignores(workshop, table(), "calls")
    test = workshop.frames.load(workshop.frames._split_ref("test"))
    before = await _explain_on(workshop, state, test, "as_it_is")
    mixed = await _explain_on(workshop, state, test.with_columns(pl.col("calls").shuffle(seed=1)), "calls_mixed")
    other = await _explain_on(workshop, state, test.with_columns(pl.col("decile").shuffle(seed=1)), "decile_mixed")
    importance = [{item.feature: item.importance for item in told.top_features} for told in (before, mixed, other)]
    assert [found["calls"] for found in importance] == [0.0, 0.0, 0.0]
    assert importance[0] == importance[1]
    assert importance[0]["decile"] > 0
    assert importance[0]["share"] != importance[2]["share"] or importance[0]["decile"] != importance[2]["decile"]


async def test_a_model_that_was_changed_on_disk_or_never_judged_is_not_explained(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared, trained = await workshop.train()
    assert trained.trained is not None
    state = workshop.analyzer_state(prepared, plan=trained.plan, trained=trained.trained, version=trained.candidate)
    with pytest.raises(LeakageFound, match="not read to judge"):
        await workshop.run(SPEC, replace(state, trained=replace(trained.trained, model_sha256="0" * 64)), part="explain")
    with (Path(trained.trained.model_ref) / "model.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BackendRejected):
        await workshop.run(SPEC, state, part="explain")
    assert select(workshop.url, "select * from ml_shap_analyses") == []


async def test_a_narrative_keeps_only_numbers_that_are_in_the_evidence(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared, trained = await workshop.train()
    state = workshop.analyzer_state(prepared, plan=trained.plan, trained=trained.trained, version=trained.candidate)
    top = explanation_of(await workshop.run(SPEC, state, part="explain")).top_features[0]
    workshop.language = ScriptedLanguage(f"{top.feature} leads with {top.importance:.4g}. It raises conversion by 37 %. It is a driver.")
    done = await workshop.run(SPEC, state, part="explain")
    assert explanation_of(done).narrative == f"{top.feature} leads with {top.importance:.4g}. It is a driver."
    assert done.removed_sentences == 1
    (prompt,) = workshop.language.asked
    assert all(f"{item.feature}: {item.importance:.4g}" in prompt for item in explanation_of(done).top_features)
    workshop.language = ScriptedLanguage("Conversion rises 12-fold!")
    assert explanation_of(await workshop.run(SPEC, state, part="explain")).narrative is None
    (row,) = select(workshop.url, "select natural_language_explanation from ml_shap_analyses")
    assert row["natural_language_explanation"] is None


@pytest.mark.parametrize(
    ("sentence", "stays"),
    [
        ("decile_10 counts 0.25.", True),
        ("decile_10 counts 10.", False),
        ("zip3 and 0.25 matter (0.25, again).", True),
        ("It adds 0.25%.", False),
        ("It adds 1,234 scripts.", False),
        ("It adds -0.25.", False),
        ("Nothing in numbers.", True),
    ],
)
def test_digits_of_names_are_no_numbers_and_a_number_counts_as_it_is_written(sentence: str, *, stays: bool) -> None:
    told, removed = without_foreign_numbers(sentence, names=("decile_10", "zip3"), numbers={"0.25"})
    assert (told, removed) == ((sentence, 0) if stays else ("", 1))


async def test_features_are_planned_on_train_alone(alone: Callable[[str], Workshop]) -> None:
    def spoil(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(converts=1 - pl.col("converts"), share=pl.lit(0.5), decile=pl.lit(None, dtype=pl.Int64))

    one, other = alone("run_1"), alone("run_2")
    first = await one.analyze(await one.prepare())
    second = await other.analyze(await other.prepare(validation=spoil, test=spoil, holdout=spoil))
    assert first.plan == second.plan
    assert first.explanation is None, "before training there is nothing to explain"


async def test_without_a_usable_column_there_is_nothing_to_analyze(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared = await workshop.prepare()
    with pytest.raises(DataError, match="no column is left"):
        await workshop.analyze(replace(prepared, scope=replace(prepared.scope, required_features=())))


WEEKS = 40
START = date(2023, 1, 6)


def panel(units: int = 150) -> pl.DataFrame:
    """HCPs by week; whether one converts depends on last week's calls."""
    rng = np.random.default_rng(6)
    calls = rng.poisson(3, (units, WEEKS))
    before = np.concatenate([np.full((units, 1), 3), calls[:, :-1]], axis=1)
    return pl.DataFrame(
        {
            "hcp": np.repeat([f"H{unit:03d}" for unit in range(units)], WEEKS),
            "week": [START + timedelta(days=7 * week) for _ in range(units) for week in range(WEEKS)],
            "decile": np.repeat(rng.integers(1, 11, units), WEEKS),
            "calls": calls.ravel(),
            "converts": (rng.random(units * WEEKS) < 1 / (1 + np.exp(3 - before.ravel()))).astype(int),
        }
    )


PANEL = study(PredictionSpec(target="converts"), time="week")


async def prepare_panel(workshop: Workshop, frame: pl.DataFrame) -> data_preparer.State:
    """The first two agents for real: lags are made before the table is divided."""
    workshop.study = PANEL
    workshop.folder.mkdir(parents=True)
    frame.write_csv(workshop.folder / "visits.csv")
    columns = LocalFrameSource().columns(PANEL.data, base=workshop.folder)
    asked = scope_definer.State(study=PANEL, columns=columns, experiment_id=f"exp_{workshop.run_id}", base=str(workshop.folder))
    scoped = await workshop.run(scope_definer.SPEC, asked)
    state = data_preparer.State(study=PANEL, scope=scoped.scope, base=str(workshop.folder))
    done = await workshop.run(data_preparer.SPEC, state)
    assert isinstance(done, data_preparer.State)
    return done


def all_rows(workshop: Workshop) -> pl.DataFrame:
    """Every split, in one order."""
    splits = [workshop.frames.read_split(name, reader="data_preparer", purpose="x") for name in ("train", "validation", "test", "holdout")]  # type: ignore[arg-type]
    return pl.concat(splits).sort("hcp", "week")


async def test_a_panel_gets_lags_that_never_depend_on_the_future(alone: Callable[[str], Workshop]) -> None:
    today = START + timedelta(days=7 * 15)
    one, other = alone("run_1"), alone("run_2")
    done = await prepare_panel(one, panel())
    assert done.qc is not None
    assert done.qc.gate_passed, done.qc.blocking
    later = pl.when(pl.col("week") > today).then(pl.col("calls") + 50).otherwise("calls").alias("calls")
    await prepare_panel(other, panel().with_columns(later))
    here, there = all_rows(one), all_rows(other)
    lags = [name for name in here.columns if name not in panel().columns]
    assert {"calls_lag_1", "calls_lag_7", "calls_mean_7"} <= set(lags)
    past = pl.col("week") <= today
    assert here.filter(past).select(lags).equals(there.filter(past).select(lags))
    assert not here.filter(~past).select(lags).equals(there.filter(~past).select(lags))
    truth = panel().sort("hcp", "week").with_columns(pl.col("calls").shift(1).over("hcp").alias("before")).select("hcp", "week", "before")
    joined = here.join(truth, on=["hcp", "week"])
    assert joined["calls_lag_1"].equals(joined["before"], null_equal=True), "the week before is known even where it lies in another split"


async def test_lags_reach_the_plan_and_the_model(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    done = await prepare_panel(workshop, panel())
    assert done.plan is not None
    prepared = Prepared(scope=done.scope, plan=done.plan, refs=done.splits)
    analyzed = await workshop.analyze(prepared)
    assert analyzed.plan is not None
    assert "calls_lag_1" in analyzed.plan.selected
    assert {step.name for step in analyzed.plan.steps} <= set(
        workshop.frames.read_split("train", reader="feature_analyzer", purpose="x").columns
    ) | {step.name for step in analyzed.plan.steps if step.kind == "product"}
    selected = await workshop.run(model_selector.SPEC, workshop.selector_state(prepared, analyzed.plan))
    assert selected.selection.primary.cv_mean > 0.75, "last week's calls decide, so a model that knows them is good"
    trained = await workshop.run(model_trainer.SPEC, workshop.trainer_state(prepared, selected, qc=gate()))
    assert "calls_lag_1" in trained.trained.features
    assert trained.trained.metrics["roc_auc"].value > 0.75
    judged = workshop.analyzer_state(prepared, plan=analyzed.plan, trained=trained.trained, version=trained.candidate)
    explained = explanation_of(await workshop.run(SPEC, judged, part="explain"))
    assert explained.top_features[0].feature == "calls_lag_1"
