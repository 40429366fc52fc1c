"""Reads what a study's `data` names: a file, a file inside a package, a PostgreSQL table or query, the pharma world."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from e2i.data.derive import DerivedTable, Loadable
from e2i.data.files import STREAMED, FileTable
from e2i.data.postgres_table import PostgresTable
from e2i.data.synthetic.table import SyntheticTable
from e2i.errors import MissingExtra, NotFound, SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.data.compress import LargeFile
    from e2i.domain.data_spec import DataSpec
    from e2i.ports.data import Snapshot


class LocalFrameSource:
    """The FrameSource of a single machine.

    Every source is cleaned in the same way: NaN is missing, categories are text, ISO dates in text are dates, infinite
    values stay. `sha256` is over a file's bytes or a world's whole table, and of a server over the columns that were asked for.
    """

    def identity(self, data: DataSpec, *, base: Path) -> str:
        """What must be the same for an interrupted run to be resumed: sha256 of a file's bytes, else the source's own words."""
        return _table(data, base=base).identity()

    def columns(self, data: DataSpec, *, base: Path) -> dict[str, str]:
        """Column -> `boolean`, `integer`, `number`, `text`, `date`, `datetime` or `other`.

        Raises
        ------
        NotFound, SchemaMismatch, TooFewRows, BackendUnavailable, BackendRejected, MissingExtra
            As for `load`.
        """
        return _table(data, base=base).columns()

    def load(self, data: DataSpec, *, base: Path, columns: Sequence[str] | None = None) -> Snapshot:
        """The rows of `columns`, or of all columns.

        Parameters
        ----------
        base : the folder that a relative path starts from, usually the study file's

        Raises
        ------
        NotFound
            No such file, table or package file; the advice offers the nearest name.
        SchemaMismatch
            The content is not what its type promises, or a column is not there.
        TooFewRows
            No rows.
        BackendUnavailable, BackendRejected
            The server cannot be reached now, or refuses this user.
        MissingExtra
            The package that holds the file is not installed.
        """
        return _table(data, base=base).load(columns)


def _table(data: DataSpec, *, base: Path) -> Loadable:
    table = _source_table(data, base=base)
    return DerivedTable(table=table, derive=data.derive) if data.derive else table


def _source_table(data: DataSpec, *, base: Path) -> Loadable:
    if data.source == "synthetic":
        return SyntheticTable(table=data.table, seed=data.seed, size=data.size)
    if data.source.startswith(("postgresql://", "postgres://")):
        return PostgresTable(url=data.source, table=data.table, query=data.query)
    if data.source.startswith("package:"):
        return FileTable(path=_package_file(data.source), where=data.source)
    path = Path(data.source).expanduser()
    return FileTable(path=path if path.is_absolute() else base / path, where=data.source)


def large_file(data: DataSpec, *, base: Path, threshold_gb: float, memory_gb: float, threads: int) -> LargeFile | None:
    """The study's file as one that is streamed, when it is a csv or parquet file of more than `threshold_gb`; else None.

    Parameters
    ----------
    memory_gb : what the stream may hold in memory; more goes to disk
    """
    from e2i.data.compress import LargeFile

    table = _source_table(data, base=base)
    if not isinstance(table, FileTable) or table.path.suffix.lower() not in STREAMED or not table.path.is_file():
        return None
    if table.path.stat().st_size <= threshold_gb * 1e9:
        return None
    if data.derive:
        advice = "Write the derived columns into the file, or draw a random sample of units into a smaller one."
        raise SchemaMismatch("a file of this size is streamed, and `data.derive` needs its rows.", where=data.source, advice=advice)
    return LargeFile(path=table.path, memory_gb=memory_gb, threads=threads)


def _package_file(source: str) -> Path:
    """The file inside an installed package, found without importing the package."""
    package, _, inside = source.removeprefix("package:").partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"package `{package}` is not installed.", where=source, advice=f"Install it: pip install {package}")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise NotFound("the path leaves the package.", where=source, advice="Name a file inside the package: package:NAME/PATH")
    return path
