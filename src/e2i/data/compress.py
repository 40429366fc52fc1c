"""Sufficient statistics of files that do not fit into memory, streamed through DuckDB; `causal.panel.compressed` fits them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from e2i.causal.panel.compressed import ClusterMoments, CompressedRows, UnitSums, design_of
from e2i.causal.panel.compressed_paths import Adoption, PeriodCells, Profile
from e2i.data.files import is_synthetic
from e2i.data.frames import reader_reason
from e2i.data.large_scan import Scan, as_numbers, codes_of, part, plain, quoted
from e2i.errors import BackendRejected, DataError, NotFound, SchemaMismatch, TooFewRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from e2i.causal.arrays import FloatArray
    from e2i.causal.panel.compressed import LinearFit

MAXIMUM_ROWS = 5_000_000
"""different rows that a compression may leave"""


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
                "compress_rows", outcome=quoted(outcome), keys=", ".join(map(quoted, keys)), limit=str(MAXIMUM_ROWS + 1)
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
        names, design = design_of({name: plain(found[name]) for name in regressors})
        return CompressedRows(
            names=names,
            design=design,
            count=as_numbers(found["count of rows"]),
            mean=as_numbers(found["mean of outcome"]),
            spread=as_numbers(found["spread of outcome"]),
            cluster=None if cluster is None else codes_of(found[cluster]),
        )

    def moments(self, *, outcome: str, regressors: Sequence[str], cluster: str | None = None) -> ClusterMoments:
        """Cross products per cluster, for regressors that are numbers with many values; text becomes indicators, dates days.

        The coefficients are those of the columns; the constant is the mean outcome at their means.

        Raises
        ------
        NotFound, SchemaMismatch, TooFewRows, BackendRejected
            As for `rows`; a text may have at most 50 levels.
        """
        used = (*regressors, outcome) if cluster is None else (*regressors, outcome, cluster)
        with self._open(used, numbers=(outcome,)) as scan:
            columns = self._centred(scan, outcome=outcome, regressors=regressors)
            sums = [part("sum_of", left=own.expression, left_mean=own.mean) for own in columns]
            pairs = [(row, column) for row in range(len(columns)) for column in range(row + 1)]
            products = [
                part(
                    "product_of",
                    left=columns[row].expression,
                    left_mean=columns[row].mean,
                    right=columns[column].expression,
                    right_mean=columns[column].mean,
                )
                for row, column in pairs
            ]
            group = "()" if cluster is None else quoted(cluster)
            cells = scan.run("compress_moments", products=", ".join([*sums, *products]), cluster=group).fetchnumpy()
        return _moments(
            [as_numbers(values) for values in cells.values()],
            pairs,
            names=tuple(own.name for own in columns[:-1]),
            outcome_mean=float(columns[-1].mean),
            is_clustered=cluster is not None,
        )

    def squares(self, *, outcome: str, regressors: Sequence[str], fit: LinearFit) -> FloatArray:
        """Sum over rows of x x' times the squared residual of `fit`, which was made of `moments`; shape (k, k), constant first."""
        with self._open((*regressors, outcome), numbers=(outcome,)) as scan:
            *columns, _ = self._centred(scan, outcome=outcome, regressors=regressors)
            names = ["1", *(quoted(f"x{place}") for place in range(len(columns)))]
            terms = [
                part("predicted", coefficient=repr(float(value)), column=own.expression, mean=own.mean)
                for value, own in zip(fit.coefficients[1:], columns, strict=True)
            ]
            pairs = [(row, column) for row in range(len(names)) for column in range(row + 1)]
            found = scan.run(
                "compress_squares",
                products=", ".join(part("square_product", left=names[row], right=names[column]) for row, column in pairs),
                columns=", ".join(
                    part("centred_as", column=own.expression, mean=own.mean, name=name)
                    for own, name in zip(columns, names[1:], strict=True)
                ),
                outcome=quoted(outcome),
                prediction=" ".join([repr(float(fit.coefficients[0])), *terms]),
            ).fetchone()
        squares = np.zeros((len(names), len(names)))
        for (row, column), value in zip(pairs, found or (), strict=True):
            squares[row, column] = squares[column, row] = float(value)
        return squares

    def profile(
        self, *, outcome: str, treatment: str, others: Sequence[str] = (), unit: str | None = None, time: str | None = None
    ) -> Profile:
        """What decides about the design: rows, units, periods, values of the treatment; `others` must be known in a complete row."""
        names = list(dict.fromkeys(name for name in (unit, time, *others) if name is not None))
        with self._open((outcome, treatment, *names), numbers=(outcome, treatment)) as scan:
            different = " ".join(part("different_values", column=quoted(name)) for name in others)
            roles = {"outcome": quoted(outcome), "treatment": quoted(treatment)}
            first = scan.run("profile_rows", different=different, **roles).fetchone() or ()
            units = scan.run("profile_units", unit=quoted(unit)).fetchone() if unit is not None else None
            periods = scan.run("profile_units", unit=quoted(time)).fetchone() if time is not None else None
            columns = tuple(scan.types)
            dates = any(scan.is_day(name) for name in others)
        self._refuse_infinite([value for value in first[4:9] if value is not None], f"{treatment}` or `{outcome}")
        combinations = float(np.prod([max(float(count), 1.0) for count in (first[6], *first[9:])]))
        return Profile(
            columns=columns,
            rows=int(first[0]),
            complete=int(first[1]),
            treated=int(first[2]),
            untreated=int(first[3]),
            low=first[4],
            high=first[5],
            doses=int(first[6] or 0),
            mean_treated=first[7],
            mean_untreated=first[8],
            units=int(units[0]) if units is not None else int(first[1]),
            most_rows_of_a_unit=int(units[1]) if units is not None else 1,
            periods=int(periods[0]) if periods is not None else 1,
            combinations=float("inf") if dates else combinations,
            is_synthetic=self.path.suffix.lower() == ".parquet" and is_synthetic(self.path),
        )

    def period_cells(self, *, unit: str, time: str, outcome: str, treatment: str, cluster: str | None = None) -> PeriodCells:
        """How treatment begins in a balanced panel; with one start and never-treated units also the change in every period."""
        columns = {"unit": quoted(unit), "time": quoted(time), "outcome": quoted(outcome), "treatment": quoted(treatment)}
        with self._open((unit, time, outcome, treatment, cluster or unit), numbers=(outcome, treatment)) as scan:
            told = scan.run("profile_adoption", unit=columns["unit"], time=columns["time"], treatment=columns["treatment"]).fetchone()
            treated, never, starts, switches, from_start = told or (0, 0, 0, False, 0)
            adoption = Adoption(
                treated=int(treated), never=int(never), starts=int(starts), switches=bool(switches), treated_from_start=int(from_start)
            )
            if not adoption.is_simple:
                return PeriodCells(adoption=adoption)
            rest = scan.without_always_treated(unit=unit, time=time, treatment=treatment)
            one = "0" if cluster is None else quoted(cluster)
            found = rest.run("compress_periods", cluster=one, **columns).fetchnumpy()
        period, is_before = codes_of(found["period"]), np.asarray(found["is_before"], dtype=np.bool_)
        return PeriodCells(
            adoption=adoption,
            event_time=period - (int(period[is_before].max()) + 1),
            is_treated=np.asarray(found["is_treated"], dtype=np.bool_),
            cluster=None if cluster is None else codes_of(found["cluster"]),
            count=as_numbers(found["count"]),
            mean=as_numbers(found["mean"]),
            spread=as_numbers(found["spread"]),
        )

    def two_way(
        self, *, unit: str, time: str, outcome: str, treatment: str, cluster: str | None = None, always_treated: bool = True
    ) -> UnitSums:
        """Sums per unit of a balanced panel, for two-way fixed effects; without those treated in their first period where told so.

        Raises
        ------
        DataError
            The panel is not balanced, or a unit lies in several clusters.
        NotFound, SchemaMismatch, TooFewRows, BackendRejected
            As for `rows`.
        """
        group = unit if cluster is None else cluster
        with self._open((unit, time, outcome, treatment, group), numbers=(outcome, treatment)) as scan:
            kept = scan if always_treated else scan.without_always_treated(unit=unit, time=time, treatment=treatment)
            columns = {"unit": unit, "time": time, "outcome": outcome, "treatment": treatment, "cluster": group}
            found = kept.run("compress_units", **{role: quoted(name) for role, name in columns.items()}).fetchnumpy()
        rows, periods = as_numbers(found["rows"]), found["periods"]
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
        treated, left = as_numbers(found["treatment"]), as_numbers(found["outcome"])
        return UnitSums(
            periods=int(length),
            treatment_square=as_numbers(found["treatment_square"]) - treated**2 / length,
            cross=as_numbers(found["cross_product"]) - treated * left / length,
            is_treated=np.asarray(found["is_treated"], dtype=np.bool_),
            cluster=codes_of(found["cluster"]),
        )

    def _centred(self, scan: Scan, *, outcome: str, regressors: Sequence[str]) -> list[_Centred]:
        """The regressors as numbers, then the outcome, each with its mean."""
        columns = [*scan.number_columns(regressors), (outcome, quoted(outcome))]
        means = scan.run("column_means", means=", ".join(part("mean_of", column=expression) for _, expression in columns)).fetchone()
        if means is None or means[0] is None:
            raise TooFewRows("no row has all of the columns.", where=str(self.path), advice="Check for columns that are empty.")
        for (name, _), mean in zip(columns, means, strict=True):
            self._refuse_infinite(np.array([mean]), name)
        return [
            _Centred(name=name, expression=expression, mean=repr(float(mean)))
            for (name, expression), mean in zip(columns, means, strict=True)
        ]

    def _refuse_infinite(self, values: object, column: str) -> None:
        if not np.isfinite(as_numbers(values)).all():
            raise DataError(
                f"column `{column}` holds infinite values.", where=str(self.path), advice="Correct them, or mark them as missing."
            )

    @contextmanager
    def _open(self, columns: Sequence[str], *, numbers: Sequence[str]) -> Iterator[Scan]:
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
                scan = Scan(connection=connection, path=self.path, form=form, complete="")
                yield scan.of(columns, numbers=numbers)
            except duckdb.OutOfRangeException as error:
                what = f"a number is infinite or too large to add up ({', '.join(numbers)})."
                raise DataError(what, where=str(self.path), advice="Correct it, or mark it as missing.") from error
            except duckdb.Error as error:
                advice = "Check the file, or allow more memory and disk."
                raise BackendRejected(f"{reader_reason(error)}.", where=str(self.path), advice=advice) from error
            finally:
                connection.close()


@dataclass(frozen=True, kw_only=True)
class _Centred:
    """A column of the design, as an expression, and its mean, as text."""

    name: str
    expression: str
    mean: str


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
