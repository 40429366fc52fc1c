"""Generated text may hold only numbers that its evidence holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NUMBER = re.compile(r"-?\d(?:[\d.,]*\d)?(?:[eE][-+]?\d+)?(?:\s?%)?")


def without_foreign_numbers(text: str, *, names: Sequence[str], numbers: Collection[str]) -> tuple[str, int]:
    """Sentences of `text` whose numbers all stand in `numbers`, and how many others were removed. Digits of `names` are no numbers.

    >>> without_foreign_numbers("zip3 leads with 0.4. It adds 12 %.", names=("zip3",), numbers={"0.4"})
    ('zip3 leads with 0.4.', 1)
    """
    name = re.compile("|".join(rf"(?<!\w){re.escape(item)}(?!\w)" for item in sorted(names, key=len, reverse=True)))
    sentences = [sentence for sentence in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if sentence]
    kept = [sentence for sentence in sentences if numbers_in(name.sub("", sentence)) <= set(numbers)]
    return " ".join(kept), len(sentences) - len(kept)


def numbers_in(text: str) -> set[str]:
    """Every number of a text, as it is written."""
    return set(_NUMBER.findall(text))
