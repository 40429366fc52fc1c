"""Errors that are not ours: their words may name cells of the data, so what is kept and shown is their kind and place."""

from __future__ import annotations

from pathlib import Path
from traceback import walk_tb


def without_words(error: BaseException) -> str:
    """The kind of an error, and the last line of ours that it passed.

    >>> without_words(ValueError("could not convert string to float: 'Jane Doe'"))
    'ValueError'
    """
    ours = [(frame, line) for frame, line in walk_tb(error.__traceback__) if str(frame.f_globals.get("__name__")).startswith("e2i.")]
    place = f" at {Path(ours[-1][0].f_code.co_filename).name}:{ours[-1][1]}" if ours else ""
    return f"{type(error).__name__}{place}"
