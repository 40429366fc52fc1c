"""Estimators and preprocessors to bytes and back, in the formats of their libraries."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.errors import BackendRejected, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2i.ml.training import FittedModel

# Every type that our own models need, and no other; what an artifact asks for does not count.
ALLOWED_TYPES = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.dtype",
        "numpy.float64",
        "numpy.int64",
        "numpy.ndarray",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._forest.RandomForestRegressor",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._ridge.Ridge",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._tree.Tree",
    }
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def estimator_bytes(model: FittedModel) -> tuple[str, bytes]:
    """File name and content of a model's estimator. Raises DataError for a framework without a format of ours."""
    if model.framework == "xgboost":
        return "estimator.ubj", _through_file(model.estimator.save_model, ".ubj")
    if model.framework == "lightgbm":
        return "estimator.txt", model.estimator.booster_.model_to_string().encode()
    if model.framework == "catboost":
        return "estimator.cbm", _through_file(model.estimator.save_model, ".cbm")
    if model.framework == "sklearn":
        return "estimator.skops", skops_bytes(model.estimator, where="estimator")
    raise DataError(
        f"a {model.framework} model has no format that can be kept without pickle.",
        where=model.algorithm,
        advice="Use sklearn, xgboost, lightgbm or catboost.",
    )


def estimator_from_bytes(framework: str, problem_type: str, name: str, content: bytes) -> Any:
    """The estimator, ready to predict. Give verified bytes only."""
    is_regression = problem_type == "regression"
    if framework == "xgboost":
        from xgboost import XGBClassifier, XGBRegressor

        boosted = XGBRegressor(n_jobs=1) if is_regression else XGBClassifier(n_jobs=1)
        boosted.load_model(bytearray(content))
        return boosted
    if framework == "lightgbm":
        return _lightgbm(content, is_regression=is_regression)
    if framework == "catboost":
        from catboost import CatBoostClassifier, CatBoostRegressor

        cat = CatBoostRegressor() if is_regression else CatBoostClassifier()
        return cat.load_model(blob=content)
    return skops_object(content, where=name)


def skops_bytes(value: Any, *, where: str) -> bytes:
    """A scikit-learn object in skops format, the same bytes for the same object. Raises DataError for a type not allowed."""
    import skops.io

    raw = skops.io.dumps(value)
    foreign = sorted(_types(_schema(raw)) - ALLOWED_TYPES)
    if foreign:
        raise DataError(
            f"holds {', '.join(foreign)}, which cannot be kept without pickle.", where=where, advice="Use scikit-learn's own transformers."
        )
    return _canonical(raw)


def skops_object(content: bytes, *, where: str) -> Any:
    """The object. Raises BackendRejected, before anything is built, when it asks for a type that is not allowed."""
    import skops.io

    foreign = sorted(_types(_schema(content)) - ALLOWED_TYPES)
    if foreign:
        raise BackendRejected(f"asks for {', '.join(foreign)}.", where=where, advice="It is not a model of ours; do not use it.")
    return skops.io.loads(content, trusted=sorted(ALLOWED_TYPES))


def _lightgbm(content: bytes, *, is_regression: bool) -> Any:
    """LightGBM restores a booster only; the scikit-learn face around it, which prediction and SHAP use, is put back here."""
    import numpy as np
    from lightgbm import Booster, LGBMClassifier, LGBMRegressor
    from sklearn.preprocessing import LabelEncoder

    booster = Booster(model_str=content.decode())
    face = LGBMRegressor(n_jobs=1) if is_regression else LGBMClassifier(n_jobs=1)
    restored = {
        "_Booster": booster,
        "_n_features": booster.num_feature(),
        "_n_features_in": booster.num_feature(),
        "fitted_": True,
    }
    if not is_regression:
        labels = LabelEncoder().fit(np.array([0.0, 1.0]))
        restored |= {"_le": labels, "_classes": labels.classes_, "_n_classes": 2, "_objective": "binary"}
    for name, value in restored.items():
        setattr(face, name, value)
    return face


def _through_file(save: Any, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"estimator{suffix}"
        save(str(path))
        return path.read_bytes()


def _schema(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read("schema.json"))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "__class__" in value:
            yield value
        for item in value.values():
            yield from _nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _types(schema: Any) -> set[str]:
    return {f"{node.get('__module__')}.{node['__class__']}" for node in _nodes(schema)}


def _canonical(content: bytes) -> bytes:
    """Skops names parts by their address in memory and stamps the time; number them by first use instead, at no time."""
    schema = _schema(content)
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            node["file"] = files.setdefault(node["file"], f"{len(files) + 1}{Path(node['file']).suffix}")
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        for old, new in files.items():
            archive.writestr(_entry(new), _without_padding(source.read(old)))
        archive.writestr(_entry("schema.json"), json.dumps(schema))
    return target.getvalue()


def _without_padding(content: bytes) -> bytes:
    """A tree's nodes are records with unused bytes between the fields, which hold whatever memory held: make them zero."""
    import numpy as np

    if not content.startswith(b"\x93NUMPY"):
        return content
    records = np.load(io.BytesIO(content), allow_pickle=False)
    if records.dtype.names is None:
        return content
    clean = np.zeros(records.shape, records.dtype)
    for name in records.dtype.names:
        clean[name] = records[name]
    target = io.BytesIO()
    np.save(target, clean, allow_pickle=False)
    return target.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
