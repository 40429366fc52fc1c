"""What commands print: JSON alone on standard output with `--json`, plain text otherwise; errors on standard error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2i.errors import E2IError


def print_json(value: Any) -> None:
    """One JSON document; what JSON cannot carry (NaN, infinities) is null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, default=str, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_line(text: str = "") -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_paragraph(text: str, *, indent: int = 2, hang: int = 12) -> None:
    """A long line: folded under its label on a terminal, one line where a program reads it."""
    lead = " " * indent
    if not sys.stdout.isatty():
        print_line(f"{lead}{text}")
        return
    width = max(40, shutil.get_terminal_size().columns)
    rest = " " * hang
    print_line(textwrap.fill(text, width, initial_indent=lead, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False))


def print_note(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_error(error: E2IError) -> None:
    """What is wrong, where, and how to mend it."""
    where = f"{error.where}: " if error.where else ""
    print_note(f"error: {where}{error.what}")
    if error.advice:
        print_note(f"  {error.advice}")


def print_table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Rows as a plain table; nothing but `(none)` when there are none."""
    if not rows:
        print_line("(none)")
        return
    names = columns or list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    print_line("  ".join(name.upper().ljust(width) for name, width in zip(names, widths, strict=True)).rstrip())
    for line in cells:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def is_interactive() -> bool:
    """Whether progress bars and colours make sense on standard error."""
    return sys.stderr.isatty() and os.isatty(2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
