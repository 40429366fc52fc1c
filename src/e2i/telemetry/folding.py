r"""Text as identifiers are looked for: plain ASCII, whatever spelling of a digit, a space or a hyphen was used.

Full-width digits, non-breaking spaces and hyphens, zero-width characters, `\u00a0` and `%40` would otherwise hide an identifier.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

_ODD = re.compile(r"\\{1,8}u[0-9a-fA-F]{4}|\\{1,8}[nrtbf]|%[0-9A-Fa-f]{2}|[^\x00-\x7f]")
_NEUTRAL = "\x1f"
"""stands for a symbol that no identifier contains"""
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
    if text.isascii() and "\\" not in text and "%" not in text:
        return Folded(text.encode(), [], [])
    pieces: list[str] = []
    folded_at, original_at = [0], [0]
    done = length = 0
    for match in _ODD.finditer(text):
        token = match.group()
        plain = _plain(token)
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
    if token[0] == "%":
        decoded = chr(int(token[1:], 16))
        return decoded if " " <= decoded <= "~" else token
    if token[0] == "\\":
        return _folded(chr(int(token[-4:], 16))) if token[-5:-4] == "u" else " " * len(token)
    return _folded(token)


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
    return "x" if category[0] == "L" else _NEUTRAL
