"""A model folder is the registered model, byte for byte, or it is not read at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from e2i.errors import BackendRejected, DataError
from e2i.ml.algorithms import ALGORITHMS
from e2i.ml.calibration import Calibration
from e2i.ml.training import FittedModel, fit
from e2i.mlops.model_formats import ALLOWED_TYPES, skops_bytes, skops_object
from e2i.mlops.model_store import MANIFEST, NativeModelStore, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2i.domain.experiments import ProblemType
    from e2i.ports.models import ModelStore

STORE: ModelStore = NativeModelStore()
FEATURES = ("decile", "calls", "specialty", "is_target", "last_call")


@cache
def frame() -> pl.DataFrame:
    chance = np.random.default_rng(11)
    calls = chance.poisson(3, 240).astype(float)
    return pl.DataFrame(
        {
            "decile": chance.integers(1, 11, 240),
            "calls": [None if missing else value for missing, value in zip(chance.random(240) < 0.1, calls, strict=True)],
            "specialty": [["rheumatology", "dermatology", None][level] for level in chance.integers(0, 3, 240)],
            "is_target": (chance.random(240) < 0.5).tolist(),
            "last_call": pl.Series(chance.integers(0, 900, 240)).cast(pl.Int32).cast(pl.Date),
            "converted": (chance.random(240) < 1 / (1 + np.exp(1.5 - 0.5 * calls))).astype(int),
            "nrx": calls * 2 + chance.normal(size=240),
        }
    )


@cache
def model(
    algorithm: str = "logistic_regression", problem_type: ProblemType = "binary_classification", *, early: bool = False
) -> FittedModel:
    params = {"n_estimators": 30 if early else 8} if algorithm in ("xgboost", "lightgbm", "random_forest") else {}
    return fit(
        algorithm,
        frame()[:180],
        "nrx" if problem_type == "regression" else "converted",
        params,
        problem_type=problem_type,
        features=FEATURES,
        seed=5,
        validation=frame()[180:] if early else None,
    )


@pytest.mark.parametrize("problem_type", ["binary_classification", "regression"])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("early", [False, True])
def test_a_model_comes_back_and_predicts_the_same(tmp_path: Path, algorithm: str, problem_type: ProblemType, early: bool) -> None:
    saved = model(algorithm, problem_type, early=early)
    loaded = STORE.load(tmp_path / "m", expected_digest=STORE.save(saved, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.predict(frame()), saved.predict(frame()))
    np.testing.assert_array_equal(loaded.transform(frame()), saved.transform(frame()))
    assert loaded.to_record() == saved.to_record()
    assert loaded.feature_names_out == saved.feature_names_out
    assert type(loaded.estimator) is type(saved.estimator)


def test_calibration_and_threshold_come_back(tmp_path: Path) -> None:
    saved = model().with_calibration(Calibration(method="sigmoid", slope=1.25, intercept=-0.1), threshold=0.4)
    loaded = STORE.load(tmp_path / "m", expected_digest=STORE.save(saved, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.decide(frame()), saved.decide(frame()))
    assert loaded.calibration == saved.calibration


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_the_same_model_has_the_same_digest_and_another_one_another(tmp_path: Path, algorithm: str) -> None:
    again = fit(
        algorithm,
        frame()[:180],
        "converted",
        dict(model(algorithm).params),
        problem_type="binary_classification",
        features=FEATURES,
        seed=5,
    )
    digests = [STORE.save(item, tmp_path / name) for name, item in (("a", model(algorithm)), ("b", again), ("c", model(algorithm)))]
    assert len(set(digests)) == 1
    assert STORE.save(model(algorithm).with_calibration(Calibration(), threshold=0.3), tmp_path / "d") not in digests


@pytest.mark.parametrize("problem_type", ["binary_classification", "regression"])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_model_keeps_its_digest_through_loading_and_saving(tmp_path: Path, algorithm: str, problem_type: ProblemType) -> None:
    """The agent that logs a model has loaded it; the unused bytes of a forest's nodes once made that another model."""
    digest = STORE.save(model(algorithm, problem_type, early=True), tmp_path / "m")
    for _ in range(3):
        assert STORE.save(STORE.load(tmp_path / "m", expected_digest=digest), tmp_path / "m") == digest


