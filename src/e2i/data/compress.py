"""Sufficient statistics of files that do not fit into memory, streamed through DuckDB; `causal.panel.compressed` fits them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from e2i.causal.panel.compressed import ClusterMoments, CompressedRows, UnitSums, design_of
from e2i.data.files import MISSING_TEXT
from e2i.data.nearest import did_you_mean, listed
from e2i.errors import BackendRejected, DataError, NotFound, SchemaMismatch, TooFewRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import duckdb
    from numpy.typing import NDArray

    from e2i.causal.arrays import FloatArray, IntArray

MAXIMUM_ROWS = 5_000_000
"""different rows that a compression may leave"""
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
class LargeFile:
    """A Parquet or CSV file, read in a stream. Rows with a missing value in a used column are left out.

    Parameters
    ----------
    memory_gb : what DuckDB may hold; beyond it sorts and groups spill to a temporary folder
    """

    path: Path
    memory_gb: float = 1.0
    threads: int = 2

    def rows(self, *, outcome: str, regressors: Sequence[str], cluster: str | None = None) -> CompressedRows:
        """Equal rows once, for regressors with few different values; text becomes indicators.

        Raises
        ------
        NotFound, SchemaMismatch
            No such file, no such column, or an outcome that is not a number.
        DataError
            More than 5,000,000 different rows.
        TooFewRows
            No complete row.
        BackendRejected
            The file cannot be read, or memory and disk do not suffice.
        """
        keys = [*regressors, *([cluster] if cluster is not None and cluster not in regressors else [])]
        with self._open((outcome, *keys), numbers=(outcome,)) as scan:
            found = scan.run(
                "compress_rows", outcome=_quoted(outcome), keys=", ".join(map(_quoted, keys)), limit=str(MAXIMUM_ROWS + 1)
            ).fetchnumpy()
        size = len(found["count of rows"])
        if size == 0:
            raise TooFewRows("no row has all of the columns.", where=str(self.path), advice="Check for columns that are empty.")
        if size > MAXIMUM_ROWS:
            raise DataError(
                f"there are more than {MAXIMUM_ROWS:,} different rows: nothing is gained.",
                where=str(self.path),
                advice="Round or group the regressors, or use cross products per cluster.",
            )
        self._refuse_infinite(found["mean of outcome"], outcome)
        names, design = design_of({name: _plain(found[name]) for name in regressors})
        return CompressedRows(
            names=names,
            design=design,
            count=_numbers(found["count of rows"]),
            mean=_numbers(found["mean of outcome"]),
            spread=_numbers(found["spread of outcome"]),
            cluster=None if cluster is None else _codes(found[cluster]),
        )

    def moments(self, *, outcome: str, regressors: Sequence[str], cluster: str | None = None) -> ClusterMoments:
        """Cross products per cluster, for regressors that are numbers with many values.

        The coefficients are those of the columns; the constant is the mean outcome at their means.

        Raises
        ------
        NotFound, SchemaMismatch, TooFewRows, BackendRejected
            As for `rows`; here regressors must be numbers.
        """
        columns = (*regressors, outcome)
        used = columns if cluster is None or cluster in columns else (*columns, cluster)
        with self._open(used, numbers=columns) as scan:
            means = scan.run("column_means", means=", ".join(_part("mean_of", column=_quoted(name)) for name in columns)).fetchone()
            if means is None or means[0] is None:
                raise TooFewRows("no row has all of the columns.", where=str(self.path), advice="Check for columns that are empty.")
            for name, mean in zip(columns, means, strict=True):
                self._refuse_infinite(np.array([mean]), name)
            centred = [{"name": _quoted(name), "mean": repr(float(mean))} for name, mean in zip(columns, means, strict=True)]
            sums = [_part("sum_of", left=own["name"], left_mean=own["mean"]) for own in centred]
            pairs = [(row, column) for row in range(len(columns)) for column in range(row + 1)]
            products = [
                _part(
                    "product_of",
                    left=centred[row]["name"],
                    left_mean=centred[row]["mean"],
                    right=centred[column]["name"],
                    right_mean=centred[column]["mean"],
                )
                for row, column in pairs
            ]
            group = "()" if cluster is None else _quoted(cluster)
            cells = scan.run("compress_moments", products=", ".join([*sums, *products]), cluster=group).fetchnumpy()
        return _moments(
            [_numbers(values) for values in cells.values()],
            pairs,
            names=tuple(regressors),
            outcome_mean=float(means[-1]),
            is_clustered=cluster is not None,
        )

    def two_way(self, *, unit: str, time: str, outcome: str, treatment: str, cluster: str | None = None) -> UnitSums:
        """Sums per unit of a balanced panel, for two-way fixed effects.

        Raises
        ------
        DataError
            The panel is not balanced, or a unit lies in several clusters.
        NotFound, SchemaMismatch, TooFewRows, BackendRejected
            As for `rows`.
        """
        group = unit if cluster is None else cluster
        with self._open((unit, time, outcome, treatment, group), numbers=(outcome, treatment)) as scan:
            columns = {"unit": unit, "time": time, "outcome": outcome, "treatment": treatment, "cluster": group}
            found = scan.run("compress_units", **{role: _quoted(name) for role, name in columns.items()}).fetchnumpy()
        rows, periods = _numbers(found["rows"]), found["periods"]
        if len(rows) == 0:
            raise TooFewRows("no row has all of the columns.", where=str(self.path), advice="Check for columns that are empty.")
        if (rows != rows[0]).any() or (periods != periods[0]).any():
            raise DataError(
                f"the panel is not balanced: units have {int(rows.min())} to {int(rows.max())} complete rows, or other periods.",
                where=str(self.path),
                advice="Give every unit one row per period, or estimate on a part that fits into memory.",
            )
        for column, sums in ((outcome, found["outcome"]), (treatment, found["treatment"])):
            self._refuse_infinite(sums, column)
        if not np.asarray(found["is_one_cluster"]).all():
            raise DataError("a unit lies in several clusters.", where=f"column {group}", advice="Name a cluster that is constant per unit.")
        length = float(rows[0])
        treated, left = _numbers(found["treatment"]), _numbers(found["outcome"])
        return UnitSums(
            periods=int(length),
            treatment_square=_numbers(found["treatment_square"]) - treated**2 / length,
            cross=_numbers(found["cross_product"]) - treated * left / length,
            is_treated=np.asarray(found["is_treated"], dtype=np.bool_),
            cluster=_codes(found["cluster"]),
        )

    def _refuse_infinite(self, values: object, column: str) -> None:
        if not np.isfinite(_numbers(values)).all():
            raise DataError(
                f"column `{column}` holds infinite values.", where=str(self.path), advice="Correct them, or mark them as missing."
            )

    @contextmanager
    def _open(self, columns: Sequence[str], *, numbers: Sequence[str]) -> Iterator[_Scan]:
        import duckdb

        if not self.path.exists():
            raise NotFound("there is no such file.", where=str(self.path), advice="Check the path.")
        form = self.path.suffix.lower().removeprefix(".")
        if form not in ("parquet", "csv"):
            raise SchemaMismatch(f"`.{form}` files cannot be streamed.", where=str(self.path), advice="Use Parquet or CSV.")
        with TemporaryDirectory(prefix="e2i-") as folder:
            limits = {"memory_limit": f"{self.memory_gb}GB", "threads": str(self.threads), "temp_directory": folder}
            connection = duckdb.connect(config={**limits, "preserve_insertion_order": "false"})
            try:
                scan = _Scan(connection=connection, path=self.path, form=form, complete="")
                yield scan.of(columns, numbers=numbers)
            except duckdb.OutOfRangeException as error:
                what = f"a number is infinite or too large to add up ({', '.join(numbers)})."
                raise DataError(what, where=str(self.path), advice="Correct it, or mark it as missing.") from error
            except duckdb.Error as error:
                advice = "Check the file, or allow more memory and disk."
                raise BackendRejected(str(error).splitlines()[0], where=str(self.path), advice=advice) from error
            finally:
                connection.close()


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """An open file: runs the named statements over its complete rows."""

    connection: duckdb.DuckDBPyConnection
    path: Path
    form: str
    complete: str

    def of(self, columns: Sequence[str], *, numbers: Sequence[str]) -> _Scan:
        """With the condition that all `columns` are there; those of `numbers` must be numeric."""
        types = {str(row[0]): str(row[1]).partition("(")[0] for row in self.run("describe_scan").fetchall()}
        parts = []
        for name in dict.fromkeys(columns):
            if name not in types:
                advice = did_you_mean(name, list(types)) or f"The columns are {listed(list(types))}."
                raise SchemaMismatch(f"there is no column `{name}`.", where=str(self.path), advice=advice)
            is_number = types[name] in _NUMBERS or types[name] == "DECIMAL"
            if name in numbers and not is_number:
                what = f"column `{name}` holds {types[name].lower()}, not numbers."
                raise SchemaMismatch(what, where=str(self.path), advice="Convert it to numbers.")
            parts.append(_part("is_number" if types[name] in ("FLOAT", "DOUBLE") else "is_known", column=_quoted(name)))
        return _Scan(connection=self.connection, path=self.path, form=self.form, complete=" AND ".join(parts))

    def run(self, statement: str, **parts: str) -> duckdb.DuckDBPyConnection:
        """Run the statement of that file name with its parts put in."""
        text = _part(statement, source=_part(f"scan_{self.form}"), complete=self.complete, **parts)
        values: dict[str, object] = {"path": str(self.path)}
        if self.form == "csv":
            values["missing"] = ["", *MISSING_TEXT]
        return self.connection.execute(text, values)


def _part(name: str, **parts: str) -> str:
    return resources.files("e2i.data").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8").strip().format(**parts)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _moments(
    cells: list[NDArray[np.float64]], pairs: list[tuple[int, int]], *, names: tuple[str, ...], outcome_mean: float, is_clustered: bool
) -> ClusterMoments:
    """Cells of the query (count, sums, products) as arrays with the constant first; the outcome gets its mean back."""
    count, sums = cells[0], np.column_stack(cells[1 : len(names) + 2])
    k = len(names)
    square = np.zeros((len(count), k + 1, k + 1))
    cross, outcome_square = np.zeros((len(count), k + 1)), np.zeros(len(count))
    square[:, 0, 0] = count
    square[:, 0, 1:] = square[:, 1:, 0] = sums[:, :k]
    cross[:, 0] = sums[:, k]
    for (row, column), values in zip(pairs, cells[k + 2 :], strict=True):
        if row < k:
            square[:, row + 1, column + 1] = square[:, column + 1, row + 1] = values
        elif column < k:
            cross[:, column + 1] = values
        else:
            outcome_square = values + 0.0
    outcome_square = outcome_square + 2 * outcome_mean * cross[:, 0] + outcome_mean**2 * count
    cross = cross + outcome_mean * square[:, 0, :]
    return ClusterMoments(
        names=("constant", *names), count=count, square=square, cross=cross, outcome_square=outcome_square, is_clustered=is_clustered
    )


def _plain(values: object) -> NDArray[np.generic]:
    """A column without the mask that DuckDB puts around it; complete rows have nothing to hide."""
    return np.asarray(np.ma.getdata(values) if isinstance(values, np.ma.MaskedArray) else values)


def _numbers(values: object) -> FloatArray:
    return _plain(values).astype(np.float64)


def _codes(values: object) -> IntArray:
    codes: IntArray = np.unique(_plain(values), return_inverse=True)[1].astype(np.int64)
    return codes
