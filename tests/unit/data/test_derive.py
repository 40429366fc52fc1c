"""Columns that a study derives: an expression over the row, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2i.data.sources import LocalFrameSource, large_file
from e2i.data.study_file import check_roles, load_study
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
        ("quantity IN (SELECT quantity FROM other)", "names another table"),
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


@pytest.mark.parametrize(
    "expression",
    [
        "quantity > (SELECT nosuch FROM read_csv('FILE'))",
        "quantity > (select nosuch from \"read_csv\"('FILE'))",
        "quantity > (select nosuch from `READ_CSV` ('FILE'))",
        "quantity > ANY(\nSELECT nosuch FROM read_csv('FILE'))",
        "quantity > (WITH x AS (SELECT 1) SELECT * FROM x)",
        "quantity IN (FROM read_csv('FILE'))",
        "quantity IN ( (\t\u00a0From read_parquet('FILE')))",
        "quantity IN (/**/FROM x)",
        "quantity IN (/* a /* b */ c */FROM x)",
        "quantity IN (--\nFROM x)",
        "program = '/*' OR quantity IN (/**/FROM x) OR program = '*/'",
        "program =  OR quantity IN (FROM x) OR program = ",
        "quantity IN (TABLE x)",
        "quantity IN (VALUES (1))",
        "quantity > 0 AND EXISTS(SELECT 1)",
        "quantity > 0 AND EXISTS(FROM read_csv('http://127.0.0.1:9/a.csv'))",
        "read_csv('FILE')",
        "quantity > 0 AND now() > '2024-01-01'",
        "quantity > 0 AND \"now\" () > '2024-01-01'",
        "quantity > 0 AND CURRENT_DATE > '2024-01-01'",
        "quantity > 0 AND localtimestamp > '2024-01-01'",
    ],
)
def test_an_expression_reaches_no_table_file_or_clock_however_it_is_written(tmp_path: Path, expression: str) -> None:
    (tmp_path / "secret.csv").write_text("root_password\n1\n")
    for file in ("secret.csv", "missing.csv"):
        with pytest.raises(SchemaMismatch, match="names another table, a file or the clock") as caught:
            SOURCE.load(spec(tmp_path, treated=expression.replace("FILE", str(tmp_path / file))), base=tmp_path)
        assert "root_password" not in str(caught.value)


def test_words_of_a_query_stay_usable_as_text_names_and_parts_of_functions(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("day,brand,current_rx,read_count\n2024-05-01,Select,1,2\n2023-05-01,from now,0,4\n")
    derive = {
        "year": "EXTRACT(year FROM day)",
        "named": "brand = 'Select'",
        "left": "SUBSTRING(brand FROM 1 FOR 4)",
        "sum": "current_rx + read_count * (current_rx + 1)",
        "clean": "REPLACE(brand, '--', '')",
    }
    frame = SOURCE.load(DataSpec(source="rows.csv", derive=derive), base=tmp_path).frame
    assert frame["year"].to_list() == [2024, 2023]
    assert frame["named"].to_list() == [True, False]
    assert frame["left"].to_list() == ["Sele", "from"]
    assert frame["sum"].to_list() == [5, 4]


def test_what_is_no_number_is_missing_in_a_derived_column_too(tmp_path: Path) -> None:
    derived = SOURCE.load(spec(tmp_path, root="SQRT(quantity - 2)", known="root IS NOT NULL"), base=tmp_path).frame
    assert derived["root"].to_list() == [None, 1.0, None]
    assert derived["known"].to_list() == [False, True, False]


def test_a_failed_conversion_names_the_column_and_no_value_or_count(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="failed in column 'program'") as caught:
        SOURCE.load(spec(tmp_path, treated="CAST(program AS INT)"), base=tmp_path)
    assert "yes" not in caught.value.what
    assert "out of" not in caught.value.what


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
    assert study != load_study(tmp_path / "other.yaml")


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
