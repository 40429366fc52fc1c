"""Where rows come from, as a study file says it."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Frozen, no key that is not known, and no number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSpec(Strict):
    """Where the rows come from.

    `source` is a path to a csv or parquet file (relative to the study file), `postgresql://…` with `table` or `query`,
    `synthetic` (the pharma world), or `package:NAME/PATH` for a file inside an installed package.
    """

    source: str
    table: str | None = None
    query: str | None = None
    seed: int = 7
    size: int | None = Field(default=None, gt=0, description="synthetic world only: number of HCPs")
    derive: dict[str, str] = Field(
        default={}, description="new column -> an SQL expression over the columns of a row, such as `quantity > 0`"
    )
    as_of: date | None = Field(default=None, description="the day the data claim to be current; without it freshness is unknown")

    @model_validator(mode="after")
    def _fits_its_source(self) -> DataSpec:
        if self.table is not None and self.query is not None:
            msg = "give either table or query, not both"
            raise ValueError(msg)
        if self.source.startswith(("postgresql://", "postgres://")):
            if self.table is None and self.query is None:
                msg = "a PostgreSQL source needs `table` or `query`"
                raise ValueError(msg)
        elif self.query is not None or (self.table is not None and self.source != "synthetic"):
            msg = f"a {'synthetic' if self.source == 'synthetic' else 'file'} source takes no `{'query' if self.query else 'table'}`"
            raise ValueError(msg)
        if self.size is not None and self.source != "synthetic":
            msg = "`size` belongs to the synthetic world only"
            raise ValueError(msg)
        return self
