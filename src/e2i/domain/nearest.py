"""The nearest valid name, for errors that say how to mend a typo."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def nearest(name: str, options: Iterable[str], *, is_typo: bool = False) -> str | None:
    """The option that looks most like `name`, ignoring case; None when nothing is near. `is_typo`: only one that is nearly spelled so.

    >>> nearest("speciality", ["specialty", "decile"])
    'specialty'
    >>> nearest("nrx", ["age"]) is None
    True
    """
    by_lower = {option.lower(): option for option in options}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.8 if is_typo else 0.6)
    if found or is_typo:
        return by_lower[found[0]] if found else None
    parts = [
        option for lower, option in by_lower.items() if min(len(name), len(lower)) >= 3 and (name.lower() in lower or lower in name.lower())
    ]
    return min(parts, key=len, default=None)


def did_you_mean(name: str, options: Iterable[str]) -> str | None:
    """A sentence that offers the nearest name, or None."""
    found = nearest(name, options)
    return f"Did you mean `{found}`?" if found is not None else None


def suggestion(name: str, options: Collection[str], *, otherwise: str = "The columns are") -> str:
    """A sentence that offers the nearest name, or one that lists the first 30 of them behind `otherwise`.

    >>> suggestion("nrx", ["age", "sex"])
    'The columns are age, sex.'
    """
    return did_you_mean(name, options) or f"{otherwise} {listed(options, limit=30)}."


def listed(options: Iterable[str], *, limit: int = 12) -> str:
    """Names for a message, cut after `limit`.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = list(options)
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def check_columns(names: Iterable[str], present: Collection[str], *, where: str, hint: str = "") -> None:
    """Raise SchemaMismatch, with the nearest name and `hint`, for the first of `names` that is no column of `present`."""
    for name in names:
        if name not in present:
            raise SchemaMismatch(f"there is no column `{name}`.", where=where, advice=f"{suggestion(name, present)}{hint}")
