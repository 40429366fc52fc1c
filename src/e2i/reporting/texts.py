"""Text from elsewhere (names of spans, messages of errors) as it may be shown."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def harmless(text: str) -> str:
    r"""Text on one line without control characters, so that a span's name can neither move the cursor nor turn the line around.

    >>> harmless("a\x1b[2Jb\nc"), harmless("caf\u00e9 \u202egnp"), harmless("tab\there")
    ('a\\x1b[2Jb c', 'café \\u202egnp', 'tab here')
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each.isspace() else each.encode("unicode_escape").decode("ascii") for each in text
    )
