"""Compressed tables, tables of other separators, and what people write for numbers and truths."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from e2i.data.sources import LocalFrameSource
from e2i.data.unpack import unpacked
from e2i.domain.data_spec import DataSpec
from e2i.errors import SchemaMismatch

SOURCE = LocalFrameSource()
TABLE = b"a,b\n1,x\n2,y\n"


def load(path: Path) -> pl.DataFrame:
    return SOURCE.load(DataSpec(source=path.name), base=path.parent).frame


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def archive(folder: Path, name: str, **members: bytes) -> Path:
    with zipfile.ZipFile(folder / name, "w") as file:
        for member, content in members.items():
            file.writestr(member.replace("__", "."), content)
    return folder / name


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_table_is_the_table(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, f"visits.csv{suffix}", pack(TABLE))
    assert load(path).rows() == [(1, "x"), (2, "y")]
    assert SOURCE.columns(DataSpec(source=path.name), base=tmp_path) == {"a": "integer", "b": "text"}
    assert load(written(tmp_path, f"visits.tsv{suffix}", pack(TABLE.replace(b",", b"\t")))).rows() == [(1, "x"), (2, "y")]


def test_its_hash_is_that_of_the_file_itself(tmp_path: Path) -> None:
    spec = DataSpec(source=written(tmp_path, "visits.csv.gz", gzip.compress(TABLE)).name)
    assert SOURCE.load(spec, base=tmp_path).sha256 == SOURCE.identity(spec, base=tmp_path)


def test_an_archive_with_one_table_is_read_and_one_with_two_is_not(tmp_path: Path) -> None:
    assert load(archive(tmp_path, "one.zip", visits__csv=TABLE, readme__md=b"about")).height == 2
    with pytest.raises(SchemaMismatch, match=r"2 tables \(a.csv, b.csv\)"):
        load(archive(tmp_path, "two.zip", a__csv=TABLE, b__csv=TABLE))
    with pytest.raises(SchemaMismatch, match="no tables"):
        load(archive(tmp_path, "none.zip", readme__md=b"about"))


def test_a_packed_parquet_file_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1.0, None]}).write_parquet(tmp_path / "visits.parquet")
    packed = written(tmp_path, "visits.parquet.gz", gzip.compress((tmp_path / "visits.parquet").read_bytes()))
    assert load(packed)["a"].to_list() == [1.0, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.csv.gz", gzip.compress(TABLE * 99)[:40]),
        ("cut.csv.bz2", bz2.compress(TABLE * 99)[:40]),
        ("cut.csv.xz", lzma.compress(TABLE * 99)[:40]),
        ("plain.csv.gz", TABLE),
        ("plain.csv.bz2", TABLE),
        ("plain.zip", TABLE),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(SchemaMismatch, match=r"cannot be (unpacked|read as csv).*Export it again"):
        load(written(tmp_path, name, content))


def test_decimal_commas_are_numbers_where_they_cannot_part_thousands(tmp_path: Path) -> None:
    frame = load(written(tmp_path, "visits.csv", b"a;b;c;d\n1,5;2;1,234;-0,5\n2;;5,678;,75\n"))
    assert frame.rows() == [(1.5, 2, "1,234", -0.5), (2.0, None, "5,678", 0.75)]
    assert load(written(tmp_path, "quoted.csv", b'a,b\n"1,5",x\n"2,5",y\n'))["a"].dtype == pl.String


def test_true_and_false_are_truths_however_they_are_written(tmp_path: Path) -> None:
    frame = load(written(tmp_path, "visits.csv", b"r,python,words\nTRUE,True,yes\nFALSE,False,no\n,,\n"))
    assert frame.rows() == [(True, True, "yes"), (False, False, "no"), (None, None, None)]


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_what_grows_beyond_the_limit_is_refused_while_it_is_unpacked(tmp_path: Path, kind: str) -> None:
    content = b"a\n" + b"1\n" * 2_000_000
    path = written(tmp_path, "rows.csv.gz", gzip.compress(content)) if kind == "gz" else archive(tmp_path, "rows.zip", rows__csv=content)
    with (
        pytest.raises(SchemaMismatch, match=r"more than 0\.002 GB") as caught,
        unpacked(path, types=(".csv",), where=path.name, most_bytes=2_000_000),
    ):
        pass
    assert "streamed" in str(caught.value.advice)
    with unpacked(path, types=(".csv",), where=path.name, most_bytes=len(content)) as whole:
        assert whole.stat().st_size == len(content)


def test_blanks_and_lone_signs_among_decimal_commas_are_missing(tmp_path: Path) -> None:
    frame = load(written(tmp_path, "sales.csv", b'a;b\n1,5;x\n-;x\n+;x\n" ";x\n-,25;x\n;x\n'))
    assert frame["a"].to_list() == [1.5, None, None, None, -0.25, None]
