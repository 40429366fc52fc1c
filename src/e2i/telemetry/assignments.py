"""The value after a key that is never kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from e2i.telemetry.checks import ESCAPES, MARKER, Check, Part, words
from e2i.telemetry.sensitive_keys import Label, hides, words_of

_STOPS = re.compile(rb"[\s\"'<>&;]")
_LINE_END = re.compile(rb"[\r\n\"'<>\x1e]")
_PARAMETERS_END = re.compile(rb"[\r\n<>\x1e]")
_DIGEST = re.compile(rb"(?i)digest\s")
"""the one scheme whose parameters stand in quotes"""
_NO_VALUE = words(
    "none null nil true false undefined str int float bool bytes string optional any secretstr required missing empty unset yes no"
)
_WHOLE_LINE = frozenset(("authorization", "cookie"))
_TOKEN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_!@#$%^&*+~-]*")


def assignment(label_of: Callable[[str], Label | None]) -> Check:
    """The value after a key that is never kept: `password=x`, `"password": "x"`, `--password x`, `<password>x`, `password is x1`."""

    def check(data: bytes, match: Any) -> Part | None:
        key = match.group(1)[1:] if data[max(0, match.start() - 1) : match.start() + 1] in ESCAPES else match.group(1)
        between = match.group(2).strip(b"\"'\\ \t\r\n")
        value = _value(data, match.end(), opened=match.group(2), is_line=bool(_WHOLE_LINE.intersection(words_of(key[-256:].decode()))))
        # In `prior authorization: 31 %` the word before the blank belongs to the key.
        name = b"prior_" + key if data[max(0, match.start() - 6) : match.start()].lower() == b"prior " else key
        label = label_of(name[-256:].decode())
        if value is None or not hides(label, data[value[0] : value[1]].decode("latin-1")):
            return None
        text = data[value[0] : value[1]]
        is_odd = any(48 <= c <= 57 or c in b"!@#$%^&*+/~" for c in text)
        if between in (b"", b"-"):
            is_option = key.startswith(b"--") and not text.startswith(b"-")
            return value if is_option or _is_bare(key, _TOKEN.match(text), label) else None
        if between == b",":
            return value if is_odd and re.search(rb"[\"']\s*,\s*b?\\*[\"']$", match.group(2) + data[match.end() : value[0]]) else None
        if between in (b"is", b"was"):
            return value if label != "pass" and is_odd and len(text) >= 6 else None
        return value if between != b">" or b"<" in data[max(0, match.start() - 1) : match.start()] else None

    return check


def _is_bare(key: bytes, token: re.Match[bytes] | None, label: Label | None) -> bool:
    """`PASSWORD hunter2`, `X-Auth-Token abc123`, `passcode 99183377`: a label and, after a blank, what can be no word."""
    text = b"" if token is None else token.group()
    if not any(48 <= c <= 57 for c in text):
        return False
    if label == "pin" or key.lower() == b"passcode":
        return len(text) >= 4 and text.isdigit()
    is_label = label in ("secret", "degree") and (
        key.isupper() or re.search(rb"[A-Za-z][-_][A-Za-z]", key) or key.lower().startswith(b"pass")
    )
    return bool(is_label) and len(text) >= 6 and any(chr(c).isalpha() for c in text)


def _value(data: bytes, at: int, *, opened: bytes, is_line: bool) -> Part | None:
    """Where the value begins and ends; None when there is none, or only a placeholder."""
    quote = re.compile(rb"(?:[brufBRUF]{0,2})(\\{0,8}[\"'])").match(data, at)
    if quote is None and opened[-1:] in (b'"', b"'"):
        mark = re.search(rb"\\{0,8}[\"']$", opened)
        start, end = at, _closing(data, at, mark.group() if mark else opened[-1:])
    elif quote is not None:
        start, end = quote.end(), _closing(data, quote.end(), quote.group(1))
    elif data[at : at + 1] in (b"[", b"{", b"("):
        start, end = at, _balanced(data, at)
    else:
        stops = _STOPS if not is_line else _PARAMETERS_END if _DIGEST.match(data, at) else _LINE_END
        found = stops.search(data, at)
        start, end = at, found.start() if found else len(data)
        end = start + len(data[start:end].rstrip(b",.;)}]\\ "))
    text = data[start:end]
    if not text.strip() or MARKER.match(data, start) or text.lower().strip() in _NO_VALUE or not text.strip(b"*"):
        return None
    return start, end


def _closing(data: bytes, at: int, mark: bytes) -> int:
    """The closing quote of the same spelling; an escaped one does not close."""
    end = data.find(mark, at)
    while end > at and data[end - 1 : end] == b"\\":
        end = data.find(mark, end + 1)
    return len(data) if end < 0 else end


def _balanced(data: bytes, at: int) -> int:
    depth = 0
    for match in re.compile(rb"[\[\](){}]").finditer(data, at):
        depth += 1 if match.group() in b"[({" else -1
        if depth == 0:
            return match.end()
    return len(data)
