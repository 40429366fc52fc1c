"""Columns that a study derives from others: `data.derive`, an expression of Polars' SQL dialect each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import polars as pl

from e2i.data.frames import column_kind, pick_columns, plain_types, reader_reason
from e2i.domain.nearest import check_columns
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2i.ports.data import Snapshot

_REACHES_OUT = re.compile(
    r"\(\s*(select|from|table|with|values)\b|\b(read|scan)_\w+[\"`\]]?\s*\(|\bnow[\"`\]]?\s*\("
    r"|\b(current_(date|time|timestamp)|localtime(stamp)?)\b|/\*|--.*[\r\n]",
    re.IGNORECASE,
)
"""A sub-query, a reader, the clock, or a comment, which could hide one of them. Polars opens the file while it parses, so this comes first,
and it looks at the raw text, so that no quote hides anything."""


class Loadable(Protocol):
    """A table of a source."""

    def identity(self) -> str:
        """What must be the same for a run to be resumed."""
        ...

    def columns(self) -> dict[str, str]:
        """Column -> kind."""
        ...

    def load(self, columns: Sequence[str] | None) -> Snapshot:
        """The rows."""
        ...


@dataclass(frozen=True, kw_only=True)
class DerivedTable:
    """A table with derived columns. The hash stays that of the source; the study's own hash covers the expressions."""

    table: Loadable
    derive: Mapping[str, str]

    def identity(self) -> str:
        """The source's."""
        return self.table.identity()

    def columns(self) -> dict[str, str]:
        """Column -> kind; the rows are read, since an expression's type follows from its columns' types."""
        return {name: column_kind(dtype) for name, dtype in self.load(None).frame.schema.items()}

    def load(self, columns: Sequence[str] | None) -> Snapshot:
        """All rows, with the derived columns last."""
        snapshot = self.table.load(None)
        frame = with_derived(snapshot.frame, self.derive)
        return replace(snapshot, frame=pick_columns(frame.lazy(), columns, where="data").collect())


def with_derived(frame: pl.DataFrame, derive: Mapping[str, str]) -> pl.DataFrame:
    """The frame with one more column per expression, in order; a later one may use an earlier one.

    What an expression cannot say of a row because a value is missing stays missing, and so is what is no number (0/0). Expressions only:
    no statement, no other table, no file, no clock.

    >>> with_derived(pl.DataFrame({"quantity": [0, 3, None]}), {"buys": "quantity > 0"})["buys"].to_list()
    [False, True, None]

    Raises
    ------
    SchemaMismatch
        Not an expression, a column that is not there or is there already, or a value that cannot be converted.
    """
    for name, text in derive.items():
        where = f"data.derive.{name}"
        if name in frame.columns:
            raise SchemaMismatch(f"the data have a column `{name}` already.", where=where, advice="Give the derived column a new name.")
        parsed = _parsed(text, where)
        _check_named(parsed.meta.root_names(), frame.columns, where)
        try:
            frame = frame.with_columns(parsed.alias(name))
            frame = frame.with_columns(plain_types(frame.lazy().select(name)).collect())
        except pl.exceptions.PolarsError as error:
            advice = "Look at the types of its columns: text is compared with quoted text, numbers with numbers."
            raise SchemaMismatch(f"`{text}` fails: {reader_reason(error)}.", where=where, advice=advice) from error
    return frame


def _parsed(text: str, where: str) -> pl.Expr:
    if _REACHES_OUT.search(text):
        advice = "Write one expression over columns of the data, without comments."
        raise SchemaMismatch(f"`{text}` names another table, a file or the clock.", where=where, advice=advice)
    try:
        return pl.sql_expr(text)
    except (pl.exceptions.PolarsError, OSError) as error:
        advice = "Write one expression over columns, such as `quantity > 0` or `program = 'yes'`."
        raise SchemaMismatch(f"`{text}` is no expression: {reader_reason(error)}.", where=where, advice=advice) from error


def _check_named(named: Sequence[str], present: Sequence[str], where: str) -> None:
    if not named:
        raise SchemaMismatch("the expression names no column.", where=where, advice="Derive it from columns of the data.")
    check_columns(named, present, where=where, hint=" Text stands in single quotes: 'yes'.")
