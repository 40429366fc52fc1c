"""Files of every kind, and every way in which they are broken."""

from __future__ import annotations

import csv as csv_module
import hashlib
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2i.data.csv_scan import inspect_csv
from e2i.data.frames import frame_sha256
from e2i.data.sources import LocalFrameSource
from e2i.data.synthetic import TABLE_NAMES, write_world
from e2i.domain.data_spec import DataSpec
from e2i.errors import E2IError, LeakageFound, MissingExtra, NotFound, SchemaMismatch, TooFewRows

SOURCE = LocalFrameSource()
NHEFS = "package:causaldata/nhefs/nhefs.dta"


def load(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    return SOURCE.load(DataSpec(source=path.name), base=path.parent, columns=columns).frame


def csv(folder: Path, content: str | bytes, name: str = "visits.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_keeps_its_types_and_the_kinds_agree_with_what_is_loaded(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "npi,nrx,seen,at,note,flag\nA1,1.5,2024-01-05,2024-01-05T10:00:00Z,x,true\nA2,,2024-01-12,2024-01-05 10:00:00+02:00,,false\n",
    )
    frame = load(path)
    assert frame.rows()[0] == ("A1", 1.5, date(2024, 1, 5), datetime(2024, 1, 5, 10, tzinfo=UTC), "x", True)
    assert frame.rows()[1] == ("A2", None, date(2024, 1, 12), datetime(2024, 1, 5, 8, tzinfo=UTC), None, False)
    kinds = SOURCE.columns(DataSpec(source=path.name), base=tmp_path)
    assert kinds == {"npi": "text", "nrx": "number", "seen": "date", "at": "datetime", "note": "text", "flag": "boolean"}


def test_a_type_that_changes_late_in_the_file_is_noticed(tmp_path: Path) -> None:
    path = csv(tmp_path, "a\n" + "1\n" * 5000 + "2.5\n")
    assert load(path)["a"].dtype == pl.Float64


@pytest.mark.parametrize("value", ["2024-02-30", "05.01.2024", "05/01/2024", "soon", "2024-13-01"])
def test_text_that_is_not_all_iso_dates_stays_text(tmp_path: Path, value: str) -> None:
    frame = load(csv(tmp_path, f"when\n2024-01-05\n{value}\n"))
    assert frame["when"].to_list() == ["2024-01-05", value]


def test_missing_is_written_in_the_usual_ways_and_infinite_values_stay(tmp_path: Path) -> None:
    frame = load(csv(tmp_path, "a,b\n1,inf\nNA,-inf\n,NaN\nNULL,2.5\n"))
    assert frame["a"].to_list() == [1, None, None, None]
    assert frame["b"].to_list() == [float("inf"), float("-inf"), None, 2.5]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found_in_the_header(tmp_path: Path, separator: str) -> None:
    text = "a,b\n1,x\n2,y\n".replace(",", separator)
    assert load(csv(tmp_path, text)).rows() == [(1, "x"), (2, "y")]


def test_quotes_byte_order_mark_windows_lines_and_blank_lines_are_read(tmp_path: Path) -> None:
    content = '\ufeffa,b\r\n1,"x, and\r\ny"\r\n\r\n2,"z"\r\n\r\n'
    assert load(csv(tmp_path, content)).rows() == [(1, "x, and\r\ny"), (2, "z")]


BAD_CSV: dict[str, tuple[str | bytes, type[E2IError], str, str]] = {
    "empty": (b"", TooFewRows, "visits.csv", "empty"),
    "only blank lines": (b"\n\n", TooFewRows, "visits.csv", "empty"),
    "header only": ("a,b\n", TooFewRows, "visits.csv:1", "no rows"),
    "header and blank lines": ("a,b\n\n\n", TooFewRows, "visits.csv:1", "no rows"),
    "undecodable": (b"a,b\n1,x\n2,caf\xe9\n", SchemaMismatch, "visits.csv:3", "e9"),
    "zero bytes": (b"a,b\n1,x\0\n", SchemaMismatch, "visits.csv", "zero bytes"),
    "long row": ("a,b\n1,2\n3,4,5\n6,7\n", SchemaMismatch, "visits.csv:3", "3 values"),
    "short row": ("a,b\n1,2\n3,4\n6\n", SchemaMismatch, "visits.csv:4", "1 values"),
    "short row after a quoted line break": ('a,b\n1,"x\ny"\n6\n', SchemaMismatch, "visits.csv:4", "1 values"),
    "duplicate column": ("a,b,a\n1,2,3\n", SchemaMismatch, "visits.csv:1", "`a` appears 2 times"),
    "nameless column": (",b\n1,2\n", SchemaMismatch, "visits.csv:1", "column 1 has no name"),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_a_broken_csv_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    content, kind, where, word = BAD_CSV[name]
    path = csv(tmp_path, content)
    for read in (lambda: load(path), lambda: SOURCE.columns(DataSpec(source=path.name), base=tmp_path)):
        with pytest.raises(kind) as caught:
            read()
        assert caught.value.where == where
        assert word in caught.value.what
        assert caught.value.advice


def test_a_bad_row_deep_in_a_large_file_is_named_by_its_line(tmp_path: Path) -> None:
    rows = ["1,2,3"] * 400_000
    rows[312_344] = "1,2"
    with pytest.raises(SchemaMismatch) as caught:
        load(csv(tmp_path, "a,b,c\n" + "\n".join(rows)))
    assert caught.value.where == "visits.csv:312346"


def test_a_missing_file_comes_with_the_nearest_name(tmp_path: Path) -> None:
    csv(tmp_path, "a\n1\n", name="panel.csv")
    with pytest.raises(NotFound, match=r"panle.csv.*Did you mean `panel.csv`\?"):
        load(tmp_path / "panle.csv")


def test_a_folder_and_an_unknown_type_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    with pytest.raises(SchemaMismatch, match="folder"):
        load(tmp_path / "data.csv")
    (tmp_path / "data.xlsx").write_bytes(b"x")
    with pytest.raises(SchemaMismatch, match="xlsx"):
        load(tmp_path / "data.xlsx")


@pytest.mark.parametrize("name", ["x.parquet", "x.dta"])
def test_garbage_under_a_known_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not what the name says " * 9)
    with pytest.raises(SchemaMismatch, match="cannot be read"):
        load(tmp_path / name)


def test_parquet_is_projected_and_cleaned_and_an_empty_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    frame = pl.DataFrame({"a": [1.0, float("nan")], "c": pl.Series(["x", "y"], dtype=pl.Categorical), "d": ["2024-01-05", None]})
    frame.write_parquet(path)
    assert load(path, ["d", "a"]).rows() == [(date(2024, 1, 5), 1.0), (None, None)]
    assert load(path)["c"].dtype == pl.String
    frame.head(0).write_parquet(path)
    with pytest.raises(TooFewRows):
        load(path)


def test_a_column_that_is_not_there_comes_with_the_nearest_name(tmp_path: Path) -> None:
    path = csv(tmp_path, "specialty,decile\nx,1\n")
    with pytest.raises(SchemaMismatch, match=r"speciality.*`specialty`"):
        load(path, ["speciality"])


def test_the_hash_is_of_the_content_not_of_name_time_or_projection(tmp_path: Path) -> None:
    first, second = csv(tmp_path, "a,b\n1,2\n"), csv(tmp_path, "a,b\n1,2\n", name="other.csv")
    os.utime(second, (1, 1))
    snapshots = [SOURCE.load(DataSpec(source=path.name), base=tmp_path) for path in (first, second)]
    assert snapshots[0].sha256 == snapshots[1].sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    assert SOURCE.load(DataSpec(source="visits.csv"), base=tmp_path, columns=["a"]).sha256 == snapshots[0].sha256
    assert SOURCE.identity(DataSpec(source="visits.csv"), base=tmp_path) == snapshots[0].sha256
    csv(tmp_path, "a,b\n1,3\n")
    assert SOURCE.load(DataSpec(source="visits.csv"), base=tmp_path).sha256 != snapshots[0].sha256


def test_the_frame_hash_sees_every_value_name_type_and_gap_but_no_chunks() -> None:
    frame = pl.DataFrame({"a": [1, 2, None], "t": ["x", "", None], "f": [0.5, -0.0, None], "b": [True, False, None]})
    changed = [
        frame.with_columns(a=pl.Series([1, 2, 0])),
        frame.with_columns(t=pl.Series(["x", None, ""])),
        frame.with_columns(t=pl.Series(["", "x", None])),
        frame.with_columns(f=pl.Series([0.5, 0.0, 0.0])),
        frame.with_columns(b=pl.Series([True, None, None])),
        frame.with_columns(pl.col("a").cast(pl.Int32)),
        frame.rename({"a": "z"}),
        frame.reverse(),
    ]
    hashes = {frame_sha256(other) for other in changed}
    assert len(hashes) == len(changed)
    assert frame_sha256(frame) not in hashes
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)
    assert frame_sha256(chunked) == frame_sha256(frame)
    assert frame_sha256(frame.with_columns(f=pl.Series([0.5, 0.0, None]))) == frame_sha256(frame)


def test_nhefs_is_the_real_study_and_its_package_is_not_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from e2i.data.sources import LocalFrameSource; from e2i.domain.data_spec import DataSpec\n"
        f"s = LocalFrameSource().load(DataSpec(source='{NHEFS}'), base=Path('/'))\n"
        "print(s.frame.height, s.frame['wt82_71'].null_count(), s.is_synthetic, 'causaldata' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["1629", "63", "False", "False"]


def test_nhefs_gives_the_published_naive_difference() -> None:
    frame = SOURCE.load(DataSpec(source=NHEFS), base=Path()).frame.drop_nulls("wt82_71")
    means = frame.group_by("qsmk").agg(pl.col("wt82_71").mean()).sort("qsmk")["wt82_71"]
    assert frame.height == 1566
    assert means[1] - means[0] == pytest.approx(2.54, abs=0.005)


def test_stata_codes_are_whole_numbers_and_its_categories_text() -> None:
    kinds = SOURCE.columns(DataSpec(source=NHEFS), base=Path())
    assert (kinds["death"], kinds["wt71"], kinds["sex"], kinds["seqn"]) == ("integer", "number", "text", "integer")


def test_a_package_that_is_missing_and_a_path_that_leaves_it_are_refused() -> None:
    with pytest.raises(MissingExtra, match="nosuchpackage"):
        SOURCE.columns(DataSpec(source="package:nosuchpackage/a.csv"), base=Path())
    with pytest.raises(NotFound, match="leaves the package"):
        SOURCE.columns(DataSpec(source="package:causaldata/../pandas/x.csv"), base=Path())
    with pytest.raises(NotFound, match=r"nhefs.dta"):
        SOURCE.columns(DataSpec(source="package:causaldata/nhefs/nhef.dta"), base=Path())


def test_the_synthetic_source_serves_every_table_and_says_that_it_is_synthetic() -> None:
    for table in TABLE_NAMES:
        data = DataSpec(source="synthetic", table=table, size=60)
        snapshot = SOURCE.load(data, base=Path())
        assert snapshot.is_synthetic
        assert snapshot.table == table
        assert SOURCE.columns(data, base=Path()).keys() == set(snapshot.frame.columns)
    with pytest.raises(NotFound, match="hcp_weekly"):
        SOURCE.load(DataSpec(source="synthetic", table="hcp_week"), base=Path())


def test_no_source_serves_the_truth(tmp_path: Path) -> None:
    write_world(tmp_path, seed=1, size=60)
    tables = sorted(path.stem for path in tmp_path.glob("*.parquet"))
    assert tables == sorted(TABLE_NAMES)
    assert all(SOURCE.load(DataSpec(source=f"{name}.parquet"), base=tmp_path).is_synthetic for name in tables)
    for path in (tmp_path / "truth").glob("*.parquet"):
        moved = path.rename(tmp_path / f"moved_{path.name}")
        with pytest.raises(LeakageFound, match="true effects"):
            load(moved)
    for name in ("truth", "units", "journeys"):
        with pytest.raises(NotFound):
            SOURCE.load(DataSpec(source="synthetic", table=name), base=Path())
    forbidden = ("if_treated", "if_untreated", "propensity", "expected_gain", "probability")
    served = {column for name in TABLE_NAMES for column in pl.read_parquet_schema(tmp_path / f"{name}.parquet")}
    assert not [column for column in served if any(word in column for word in forbidden)]


CELL = st.text(alphabet='ab1 ,;"\n\t|é.-', max_size=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=12), header=st.integers(2, 4))
def test_rows_are_refused_exactly_when_the_csv_module_counts_other_values(tmp_path: Path, rows: list[list[str]], header: int) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv_module.writer(file)
        writer.writerow([f"c{place}" for place in range(header)])
        writer.writerows(rows)
    with path.open(newline="", encoding="utf-8") as file:
        counts = [len(row) for row in csv_module.reader(file)][1:]
    fits = all(count in (0, header) for count in counts)
    if fits and any(counts):
        facts = inspect_csv(path, where="any.csv")
        assert len(facts.header) == header
        assert facts.has_blank_lines == (0 in counts)
    else:
        with pytest.raises(TooFewRows if fits else SchemaMismatch):
            inspect_csv(path, where="any.csv")


@pytest.mark.parametrize("mark", [".", "n/a", "<NA>", "NaT", "#N/A", "#VALUE!"])
def test_a_mark_of_another_program_for_missing_leaves_a_column_of_numbers(tmp_path: Path, mark: str) -> None:
    frame = load(csv(tmp_path, f"a,b\n1,x\n{mark},y\n2.5,z\n"))
    assert frame["a"].to_list() == [1.0, None, 2.5]
