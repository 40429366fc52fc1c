# ruff: noqa: RUF001 - unusual spellings are the point
from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from html import unescape
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote, urlencode
from uuid import UUID

import numpy as np
import orjson
import pytest
from corpus import CONFIGURED_SECRET, EMAILS, PHONES, field_texts, planted, remains
from hypothesis import example, given, settings
from hypothesis import strategies as st

from e2i.errors import ConfigError
from e2i.telemetry.redaction import MAX_ATTRIBUTES, NOT_LOGGED, Redactor, SpanLimits
from e2i.telemetry.sensitive_keys import text_of

PATTERNS = ("password", "api_key", "secret", "token", "authorization")


def limits(**changes: Any) -> SpanLimits:
    given: dict[str, Any] = {
        "include_input": True,
        "include_output": True,
        "max_input_size_bytes": 10240,
        "max_output_size_bytes": 10240,
        "max_metadata_size_bytes": 4096,
        "redact_patterns": PATTERNS,
        "secrets": (CONFIGURED_SECRET, "pässwörd-äöü", "короткий-пароль"),
    }
    return SpanLimits(**{**given, **changes})


REDACTOR = Redactor(limits())
SMALL = Redactor(limits(max_input_size_bytes=256, max_output_size_bytes=200, max_metadata_size_bytes=128))


def clean(value: Any, key: str = "note") -> Any:
    return REDACTOR.clean({key: value}).get(key)


# --- what must go ---------------------------------------------------------------------------------------------------------------


def test_no_planted_identifier_survives_in_any_carrier() -> None:
    survivors, count = [], 0
    for identifier, carrier, value in planted():
        count += 1
        for key in ("note", "input.value", "gen_ai.completion.0.content"):
            text = orjson.dumps(REDACTOR.clean({key: value, "e2i.agent.name": "explainer"})).decode()
            unescaped = json.dumps(json.loads(text), ensure_ascii=False)
            survivors += [(identifier, carrier, left) for left in remains(identifier) if left in text or left in unescaped]
    assert count >= 300
    assert not survivors, survivors[:20]


