from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from e2i.agents.ml_foundation.scope_definer import SPEC, Deps, State
from e2i.data.sources import LocalFrameSource
from e2i.domain.data_spec import DataSpec
from e2i.domain.experiments import ScopeSpec
from e2i.domain.study import EffectSpec, PredictionSpec, Study, SuccessSpec
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import ConfigError, SchemaMismatch

COLUMNS = {
    "npi": "text",
    "week": "date",
    "index_date": "date",
    "hcp_email": "text",
    "sales_rep_id": "text",
    "specialty": "text",
    "decile": "integer",
    "treated": "boolean",
    "nrx": "number",
    "nrx_other": "number",
    "visits_after": "integer",
    "converted": "boolean",
    "age_group": "text",
    "tags": "other",
}
PREDICTION = PredictionSpec(target="converted", event_time="index_date", after_event=("visits_after",), protected=("age_group",))
EFFECT = EffectSpec(treatment="treated", outcome="nrx", confounders=("specialty",), modifiers=("decile",), negative_controls=("nrx_other",))


def study(**changes: object) -> Study:
    values = {
        "name": "lift",
        "data": DataSpec(source="panel.csv"),
        "unit": "npi",
        "time": "week",
        "brand": "Kisqali",
        "region": "west",
        "effect": EFFECT,
        "prediction": PREDICTION,
    }
    return Study.model_validate(values | changes)


@dataclass
class Experiments:
    """ExperimentRecords in memory."""

    saved: list[tuple[ScopeSpec, str]] = field(default_factory=list)

    async def save(self, scope: ScopeSpec, *, study: Study, created_by: str) -> str:
        self.saved.append((scope, created_by))
        return f"uuid-of-{study.name}"

    async def set_mlflow_id(self, experiment_id: str, mlflow_experiment_id: str) -> None:
        raise NotImplementedError


async def scope(asked: Study, *, base: Path | None = None, columns: dict[str, str] | None = None, rows: int | None = 5_000) -> ScopeSpec:
    experiments = Experiments()
    state = State(study=asked, columns=columns or COLUMNS, experiment_id="exp_1", rows=rows, base=str(base or "."))
    done = await Engine().run(SPEC, state, Deps(experiments=experiments, source=LocalFrameSource()), run_id="r")
    assert experiments.saved == [(done.scope, "scope_definer")]
    found = done.scope
    assert isinstance(found, ScopeSpec)
    return found


async def test_a_study_becomes_a_scope_that_is_written_down() -> None:
    found = await scope(study())
    assert (found.experiment_id, found.problem_type, found.prediction_target) == ("exp_1", "binary_classification", "converted")
    assert (found.brand, found.region, found.horizon_days) == ("Kisqali", "west", None)
    assert found.minimum_samples == 500
    assert found.warnings == ()


async def test_roles_and_identifiers_are_excluded_with_their_reason() -> None:
    found = await scope(study())
    assert set(found.required_features) == {"specialty", "decile", "treated"}
    assert found.excluded_features == {
        "npi": "names the unit",
        "week": "the time of the row",
        "index_date": "the time of the event",
        "hcp_email": "an identifier by its name",
        "sales_rep_id": "an identifier by its name",
        "nrx": "the outcome of the treatment: measured after it",
        "nrx_other": "a negative control: measured after the treatment",
        "visits_after": "known only after the event",
        "converted": "the target",
        "age_group": "protected: judged for fairness, never a feature",
        "tags": "holds lists or records",
    }


def test_derived_columns_keep_their_order_through_a_checkpoint_as_a_later_one_uses_an_earlier_one() -> None:
    data = DataSpec(source="panel.csv", derive={"won": "decile > 7", "early": "won AND treated"})
    codec = StateCodec(State)
    kept = codec.load(codec.dump(State(study=study(data=data), columns=COLUMNS, experiment_id="exp_1")))
    assert list(kept.study.data.derive) == ["won", "early"]


async def test_what_columns_are_derived_from_are_features_only_where_the_study_says_so() -> None:
    derive = {
        "won": "CASE WHEN `call state` = 'specialty' THEN 1 ELSE 0 END",
        "senior": "LENGTH(tenure) > 3 AND decile > 7",
        "late": "senior AND tenure != 'decile'",
    }
    columns = COLUMNS | {"call state": "text", "tenure": "text", "won": "integer", "senior": "boolean", "late": "boolean", "length": "text"}
    data = DataSpec(source="panel.csv", derive=derive)
    found = await scope(study(data=data), columns=columns)
    assert found.excluded_features["call state"] == "read only by the derived won"
    assert found.excluded_features["tenure"] == "read only by the derived senior, late"
    assert found.excluded_features["senior"] == "read only by the derived late"
    # `decile` modifies the effect; `specialty` stands there as text alone, and LENGTH( is no column.
    assert {"late", "won", "decile", "specialty", "length"} <= set(found.required_features)
    named = PREDICTION.model_copy(update={"features": ("tenure", "decile")})
    assert set((await scope(study(data=data, prediction=named), columns=columns)).required_features) == {"tenure", "decile"}


