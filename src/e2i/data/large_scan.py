"""An open file under DuckDB: named statements over its complete rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from e2i.data.files import MISSING_TEXT
from e2i.domain.nearest import check_columns
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    from numpy.typing import NDArray

    from e2i.causal.arrays import FloatArray, IntArray

MOST_LEVELS = 50
"""levels of a text column that become indicators"""
_DAYS = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
    "BOOLEAN",
)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """An open file: runs the named statements over its complete rows."""

    connection: duckdb.DuckDBPyConnection
    path: Path
    form: str
    complete: str
    types: dict[str, str] = field(default_factory=dict)
    """column -> DuckDB's type, without precision"""

    def of(self, columns: Sequence[str], *, numbers: Sequence[str]) -> Scan:
        """With the condition that all `columns` are there; those of `numbers` must be numeric."""
        types = {str(row[0]): str(row[1]).partition("(")[0] for row in self.run("describe_scan").fetchall()}
        parts = []
        check_columns(columns, types, where=str(self.path))
        for name in dict.fromkeys(columns):
            is_number = types[name] in _NUMBERS or types[name] == "DECIMAL"
            if name in numbers and not is_number:
                what = f"column `{name}` holds {types[name].lower()}, not numbers."
                raise SchemaMismatch(what, where=str(self.path), advice="Convert it to numbers.")
            parts.append(part("is_number" if types[name] in ("FLOAT", "DOUBLE") else "is_known", column=quoted(name)))
        return replace(self, complete=" AND ".join(parts), types=types)

    def without_always_treated(self, *, unit: str, time: str, treatment: str) -> Scan:
        """Less the units that are treated in their first period: nothing shows them before."""
        roles = {"unit": quoted(unit), "time": quoted(time), "treatment": quoted(treatment)}
        return replace(self, complete=part("is_seen_before", source=part(f"scan_{self.form}"), complete=self.complete, **roles))

    def number_columns(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(name, expression) of each regressor: numbers as they are, days since 1970, an indicator per level of a text but the first.

        Raises
        ------
        SchemaMismatch
            A text has more than 50 levels, or a column holds neither numbers nor text.
        """
        found = []
        for name in names:
            kind = self.types[name]
            if kind in _NUMBERS or kind == "DECIMAL":
                found.append((name, quoted(name)))
            elif kind in _DAYS:
                found.append((name, part("days_of", column=quoted(name))))
            elif kind in ("VARCHAR", "ENUM"):
                levels = self._levels(name)[1:]
                found += [(f"{name}={level}", part("is_level", column=quoted(name), level=_text(level))) for level in levels]
            else:
                raise SchemaMismatch(
                    f"column `{name}` holds {kind.lower()}, which cannot be adjusted for.", where=str(self.path), advice="Convert it."
                )
        return found

    def is_day(self, name: str) -> bool:
        """A date or a point in time."""
        return self.types[name] in _DAYS

    def _levels(self, name: str) -> list[str]:
        rows = self.run("levels_of", column=quoted(name), limit=str(MOST_LEVELS + 1)).fetchall()
        if len(rows) > MOST_LEVELS:
            raise SchemaMismatch(
                f"column `{name}` has more than {MOST_LEVELS} levels.",
                where=str(self.path),
                advice="Group its levels (region instead of ZIP), or take it out of `confounders` if it is an identifier.",
            )
        return sorted(str(row[0]) for row in rows)

    def run(self, statement: str, **parts: str) -> duckdb.DuckDBPyConnection:
        """Run the statement of that file name with its parts put in."""
        text = part(statement, source=part(f"scan_{self.form}"), complete=self.complete, **parts)
        values: dict[str, object] = {"path": str(self.path)}
        if self.form == "csv":
            values["missing"] = ["", *MISSING_TEXT]
        return self.connection.execute(text, values)


def part(name: str, /, **parts: str) -> str:
    """The statement or fragment of that file name, filled in."""
    return resources.files("e2i.data").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8").strip().format(**parts)


def quoted(name: str) -> str:
    """A column's name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def plain(values: object) -> NDArray[np.generic]:
    """A column without the mask that DuckDB puts around it; complete rows have nothing to hide."""
    return np.asarray(np.ma.getdata(values) if isinstance(values, np.ma.MaskedArray) else values)


def as_numbers(values: object) -> FloatArray:
    """A column as floats."""
    return plain(values).astype(np.float64)


def codes_of(values: object) -> IntArray:
    """Equal values as equal numbers, 0 … G-1."""
    codes: IntArray = np.unique(plain(values), return_inverse=True)[1].astype(np.int64)
    return codes