def test_no_planted_identifier_survives_in_names_messages_and_keys() -> None:
    for identifier, carrier, value in planted():
        if isinstance(value, str) and carrier in ("text", "error", "stack trace"):
            cleaned = REDACTOR.clean_text(value)
            keys = "".join(REDACTOR.clean({value[-200:]: 1}))
            assert not [left for left in remains(identifier) if left in cleaned], (identifier, cleaned)
            if len(value) <= 200:
                assert not [left for left in remains(identifier) if left in keys], (identifier, keys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail jane@example.com now", "mail [email] now"),
        ("call 617-555-0123 x12.", "call [phone]."),
        ("SSN 123-45-6789", "SSN [ssn]"),
        ("NPI 1234567893, decile 9", "NPI [npi], decile 9"),
        ("MRN: A1234567; seen", "MRN: [mrn]; seen"),
        ("born 1980-01-31 in Maine", "born [dob] in Maine"),
        ("card 4111 1111 1111 1111", "card [card]"),
        ("password=hunter2, user=joe", "password=[secret], user=joe"),
        ('{"password": "hunter2", "n": 3}', '{"password":"[secret]","n":3}'),
        ("Authorization: Bearer abc def\nnext", "Authorization: [secret]\nnext"),
        ("postgresql://e2i:hunter2@db:5432/e2i", "postgresql://e2i:[secret]@db:5432/e2i"),
        ("npis: [1234567893, 1679576722]", "npis: [[npi]]"),
        ("npis: [1112223334, 1112223335]", "npis: [[npi]]"),
        ("MRNs: 48291301, 48291302; seen", "MRNs: [mrn]; seen"),
        ("MRN 00123456, 2026-11-20", "MRN [mrn], 2026-11-20"),
        ("phone 6175550123, 3 calls", "phone [phone], 3 calls"),
        ("NPI:12453-19599", "NPI:[npi]"),
        ("passcode 99183377 / PIN 8842", "passcode [secret] / PIN [secret]"),
        ("x 1234567893,1679576722 y", "x [npi],[npi] y"),
        ("jane@example.com,joe@example.com", "[email],[email]"),
    ],
)
def test_a_reader_knows_what_was_there(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize("key", [
    "password", "db.password", "OPENAI_API_KEY", "openaiApiKey", "x-api-key", "http.request.header.authorization", "client_secret",
    "secrets", "access_token", "apikey", "PGPASSWORD", "secret.inner.value", "set_cookie",
])  # fmt: skip
@pytest.mark.parametrize("value", ["x", 12345, 1.5, ["a", "b"], {"a": {"b": "c"}}, b"raw", "[x", "[1]"])
def test_a_value_below_a_sensitive_key_is_never_kept(key: str, value: Any) -> None:
    kept = REDACTOR.clean({key: value, "nested": {key: value}})
    assert kept[key] in ("[secret]", ["[secret]", "[secret]"])
    assert json.loads(kept["nested"])[key] in ("[secret]", ["[secret]", "[secret]"])


@pytest.mark.parametrize("key", [
    "gen_ai.usage.input_tokens", "max_tokens", "token_count", "llm.token_count.prompt", "gen_ai.request.max_tokens",
    "gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token", "password_policy", "tokenizer", "secretary",
    "prior_authorization", "priorAuthorization", "author", "keyboard", "primary_key", "e2i.run.id", "has_token_type",
])  # fmt: skip
def test_a_key_that_only_sounds_sensitive_keeps_its_value(key: str) -> None:
    assert REDACTOR.clean({key: 512}) == {key: 512}
    assert REDACTOR.clean({key: "512"}) == {key: "512"}


@pytest.mark.parametrize(("key", "value", "marker"), [
    ("npi", 1112223334, "[npi]"), ("hcp_npi", "1112223334", "[npi]"), ("hcp.id", 1112223334, "[npi]"), ("npi", 1112223334.0, "[npi]"),
    ("ssn", 123456789, "[ssn]"), ("patient_id", "P17", "[mrn]"), ("patientId", 17, "[mrn]"), ("member_number", "W-1", "[mrn]"),
    ("phone", 6175550123, "[phone]"), ("phone_number", "6175550123", "[phone]"), ("dob", "1980-01-31", "[dob]"),
    ("date_of_birth", date(1980, 1, 31), "[dob]"), ("card_number", 4111111111111111, "[card]"), ("npi", "１112223334", "[npi]"),
])  # fmt: skip
def test_a_number_is_redacted_by_what_its_key_says(key: str, value: Any, marker: str) -> None:
    assert REDACTOR.clean({key: value}) == {key: marker}
    assert json.loads(REDACTOR.clean({"row": {key: value}})["row"]) == {key: marker}
    if not isinstance(value, date):
        assert REDACTOR.clean({key: [value, value]}) == {key: [marker, marker]}
        assert json.loads(REDACTOR.clean({"row": json.dumps({key: value})})["row"]) == {key: marker}


def test_configured_secrets_go_in_every_spelling() -> None:
    for secret in (CONFIGURED_SECRET, "pässwörd-äöü", "короткий-пароль"):
        for text in (secret, f"a{secret}b", json.dumps(secret), f"https://h/?x={secret}", json.dumps({"k": [secret]})):
            assert secret not in str(json.dumps(clean(text), ensure_ascii=False))
    assert "Zeppelin" not in clean(f"Zeppelin\u200b-Kaffee-42 {CONFIGURED_SECRET}")
    short = Redactor(limits(secrets=("kiwi7", "", "abc")))
    assert short.clean({"a": "kiwi7 akiwi7b abc"}) == {"a": "[secret] akiwi7b abc"}


def test_a_secret_that_is_a_word_of_a_marker_does_no_harm() -> None:
    redactor = Redactor(limits(secrets=("secret", "email")))
    once = redactor.clean({"a": "my secret email x@y.io password=1"})
    assert redactor.clean(once) == once


def test_short_words_hide_only_what_looks_like_a_secret() -> None:
    given = {"pass": "hunter2", "pin": 8842, "sig": 0.04, "signature": "inputs", "pass_rate": 0.3, "passed": "12", "user_pin": "12"}
    assert json.loads(clean(given)) == {**given, "pass": "[secret]", "pin": "[secret]"}
    assert clean("a" * 24, key="request.signature") == "[secret]"
    assert clean(True, key="gate.pass") is True


# --- what must stay -------------------------------------------------------------------------------------------------------------


def test_texts_of_the_field_stay_as_they_are() -> None:
    texts = field_texts()
    assert len(texts) >= 300
    changed = [(text, cleaned) for text in texts if (cleaned := clean(text)) != text]
    assert not changed, changed


def test_numbers_and_our_own_ids_stay_as_they_are() -> None:
    attributes = {
        "e2i.run.id": "019a3f5e7b7c7def8123456789abcdef",
        "e2i.experiment.id": "e2i_causal_impact_0193",
        "volume": 1234567893,
        "stamp": 1763722003123456789,
        "share": 0.1234567893,
        "flag": True,
        "counts": [1234567893, 1679576722],
        "e2i.tags": ["a", "b"],
        "e2i.fallback.chain": ["claude", "gpt"],
    }
    assert REDACTOR.clean(attributes) == attributes
    assert REDACTOR.clean(attributes) == attributes
    assert REDACTOR.clean({"j": '{"volume": 1234567893, "ts": 1763722003}'}) == {"j": '{"volume": 1234567893, "ts": 1763722003}'}


def test_the_attributes_given_are_not_changed() -> None:
    given = {"a": "x@y.io", "e2i.truncated": ["b"], "c": {"d": ["x@y.io"]}}
    REDACTOR.clean(MappingProxyType(given))
    assert given == {"a": "x@y.io", "e2i.truncated": ["b"], "c": {"d": ["x@y.io"]}}


# --- prompts --------------------------------------------------------------------------------------------------------------------

PROMPTS = ["input.value", "gen_ai.prompt", "gen_ai.prompt.0.content", "gen_ai.input.messages", "llm.input_messages.0.message.content",
           "gen_ai.system_instructions", "llm.prompts.0", "mlflow.spanInputs"]  # fmt: skip
ANSWERS = [
    "output.value",
    "gen_ai.completion.0.content",
    "gen_ai.output.messages",
    "llm.output_messages.1.message.content",
    "mlflow.spanOutputs",
]


@pytest.mark.parametrize("key", PROMPTS + ANSWERS)
def test_prompts_that_are_not_to_be_logged_leave_a_marker(key: str) -> None:
    given = {key: "why did NRx fall?", "gen_ai.usage.input_tokens": 5, "llm.input_messages.0.message.role": "user"}
    for _ in range(2):
        assert REDACTOR.clean(given) == given
        assert REDACTOR.clean(given, log_prompts=False) == {**given, key: NOT_LOGGED}


def test_inputs_and_outputs_are_left_out_each_by_its_setting() -> None:
    given = {"input.value": "q", "output.value": "a"}
    assert Redactor(limits(include_input=False)).clean(given) == {"input.value": NOT_LOGGED, "output.value": "a"}
    assert Redactor(limits(include_output=False)).clean(given) == {"input.value": "q", "output.value": NOT_LOGGED}


# --- sizes ----------------------------------------------------------------------------------------------------------------------


def test_a_value_over_its_limit_is_cut_with_a_marker_and_named() -> None:
    kept = REDACTOR.clean({"input.value": "word " * 5000, "output.value": "x", "note": "é" * 9000})
    assert kept["input.value"].startswith("word word")
    assert kept["input.value"].endswith(" bytes]")
    assert "…[truncated " in kept["input.value"]
    assert kept["note"].endswith(" characters]")
    assert len(kept["input.value"].encode()) <= 10240
    assert len(kept["note"].encode()) <= 4096
    assert kept["e2i.truncated"] == ["input.value", "note"]


@pytest.mark.parametrize("identifier", [
    "jane.doe@example.com", "617-555-0123", "123-45-6789", "1234567893", "password=hunter2long", CONFIGURED_SECRET,
    "postgresql://e2i:hunter2hunter2@db.example.com/x", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
])  # fmt: skip
def test_an_identifier_across_the_cut_leaves_no_readable_half(identifier: str) -> None:
    for offset in range(len(identifier) + 60):
        text = ("ab " * 60)[: 128 - offset] + " " + identifier + " and more words" * 20
        kept = SMALL.clean({"note": text})["note"]
        assert len(kept.encode()) <= 128
        for size in range(5, len(identifier)):
            if identifier[:size] in ("password=", "passwor", "passw", "passwo", "password"):
                continue
            head = identifier[:size]
            assert head not in kept or (head.startswith(("postg", "passw")) and "hunt" not in kept), (offset, kept)


def test_cutting_costs_the_cut_and_not_the_value() -> None:
    def best(value: str) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            REDACTOR.clean({"note": value})
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("some words " * 1_000_000) < 5 * best("some words " * 2_000)
    assert best("größe " * 1_000_000) < 5 * best("größe " * 2_000)


def test_long_lists_deep_trees_and_many_attributes_are_bounded() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = {"d": [deep]}
    circle: dict[str, Any] = {}
    circle["a"], circle["b"] = circle, [circle] * 10
    kept = REDACTOR.clean({"numbers": list(range(10**6)), "texts": ["word"] * 10**6, "deep": deep, "circle": circle, "empty": [""] * 10**5})
    assert all(len(orjson.dumps(value)) <= 3 * 4096 for value in kept.values())
    assert {"numbers", "texts", "deep", "circle", "empty"} <= set(kept["e2i.truncated"])
    many = REDACTOR.clean({f"k{i}": i for i in range(500)})
    assert len(many) == MAX_ATTRIBUTES + 1
    assert many["e2i.truncated"] == ["372 more attributes"]
    assert REDACTOR.clean(many) == many


def test_a_size_limit_that_holds_not_even_the_marker_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_output_size_bytes"):
        limits(max_output_size_bytes=10)


def test_no_flood_of_unusual_text_makes_it_blind() -> None:
    """RE2 keeps states of what it saw; when there is no more room for them it must still find the same."""
    redactor = Redactor(limits())
    alphabet = "npimrssn dob:phone=+1(617)555-.@%u\\\\x\u200b\u2013é１[]{}'\"AKIAsk-eyJ0123456789"
    state = 1
    for _ in range(1500):
        letters = []
        for _ in range(300):
            state = state * 6364136223846793005 + 1442695040888963407 & 2**64 - 1
            letters.append(alphabet[(state >> 33) % len(alphabet)])
        redactor.clean({"note": "".join(letters)})
    assert redactor.clean({"note": "mail jane@example.com, 617-555-0123"}) == {"note": "mail [email], [phone]"}


# --- types ----------------------------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "jane@example.com"


class Spiteful:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class SpitefulMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Any:
        raise ValueError("no")

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(("value", "expected"), [
    (None, None), (Colour.RED, "RED"), (Spiteful(), "<Spiteful>"), (SpitefulMapping(), "<SpitefulMapping>"), (Decimal("1.5"), "1.5"),
    (datetime(2026, 11, 21, tzinfo=UTC), "2026-11-21 00:00:00+00:00"), (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (PurePosixPath("/a/b"), "/a/b"), (np.float64(0.5), 0.5), (np.int64(3), 3), (np.array([1, 2]), [1, 2]),
    (np.zeros(10**6), "<ndarray>"), (2**80, str(2**80)), (10**400, "[a number of more than 300 digits]"), (float("nan"), "NaN"),
    (float("-inf"), "-Infinity"), (1j, "1j"), ([1, 2.5], [1.0, 2.5]), ([1, "a", None], '[1,"a",null]'), ([], []),
    ([True, False], [True, False]), ({"a": 1}, '{"a":1}'), ({1: {2: 3}}, '{"1":{"2":3}}'), (b"\xff\x00x", "\ufffd\ufffdx"),
    ("a\x00b", "a\ufffdb"), ("\ud800x", "\ufffdx"), ("\ud83d\ude00", "\U0001f600"), ({"x"}, ["x"]),
    (ValueError("jane@example.com"), "<ValueError>"),
])  # fmt: skip
def test_any_value_becomes_one_that_opentelemetry_and_json_know(value: Any, expected: Any) -> None:
    for _ in range(2):
        kept = clean(value)
        assert kept == expected
        assert type(kept) is type(expected)


def test_text_of_a_subclass_becomes_plain_text() -> None:
    class Name(str):  # noqa: SLOT000 - as foreign code writes it
        def __str__(self) -> str:
            return "jane@example.com"

    kept = clean(Name("x"))
    assert type(kept) is str
    assert kept == "x"


# --- properties -----------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from([
    *EMAILS, *PHONES, "password=", '"token": ', "Bearer ", "npi ", "[", "]", "{", "}", "\\", '\\"', "\\u0040", "%40", "…", "[secret]",
    "…[truncated 12 bytes]", "MRN: ", "dob ", "sk-", "://u:", "@h", "1234567893", "4111111111111111", "123-45-6789", " is ",
    "--api-key ", "-----BEGIN PRIVATE KEY-----", "\u200b", "\ud800", "\x00", "\n", " ",
])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=40).map("".join))
SCALARS = st.one_of(TEXTS, st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=50), TEXTS.map(json.dumps))
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(TEXTS, inner, max_size=4)), max_leaves=12
)
KEYS = st.one_of(
    st.sampled_from(
        ["note", "input.value", "output.value", "password", "npi", "patient_id", "phone", "dob", "e2i.truncated", "max_tokens"]
    ),
    TEXTS,
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=8)