async def test_named_features_are_the_only_ones() -> None:
    found = await scope(study(prediction=PredictionSpec(target="converted", features=("decile",))))
    assert found.required_features == ("decile",)
    assert found.excluded_features["specialty"] == "not in prediction.features"


async def test_an_identifier_that_the_study_names_stays_for_the_quality_gate_to_refuse() -> None:
    found = await scope(study(unit=None, prediction=PredictionSpec(target="converted", features=("npi", "decile"))))
    assert found.required_features == ("npi", "decile")


@pytest.mark.parametrize("column", ["converted", "visits_after", "age_group", "nrx", "npi"])
async def test_a_feature_with_a_role_that_forbids_it_is_a_mistake_in_the_study(column: str) -> None:
    prediction = PREDICTION.model_copy(update={"features": ("decile", column)})
    with pytest.raises(ConfigError, match=column):
        await scope(study(prediction=prediction))


async def test_a_missing_column_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(SchemaMismatch, match="Did you mean `converted`"):
        await scope(study(prediction=PredictionSpec(target="convertd")))


@pytest.mark.parametrize(
    ("values", "problem", "minimum"),
    [
        ([0, 1, 1, 0], "binary_classification", 500),
        ([0.0, 1.0, None, 0.0], "binary_classification", 500),
        ([1, 1, 1, 1], "binary_classification", 500),
        ([0, 1, 2, 7], "regression", 300),
        ([0.1, 0.2, 0.3, 0.4], "regression", 300),
    ],
)
async def test_the_targets_values_decide_the_kind_of_problem(tmp_path: Path, values: list[float], problem: str, minimum: int) -> None:
    pl.DataFrame({"y": values, "x": [1, 2, 3, 4]}).write_csv(tmp_path / "panel.csv")
    asked = Study(name="s", data=DataSpec(source="panel.csv"), prediction=PredictionSpec(target="y"))
    found = await scope(asked, base=tmp_path, columns={"y": "number", "x": "integer"})
    assert (found.problem_type, found.minimum_samples) == (problem, minimum)


async def test_the_study_may_say_the_kind_of_problem_and_then_no_row_is_read() -> None:
    prediction = PredictionSpec(target="decile", problem_type="regression")
    found = await scope(study(prediction=prediction), base=Path("no/such/folder"))
    assert found.problem_type == "regression"


async def test_thresholds_of_the_study_replace_the_defaults() -> None:
    found = await scope(study(success=SuccessSpec(minimum_auc=0.8, maximum_brier=0.2)))
    assert found.success_criteria == {"minimum_auc": 0.8, "maximum_brier": 0.2}
    regression = await scope(study(prediction=PredictionSpec(target="decile", problem_type="regression")))
    assert regression.success_criteria == {"minimum_r2": 0.6, "minimum_lift": 0.1}


async def test_a_threshold_that_cannot_be_judged_is_a_mistake_in_the_study() -> None:
    with pytest.raises(ConfigError, match="minimum_r2"):
        await scope(study(success=SuccessSpec(minimum_r2=0.5)))


async def test_a_study_that_asks_only_for_an_effect_takes_the_outcome_as_its_target(tmp_path: Path) -> None:
    pl.DataFrame({"nrx": [0.5, 1.5, 2.5]}).write_csv(tmp_path / "panel.csv")
    found = await scope(study(prediction=None, success=SuccessSpec(minimum_auc=0.8)), base=tmp_path)
    assert (found.prediction_target, found.problem_type) == ("nrx", "regression")
    assert set(found.required_features) == {"specialty", "decile"}
    assert found.success_criteria == {}
    assert found.warnings == ("success criteria judge a model; this study asks only for an effect.",)


async def test_too_few_rows_and_too_high_hopes_are_warned_about() -> None:
    found = await scope(study(success=SuccessSpec(minimum_auc=0.99)), rows=499)
    assert found.warnings == ("499 rows; 500 are needed.", "minimum_auc above 0.95 is seldom reached without leakage.")
