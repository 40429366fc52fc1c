r"""Text as identifiers are looked for: plain ASCII, whatever spelling of a digit, a space or a hyphen was used.

Full-width digits, non-breaking spaces and hyphens, zero-width characters, `\u00a0`, `\x2d`, `%40`, `%2540`, `&#64;`, `&nbsp;` and a
terminal's colours would otherwise hide an identifier.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

_ODD = re.compile(
    r"(?:\x1b|\\{1,8}(?:u001[bB]|x1[bB]|033|e))\[[0-9;]{0,16}[A-Za-z]"
    r"|\\{1,8}u[0-9a-fA-F]{4}|\\{1,8}x[cC]2\\{1,8}x[89abAB][0-9a-fA-F]|\\{1,8}x[eE]2\\{1,8}x80\\{1,8}x[89abAB][0-9a-fA-F]"
    r"|\\{1,8}x[0-7][0-9a-fA-F]|\\{1,8}[nrtbf]|%(?:25){0,3}[0-9A-Fa-f]{2}\+?|(?<=[0-9])\+(?=[0-9])"
    r"|&(?:amp;){0,3}#?[0-9A-Za-z]{2,12};|[^\x00-\x7f]"
)
_ENTITY = re.compile(r"&(?:amp;)*")
_MARKS = ("\\", "%", "&", "+", "\x1b")
_NEUTRAL = "\x1f"
"""stands for a symbol that no identifier contains"""
_LETTER = "x"
_SIGNS = dict.fromkeys("\u00b7\u2022\u2027\u2219\u22c5\u30fb\u3002\uff0e\uff61", ".") | dict.fromkeys("\u2212\u2043", "-")
_OF_CATEGORY = {"Cf": "", "Mn": "", "Me": "", "Zs": " ", "Pd": "-"}


@dataclass(frozen=True, slots=True)
class Folded:
    """`data` is ASCII: one byte per folded character; `origin` leads back to the text."""

    data: bytes
    folded_at: list[int]
    original_at: list[int]

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original text that became `data[start:end]`; `end` > `start`."""
        if not self.folded_at:
            return start, end
        return self._original(start), self._original(end)

    def _original(self, index: int) -> int:
        place = bisect_right(self.folded_at, index) - 1
        return self.original_at[place] + index - self.folded_at[place]


def fold(text: str) -> Folded:
    """Fold `text`; linear in its length."""
    if text.isascii() and not any(mark in text for mark in _MARKS):
        return Folded(text.encode(), [], [])
    pieces: list[str] = []
    folded_at, original_at = [0], [0]
    done = length = 0
    for match in _ODD.finditer(text):
        token = match.group()
        plain = _plain(token)
        if plain == _LETTER and _is_other_letter(token) and _touches(text, *match.span()):
            plain = _NEUTRAL
        if plain == token:
            continue
        before = text[done : match.start()]
        pieces += (before, plain)
        length += len(before) + len(plain)
        done = match.end()
        if len(plain) != len(token):
            folded_at.append(length)
            original_at.append(done)
    pieces.append(text[done:])
    return Folded("".join(pieces).encode("ascii", "replace"), folded_at, original_at)


@lru_cache(maxsize=4096)
def _plain(token: str) -> str:
    if token[0] == "+":
        return " "
    if token[-1] not in ";+" and "[" in token:  # a terminal's colour
        return ""
    if token[0] == "%":
        decoded = chr(int(token.rstrip("+")[-2:], 16))
        return decoded if " " <= decoded <= "~" else token
    if token[0] == "&":
        char = html.unescape(_ENTITY.sub("&", token))
        return _folded(char) if len(char) == 1 else token
    if token[0] == "\\":
        return _escaped(token)
    return _folded(token)


def _escaped(token: str) -> str:
    codes = [int(code, 16) for code in re.findall(r"\\+[ux]([0-9a-fA-F]+)", token)]
    if not codes:
        return " " * len(token)
    return _folded(chr(codes[0]) if len(codes) == 1 else bytes(codes).decode())


def _is_other_letter(token: str) -> bool:
    return unicodedata.category(token[-1]) == "Lo"


def _touches(text: str, start: int, end: int) -> bool:
    """Scripts without spaces between words: their letters end a number or a word of ours."""
    return any(char.isascii() and char.isalnum() for char in (text[start - 1 : start], text[end : end + 1]))


def _folded(char: str) -> str:
    """At most one ASCII character."""
    if char.isascii() or char in _SIGNS:
        return _SIGNS.get(char, char)
    category = unicodedata.category(char)
    if category in _OF_CATEGORY:
        return _OF_CATEGORY[category]
    if category == "Nd":
        return str(unicodedata.decimal(char))
    compatible = unicodedata.normalize("NFKC", char)
    if len(compatible) == 1 and compatible.isascii():
        return compatible
    return _LETTER if category[0] == "L" else _NEUTRAL