def _is_kept(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len({type(item) for item in value}) <= 1 and all(type(item) in (str, int, float, bool) for item in value)
    return type(value) in (str, int, float, bool)


@settings(max_examples=1000)
@example({"note": [], "Pass": ["", 0]}, False)
@example({"npi": [['Password="', '"', "0"]]}, False)
@given(ATTRIBUTES, st.booleans())
def test_cleaning_never_raises_stays_within_limits_and_changes_nothing_twice(attributes: dict[str, Any], log_prompts: bool) -> None:
    once = SMALL.clean(attributes, log_prompts=log_prompts)
    orjson.dumps(once)
    for key, value in once.items():
        limit = {"input": 256, "output": 200, "metadata": 128}[text_of(key)]
        assert _is_kept(value), (key, value)
        assert not isinstance(value, float) or math.isfinite(value)
        texts = (
            [value]
            if isinstance(value, str)
            else [item for item in value if isinstance(item, str)]
            if isinstance(value, list | tuple)
            else []
        )
        assert all(len(text.encode()) <= limit for text in texts)
        assert all("\x00" not in text for text in texts)
    assert SMALL.clean(once, log_prompts=log_prompts) == once


@settings(max_examples=200)
@given(TEXTS)
def test_cleaning_a_text_twice_is_cleaning_it_once(text: str) -> None:
    once = SMALL.clean_text(text)
    assert SMALL.clean_text(once) == once
    assert len(once.encode()) <= 128


@settings(max_examples=200)
@given(
    st.text(alphabet=st.characters(blacklist_categories=("Nd", "No", "Cs")), max_size=80),
    st.sampled_from([*EMAILS[:6], *PHONES[:4], "123-45-6789"]),
)
def test_an_identifier_is_found_between_any_other_words(text: str, identifier: str) -> None:
    assert identifier not in clean(f"{text} {identifier} {text}")


# --- time -----------------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "a", "1", "1 ", "12-", "+1", "a@", "a.", "\\", '"', "[", "npi [", "password=", "password ", "token=[", "://u:", "://u:p@",
    "-----BEGIN PRIVATE KEY", "Bearer ", "eyJ", "%4", "\\u00", "\u200b", "１", "é", "call at ", "mrn ", "{", "a=", "=a", "secret: '",
    "4111 ", "x[at]",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_size_and_not_faster(piece: str) -> None:
    def seconds(size: int) -> float:
        """Of this thread's own work, with nothing remembered from an earlier look."""
        value = (piece * size)[:size]
        times = []
        for _ in range(3):
            redactor = Redactor(limits(max_metadata_size_bytes=10**7))
            start = time.thread_time()
            redactor.clean({"note": value})
            times.append(time.thread_time() - start)
        return min(times)

    seconds(100)  # patterns are compiled
    small = seconds(8_000)
    assert seconds(64_000) < 8 * 4 * max(small, 2e-5)


def test_a_long_text_that_was_found_clear_is_known_again_and_only_that_text() -> None:
    redactor = Redactor(limits())
    text = "NRx of Kisqali fell in the Northeast while calls rose. " * 20
    for _ in range(3):
        assert redactor.clean({"input.value": text})["input.value"] == text
    planted = text[:-10] + " jane.doe@example.com"
    for _ in range(2):
        assert "jane.doe" not in redactor.clean({"input.value": planted})["input.value"]
        assert "jane.doe" not in redactor.clean({"input.value": text, "output.value": planted})["output.value"]
    assert redactor.clean({"input.value": text, "patient_mrn": "7"})["patient_mrn"] != "7"


def test_texts_that_are_remembered_take_bounded_memory() -> None:
    redactor = Redactor(limits())
    for number in range(5000):
        redactor.clean({"input.value": f"{number} " + "x " * 400})
    assert len(redactor._marks) <= 4097


# --- shapes in which identifiers come, and names that only look like secrets ------------------------------------------------------


ENTITIES = str.maketrans({char: f"&#{ord(char)};" for char in "@-:. ="})
ESCAPED = str.maketrans({char: f"\\x{ord(char):02x}" for char in "@-:. ="})


@pytest.mark.parametrize(
    "text",
    [
        "jane.doe@example.com",
        "617-555-0123",
        "123-45-6789",
        "MRN: 00123456",
        "patient_id: P-001744",
        "password=hunter2QX",
        "DOB: 01/31/1980",
    ],
)
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.translate(ENTITIES),
        lambda text: text.translate(ESCAPED),
        lambda text: text.replace("-", "&#8209;").replace("@", "&commat;").replace(" ", "&nbsp;").replace(":", "&colon;"),
        lambda text: "".join(f"&amp;#x{ord(char):x};" for char in text),
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: urlencode({"q": text}),
        lambda text: f"\x1b[31m{text}\x1b[0m",
        lambda text: json.dumps(f"\x1b[1;31m{text}\x1b[0m"),
        lambda text: f"联系{text}请",
        lambda text: repr(f"\u00a0{text}".encode()),
    ],
    ids=[
        "entities",
        "escapes",
        "named entities",
        "entities twice",
        "percent twice",
        "form",
        "colour",
        "colour in json",
        "chinese",
        "bytes",
    ],
)
def test_no_spelling_of_an_address_a_page_or_a_terminal_hides_an_identifier(text: str, spell: Callable[[str], str]) -> None:
    kept = clean(spell(text))
    assert "[" in kept, kept
    plain = unescape(unescape(unquote(unquote(kept)))).replace("\\x2d", "-").replace("\\x2e", ".").replace("\u2011", "-")
    hidden = text.rsplit(":", maxsplit=1)[-1].rsplit("=", maxsplit=1)[-1].strip()
    assert hidden not in plain


