"""What the name of an attribute, a JSON key or an assignment says about its value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise, product
from typing import Literal

from e2i.observability import attributes as names

Label = Literal["secret", "degree", "pass", "pin", "sig", "ssn", "npi", "mrn", "phone", "dob", "card", "person", "people", "holder"]

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_MARKED = re.compile(r"\[(?:email|phone|ssn|npi|mrn|dob|card|secret|not logged)\]")
"""what redaction left in a key says nothing about the value"""
_ALWAYS = (
    *("passwd", "pwd", "passphrase", "passcode", "passwort", "pin_code", "private_key", "access_key", "account_key", "secret_key"),
    *("auth_token", "credential", "cookie", "jsessionid", "phpsessid"),
)
SHORT: dict[str, Label] = {"pass": "pass", "pin": "pin", "sig": "sig", "signature": "sig"}
"""words with other meanings too: only the last word of a key, and only with a value that looks like it"""
_OTHER_PASSES = frozenset(("first", "second", "single", "one", "two", "by", "low", "high", "band", "forward", "backward", "all"))
_OUTCOMES = frozenset(("true", "false", "none", "null", "pass", "passed", "fail", "failed", "warn", "skipped", "done", "required"))
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?%?")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ABOUT_IT = _set(
    "count counts usage limit limits budget cost price rate type types detail details length len policy name names size ttl "
    "expiry expires valid required enabled present index position probability probs per latency time window status date "
    "banner banners consent notice shopper shoppers shopping"
)
"""`token_count`, `password_policy`, `cookie_banner`, `secret_shopper_visits`: none is the token, the password, the cookie, the secret"""
_DEGREES = _set(
    "md do mbbs mbchb phd pharmd rph np dnp aprn arnp crnp fnp anp agnp pmhnp pa pac pa-c np-c fnp-c fnp-bc rn rn-bc bsn msn lpn cns cnm "
    "crna dds dmd dpm od dc psyd mph mba msc ms bs ba ma mha jd facp facc facs faad facog faan faap fache facr fasn oncc ocn bcop "
    "bcps bc jr sr ii iii"
)
"""behind a prescriber's name stand `credentials` that open no door"""
_MODEL_TOKENS = _set(
    "first next last input output prompt completion reasoning cached total max min num n per eos bos pad unk stop special time"
)
"""`time_to_first_token` counts a model's tokens"""
_PAYERS_WORDS = frozenset(("prior", "pre", "re"))
"""a payer's prior authorization, pre-authorization and re-authorization are access, not credentials"""
_PERSONS = _set("patient pt member subscriber beneficiary enrollee")
_HOLDERS = _PERSONS | _set("person subject chart policy medicare medicaid insurance case claim encounter admission")
_ABOUT_PEOPLE: tuple[Label, ...] = ("person", "people", "holder")
"""bare words such as `patient`, `patients` and `case`: values are looked at closely, `id` below them is the person's"""
_ACCOUNTS = _set("account acct")
_NUMBERS = _set("number no nr num")
"""`account_number` is one of a person; `account_id` is the clinic or the practice that a representative calls on"""
_PRESCRIBERS = _set("hcp prescriber provider physician doctor")
_IDENTIFIERS = _set("id ids identifier identifiers number numbers no nr num")
_ID_OF: tuple[tuple[Label, frozenset[str]], ...] = (("npi", _PRESCRIBERS), ("mrn", _HOLDERS))
_QUANTITIES = _set(
    "count counts total share rate column columns col field format pattern type length size missing distinct unique calls call"
)
_LABELS: tuple[tuple[Label, set[str], set[tuple[str, str]]], ...] = (
    ("npi", {"npi", "npis"}, set()),
    ("ssn", {"ssn", "ssns", "itin"}, {("social", "security"), ("tax", "id")}),
    (
        "mrn",
        {"mrn", "mrns", "mbi", "hicn", "dea"},
        {("medical", "record"), ("health", "plan"), *product(("passport", "license", "licence", "rx", "prescription"), ("number", "no"))},
    ),
    ("phone", {"phone", "phones", "telephone", "tel", "mobile", "fax", "cellphone", "msisdn"}, set()),
    ("dob", {"dob", "birthdate", "birthday"}, {("birth", "date"), ("of", "birth")}),
    ("card", {"ccn"}, {("card", "number"), ("card", "no"), ("credit", "card")}),
)

