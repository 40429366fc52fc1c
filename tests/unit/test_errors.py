"""Errors say what is wrong, where, and how to mend it, and survive the way to another process."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from e2i import errors
from e2i.errors import BackendUnavailable, CircuitOpen, ConfigError, DataError, E2IError, QualityGateFailed, SpecError, StorageError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, E2IError)]


def test_the_message_is_place_fact_advice() -> None:
    assert (
        str(DataError("the file is empty.", where="panel.csv", advice="Export it again."))
        == "panel.csv: the file is empty. Export it again."
    )
    assert str(DataError("the file is empty.")) == "the file is empty."
    assert str(DataError("the file is empty.", where="panel.csv")) == "panel.csv: the file is empty."


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_with_its_fields_and_notes(kind: type[E2IError]) -> None:
    error = kind("what", where="where", advice="advice")
    error.add_note("traceback of the worker")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert back.to_dict() == error.to_dict()
    assert str(back) == str(error)
    assert back.__notes__ == ["traceback of the worker"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_as_data_names_itself_and_its_category(kind: type[E2IError]) -> None:
    data = kind("what", advice="advice").to_dict()
    assert data == {"error": kind.__name__, "category": kind.category, "what": "what", "where": None, "advice": "advice"}
    assert kind.category in {"validation", "dependency", "qc_gate", "computation", "timeout", "ml_pipeline"}
    assert kind.__doc__


def test_the_tree_is_the_one_that_is_drawn_at_the_top_of_the_file() -> None:
    branches = re.findall(r"[├└]── (\w+)(.*)", errors.__doc__ or "")
    drawn = {parent: re.findall(r"[A-Z]\w+", rest) for parent, rest in branches}
    assert {"E2IError", *drawn, *(name for children in drawn.values() for name in children)} == {kind.__name__ for kind in KINDS}
    for parent, children in drawn.items():
        assert getattr(errors, parent).__mro__[1] is E2IError
        assert all(issubclass(getattr(errors, child), getattr(errors, parent)) for child in children)


def test_exit_codes_tell_usage_and_closed_gates_from_failures() -> None:
    assert {kind.__name__ for kind in KINDS if kind.exit_code == 2} == {"ConfigError", "MissingExtra"}
    assert {kind.__name__ for kind in KINDS if kind.exit_code == 3} == {"QualityGateFailed"}
    assert QualityGateFailed("x").category == "qc_gate"


def test_only_a_passing_fault_may_be_tried_again() -> None:
    assert {kind for kind in KINDS if issubclass(kind, BackendUnavailable)} == {BackendUnavailable, CircuitOpen}
    assert not issubclass(StorageError, BackendUnavailable)
    assert not issubclass(ConfigError, SpecError)
