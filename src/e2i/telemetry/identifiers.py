"""Identifiers of people and secrets in text: where they are, whatever their spelling.

Two passes. `Finder.may_hold` is one linear scan that says "nothing here" for nearly every text; it runs on the caller's thread for
every span. `Finder.spans` runs only where that scan hit, on folded text, and checks each candidate exactly.
RE2 only: its time is linear in the text, so nobody can stall a caller with a text made for it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import re2  # type: ignore[import-untyped]

from e2i.telemetry import checks
from e2i.telemetry.assignments import assignment
from e2i.telemetry.folding import Folded, fold
from e2i.telemetry.records import RECORDS
from e2i.telemetry.sensitive_keys import SHORT, KeyWords
from e2i.telemetry.tables import cells_to_hide

_MEMORY = 32 << 20
"""bytes that RE2 may use for the states of one scan; when they are used up it begins anew and finds the same"""
_USUAL = (
    "Effect of the program on NRx: 0.42 (95 % CI 0.31 to 0.53), p = 0.0004; 1,204 HCPs in the Northeast, week ending "
    '2026-11-20T10:15:30.123456Z. Was {"model": "claude-sonnet-4-5", "max_tokens": 1024, "score": [0.8123456789, -1.5e-07, true], '
    '"id": "019a3f5e-7b7c-7def-8123"} - e2i_causal_impact_0193\t$850 > $1,200? http://127.0.0.1:5432/api/v1 /app/e2i/engine/graph.py\x1e'
    'Traceback (most recent call last):\n  File "a.py", line 12, in run\n    raise ValueError(f"{name}=x")\nKeyError: \'nrx_pre\' '
    "It called about who she did before you said that, their sales and patients may be reached by text; contact call phone author token."
)
"""scanned once at the start: the states that most texts need are then there"""
MARKERS = ("email", "phone", "ssn", "npi", "mrn", "dob", "card", "secret")
_PRIORITY = {name: rank for rank, name in enumerate(("secret", "email", "card", "ssn", "npi", "mrn", "dob", "phone"))}
_MARKER = re2.compile(r"\[(?:" + "|".join((*MARKERS, "not logged")) + r")\]|…\[truncated [0-9]+ [a-z]+\]")

_SEP = r"[-. /\p{Pd}\p{Zs}\x{2212}\x{b7}\x{2022}\x{2027}\x{2219}\x{22c5}]"
_SPACE = r"[\s\p{Zs}]"
_LEFT = r"(?:^|[^0-9A-Za-z_.]|[^0-9]\.|\\[nrtbf]|\\u[0-9a-fA-F]{4}|%[0-9A-Fa-f]{2})"
_RIGHT = r"(?:[^0-9A-Za-z_.]|\.[^0-9]|\.?$)"

_WORDS_BETWEEN = r"is|was|are|numbers?|num|no|nr|ids?|code|of|on|the|at|(?:string|int)?value|like|between"
_IN = r"(?:in|array|series|index|frozenset|set|list|tuple)"
_IS = (
    r"""(?:["'\\]{1,4}\s?,\s?b?["'\\]{1,4}|["'\\\s:=#().>{<_\]|/!-]{0,40})"""
    rf"""(?:(?:(?:{_WORDS_BETWEEN})\b|{_IN}\s?\()["'\\\s:=#().>-]{{0,6}}){{0,2}}"""
)
_ANY_MARK = r"""(?:["'\\\s:=#().>\[\]{<_|/,!-]|\\[nrt]|[^\x00-\x7f]|%[2-5][0-9A-Fa-f]|\\u[0-9a-fA-F]{4})"""
_IS_SCAN = rf"{_ANY_MARK}*(?:(?:{_WORDS_BETWEEN}|{_IN}|b){_ANY_MARK}*)*"
"""wider than `_IS`, without counting: a scan that counts has many more states"""
_SSN_LABELS = r"ssns?|social[\s_-]*security|soc\.?[\s_-]*sec|itin|tin|tax(?:payer)?[\s_-]?id"
_NPI_LABELS = r"npis?|national[\s_-]provider[\s_-]identifiers?|(?:hcp|prescriber|provider|physician|doctor)[\s_-]*(?:ids?|numbers?|no)?"
_OF_PEOPLE = "patient|member|subscriber|beneficiary|enrollee|subject|chart|policy|medicare|medicaid|insurance"
_BELOW = r"""s?["'\\]{0,4}\s?[:=][\[{(\s"'\\-]{1,12}"""
"""between `patient` and `id` in `"patient": {"id": …`"""
_BELOW_SCAN = r"""s?["'\\]*\s?[:=](?:[\[{(\s"'\\-]|\\[nrt])+"""
_MRN_LABELS = (
    r"mrns?|mbi|hicn|medical[\s_-]*record|passport[\s_-]*(?:number|no)|health[\s_-]*plan[\s_-]*(?:ids?|number|no)|"
    rf"(?:{_OF_PEOPLE})(?:[\s._-]*|{_BELOW})(?:identifiers?|ids?|numbers?|num|nr|no|account|#)|person[\s._-]?(?:identifiers?|ids?)|"
    r"(?:case|claim|encounter|admission)[\s._-]?(?:identifiers?|ids?|number|no|nr|#)|(?:account|acct)[\s._-]*(?:number|num|nr|no|#)|"
    r"rx(?:[_.-](?:numbers?|no|ids?)|number|\s?#)|driver'?s?[\s_-]*licen[cs]e|licen[cs]e[\s_-]*(?:number|no|#)"
)
_DOB_LABELS = r"dob|d\.o\.b|date[\s_-]*of[\s_-]*birth|birth[\s_-]?da(?:te|y)|born"
_PHONE_LABELS = r"(?:tele|cell|i)?phones?|tel|msisdn|mobile|mob|fax|whatsapp|sms|cell|ph|call[\s_-]?back"
_NPI_SCAN = rf"{_LEFT}[12][0-9]{{9}}{_RIGHT}|(?:{_LEFT}|_)(?:1[0-59]|2[0-9])[0-9]{{8}}(?:{_RIGHT}|_)"
"""beside an underscore not the seconds since 1970 that programs put into names"""
_PT_SCAN = r"(?:^|[^a-z]|\\[nrt]|\\u[0-9a-f]{4})pt[ _-]?(?:ids?|no)[^a-z0-9]+[a-z]*[_-]?[0-9]{3}"
_CURL_SCAN = r"""(?:curl\b[^\r\n]*\s-u|--(?:proxy-)?user)[\s="',]*[^\s:]+:[^\s]"""
_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DATE = (
    r"[0-9]{1,4}[-/. ][0-9]{1,2}[-/. ][0-9]{1,4}|[0-9]{8}|[0-9]{1,2}(?:st|nd|rd|th)?[ -]" + _MONTHS + r"\.?[ ,-]{1,2}[0-9]{2,4}|"
    + _MONTHS + r"\.?[ -][0-9]{1,2}(?:st|nd|rd|th)?[ ,-]{1,2}[0-9]{2,4}"
)  # fmt: skip
_VENDOR_KEYS = (
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[0-9A-Z]{16}|[srp]k[-_](?:live_|test_|ant-|proj-)?[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|"
    r"gh[pousr]_[A-Za-z0-9]{16}[A-Za-z0-9]*|github_pat_[A-Za-z0-9_]{20}[A-Za-z0-9_]*|glpat-[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|"
    r"xox[abeoprs]-[A-Za-z0-9-]{8}[A-Za-z0-9-]*|xapp-[A-Za-z0-9-]{8}[A-Za-z0-9-]*|AIza[A-Za-z0-9_-]{30}[A-Za-z0-9_-]*|"
    r"ya29\.[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|hf_[A-Za-z0-9]{20}[A-Za-z0-9]*|npm_[A-Za-z0-9]{30}[A-Za-z0-9]*|"
    r"pypi-[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|dapi[0-9a-f]{30}[0-9a-f]*|GOCSPX-[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|"
    r"hooks\.slack\.com/[a-z]+/[A-Za-z0-9/]{16}[A-Za-z0-9/]*|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}[A-Za-z0-9_-]*|eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_.-]*"
)
_ODD = (
    r"\p{Cf}|\x00|[^\P{Nd}0-9]|[0-9]\p{M}|[\x{ff01}-\x{ff5e}\x{1d400}-\x{1d7ff}\x{2460}-\x{249b}]|[\x{b2}\x{b3}\x{b9}\x{2070}-\x{2089}]{2}"
    r"|[0-9)]%2[0dDeEfF]\+?[0-9(]|[0-9]\\u20[0-9a-fA-F]{2}[0-9]|\\u(?:00[02-7][0-9a-fA-F]|00[aA][0dD]|00[bB][2379]|0[6-9a-fA-F][0-9a-fA-F]{2}"
    r"|20(?:0[0-9a-fA-F]|1[0-25]|2[fF]|60|7)|[dD]835|[fF][fF][0-5]|[fF][eE][fF][fF]|3000)"
    r"|\\x(?:[2-7][0-9a-fA-F]|[cC]2|[eE]2)|%(?:25)+[2-7][0-9a-fA-F]|%[23][0-9a-fA-F]\+|[0-9]\+[0-9]+[+-]|&(?:amp;)*#[xX]?[0-9a-fA-F]+;"
    r"|&(?:amp;)*(?:nbsp|ensp|emsp|thinsp|shy|zwn?j|[nm]dash|hyphen|dash|minus|middot|period|commat|colon|equals|lowbar|num|sol|quot);"
    r"|(?:\x1b|\\(?:u001[bB]|x1[bB]|033|e))\["
)
"""what folding changes in a way that may hide an identifier"""


@dataclass(frozen=True, slots=True)
class Span:
    """`text[start:end]` is a `kind`, one of MARKERS."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    scan: str
    """hits wherever `find` and `check` would, on text as it came"""
    find: Any
    """compiled; runs on folded bytes"""
    check: checks.Check
    overlaps: bool = True
    """after a refused candidate the search goes on inside it; only where a match is short"""


def _bytes(pattern: str) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(pattern.encode("ascii"), options)


def _labelled(kind: str, labels: str, value: str, check: checks.Check) -> _Rule:
    wide = value.replace("{0,2}", "*").replace("{1,2}", "+").replace("{0,6}", "*")
    return _Rule(kind, scan=rf"(?i:(?:{labels}){_IS_SCAN}(?:{wide}))", find=_bytes(rf"(?i)({labels})({_IS})({value}|\[)"), check=check)


def _fixed_rules() -> Iterator[_Rule]:
    yield _Rule("email", r"(?:[\w.+%'~-]|[^\x00-\x7f])(?:@|%40)(?:[\w-]|[^\x00-\x7f])", _bytes(checks.EMAIL), checks.email)
    yield _Rule("email", r"""["]@[A-Za-z0-9]""", _bytes(checks.EMAIL_QUOTED), checks.whole)
    yield _Rule("email", r"\w (?i:at) [\w-]+ (?i:dot) \w", _bytes(checks.EMAIL_PLAIN_WORDS), checks.whole)
    yield _Rule("email", r"\w\s?[\[({]\s?(?i:at)\s?[\])}]\s?\w", _bytes(checks.EMAIL_IN_WORDS), checks.whole)
    yield _Rule(
        "phone",
        rf"[0-9]{{3}}{_SEP}+[0-9]{{3}}{_SEP}+[0-9]{{4}}|\([0-9]{{3}}\){_SEP}*[0-9]{{3}}{_SEP}*[0-9]{{4}}"
        rf"|[0-9]{{3}}[-\p{{Pd}}\x{{2212}}][0-9]{{7}}|(?:^|\x1e)[2-9][0-9]{{2}}[2-9][0-9]{{6}}(?:$|\x1e)",
        _bytes(checks.PHONE),
        checks.phone,
    )
    yield _Rule("phone", rf"\+\s?[1-9](?:(?:{_SEP}|[()])*[0-9]){{7}}", _bytes(checks.PHONE_ABROAD), checks.phone_abroad)
    yield _labelled("phone", _PHONE_LABELS, r"\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}", checks.phone_labelled)
    yield _Rule(
        "phone",
        r"(?i:(?:call|text|reach|contact|dial|ring)[a-z. ]*\s(?:at|on)\s+(?:[0-9]{10}|[0-9]{3}[^0-9a-z][0-9]{4}))",
        _bytes(r"(?i)(call|text|reach|contact|dial|ring)([a-z. ]{0,24}\s(?:at|on)\s{1,3})([0-9]{10}|[0-9]{3}[-. ][0-9]{4})"),
        checks.phone_labelled,
    )
    yield _Rule(
        "phone",
        r"(?i:(?:call|text|reach|contact|dial|ring|phone)\s+(?:(?:me|us|her|him|them|back)\s+)?[2-9][0-9]{9})",
        _bytes(
            r"(?i)(call|text|reach|contact|dial|ring|phone)(\s{1,3}(?:(?:me|us|her|him|them|back)\s{1,3})?)([2-9][0-9]{2}[2-9][0-9]{6})"
        ),
        checks.phone_called,
    )
    yield _Rule(
        "phone",
        r"[0-9]{3} (?i:is|was) (?i:my|her|his|their|our|the) (?i:phone|mobile|cell|fax|telephone|number)",
        _bytes(
            r"(?i)(\+?\(?[0-9](?:[-. ()]{0,2}[0-9]){6,14}) (?:is|was) "
            r"(?:my|her|his|their|our|the) (?:phone|mobile|cell|fax|telephone|number)\b"
        ),
        checks.phone_told,
        overlaps=False,
    )
    yield _Rule(
        "ssn",
        rf"[0-9]{{3}}{_SEP}+[0-9]{{2}}{_SEP}+[0-9]{{4}}",
        _bytes(r"[0-9]{3}([-. ]{1,3})[0-9]{2}([-. ]{1,3})[0-9]{4}"),
        checks.ssn,
    )
    yield _labelled("ssn", _SSN_LABELS, r"[0-9](?:[ .-]?[0-9]){8}", checks.digits_labelled)
    yield _Rule("npi", _NPI_SCAN, _bytes(r"[0-9]+"), checks.solid_npi, overlaps=False)
    yield _labelled("npi", _NPI_LABELS, r"[0-9]{10}|[0-9]{5}[-. ][0-9]{5}|[0-9]{4}[-. ][0-9]{3}[-. ][0-9]{3}", checks.digits_labelled)
    yield _Rule(
        "card",
        rf"(?:{_LEFT}|_)(?:[3-6][0-9]{{12,18}}|2[0-9]{{15}})(?:{_RIGHT}|_)|[2-6][0-9]{{3}}{_SEP}[0-9]{{4}}{_SEP}[0-9]{{4}}{_SEP}[0-9]"
        rf"|3[0-9]{{3}}{_SEP}[0-9]{{6}}{_SEP}[0-9]{{4}}",
        _bytes(r"[0-9]{13,19}|[0-9]{4}[- .][0-9]{4}[- .][0-9]{4}[- .][0-9]{1,7}|3[0-9]{3}[- .][0-9]{6}[- .][0-9]{4,5}"),
        checks.card,
    )
    yield _Rule(
        "mrn",
        rf"(?i:(?:{_MRN_LABELS.replace(_BELOW, _BELOW_SCAN)}){_IS_SCAN}[a-z0-9/-]*[0-9])",
        _bytes(rf"(?i)({_MRN_LABELS})({_IS})([a-z0-9][a-z0-9/-]{{0,31}}|\[)"),
        checks.record_number,
    )
    yield _Rule(
        "mrn",
        r"(?i:(?:patient|member|subscriber|beneficiary|enrollee)[^a-z0-9.,;]+(?:[0-9]{6}|[a-z]{1,6}[_-]?[0-9]{3})"
        rf"|{_PT_SCAN})|[a-z]Pt(?:Id|No)[^a-zA-Z0-9]+[a-zA-Z]*[_-]?[0-9]{{3}}",
        _bytes(
            r"(?i)(patient|member|subscriber|beneficiary|enrollee|pt[ _-]?(?:ids?|no))"
            r"([^a-z0-9.,;]{1,6})([0-9]{4,12}|[a-z]{1,6}[_-]?[0-9]{3,16})"
        ),
        checks.person_number,
    )
    yield _labelled("mrn", r"dea[\s_-]*(?:registration)?", r"[a-z][a-z9][0-9]{7}", checks.record_number)
    yield _Rule("mrn", rf"{_LEFT}[1-9][A-Z][A-Z0-9][0-9]-", _bytes(checks.MEDICARE), checks.alone)
    for scan, pattern, check in RECORDS:
        yield _Rule("mrn", scan, _bytes(pattern), check, overlaps=False)
    yield _labelled("dob", _DOB_LABELS, _DATE, checks.date_labelled)
    yield _Rule("secret", rf"(?:{_VENDOR_KEYS})", _bytes(rf"(?:{_VENDOR_KEYS})"), checks.vendor_key, overlaps=False)
    yield _Rule("secret", rf"(?i:bearer|basic){_SPACE}+[A-Za-z0-9+/_~.-]{{6}}", _bytes(checks.SCHEME), checks.scheme, overlaps=False)
    yield _Rule("secret", r"-----BEGIN [A-Z ]*PRIVATE KEY", _bytes(checks.PRIVATE_KEY), checks.whole, overlaps=False)
    yield _Rule("secret", r"""://[^\s/?#@:"'<>]*:[^\s"'<>]+@""", _bytes(checks.ADDRESS), checks.address, overlaps=False)
    yield _Rule("secret", r"thin:[^\s/@]*/[^\s@]+@", _bytes(checks.ADDRESS_ORACLE), checks.address, overlaps=False)
    yield _Rule("secret", _CURL_SCAN, _bytes(checks.CURL), checks.login, overlaps=False)
    yield _Rule("secret", r"""[:=]["'\\ ]*[A-Za-z0-9+/_-]{32}""", _bytes(checks.ASSIGNED), checks.assigned, overlaps=False)


_FIXED = tuple(_fixed_rules())


def _key_rules(keys: KeyWords) -> Iterator[_Rule]:
    def alternatives(words: tuple[str, ...]) -> str:
        return r"[_\-. ]?".join(re2.escape(word) for word in words)

    own = "|".join(alternatives(words) for words in keys.patterns if words != ("token",) and not (len(words) == 1 and words[0] in SHORT))
    short = "|".join(SHORT)
    scans = [rf"(?i:{own})[\w.-]*", rf"(?:^|[^A-Za-z]|\\[nrt]|\\u[0-9a-fA-F]{{4}})(?i:{short})|[a-z](?:Pass|Pin|Sig|Signature)"]
    if ("token",) in keys.patterns:
        # `tokens` are what a model counts: a frequent word, so it is not even a candidate.
        scans.append(r"(?i:token)(?:[_.0-9A-Z-][\w.-]*)?")
    after = rf"""(?:["'\\)\]]*{_SPACE}*(?:[:=>]|->|%3[ADad]|,{_SPACE}*b?["'\\])|{_SPACE}+(?:is|was){_SPACE})"""
    every = "|".join((*(alternatives(words) for words in keys.patterns), short))
    # A label and a blank only: what follows must hold digits.
    named = "|".join(alternatives(words) for words in keys.patterns)
    bare = rf"(?:pass(?i:word|wort|code|phrase|wd)|(?i:password|passcode)|[A-Za-z][-_](?i:{named})|(?:{named.upper()}))"
    bare = rf"(?:{bare}{_SPACE}+[A-Za-z]*[0-9]|(?:^|[^A-Za-z]|\\[nrt])(?i:pin){_SPACE}+[0-9]{{4}})"
    key = rf"[A-Za-z0-9_.\-]*(?:{every})[A-Za-z0-9_.\-]*"
    between = r"""["'\\)\]]{0,6}\s{0,4}(?::=|[=-]>|[:=>]|%3[ad])\s{0,4}|["'\\]{1,6}\s{0,4},\s{0,4}|\s+(?:is|was)\s+|\s+"""
    yield _Rule(
        kind="secret",
        scan=rf"(?:{'|'.join(scans)}){after}|--(?i:[\w.-]*(?:{every})[\w.-]*){_SPACE}+[^-\s]|{bare}",
        find=_bytes(rf"(?i)({key})({between})"),
        check=assignment(keys.label_of),
        overlaps=False,
    )


def _exact(secrets: Iterable[str]) -> str | None:
    """One pattern for every spelling of the secrets: as they are, in JSON, in an address."""
    spellings = {form for value in secrets if len(value) >= 4 for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return "|".join(re2.escape(form) for form in sorted(spellings, key=lambda form: (-len(form), form))) or None


def _columns(keys: KeyWords) -> str:
    """Names of columns and keys whose values are looked at."""
    words = ("[_ .-]?".join(map(re2.escape, pattern)) for pattern in keys.patterns if pattern != ("token",))
    numbers = r"(?:ids?|identifiers?|numbers?|num|nr|no)"
    of_people = rf"(?:{_OF_PEOPLE}|pt|person|case|claim|encounter|admission|account|acct|hcp|prescriber|provider|physician|doctor)"
    return (
        r"ssns?|social[_ .-]?security|itin|tax[_ .-]?id|npis?|mrns?|mbi|hicn|medical[_ .-]?record|dob|birth[_ .-]?da(?:te|y)|of[_ .-]birth|"
        r"phones?|mobile|fax|tel|msisdn|ccn|card[_ .-]?(?:number|no)|patient|member|subscriber|beneficiary|enrollee|"
        rf"{of_people}s?[_ .-]?{numbers}|{'|'.join(words)}"
    )


def _heads_scan(columns: str) -> str:
    """Where a table may begin: a name between delimiters and a line below, a list or a series of that name, a tuple of names.

    Each part by itself: in one pattern they would have so many states in common that the scan's memory does not hold them.
    """
    mark = r"""["'`*\\]*"""
    edge = r"[\r\n,;|\t\x1e\x{2502}\x{2506}]|\\[rnt]|\\u250[26]|  "
    line = rf"(?:^ ?|[^A-Za-z0-9 ] ?|\\[nrt]|u250[26] |  )(?:{columns})[\w.-]*(?: [\w.-]+)? ?{mark}(?:(?:{edge})[^\r\n]*)?(?:[\r\n]|\\[rn])"
    listed = r"\s*[:=]\s*(?:\w+\()?[\[{(]|\s+<\w+>\s|\s\[\w+\](?:\s|\\n)|, (?:Length: [0-9]+, )?dtype: |\s*</t[hd]>"
    row = r"""(?:,[^()\[\]]*)?[\])]\s*(?:values|=|,)\s*(?:["'\\]+(?:data|rows|values)["'\\]+:\s*)?[\[(\\]"""
    return rf"(?i:{line}|(?:{columns})[\w.-]*{mark}(?:{listed})|(?:{columns})[\w.-]*{mark}{row})"


def _tree_scan(columns: str) -> str:
    """JSON whose meaning only its tree tells: `{"name": "mrn", …, "value": …}`, a record of FHIR."""
    names = r"name|key|field|column|attribute|label|system|type|code"
    return (
        rf"(?i:\"(?:{names})\\*\"\s*:\s*\\*\"[\w./: -]*(?:{columns})|\"(?:{_OF_PEOPLE}|person|case|claim)s?\\*\"\s*:\s*[\[{{])"
        r"|resourceType\\*\"\s*:\s*\\*\"(?:Patient|Person|RelatedPerson)"
    )


class Finder:
    """Finds identifiers and secrets.

    Parameters
    ----------
    keys : whose values are secrets
    secrets : exact values that must not appear; shorter than four characters are ignored, up to seven are found as whole words
    """

    def __init__(self, keys: KeyWords, secrets: Iterable[str] = ()) -> None:
        exact = _exact(secrets)
        self._rules = (*_FIXED, *_key_rules(keys))
        self._exact = re2.compile(exact) if exact else None
        self._which = _scanner(rule.scan for rule in self._rules)
        columns, self._label_of = _columns(keys), keys.label_of
        heads = _heads_scan(columns)
        self._may_be_table = _scanner([heads])
        self._names_column = re2.compile(f"(?i:{columns})").search
        joined = "|".join(f"(?:{scan})" for scan in (_ODD, *(rule.scan for rule in self._rules), heads, _tree_scan(columns), exact) if scan)
        self.may_hold = _scanner([joined])
        self.may_hold(_USUAL)
        """None when the text certainly holds nothing; takes str or its UTF-8; a str with lone surrogates raises UnicodeEncodeError"""

    def spans(self, text: str) -> list[Span]:
        """What to replace in `text`, in order, not overlapping."""
        folded = fold(text)
        found: list[Span] = []
        for index in self._which(folded.data) or ():
            rule = self._rules[index]
            for part in _candidates(rule, folded.data):
                start, end = folded.origin(*part)
                found.append(Span(start, end, rule.kind))
        if self._exact is not None:
            found += self._exact_spans(text, folded)
        if self._may_be_table(text):
            found += (Span(start, end, kind) for start, end, kind in cells_to_hide(text, self._names_column, self._label_of))
        return _apart(found, text) if found else []

    def _exact_spans(self, text: str, folded: Folded) -> Iterator[Span]:
        """In the text as it came, and in the folded one, where invisible characters are gone."""
        assert self._exact is not None
        for match in self._exact.finditer(text):
            if checks.is_whole_or_long(text, *match.span()):
                yield Span(match.start(), match.end(), "secret")
        if folded.folded_at:
            plain = folded.data.decode("ascii")
            for match in self._exact.finditer(plain):
                if checks.is_whole_or_long(plain, *match.span()):
                    start, end = folded.origin(*match.span())
                    yield Span(start, end, "secret")


def _scanner(scans: Iterable[str]) -> Callable[[str | bytes], list[int] | None]:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    for scan in scans:
        found.Add(scan)
    found.Compile()
    return found.Match  # type: ignore[no-any-return]


def _candidates(rule: _Rule, data: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while (match := rule.find.search(data, position)) is not None:
        accepted = rule.check(data, match)
        if accepted is None:
            position = match.start() + 1 if rule.overlaps else max(match.end(), match.start() + 1)
            continue
        yield accepted
        position = max(accepted[1], match.start() + 1)


def _apart(found: list[Span], text: str) -> list[Span]:
    """Overlapping spans become one, called after the more serious kind; what lies inside a marker of an earlier pass stays."""
    marked = [match.span() for match in _MARKER.finditer(text)] if "[" in text else []
    marks = [start for start, _ in marked]
    result: list[Span] = []
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        before = bisect_right(marks, span.start) - 1
        if before >= 0 and span.end <= marked[before][1]:
            continue
        if result and span.start < result[-1].end:
            last = result[-1]
            kind = min(last.kind, span.kind, key=_PRIORITY.__getitem__)
            result[-1] = Span(last.start, max(last.end, span.end), kind)
        else:
            result.append(span)
    return result


__all__ = ["MARKERS", "Finder", "Folded", "Span"]
