"""The code inside each MLflow model of ours: MLflow runs this file to load the model (`mlflow.pyfunc.load_model`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import set_model

if TYPE_CHECKING:
    from mlflow.pyfunc import PythonModelContext


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow gives no types
    """Verifies the native files against the digest in the model's configuration, then predicts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load."""
        from e2i.mlops.model_store import NativeModelStore

        self._model = NativeModelStore().load(Path(context.artifacts["model"]), expected_digest=context.model_config["digest"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Calibrated probability of the event, or value; one column, a row per row."""
        import polars as pl

        column = "value" if self._model.problem_type == "regression" else "probability"
        return pd.DataFrame({column: self._model.predict(pl.from_pandas(model_input))})


set_model(ServedModel())
