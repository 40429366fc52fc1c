"""Where frames come from, where a run keeps them, and who may read which split."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from e2i.domain.data_spec import DataSpec
    from e2i.domain.experiments import FrameRef, Split


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A loaded table and what identifies it. `sha256` is over the content, not the file's name or time."""

    frame: pl.DataFrame
    sha256: str
    table: str
    is_synthetic: bool
    modified_at: datetime | None
    """when the source last changed, where the source tells"""


class FrameSource(Protocol):
    """Reads what a study's `data` names."""

    def identity(self, data: DataSpec, *, base: Path) -> str:
        """What must be the same for an interrupted run to be resumed: sha256 of a file's bytes, else the source's own words."""
        ...

    def columns(self, data: DataSpec, *, base: Path) -> dict[str, str]:
        """Column -> type, without reading the rows. Raises SchemaMismatch or NotFound."""
        ...

    def load(self, data: DataSpec, *, base: Path, columns: Sequence[str] | None = None) -> Snapshot:
        """The rows. Raises SchemaMismatch, TooFewRows (empty), NotFound, BackendUnavailable."""
        ...


class FrameStore(Protocol):
    """The frames of one run, beside the run; content is hashed when written and checked when read."""

    def save(self, name: str, frame: pl.DataFrame) -> FrameRef:
        """Write atomically; the same name is replaced."""
        ...

    def load(self, ref: FrameRef, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read back. Raises SchemaMismatch when the content is not what was saved."""
        ...

    def save_split(self, split: Split, frame: pl.DataFrame) -> FrameRef:
        """Write one split."""
        ...

    def read_split(self, split: Split, *, reader: str, purpose: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read one split as agent `reader`.

        Raises LeakageFound when the reader may not see this split, or when the test split is asked for a second time
        with another `purpose` (give the digest of the model that is judged; the same digest may read again).
        """
        ...

    def folder(self, name: str) -> Path:
        """A folder of the run for files that are not frames (models, plots); made if missing."""
        ...
