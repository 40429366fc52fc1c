"""The frames of one run, beside the run: atomic parquet files, hashes, and who may read which split."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import polars as pl

from e2i.data.frames import pick_columns, reader_reason
from e2i.domain.experiments import SPLITS, FrameRef
from e2i.errors import ConfigError, LeakageFound, NotFound, SchemaMismatch, StorageError
from e2i.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from e2i.domain.experiments import Split

WRITER = "data_preparer"
"""writes the splits and validates each of them"""
JUDGE, JUDGES_EXPLAINER = "model_trainer", "feature_analyzer"
"""the one reads the test split once per model, the other explains that same model afterwards"""
HOLDOUT_READERS = frozenset({"drift_monitor", "health_score", "explainer", "model_deployer", "observability_connector"})
TRAIN_ONLY = frozenset({"scope_definer"})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class _TestRead:
    """One line of the ledger."""

    reader: str
    purpose: str


class RunFrames:
    """The FrameStore of one run, in a folder.

    `root/frames/NAME.parquet`, `root/splits/SPLIT.parquet` with `SPLIT.json` beside it, `root/splits/test_reads.jsonl`.
    A reference keeps the path relative to `root`, so that a run can be moved. The ledger of test reads is on disk
    before the rows are handed out, so that neither a killed process nor a resumed one gets a second look.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, name: str, frame: pl.DataFrame) -> FrameRef:
        """Write atomically; the same name is replaced.

        Raises
        ------
        ConfigError
            A name that cannot be a file name.
        StorageError
            The disk is full or may not be written; the old content is still there.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(f"`{name}` cannot name a frame.", advice="Use letters, digits, `_`, `-` and `.` only.")
        return self._write(Path("frames") / f"{name}.parquet", name=name, frame=frame)

    def load(self, ref: FrameRef, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read back. Raises SchemaMismatch when the content is not what was saved, NotFound when it is gone."""
        path = self.root / ref.path
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise NotFound("the reference points outside this run.", where=ref.path)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise NotFound(f"frame `{ref.name}` is gone.", where=str(path), advice="Run the study again.") from error
        if found != ref.sha256:
            what = f"frame `{ref.name}` is not what was saved (sha256 {found[:12]}, expected {ref.sha256[:12]})."
            raise SchemaMismatch(what, where=str(path), advice="Somebody changed the file: run the study again.")
        return pick_columns(pl.scan_parquet(path), columns, where=f"frame {ref.name}").collect()

    def save_split(self, split: Split, frame: pl.DataFrame) -> FrameRef:
        """Write one split.

        Raises
        ------
        LeakageFound
            The test split was read already and would get other rows.
        """
        _check_split(split)
        with self._ledger() as ledger:
            before = self._split_ref(split) if split == "test" and _reads(ledger) else None
            ref = self._write(Path("splits") / f"{split}.parquet", name=split, frame=frame, keep=before)
            self._replace(
                self.root / "splits" / f"{split}.json",
                lambda file: file.write(json.dumps({"rows": ref.rows, "columns": ref.columns, "sha256": ref.sha256}).encode()),
            )
        return ref

    def read_split(self, split: Split, *, reader: str, purpose: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read one split as agent `reader`; see the port for the rule of the test split.

        Raises
        ------
        LeakageFound
            This reader may not see this split, or the test split was read for another model.
        NotFound
            The split was not written.
        """
        _check_split(split)
        _check_reader(split, reader)
        ref = self._split_ref(split)
        if split == "test" and reader != WRITER:
            self._enter(_TestRead(reader=reader, purpose=purpose))
        return self.load(ref, columns)

    def folder(self, name: str) -> Path:
        """A folder of the run for files that are not frames (models, plots); made if missing."""
        if not NAME.fullmatch(name):
            raise ConfigError(f"`{name}` cannot name a folder.", advice="Use letters, digits, `_`, `-` and `.` only.")
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from error
        return path

    def _split_ref(self, split: Split) -> FrameRef:
        try:
            facts = json.loads((self.root / "splits" / f"{split}.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            advice = "data_preparer writes the splits; run it first."
            raise NotFound(f"there is no {split} split.", where=str(self.root), advice=advice) from error
        return FrameRef(
            name=split, path=f"splits/{split}.parquet", rows=facts["rows"], columns=tuple(facts["columns"]), sha256=facts["sha256"]
        )

    def _enter(self, read: _TestRead) -> None:
        """Write the read down, unless it is there; refuse a second model."""
        with self._ledger() as ledger:
            reads = _reads(ledger)
            judged = [entry.purpose for entry in reads if entry.reader == JUDGE]
            if read.reader == JUDGE and judged and read.purpose not in judged:
                what = f"the test split was read for {judged[0]} and is asked for again for {read.purpose}."
                raise LeakageFound(what, where=f"{read.reader}, test split", advice="The test split judges one model. Start a new run.")
            if read.reader == JUDGES_EXPLAINER and read.purpose not in judged:
                what = f"the test split was not read to judge {read.purpose}."
                raise LeakageFound(what, where=f"{read.reader}, test split", advice="Explain the model that model_trainer judged.")
            if read not in reads:
                _append(ledger, read)

    @contextmanager
    def _ledger(self) -> Iterator[IO[bytes]]:
        """The ledger, locked against other processes of the same run."""
        path = self.folder("splits") / "test_reads.jsonl"
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _write(self, place: Path, *, name: str, frame: pl.DataFrame, keep: FrameRef | None = None) -> FrameRef:
        """Write the frame; with `keep`, refuse content that differs from it."""
        path = self.root / place
        digest = ""

        def write(file: IO[bytes]) -> None:
            nonlocal digest
            frame.write_parquet(file, compression="zstd", statistics=False)
            file.flush()
            file.seek(0)
            content = hashlib.sha256()
            while block := file.read(1 << 20):
                content.update(block)
            digest = content.hexdigest()
            if keep is not None and keep.sha256 != digest:
                advice = "The rows of a test split stay as they are once a model was judged. Start a new run."
                raise LeakageFound("the test split was read and would now be replaced.", where=str(path), advice=advice)

        self._replace(path, write)
        return FrameRef(name=name, path=place.as_posix(), rows=frame.height, columns=tuple(frame.columns), sha256=digest)

    def _replace(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, is_private=True) as (part,), part.open("w+b") as file:
                write(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _cannot_write(path, error) from error


def _append(ledger: IO[bytes], read: _TestRead) -> None:
    try:
        ledger.seek(0, os.SEEK_END)
        ledger.write(json.dumps({"reader": read.reader, "purpose": read.purpose}).encode() + b"\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    except OSError as error:
        raise _cannot_write(Path(ledger.name), error) from error


def _cannot_write(path: Path, error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or reader_reason(error)
    advice = "Free space or give the right to write, then run again: nothing was half-written."
    return StorageError(f"cannot write: {reason}.", where=str(path), advice=advice)


def _reads(ledger: IO[bytes]) -> list[_TestRead]:
    ledger.seek(0)
    lines = ledger.read().split(b"\n")
    if lines[-1]:  # a write that a kill cut short handed out no rows
        ledger.truncate(sum(len(line) + 1 for line in lines[:-1]))
    return [_TestRead(**json.loads(line)) for line in lines[:-1]]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"there is no split `{split}`.", advice=f"Use one of {', '.join(SPLITS)}.")


def _check_reader(split: Split, reader: str) -> None:
    if reader == WRITER:
        return
    allowed = {
        "train": True,
        "validation": reader not in TRAIN_ONLY,
        "test": reader in (JUDGE, JUDGES_EXPLAINER),
        "holdout": reader in HOLDOUT_READERS,
    }
    if not allowed[split]:
        advice = "Use a split that this agent may see: see the split rules in the documentation."
        raise LeakageFound(f"{reader} may not read the {split} split.", where=f"{reader}, {split} split", advice=advice)
