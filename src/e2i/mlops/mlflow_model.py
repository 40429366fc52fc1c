"""A fitted model as an MLflow model that any MLflow user can load: native files, code instead of pickle, a signature."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.mlops.mlflow_operations import DIGEST, MODEL_FOLDER, quieten
from e2i.mlops.model_store import NativeModelStore, libraries_of, read_manifest
from e2i.ports.models import StoredModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import polars as pl
    from mlflow.models import ModelSignature

    from e2i.ml.training import FittedModel

_EXAMPLE_ROWS = 5
_SERVING_CODE = Path(__file__).with_name("serving_model.py")


def write_mlflow_model(model: FittedModel | StoredModel, folder: Path, *, example: pl.DataFrame) -> tuple[str, str]:
    """Write `folder/model` (ours) and `folder/mlflow` (MLflow's, with ours inside); returns our digest and the framework.

    Requirements are given, not inferred: inference starts a process and takes 13 s. A stored model is verified and copied, not
    built: that would load its libraries, seconds of work here.

    Raises
    ------
    DataError, SchemaMismatch
        The model cannot be kept without pickle, or the example lacks a feature.
    BackendRejected
        The stored model is not the one of its digest.
    """
    quieten()
    import mlflow.pyfunc

    digest = _place(model, folder / MODEL_FOLDER)
    manifest = read_manifest(folder / MODEL_FOLDER, expected_digest=digest)
    facts = manifest["model"]
    framework: str = facts["framework"]
    rows = to_pandas(example.select(manifest["signature"]["inputs"]).head(_EXAMPLE_ROWS))
    mlflow.pyfunc.save_model(
        str(folder / "mlflow"),
        python_model=str(_SERVING_CODE),
        artifacts={MODEL_FOLDER: str(folder / MODEL_FOLDER)},
        model_config={"digest": digest},
        signature=_signature(facts, rows),
        input_example=rows,
        pip_requirements=[f"{name}=={version(name)}" for name in ("e2i", "mlflow", "pandas", *libraries_of(framework))],
        metadata={DIGEST: digest, "e2i.algorithm": facts["algorithm"]},
    )
    _forget_paths(folder / "mlflow" / "MLmodel")
    return digest, framework


def _place(model: FittedModel | StoredModel, folder: Path) -> str:
    if isinstance(model, StoredModel):
        shutil.copytree(model.folder, folder)
        return model.digest
    return NativeModelStore().save(model, folder)


def _forget_paths(card: Path) -> None:
    """MLflow writes down where the files came from; that is nobody's business."""
    import yaml

    content = yaml.safe_load(card.read_text(encoding="utf-8"))
    flavor = content["flavors"]["python_function"]
    flavor["artifacts"][MODEL_FOLDER]["uri"] = flavor["artifacts"][MODEL_FOLDER]["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    card.write_text(yaml.safe_dump(content), encoding="utf-8")


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """For MLflow, which speaks pandas: text as objects, missing values as None or NaN, dates as timestamps."""
    import pandas as pd
    import polars as pl

    def column(series: pl.Series) -> Any:
        if series.dtype in (pl.Date, pl.Datetime):
            return pd.Series(series.cast(pl.Datetime("ns")).to_numpy(), dtype="datetime64[ns]")
        if series.dtype.is_integer() and series.null_count():
            return pd.Series(series.cast(pl.Float64).to_numpy(), dtype="float64")
        if series.dtype.is_integer():  # MLflow has no unsigned types
            return pd.Series(series.cast(pl.Int64).to_numpy(), dtype="int64")
        if series.dtype.is_numeric() or (series.dtype == pl.Boolean and not series.null_count()):
            return pd.Series(series.to_numpy())
        return pd.Series(series.cast(pl.String).to_list() if series.dtype != pl.Boolean else series.to_list(), dtype=object)

    return pd.DataFrame({series.name: column(series) for series in frame})


def _signature(facts: Mapping[str, Any], rows: pd.DataFrame) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    output = "value" if facts["problem_type"] == "regression" else "probability"
    kinds = dict(facts["columns"])
    columns = [ColSpec(_mlflow_type(rows[name].dtype, kinds.get(name)), name) for name in rows]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec("double", output)]))


def _mlflow_type(dtype: Any, kind: str | None) -> Any:
    """Numbers and truths are `Any`, and checked by our own model, which takes missing values and refuses words among numbers.

    MLflow's `long` refuses a missing value, its `double` whole numbers, and its `boolean` reads a missing value, and any word, as true.
    """
    from mlflow.types.schema import AnyType

    if dtype.kind == "M":
        return "datetime"
    return "string" if kind == "categorical" else AnyType()