@pytest.mark.parametrize(
    "value",
    [
        [("patient_id", "P-0017"), ("n", "3")],
        [[b"patientMRN", b"P-0017"]],
        {"system": "mrn", "value": "P-0017"},
        {"key": "patient.id", "value": {"stringValue": "P-0017"}},
        "[('patient_id', 'P-0017')]",
        'json [["memberId", "P-0017"]]',
        "where patient_id in ('P-0017')",
        "row['patient_id'] = 'P-0017'",
        "| mrn | P-0017 |",
        "GET /patient_id/P-0017",
        "<patientId>P-0017</patientId>",
        "Key (mrn)=(P-0017) already exists.",
        "patientMRN=P-0017",
        ":subscriberNumber => 'P-0017'",
        "mrn -> P-0017",
    ],
)
def test_what_a_record_a_query_or_an_error_calls_a_person_goes(value: Any) -> None:
    assert "P-0017" not in clean_json(value)


def clean_json(value: Any) -> str:
    return orjson.dumps(REDACTOR.clean({"note": value})).decode()


def test_the_name_beside_a_value_stays_and_a_list_of_two_names_is_no_pair() -> None:
    assert json.loads(clean([("password", "hunter2QX"), ("n", 3)])) == [["password", "[secret]"], ["n", 3]]
    assert clean(["patient_id", "week_2026"]) == ["patient_id", "week_2026"]
    assert clean(["password", "note"]) == ["password", "note"]