def test_the_folder_holds_native_files_and_a_manifest_of_them(tmp_path: Path) -> None:
    digest = STORE.save(model("xgboost"), tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["estimator.ubj", MANIFEST, "preprocessor.skops"]
    manifest = read_manifest(tmp_path / "m", expected_digest=digest)
    assert digest == hashlib.sha256((tmp_path / "m" / MANIFEST).read_bytes()).hexdigest()
    assert manifest["features"] == list(FEATURES)
    assert manifest["signature"]["output"] == "probability"
    assert {"numpy", "polars", "scikit-learn", "skops", "xgboost"} == manifest["libraries"].keys()
    for name, entry in manifest["files"].items():
        content = (tmp_path / "m" / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_saving_again_replaces_the_folder_as_a_whole(tmp_path: Path) -> None:
    STORE.save(model("xgboost"), tmp_path / "m")
    (tmp_path / ".m.0123456789abcdef0123456789abcdef").mkdir()  # of a process that was killed
    digest = STORE.save(model("lightgbm"), tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["estimator.txt", MANIFEST, "preprocessor.skops"]
    assert STORE.load(tmp_path / "m", expected_digest=digest).algorithm == "lightgbm"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def rehashed(folder: Path, name: str, content: bytes) -> None:
    """Forge a file together with its entry in the manifest."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1))


class Gadget:
    """What a pickle can do to whoever opens it."""

    def __init__(self, witness: str) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.witness,)


def link(path: Path) -> None:
    outside = path.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def gadget(path: Path) -> bytes:
    return pickle.dumps(Gadget(str(path.parent.parent / "executed")))


def skops_gadget(folder: Path) -> bytes:
    """A skops file that asks for `os.mkdir`."""
    node = {"__class__": "mkdir", "__module__": "os", "__loader__": "FunctionNode", "content": "mkdir", "__id__": 1}
    with zipfile.ZipFile(folder.parent / "evil.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({**node, "protocol": 2, "_skops_version": "0.16"}))
    return (folder.parent / "evil.skops").read_bytes()


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit of the estimator": (lambda m: flip(m / "estimator.skops", 100), "estimator.skops"),
    "one bit of the preprocessor": (lambda m: flip(m / "preprocessor.skops", -30), "preprocessor.skops"),
    "one bit of the manifest": (lambda m: flip(m / MANIFEST, 40), MANIFEST),
    "a file cut short": (lambda m: cut(m / "estimator.skops"), "estimator.skops"),
    "a manifest cut short": (lambda m: cut(m / MANIFEST), MANIFEST),
    "an empty file": (lambda m: (m / "estimator.skops").write_bytes(b""), "estimator.skops"),
    "a file too many": (lambda m: (m / "extra.pkl").write_bytes(gadget(m / "extra.pkl")), "extra.pkl"),
    "a folder too many": (lambda m: (m / "code").mkdir(), "code"),
    "a missing file": (lambda m: (m / "estimator.skops").unlink(), "estimator.skops"),
    "a missing manifest": (lambda m: (m / MANIFEST).unlink(), MANIFEST),
    "a link in place of a file": (lambda m: link(m / "estimator.skops"), "estimator.skops"),
    "a link in place of the manifest": (lambda m: link(m / MANIFEST), MANIFEST),
    "a pipe in place of a file": (lambda m: ((m / "estimator.skops").unlink(), os.mkfifo(m / "estimator.skops")), "estimator.skops"),
    "a pickle under the estimator's name": (
        lambda m: (m / "estimator.skops").write_bytes(gadget(m / "estimator.skops")),
        "estimator.skops",
    ),
    "a forged file with a forged manifest": (lambda m: rehashed(m, "estimator.skops", gadget(m / "estimator.skops")), MANIFEST),
    "a name that leaves the folder": (lambda m: rehashed(m, "../outside.skops", b"x"), MANIFEST),
    "two files exchanged": (
        lambda m: [
            (m / "estimator.skops").rename(m / "t"),
            (m / "preprocessor.skops").rename(m / "estimator.skops"),
            (m / "t").rename(m / "preprocessor.skops"),
        ],
        "estimator.skops",
    ),
}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_folder_that_somebody_touched_is_refused_and_the_file_is_named(tmp_path: Path, attack: str) -> None:
    digest = STORE.save(model(), tmp_path / "m")
    change, name = ATTACKS[attack]
    change(tmp_path / "m")
    with pytest.raises(BackendRejected) as refusal:
        STORE.load(tmp_path / "m", expected_digest=digest)
    assert name in str(refusal.value.where)
    assert not (tmp_path / "executed").exists()


def test_the_gadget_of_these_tests_does_run_where_a_pickle_is_opened(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    pickle.loads(gadget(tmp_path / "m" / "x.pkl"))
    assert (tmp_path / "executed").exists()


def test_nothing_is_parsed_before_everything_is_verified(tmp_path: Path) -> None:
    """The last listed file is bad: a parser that ran before it would have been called from the model's code."""
    digest = STORE.save(model("xgboost"), tmp_path / "m")
    flip(tmp_path / "m" / "preprocessor.skops", 10)
    called: list[str] = []

    def watch(called_frame: Any, event: str, _argument: Any) -> None:
        if event == "call" and called_frame.f_code.co_name in ("estimator_from_bytes", "skops_object"):
            called.append(called_frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        with pytest.raises(BackendRejected, match="changed or cut"):
            STORE.load(tmp_path / "m", expected_digest=digest)
    finally:
        sys.setprofile(None)
    assert called == []


def test_another_model_of_ours_is_refused_in_the_place_of_the_registered_one(tmp_path: Path) -> None:
    digest = STORE.save(model("xgboost"), tmp_path / "m")
    STORE.save(model("lightgbm"), tmp_path / "other")
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(tmp_path / "other", tmp_path / "m")
    with pytest.raises(BackendRejected, match="another model than the registered one"):
        STORE.load(tmp_path / "m", expected_digest=digest)


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    digest = STORE.save(model(), tmp_path / "m")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    with pytest.raises(BackendRejected, match="not a folder of a model"):
        STORE.load(tmp_path / "link", expected_digest=digest)


def test_a_manifest_of_another_format_says_so(tmp_path: Path) -> None:
    STORE.save(model(), tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / MANIFEST).read_bytes())
    text = json.dumps({**manifest, "format": 99})
    (tmp_path / "m" / MANIFEST).write_text(text)
    with pytest.raises(BackendRejected, match="format 99"):
        STORE.load(tmp_path / "m", expected_digest=hashlib.sha256(text.encode()).hexdigest())


def test_a_model_without_a_digest_in_our_registry_is_not_loaded(tmp_path: Path) -> None:
    store = NativeModelStore()
    digest = store.save(model(), tmp_path / "my model")
    for unknown in (None, "", "abc", "z" * 64):
        with pytest.raises(BackendRejected, match="knows no digest"):
            store.load_registered(unknown, str(tmp_path / "my model"))
    with pytest.raises(BackendRejected, match="cannot be read from a https"):
        store.load_registered(digest, "https://example.org/m")
    for address in (str(tmp_path / "my model"), (tmp_path / "my model").as_uri()):
        assert store.load_registered(digest, address).algorithm == "logistic_regression"


def test_a_type_that_is_not_on_our_list_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    from sklearn.preprocessing import PolynomialFeatures

    foreign = PolynomialFeatures().fit(np.ones((3, 2)))
    with pytest.raises(DataError, match=r"PolynomialFeatures, which cannot be kept without pickle"):
        skops_bytes(foreign, where="preprocessor")
    with pytest.raises(BackendRejected, match=r"os\.mkdir"):
        skops_object(skops_gadget(tmp_path / "m"), where="m")
    assert "os.mkdir" not in ALLOWED_TYPES


def test_a_framework_without_a_format_of_ours_is_not_saved(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(DataError, match="pytorch model"):
        STORE.save(replace(model(), framework="pytorch"), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("a file is in the way")
    with pytest.raises(DataError, match="cannot be written"):
        STORE.save(model(), tmp_path / "m" / "inside")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
