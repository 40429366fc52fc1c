"""Tables with identifiers, as pandas, polars, psql, SQL and people print them: the head of a column says what stands below."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pandas as pd
import polars as pl
import pytest
from test_redaction import REDACTOR, limits

from e2i.telemetry.redaction import Redactor

COLUMNS: dict[str, list[Any]] = {
    "week": ["2026-01-05", "2026-01-12", "2026-01-19"],
    "patient_id": ["P-001712", "P-001899", "P-002001"],
    "dob": ["1980-01-31", "1975-12-01", "1990-07-07"],
    "npi": [1112223334, 1112223335, 1998887776],
    "phone": ["6175550123", "6175550124", "6175550199"],
    "nrx": [3, 4, 11],
    "note": ["a, b", "seen, ok", "x"],
}
HIDDEN = [str(value) for name in ("patient_id", "dob", "npi", "phone") for value in COLUMNS[name]]
ROWS = list(map(list, zip(*COLUMNS.values(), strict=True)))


def _printed() -> dict[str, Any]:
    frame, other = pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS)
    with pl.Config(tbl_cols=20, tbl_width_chars=300):
        boxes = str(other)
    with pl.Config(tbl_cols=20, tbl_width_chars=300, tbl_formatting="MARKDOWN"):
        markdown = str(other)
    with pl.Config(tbl_cols=20, tbl_width_chars=300, tbl_formatting="ASCII_FULL"):
        plain = str(other)
    with pd.option_context("display.width", 60, "display.max_columns", 20):
        wrapped = str(frame)
    return {
        "csv": frame.to_csv(index=False),
        "csv with row numbers": frame.to_csv(),
        "tabs": frame.to_csv(sep="\t", index=False),
        "semicolons": frame.to_csv(sep=";", index=False),
        "quoted": frame.to_csv(index=False, quoting=1),
        "pandas": frame.to_string(),
        "pandas wrapped": wrapped,
        "pandas to the left": frame.to_string(justify="left"),
        "pandas without row numbers": frame.to_string(index=False),
        "index": str(frame[["patient_id", "nrx"]].set_index("patient_id")),
        "group": str(frame.groupby("patient_id").nrx.sum()),
        "html": frame.to_html(),
        "columns as dict": str(frame.to_dict()),
        "columns as lists": str(frame.to_dict("list")),
        "records": str(frame.to_dict("records")),
        "tuples": str(list(frame.itertuples())),
        "json columns": frame.to_json(),
        "json lines": frame.to_json(orient="records", lines=True),
        "polars": boxes,
        "polars markdown": markdown,
        "polars ascii": plain,
        "glimpse": other.glimpse(return_type="string"),
        "rows": str([list(COLUMNS), *ROWS]),
        "rows in json": json.dumps([list(COLUMNS), *ROWS]),
        "columns and data": json.dumps({"columns": list(COLUMNS), "data": ROWS}),
        "sql": "INSERT INTO t (week, patient_id, dob, npi) VALUES ('2026-01-05', 'P-001712', '1980-01-31', 1112223334), "
        "('2026-01-12', 'P-001899', '1975-12-01', 1112223335)",
        "database error": "Key (patient_id, week)=(P-001712, 2026-01-05) already exists.",
        "psql": " patient_id | nrx \n------------+-----\n P-001712   |   3\n P-001899   |   4\n(2 rows)",
        "yaml": "rows:\n- week: 2026\n  patient_id: P-001712\n  dob: 1980-01-31\n  npi: 1112223334",
    }


PRINTED = _printed()
CARRIERS = {
    "text": lambda text: text,
    "in a text": lambda text: f"Frame:\n{text}\nThat was 12 of 40.",
    "in a fence": lambda text: f"See\n```\n{text}\n```\n",
    "nested": lambda text: {"note": {"inner": [text]}},
    "json": lambda text: json.dumps({"content": text}),
    "json unescaped": lambda text: json.dumps({"content": text}, ensure_ascii=False),
    "cut json": lambda text: json.dumps({"content": text})[:-4],
    "json in json": lambda text: json.dumps({"body": json.dumps({"content": text})}),
    "repr": lambda text: repr({"content": text}),
    "bytes": str.encode,
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("form", PRINTED)
def test_no_cell_of_a_sensitive_column_survives(form: str, carrier: str) -> None:
    text = PRINTED[form]
    kept = orjson.dumps(REDACTOR.clean({"input.value": CARRIERS[carrier](text)})).decode()
    assert not [value for value in HIDDEN if value in text and value in kept], kept


@pytest.mark.parametrize("form", ["csv", "pandas", "polars", "polars markdown"])
def test_all_other_cells_and_the_heads_stay(form: str) -> None:
    kept = REDACTOR.clean({"input.value": PRINTED[form]})["input.value"]
    assert all(str(value) in kept for name in ("week", "nrx", "note") for value in COLUMNS[name])
    assert all(name in kept for name in COLUMNS)
    assert kept.count("[mrn]") == kept.count("[dob]") == kept.count("[npi]") == kept.count("[phone]") == 3


def test_a_table_as_nested_values_is_read_by_its_heads_too() -> None:
    for value in ([list(COLUMNS), *ROWS], {"columns": list(COLUMNS), "data": ROWS}, COLUMNS, pd.DataFrame(COLUMNS).to_dict("records")):
        kept = orjson.dumps(REDACTOR.clean({"table": value})).decode()
        assert not [hidden for hidden in HIDDEN if hidden in kept], kept
        assert "2026-01-05" in kept


def test_a_column_of_secrets_is_hidden_and_a_form_is_not() -> None:
    clean = REDACTOR.clean({"a": "user,password\njane,hunter2QX\njoe,abcd-1234", "b": "User\nPassword\nSign in"})
    assert clean == {"a": "user,password\njane,[secret]\njoe,[secret]", "b": "User\nPassword\nSign in"}


def test_a_table_ends_where_its_lines_do() -> None:
    text = "patient_id,nrx\nP-001712,3\n\nstep-12,3\nThen 12 of 40."
    assert REDACTOR.clean({"a": text}) == {"a": "patient_id,nrx\n[mrn],3\n\nstep-12,3\nThen 12 of 40."}


def test_a_head_that_was_cut_off_explains_nothing_and_a_row_that_was_cut_is_still_one() -> None:
    small = Redactor(limits(max_metadata_size_bytes=200))
    kept = small.clean({"note": "patient_id,nrx\n" + "P-001712,3\n" * 40})["note"]
    assert "P-0017" not in kept
    assert kept.startswith("patient_id,nrx\n[mrn],3\n")


PEOPLE = [
    ({"patient": {"identifier": [{"system": "urn:x", "value": "P-0017"}]}}, "P-0017"),
    ({"patient": {"id": "P-0017", "weeks": 12}}, "P-0017"),
    ({"patients": [{"id": "P-0017"}, {"id": "P-0018"}]}, "P-001"),
    ({"patients": ["P-0017", "P-0018"]}, "P-001"),
    ({"case": {"number": "2026-001-88"}}, "001-88"),
    ({"resourceType": "Patient", "id": "pat-88127", "identifier": [{"type": {"coding": [{"code": "MR"}]}, "value": "A88127"}]}, "88127"),
    ({"subject": {"reference": "Patient/88127"}}, "88127"),
    ([{"name": "mrn", "type": "text", "value": "A-7"}], "A-7"),
    ({"name": "ssn", "type": "str", "value": "123456789"}, "123456789"),
    ({"person_id": 8812734, "ptId": "P-88127", "accountNumber": 8812735, "case_no": "C-88127"}, "8812"),
]


@pytest.mark.parametrize(("value", "hidden"), PEOPLE)
def test_a_record_of_a_person_is_read_by_its_tree(value: Any, hidden: str) -> None:
    for given in (value, json.dumps(value), {"body": json.dumps(value)}, json.dumps({"body": value}, indent=2)):
        kept = REDACTOR.clean({"note": given})
        assert hidden not in orjson.dumps(kept).decode(), kept
        assert REDACTOR.clean(kept) == kept


def test_the_bare_name_of_a_person_hides_what_looks_like_one_and_no_count() -> None:
    given = {"patient": "P-0017", "member": "W123456789", "row.patient": "48291399", "patients": 1200345, "n_patients": 812, "case": "A12"}
    kept = REDACTOR.clean(given)
    assert kept == {**given, "patient": "[mrn]", "member": "[mrn]", "row.patient": "[mrn]"}
    assert REDACTOR.clean({"patient": '{"id": "P-0017", "weeks": 12}'}) == {"patient": '{"id":"[mrn]","weeks":12}'}