@pytest.mark.parametrize("text", ["see #1679576722", "visit-1679576722.pdf", "x-1679576722-y", "NPI#1679576722"])
def test_a_prescriber_number_behind_a_hash_or_a_hyphen_goes(text: str) -> None:
    assert "1679576722" not in clean(text)
    assert clean("fell by -1679576722") == "fell by -1679576722"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("credentials", "MD"),
        ("hcp_credentials", "M.D., Ph.D., FACC"),
        ("credentials", ["NP-C", "DNP"]),
        ("cookie_banner", "shown"),
        ("cookieConsent", "accepted"),
        ("secret_shopper_visits", 12),
        ("secret_shoppers", "three"),
        ("authorization_status", "approved"),
    ],
)
def test_names_with_another_meaning_in_this_field_keep_their_values(key: str, value: Any) -> None:
    assert clean(value, key) == value
    assert str(value) in clean(f"{key}: {value}") or isinstance(value, list) or " " in str(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("credentials", "kd83-xx"), ("aws_credentials", {"id": "kd83"}), ("credentials", "MD kd83"), ("session_cookie", "kd83"),
     ("chart_id", "A17-2"), ("subject_id", "S-001-44"), ("policy_id", "AX-77120"), ("secret_key", "kd83")],
)  # fmt: skip
def test_names_that_may_stand_for_a_person_or_open_a_door_keep_nothing(key: str, value: Any) -> None:
    for kept in (clean(value, key), clean({key: value}), clean(json.dumps({key: value}))):
        assert not {"kd83", "A17", "S-001", "AX-77120"} & {part for part in ("kd83", "A17", "S-001", "AX-77120") if part in str(kept)}
