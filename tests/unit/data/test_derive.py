"""Columns that a study derives: an expression over the row, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2i.data.sources import LocalFrameSource, large_file
from e2i.data.study_file import check_roles, load_study, study_sha256
from e2i.domain.data_spec import DataSpec
from e2i.errors import SchemaMismatch

SOURCE = LocalFrameSource()


def spec(folder: Path, **derive: str) -> DataSpec:
    (folder / "visits.csv").write_text('quantity,program,sales\n0,yes,"1,200"\n3,no,950\n,yes,10\n')
    return DataSpec(source="visits.csv", derive=derive)


def test_derived_columns_stand_beside_the_others_and_what_is_missing_stays_missing(tmp_path: Path) -> None:
    data = spec(
        tmp_path, buys="quantity > 0", treated="program = 'yes'", both="buys AND treated", dollars="CAST(REPLACE(sales, ',', '') AS DOUBLE)"
    )
    frame = SOURCE.load(data, base=tmp_path).frame
    assert frame["buys"].to_list() == [False, True, None]
    assert frame["treated"].to_list() == [True, False, True]
    assert frame["both"].to_list() == [False, False, None]
    assert frame["dollars"].to_list() == [1200.0, 950.0, 10.0]
    assert SOURCE.columns(data, base=tmp_path)["buys"] == "boolean"
    assert SOURCE.load(data, base=tmp_path, columns=["dollars"]).frame.columns == ["dollars"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("quantity >", "is no expression"),
        ("quantity; DROP TABLE x", "is no expression"),
        ("read_csv('/etc/passwd')", "is no expression"),
        ("quantity IN (SELECT quantity FROM other)", "is no expression"),
        ("quantiti > 0", "Did you mean `quantity`"),
        ("program = yes", "single quotes"),
        ("program > 0", "fails"),
        ("CAST(program AS INT)", "fails"),
        ("1", "names no column"),
    ],
)
def test_what_is_no_expression_over_the_row_is_refused_under_its_name(tmp_path: Path, expression: str, words: str) -> None:
    with pytest.raises(SchemaMismatch, match=words) as caught:
        SOURCE.load(spec(tmp_path, treated=expression), base=tmp_path)
    assert caught.value.where == "data.derive.treated"
    assert caught.value.advice


def test_a_derived_column_hides_no_column_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="a column `program` already"):
        SOURCE.load(spec(tmp_path, program="quantity > 0"), base=tmp_path)


def test_a_study_with_another_expression_is_another_study(tmp_path: Path) -> None:
    spec(tmp_path)
    text = 'name: buys\ndata: {source: visits.csv, derive: {treated: "quantity > 0"}}\neffect: {treatment: treated, outcome: quantity}\n'
    (tmp_path / "study.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text.replace("> 0", "> 1"))
    study = load_study(tmp_path / "study.yaml")
    check_roles(study, SOURCE.columns(study.data, base=tmp_path), path=tmp_path / "study.yaml")
    assert study_sha256(study) != study_sha256(load_study(tmp_path / "other.yaml"))


def test_a_treatment_in_words_is_refused_with_the_expression_that_mends_it(tmp_path: Path) -> None:
    spec(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text("name: words\ndata: {source: visits.csv}\neffect: {treatment: program, outcome: quantity}\n")
    study = load_study(path)
    with pytest.raises(SchemaMismatch, match=r"derive: \{NEW: \"COLUMN = 'yes'\"\}"):
        check_roles(study, SOURCE.columns(study.data, base=tmp_path), path=path)


def test_a_file_that_is_streamed_takes_no_expression(tmp_path: Path) -> None:
    data = spec(tmp_path, buys="quantity > 0")
    with pytest.raises(SchemaMismatch, match="streamed"):
        large_file(data, base=tmp_path, threshold_gb=0.0, memory_gb=1.0, threads=1)
