"""Storage without a server: statements, addresses, errors, canonical texts, files."""

from __future__ import annotations

import ast
import json
import math
import re
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2i.errors import BackendRejected, BackendUnavailable, StorageError
from e2i.storage.address import address, plain_url, sqlalchemy_url, url_in_schema
from e2i.storage.audit import AuditFiles, Head, Link, canonical_json, verify_link
from e2i.storage.postgres import translated
from e2i.storage.sql import FOLDER, load, statements

STORAGE = FOLDER.parent
SUBJECTS = sorted(path.stem for path in (FOLDER / "queries").glob("*.sql"))


def used_names() -> dict[str, set[str]]:
    """subject -> names that the code takes from it."""
    used: dict[str, set[str]] = {}
    for path in STORAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        subjects = {
            node.targets[0].id: node.value.args[0].value  # type: ignore[attr-defined]
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "load"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in subjects:
                used.setdefault(subjects[node.value.id], set()).add(node.slice.value)  # type: ignore[attr-defined]
    return used


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    assert used_names() == {subject: set(load(subject)) for subject in SUBJECTS}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_statements_name_their_parameters_and_say_what_they_do(subject: str) -> None:
    for name, text in load(subject).items():
        assert len(text.splitlines()[0]) > 10, name
        assert not re.search(r"%(?!\(\w+\)s|%)", text), f"{name}: a bare %"


def test_a_sql_file_without_order_is_refused() -> None:
    for text in ("select 1", "-- name: a\nselect 1", "-- name: a\n-- one\nselect 1\n-- name: a\n-- two\nselect 2"):
        with pytest.raises(ValueError, match=r"queries/x\.sql"):
            statements(text, where="queries/x.sql")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h:5/d", "postgresql+psycopg://u:p@h:5/d?options=-csearch_path%3Dmlflow"),
        ("postgresql+psycopg://u:p@h/d?sslmode=require", "postgresql+psycopg://u:p@h/d?sslmode=require&options=-csearch_path%3Dmlflow"),
        (
            "postgresql://u:p%40x@h/d?options=-cstatement_timeout%3D5",
            "postgresql+psycopg://u:p%40x@h/d?options=-cstatement_timeout%3D5%20-csearch_path%3Dmlflow",
        ),
        ("postgresql:///d?host=/run/pg", "postgresql+psycopg:///d?host=%2Frun%2Fpg&options=-csearch_path%3Dmlflow"),
    ],
)
def test_a_schema_is_added_to_whatever_the_url_says_already(url: str, expected: str) -> None:
    assert sqlalchemy_url(url, schema="mlflow") == expected
    parsed = psycopg.conninfo.conninfo_to_dict(url_in_schema(url, schema="mlflow"))
    assert str(parsed["options"]).endswith("-csearch_path=mlflow")
    assert parsed["dbname"] == "d"


def test_an_address_never_holds_the_password() -> None:
    assert address("postgresql://u:p%40x@h:5/d?password=no") == "h:5/d"
    assert address("postgresql:///d") == "local socket/d"
    for wrong in ("sqlite:///x.db", "mysql://u:secret@h/d", "nonsense"):
        with pytest.raises(BackendRejected, match="not a PostgreSQL URL") as caught:
            plain_url(wrong)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("connection failed: Connection refused", BackendUnavailable),
        ("FATAL:  sorry, too many clients already", BackendUnavailable),
        ("FATAL:  the database system is starting up", BackendUnavailable),
        ("consuming input failed: server closed the connection unexpectedly", BackendUnavailable),
        ('FATAL:  password authentication failed for user "x"', BackendRejected),
        ('FATAL:  database "x" does not exist', BackendRejected),
    ],
)
def test_errors_of_connecting_have_no_code_and_are_told_apart_by_their_words(text: str, ours: type[Exception]) -> None:
    assert type(translated(psycopg.OperationalError(text), "h/d")) is ours


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_canonical_text_reads_back_as_the_same_value(value: object) -> None:
    text = canonical_json(value)
    back = json.loads(text)
    assert canonical_json(back) == text
    assert repr(_sorted(back)) == repr(_sorted(value))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_canonical_text_depends_on_the_value_alone() -> None:
    assert canonical_json({"b": [1.0, 1, True], "a": "ü\n"}) == '{"a":"ü\\n","b":[1.0,1,true]}'
    tokyo = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert canonical_json(tokyo) == canonical_json(datetime(2026, 1, 1, tzinfo=UTC)) == '"2026-01-01T00:00:00.000000+00:00"'
    assert canonical_json(0.1 + 0.2) == "0.30000000000000004"
    for wrong in (math.nan, math.inf, {1: 2}, {None: 1}, b"x", datetime(2026, 1, 1), object()):  # noqa: DTZ001
        with pytest.raises(StorageError, match="no canonical form"):
            canonical_json({"x": [wrong]})


def link(sequence: int, previous: Link | None, **changes: object) -> Link:
    values: dict[str, object] = {
        "sequence": sequence,
        "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
        "actor": "a",
        "action": "b",
        "subject": "c",
        "details": "{}",
        "previous_hash": previous.entry_hash if previous else "0" * 64,
    }
    made = Link(**{**values, **changes})  # type: ignore[arg-type]
    return Link(**{**vars(made), "entry_hash": made.sealed(b"key")})


def test_no_text_moves_from_one_column_to_the_next_unseen() -> None:
    hashes = {
        link(1, None, actor=actor, action=action).entry_hash
        for actor, action in (("ab", "c"), ("a", "bc"), ('a","action":"b', "c"), ("", "abc"))
    }
    assert len(hashes) == 4


def test_a_link_is_judged_by_the_one_before_it() -> None:
    first = link(1, None)
    second = link(2, first)
    assert verify_link(first, before=None, key=b"key") is None
    assert verify_link(second, before=first, key=b"key") is None
    assert "not written with this key" in str(verify_link(second, before=first, key=b"other"))
    assert "entry 1 is missing" in str(verify_link(second, before=None, key=b"key"))
    assert "does not continue" in str(verify_link(link(2, None), before=first, key=b"key"))


def test_the_head_only_moves_forward(tmp_path: Path) -> None:
    files = AuditFiles(tmp_path / "audit")
    assert files.head(is_empty=True) == Head()
    files.advance(Head(sequence=5, entry_hash="a" * 64, count=5))
    AuditFiles(tmp_path / "audit").advance(Head(sequence=4, entry_hash="b" * 64, count=4))
    assert files.head(is_empty=False) == Head(sequence=5, entry_hash="a" * 64, count=5)
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["audit.head", "audit.key", "audit.lock"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file of the audit chain cannot be used"):
        AuditFiles(tmp_path / "file" / "audit").head(is_empty=True)


def test_each_database_has_audit_files_of_its_own(tmp_path: Path) -> None:
    urls = ("", "postgresql://u:secret@h:5432/a", "postgresql://u:secret@h:5432/b")
    folders = [AuditFiles.of(tmp_path, url=url).folder for url in urls]
    assert [str(folder.relative_to(tmp_path)) for folder in folders] == ["audit", "audit/h_5432_a", "audit/h_5432_b"]
    assert AuditFiles.of(tmp_path, url="postgres://other@h:5432/a?sslmode=require").folder == folders[1]
