"""Vendors' errors as ours."""

from __future__ import annotations

import pytest

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.llm.faults import Endpoint, Fault, retry_after, status_of
from e2i.llm.parameters import Parameters

ENDPOINT = Endpoint(where="anthropic claude-x", key="sk-very-secret", variable="ANTHROPIC_API_KEY")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 529])
def test_what_may_pass_is_unavailable(status: int) -> None:
    assert isinstance(ENDPOINT.refused(status, "x"), Fault)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 501, 505])
def test_what_will_not_pass_is_rejected_and_says_how_to_mend_it(status: int) -> None:
    error = ENDPOINT.refused(status, "x")
    assert isinstance(error, BackendRejected)
    assert not isinstance(error, BackendUnavailable)
    assert error.advice
    assert str(status) in error.what
    assert error.where == "anthropic claude-x"


def test_a_wrong_key_names_the_variable_and_never_the_key() -> None:
    error = ENDPOINT.refused(401, "invalid x-api-key: sk-very-secret, sk-very-secret")
    assert "ANTHROPIC_API_KEY" in str(error)
    assert "sk-very-secret" not in str(error)


def test_a_vendors_error_that_repeats_the_key_is_not_chained() -> None:
    quiet, loud = ValueError("no"), ValueError("no sk-very-secret")
    assert ENDPOINT.cause(quiet) is quiet
    assert ENDPOINT.cause(loud) is None


def test_a_long_text_is_cut_and_stands_on_one_line() -> None:
    error = ENDPOINT.refused(400, "a\nb " * 1000)
    assert "\n" not in error.what
    assert len(error.what) < 320


def test_a_short_placeholder_of_a_key_garbles_no_text() -> None:
    assert Endpoint(where="x", key="none", variable="V").clean("none of these") == "none of these"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:30 GMT", "date": "Sat, 21 Nov 2026 11:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT", "date": "Sat, 21 Nov 2026 11:00:30 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "kind", "code", "expected"),
    [
        (200, "overloaded_error", None, 529),
        (200, "invalid_request_error", None, 400),
        (None, "server_error", 503, 503),
        (418, "x", None, 418),
        (None, "server_error", "bad", 500),
        (None, None, None, 500),
    ],
)
def test_an_error_inside_a_stream_gets_the_status_it_stands_for(status: int | None, kind: str, code: object, expected: int) -> None:
    assert status_of(status, kind, code) == expected


def test_a_used_up_quota_is_not_waited_for() -> None:
    for error in (ENDPOINT.refused(429, "x", code="insufficient_quota"), ENDPOINT.refused(503, "x", {"x-should-retry": "false"})):
        assert isinstance(error, Fault)
        assert not error.may_retry


def test_a_parameter_that_the_model_does_not_know_is_left_out_from_then_on() -> None:
    found = Parameters()
    sent = frozenset({"temperature", "max_tokens"})
    assert found.learn(400, "`temperature` is deprecated for this model.", sent)
    assert not found.takes("temperature")
    assert found.takes("max_tokens")
    assert found.learn(
        400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", sent
    )
    assert found.left_out == {"temperature", "max_tokens"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "temperature: range: 0..1"),
        (401, "temperature is not supported"),
        (400, "the prompt is too long"),
        (400, "schema is not supported"),
        (429, "temperature is deprecated"),
    ],
)
def test_any_other_refusal_stays_one(status: int, message: str) -> None:
    assert not Parameters().learn(status, message, frozenset({"temperature"}))
