"""Models in MLflow: what any MLflow user loads predicts what ours predicts, and nothing else can be slipped in."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fitted
import numpy as np
import polars as pl
import pytest

from e2i.errors import BackendRejected, SchemaMismatch
from e2i.ml.features import FeatureStep, add_columns
from e2i.ml.training import fit
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.mlflow_model import to_pandas
from e2i.mlops.mlflow_operations import DIGEST, TARGET
from e2i.mlops.model_store import NativeModelStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from contracts.sqlite_outbox import SqliteOutbox
    from e2i.domain.experiments import ProblemType
    from e2i.ml.training import FittedModel
    from e2i.mlops.mlflow_connector import MlflowSettings

# What MLflow says to its own authors when its users load a model.
pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")


async def log(connector: MLflowConnector, model: FittedModel, *, key: str | None = None, name: str | None = None) -> tuple[str | None, str]:
    """URI of a logged and registered model, and its registered name."""
    name = name or f"e2i_model_{uuid.uuid4().hex[:8]}"
    async with connector.start_run(experiment_name=f"e2i_{name}", run_name="r", key=key) as run:
        uri = await run.log_model(model, "model", example=fitted.frame())
    await connector.register_model(name=name, run=run, model_uri=uri, tags={})
    return uri, name


def load(connector: MLflowConnector, uri: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(connector.settings.tracking_uri)
    mlflow.set_registry_uri(connector.settings.tracking_uri)
    return mlflow.pyfunc.load_model(uri)


@pytest.mark.parametrize(
    ("algorithm", "problem_type"),
    [
        ("xgboost", "binary_classification"),
        ("lightgbm", "binary_classification"),
        ("logistic_regression", "binary_classification"),
        ("random_forest", "regression"),
    ],
)
async def test_what_mlflow_loads_predicts_what_ours_predicts(connector: MLflowConnector, algorithm: str, problem_type: ProblemType) -> None:
    model = fitted.model(algorithm, problem_type)
    uri, name = await log(connector, model)
    assert uri is not None
    expected = model.predict(fitted.frame())
    for address in (uri, f"models:/{name}/1"):
        served = load(connector, address)
        predicted = served.predict(to_pandas(fitted.frame().select(model.features)))
        assert list(predicted.columns) == ["value" if problem_type == "regression" else "probability"]
        np.testing.assert_array_equal(predicted.iloc[:, 0].to_numpy(), expected)
        assert [(column.name, str(column.type)) for column in served.metadata.signature.inputs.inputs] == [
            ("decile", "Any"),
            ("calls", "Any"),
            ("specialty", "DataType.string"),
            ("is_target", "Any"),
            ("last_call", "DataType.datetime"),
        ]


async def test_a_served_model_takes_what_rows_really_hold_and_refuses_words_among_numbers(connector: MLflowConnector) -> None:
    rows = (
        fitted.frame()
        .head(4)
        .with_columns(decile=pl.Series([3, None, 5, 7]), calls=pl.Series([2, 4, 1, 3]), is_target=pl.Series([True, None, False, True]))
    )
    model = fitted.model()
    uri, _ = await log(connector, model)
    assert uri is not None
    served = load(connector, uri)
    given = to_pandas(rows.select(model.features))
    np.testing.assert_array_equal(served.predict(given)["probability"].to_numpy(), model.predict(rows))
    with pytest.raises(SchemaMismatch, match="decile"):
        served.predict(given.assign(decile=["three", "four", "five", "six"]))


async def test_a_served_model_makes_its_generated_columns_from_the_rows_it_is_given(connector: MLflowConnector) -> None:
    steps = (
        FeatureStep(name="n_missing", kind="missing_count", inputs=("calls", "specialty")),
        FeatureStep(name="last_call_month", kind="month", inputs=("last_call",)),
    )
    rows = add_columns(fitted.frame(), steps)
    plain = fit(
        "logistic_regression", rows, "converted", {}, problem_type="binary_classification",
        features=("decile", "n_missing", "last_call_month"), seed=3,
    )  # fmt: skip
    uri, _ = await log(connector, replace(plain, steps=steps))
    assert uri is not None
    served = load(connector, uri)
    assert [column.name for column in served.metadata.signature.inputs.inputs] == ["decile", "calls", "specialty", "last_call"]
    given = to_pandas(fitted.frame().select("decile", "calls", "specialty", "last_call"))
    np.testing.assert_array_equal(served.predict(given)["probability"].to_numpy(), plain.predict(rows))


async def test_digest_and_requirements_stand_beside_the_model_and_no_pickle_does(
    connector: MLflowConnector, tmp_path: Path, artifacts: Path
) -> None:
    model = fitted.model()
    uri, name = await log(connector, model)
    digest = NativeModelStore().save(model, tmp_path / "own")
    version = await connector.get_latest_model_version(name)
    assert version is not None
    assert version.digest == digest
    (run,) = await connector.search_runs(f"e2i_{name}")
    assert run["tags"][DIGEST] == digest
    assert uri is not None
    files = {path.name: path for path in (artifacts / f"e2i_{name}").rglob("*") if path.is_file()}
    assert not {Path(file).suffix for file in files} & {".pkl", ".pickle", ".joblib", ".dill"}
    assert {"MLmodel", "serving_model.py", "estimator.ubj", "preprocessor.skops", "model.json", "input_example.json"} <= files.keys()
    requirements = files["requirements.txt"].read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} >= {"e2i", "mlflow", "xgboost", "scikit-learn", "skops"}
    assert all("==" in line for line in requirements)


async def test_logging_the_same_model_again_under_the_same_key_makes_nothing_new(connect: Callable[[], MLflowConnector]) -> None:
    key, name = uuid.uuid4().hex, f"e2i_again_{uuid.uuid4().hex[:8]}"
    first, second = [(await log(connect(), fitted.model(), key=key, name=name))[0] for _ in range(2)]
    assert first == second
    latest = await connect().get_latest_model_version(name)
    assert latest is not None
    assert latest.version == "1"


async def test_a_model_logged_while_mlflow_was_away_arrives_and_is_registered(
    settings: MlflowSettings, outbox: SqliteOutbox, connect: Callable[[], MLflowConnector]
) -> None:
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    uri, name = await log(away, fitted.model())
    assert uri is None
    assert list(away.staging.iterdir())
    await connect().drain()
    served = load(connect(), f"models:/{name}/1")
    assert len(served.predict(to_pandas(fitted.frame().select(fitted.FEATURES)))) == 300
    assert not list(away.staging.iterdir())
    assert await outbox.counts(TARGET) == {"pending": 0, "delivered": 4, "quarantined": 0}


async def fetched(connector: MLflowConnector, model: FittedModel, tmp_path: Path) -> tuple[Path, str]:
    uri, _ = await log(connector, model)
    assert uri is not None
    digest = NativeModelStore().save(model, tmp_path / "own")
    return await connector.download_model(uri, tmp_path / "fetched"), digest


async def test_a_model_fetched_from_mlflow_is_loaded_by_the_digest_of_our_registry(connector: MLflowConnector, tmp_path: Path) -> None:
    folder, digest = await fetched(connector, fitted.model(), tmp_path)
    loaded = NativeModelStore().load_registered(digest, folder.as_uri())
    np.testing.assert_array_equal(loaded.predict(fitted.frame()), fitted.model().predict(fitted.frame()))


async def test_a_model_that_was_swapped_in_mlflow_is_refused_by_us_and_by_its_own_code(
    connector: MLflowConnector, tmp_path: Path, artifacts: Path
) -> None:
    uri, name = await log(connector, fitted.model())
    _, other = await log(connector, fitted.model("lightgbm"))
    assert uri is not None
    registered = NativeModelStore().save(fitted.model(), tmp_path / "own")
    (victim,) = (artifacts / f"e2i_{name}").rglob("artifacts/model")
    (intruder,) = (artifacts / f"e2i_{other}").rglob("artifacts/model")
    shutil.rmtree(victim)
    shutil.copytree(intruder, victim)
    folder = await connector.download_model(uri, tmp_path / "fetched")
    with pytest.raises(BackendRejected, match="another model than the registered one"):
        NativeModelStore().load_registered(registered, str(folder))
    with pytest.raises(BackendRejected, match="another model than the registered one"):
        load(connector, uri)


async def test_the_mlflow_model_names_no_folder_of_this_machine(connector: MLflowConnector, artifacts: Path) -> None:
    _, name = await log(connector, fitted.model())
    (card,) = (artifacts / f"e2i_{name}").rglob("MLmodel")
    assert str(connector.settings.state_folder) not in card.read_text()
    assert str(Path(__file__).parents[3]) not in card.read_text()
    assert json.loads(next((artifacts / f"e2i_{name}").rglob("artifacts/model/model.json")).read_text())["features"] == list(
        fitted.FEATURES
    )
