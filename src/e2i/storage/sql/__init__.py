"""Named statements from the `.sql` files beside this module; the only SQL of the package.

A block begins with `-- name: x`, its next comment line says what it does, parameters are named: `%(x)s`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import LiteralString

FOLDER = Path(__file__).parent
_NAME = re.compile(r"^-- name: *([a-z_]+) *$", re.MULTILINE)


@cache
def load(subject: str) -> Mapping[str, LiteralString]:
    """Statements of `queries/<subject>.sql` by name."""
    return statements((FOLDER / "queries" / f"{subject}.sql").read_text(encoding="utf-8"), where=f"queries/{subject}.sql")


def statements(text: str, *, where: str) -> Mapping[str, LiteralString]:
    """The named blocks of a file.

    Raises
    ------
    ValueError
        A name is used twice, a statement has no description, or text stands before the first name.
    """
    head, *parts = _NAME.split(text)
    names, blocks = parts[::2], [block.strip() for block in parts[1::2]]
    if head.strip() or len(set(names)) != len(names):
        msg = f"{where}: text before the first name, or a name that is used twice"
        raise ValueError(msg)
    for name, block in zip(names, blocks, strict=True):
        if not block.startswith("-- "):
            msg = f"{where}: {name} has no description"
            raise ValueError(msg)
    # The files are part of the package, so their text is as literal as a string in the source.
    return MappingProxyType({name: cast("LiteralString", block) for name, block in zip(names, blocks, strict=True)})
