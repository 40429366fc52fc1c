"""The pharma world as a data source. It serves tables; the truth has no name here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2i.data.frames import column_kind, frame_sha256, pick_columns
from e2i.data.synthetic.story import DEFAULT_SIZE
from e2i.data.synthetic.world import DEFAULT_TABLE, SMALLEST, generate_tables
from e2i.ports.data import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl


@dataclass(frozen=True, kw_only=True)
class SyntheticTable:
    """One table of the world with this seed and number of HCPs."""

    table: str | None
    seed: int
    size: int | None

    def identity(self) -> str:
        """The world and the table."""
        return f"synthetic:{self._name}:seed={self.seed}:size={self.size or DEFAULT_SIZE}"

    def columns(self) -> dict[str, str]:
        """Column -> kind, from a tiny world."""
        return {name: column_kind(dtype) for name, dtype in self._draw(SMALLEST).schema.items()}

    def load(self, columns: Sequence[str] | None) -> Snapshot:
        """The rows; the same seed and size give the same hash."""
        frame = self._draw(self.size or DEFAULT_SIZE)
        return Snapshot(
            frame=pick_columns(frame.lazy(), columns, where=f"synthetic table {self._name}").collect(),
            sha256=frame_sha256(frame),
            table=self._name,
            is_synthetic=True,
        )

    @property
    def _name(self) -> str:
        return self.table or DEFAULT_TABLE

    def _draw(self, size: int) -> pl.DataFrame:
        return generate_tables([self._name], seed=self.seed, size=size)[self._name]