_INPUT_KEYS = (
    *names.INPUTS,
    "llm.input_messages",
    "llm.prompts",
    "llm.prompt_template",
    "embedding.text",
    "embedding.embeddings",
    "reranker.query",
    "reranker.input_documents",
    "traceloop.entity.input",
    "gen_ai.tool.call.arguments",
    "gen_ai.event.content",
    "tool.parameters",
    "mlflow.spanInputs",
    "langfuse.observation.input",
    "langfuse.trace.input",
    "input",
    "inputs",
    "prompt",
    "prompts",
    "messages",
    "content",
    "question",
)
_OUTPUT_KEYS = (
    *names.OUTPUTS,
    "llm.output_messages",
    "retrieval.documents",
    "reranker.output_documents",
    "traceloop.entity.output",
    "gen_ai.tool.call.result",
    "gen_ai.response.content",
    "mlflow.spanOutputs",
    "langfuse.observation.output",
    "langfuse.trace.output",
    "output",
    "outputs",
    "completion",
    "completions",
    "answer",
)
_ABOUT_THE_TEXT = (".role", ".finish_reason", ".mime_type")
"""parts of a message that are no free text"""


def words_of(key: str) -> list[str]:
    """`OPENAI_API_KEY`, `openai-api-key` and `openaiApiKey` have the same words."""
    return [word.lower() for word in _WORDS.findall(key)]


def text_of(key: str) -> Literal["input", "output", "metadata"]:
    """Whether the value is what people or models wrote; also for flattened keys such as `gen_ai.prompt.0.content`."""
    if key.endswith(_ABOUT_THE_TEXT):
        return "metadata"
    if _is_below(key, _INPUT_KEYS):
        return "input"
    return "output" if _is_below(key, _OUTPUT_KEYS) else "metadata"


def _is_below(key: str, roots: tuple[str, ...]) -> bool:
    return any(key == root or (key.startswith(root) and key[len(root)] in ".[") for root in roots)


class KeyWords:
    """Which keys have values that are never kept, or are kept only when they do not look like what the key says."""

    def __init__(self, patterns: Iterable[str]) -> None:
        found = (tuple(words_of(pattern)) for pattern in (*patterns, *_ALWAYS))
        self.patterns: tuple[tuple[str, ...], ...] = tuple(dict.fromkeys(words for words in found if words))

    def label_of(self, key: str) -> Label | None:
        """None for most keys."""
        words = words_of(_MARKED.sub(" ", key[:256]))
        if not words:
            return None
        hidden = [pattern for pattern in self.patterns if self._has(words, pattern)]
        if hidden:
            return "degree" if hidden == [("credential",)] else "secret"
        if words[-1] in SHORT and words[-2:-1] != ["pass"] and not _OTHER_PASSES.intersection(words[-2:-1]):
            return SHORT[words[-1]]
        if words[-1] in _QUANTITIES or words[0] in ("n", "count"):
            return None
        return _identifier_of(words)

    def label_below(self, label: Label | None, key: str) -> Label | None:
        """Of a key in a mapping whose own key has `label`: what is `id` below `patient` is the patient's."""
        own = self.label_of(key)
        if label not in _ABOUT_PEOPLE or own not in (None, *_ABOUT_PEOPLE):
            return own or label
        return self.label_of(f"patient_{key}") or own

    @staticmethod
    def _has(words: list[str], pattern: tuple[str, ...]) -> bool:
        size, joined = len(pattern), "".join(pattern)
        for at, word in enumerate(words):
            last = at + size - 1
            together = tuple(words[at : last + 1])
            if together != pattern and (pattern == ("token",) or together != (*pattern[:-1], f"{pattern[-1]}s")):
                last = at
                if not (len(joined) >= 5 and word.removesuffix("" if joined == "token" else "s").endswith(joined)):
                    continue
            after = words[last + 1] if last + 1 < len(words) else ""
            before = words[at - 1] if at else ""
            if after in _ABOUT_IT or (joined == "token" and before in _MODEL_TOKENS):
                continue
            if joined == "authorization" and (before in _PAYERS_WORDS or word.removesuffix(joined) in _PAYERS_WORDS):
                continue
            return True
        return False


def hides(label: Label | None, value: str) -> bool:
    """Whether a value under a key with this label is a secret: always for `secret`, by its look for words with other meanings."""
    value = value.strip().strip("\"'")
    if label == "degree":
        return not _DEGREES.issuperset(value.lower().replace(".", "").replace(",", " ").replace("/", " ").split())
    if label == "pin":
        return re.fullmatch(r"\W*[0-9]{4,12}\W*", value) is not None
    if len(value.split()) != 1:
        return label == "secret"
    if label == "pass":
        return len(value) >= 4 and not _NUMBER.fullmatch(value) and value.lower() not in _OUTCOMES
    return label == "secret" or (label == "sig" and len(value) >= 16)


def _identifier_of(words: list[str]) -> Label | None:
    given = set(words)
    pairs = set(pairwise(words))
    for label, single, double in _LABELS:
        if given & single or pairs & double:
            return label
    for label, holders in _ID_OF:
        if any(first in holders and second in _IDENTIFIERS for first, second in pairs):
            return label
    if any(first in _ACCOUNTS and second in _NUMBERS for first, second in pairs):
        return "mrn"
    if words[-1] in _PERSONS:
        return "person"
    last = words[-1].removesuffix("s")
    if last in _PERSONS:
        return "people"
    return "holder" if len(words) == 1 and last in _HOLDERS else None
