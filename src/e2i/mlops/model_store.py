"""Fitted models as folders of files in their libraries' own formats; no pickle is ever written or read.

A folder holds `model.json` (what the model is, and size and sha256 of every other file), the estimator (`.ubj`, `.txt`, `.cbm`
or `.skops`) and the preprocessor (`.skops`). The digest of a model is the sha256 of `model.json`, so it stands for every byte;
the same model gives the same digest. Loading compares first and parses after, from the very bytes that were compared.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from e2i.errors import BackendRejected, DataError
from e2i.mlops.model_formats import estimator_bytes, estimator_from_bytes, skops_bytes, skops_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.ml.training import FittedModel

MANIFEST = "model.json"
FORMAT = 2
"""2: the columns that the model makes by itself"""
_LIBRARIES = {
    "sklearn": ("scikit-learn",),
    "xgboost": ("scikit-learn", "xgboost"),
    "lightgbm": ("scikit-learn", "lightgbm"),
    "catboost": ("scikit-learn", "catboost"),
}
_FILE_NAME = re.compile(r"(estimator|preprocessor)\.(ubj|txt|cbm|skops)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MANIFEST_LIMIT = 16 * 2**20
_ADVICE = "Do not use it; train again, or restore the folder that the registry knows."


class NativeModelStore:
    """The ModelStore on a file system."""

    def save(self, model: FittedModel, folder: Path) -> str:
        """Write the model; a folder that is there is replaced as a whole.

        Returns
        -------
        str
            The digest, 64 hexadecimal digits.

        Raises
        ------
        DataError
            The model holds an object that cannot be kept without pickle.
        """
        name, content = estimator_bytes(model)
        files = {name: content, "preprocessor.skops": skops_bytes(model.preprocessor, where="preprocessor")}
        manifest = {
            "format": FORMAT,
            "model": model.to_record(),
            "features": list(model.features),
            "signature": {
                "inputs": list(model.inputs),
                "output": "value" if model.problem_type == "regression" else "probability",
            },
            "libraries": {library: version(library) for library in libraries_of(model.framework)},
            "files": {key: {"bytes": len(value), "sha256": _sha256(value)} for key, value in files.items()},
        }
        text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False).encode()
        _replace_folder(folder, {**files, MANIFEST: text})
        return _sha256(text)

    def load(self, folder: Path, *, expected_digest: str) -> FittedModel:
        """Verify every byte against `expected_digest`, then parse.

        Raises
        ------
        BackendRejected
            A file is missing, changed, cut, added, or a link; or it is another model. Nothing was parsed.
        """
        from e2i.ml.training import FittedModel

        content = _verified(folder, expected_digest)
        manifest = json.loads(content[MANIFEST])
        if manifest["format"] != FORMAT:
            raise BackendRejected(
                f"has format {manifest['format']}, this version reads {FORMAT}.",
                where=str(folder / MANIFEST),
                advice="Load it with the version that wrote it, or train again.",
            )
        (name,) = (file for file in content if file.startswith("estimator."))
        record = manifest["model"]
        estimator = estimator_from_bytes(record["framework"], record["problem_type"], name, content[name])
        preprocessor = skops_object(content["preprocessor.skops"], where=str(folder / "preprocessor.skops"))
        return FittedModel.from_record(record, preprocessor=preprocessor, estimator=estimator)

    def load_registered(self, digest: str | None, uri: str) -> FittedModel:
        """Load the model of a registry row, from a path or `file:` address; see also MLflowConnector.download_model.

        Raises
        ------
        BackendRejected
            The row knows no digest, or the files are not those that were registered.
        """
        if digest is None or not _DIGEST.fullmatch(digest):
            raise BackendRejected(
                "our registry knows no digest for this model, so nobody can say whose it is.",
                where=uri,
                advice="Register the model that a run of ours has logged.",
            )
        parts = urlsplit(uri)
        if parts.scheme not in ("", "file"):
            raise BackendRejected(
                f"a model cannot be read from a {parts.scheme}: address.", where=uri, advice="Download it first; give the folder."
            )
        return self.load(Path(unquote(parts.path) if parts.scheme else uri), expected_digest=digest)


def read_manifest(folder: Path, *, expected_digest: str) -> Mapping[str, Any]:
    """The manifest of a verified folder; nothing else of it is parsed. Raises BackendRejected."""
    manifest: dict[str, Any] = json.loads(_verified(folder, expected_digest)[MANIFEST])
    return manifest


def libraries_of(framework: str) -> tuple[str, ...]:
    """Distributions that a model of this framework needs to be loaded."""
    return ("numpy", "polars", "skops", *_LIBRARIES[framework])


def _verified(folder: Path, expected_digest: str) -> dict[str, bytes]:
    """All files of the folder, each one proved to be what the digest stands for."""
    if folder.is_symlink() or not folder.is_dir():
        raise BackendRejected("is not a folder of a model.", where=str(folder), advice=_ADVICE)
    manifest = _read(folder / MANIFEST, limit=_MANIFEST_LIMIT)
    if _sha256(manifest) != expected_digest:
        raise BackendRejected("this is another model than the registered one.", where=str(folder / MANIFEST), advice=_ADVICE)
    listed: dict[str, dict[str, Any]] = json.loads(manifest)["files"]
    for name in listed:
        if not _FILE_NAME.fullmatch(name):
            raise BackendRejected(f"lists {name!r}, which is no file of a model.", where=str(folder / MANIFEST), advice=_ADVICE)
    for entry in sorted(folder.iterdir()):
        if entry.name not in listed and entry.name != MANIFEST:
            raise BackendRejected("is not part of the model.", where=str(entry), advice=_ADVICE)
    content = {MANIFEST: manifest}
    for name, expected in listed.items():
        content[name] = _read(folder / name, limit=int(expected["bytes"]))
        if len(content[name]) != expected["bytes"] or _sha256(content[name]) != expected["sha256"]:
            raise BackendRejected("was changed or cut since the model was saved.", where=str(folder / name), advice=_ADVICE)
    return content


def _read(path: Path, *, limit: int) -> bytes:
    """A regular file of at most `limit` bytes; links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BackendRejected("is missing, a link, or cannot be read.", where=str(path), advice=_ADVICE) from error
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
            raise BackendRejected("was changed or cut since the model was saved.", where=str(path), advice=_ADVICE)
        return file.read(limit + 1)


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write beside, then move, so that no reader ever sees half a model; nobody else may be writing it.

    What a process that was killed left beside it goes, once the new model is in place.
    """
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}"))
        fresh.rename(folder)
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
            shutil.rmtree(leftover)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DataError(
            f"the model cannot be written: {error}", where=str(folder), advice="Make room, or choose another folder."
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
