"""Where frames come from, where a run keeps them, and who may read which split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from e2i.causal.panel.compressed import ClusterMoments, CompressedRows, LinearFit, UnitSums
    from e2i.causal.panel.compressed_paths import PeriodCells, Profile
    from e2i.domain.data_spec import DataSpec
    from e2i.domain.experiments import FrameRef, Split


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A loaded table and what identifies it. `sha256` is over the content, not the file's name or time."""

    frame: pl.DataFrame
    sha256: str
    table: str
    is_synthetic: bool


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


class LargeTable(Protocol):
    """A table that is not loaded: sufficient statistics of its complete rows, read in a stream with bounded memory.

    All raise NotFound (no such file), SchemaMismatch (no such column, or not a number), TooFewRows (no complete row), DataError
    (infinite values, too many different rows, a panel with gaps) and BackendRejected (unreadable, or memory and disk do not suffice).
    """

    def profile(
        self, *, outcome: str, treatment: str, others: Sequence[str] = (), unit: str | None = None, time: str | None = None
    ) -> Profile:
        """What decides about the design."""
        ...

    def rows(self, *, outcome: str, regressors: Sequence[str], cluster: str | None = None) -> CompressedRows:
        """Equal rows once."""
        ...

    def moments(self, *, outcome: str, regressors: Sequence[str], cluster: str | None = None) -> ClusterMoments:
        """Cross products per cluster."""
        ...

    def squares(self, *, outcome: str, regressors: Sequence[str], fit: LinearFit) -> NDArray[np.float64]:
        """A second reading, for the robust variance of a fit of `moments`."""
        ...

    def two_way(
        self, *, unit: str, time: str, outcome: str, treatment: str, cluster: str | None = None, always_treated: bool = True
    ) -> UnitSums:
        """Sums per unit of a balanced panel; without the units treated in their first period where told so."""
        ...

    def period_cells(self, *, unit: str, time: str, outcome: str, treatment: str, cluster: str | None = None) -> PeriodCells:
        """How treatment begins, and the change in every period."""
        ...
