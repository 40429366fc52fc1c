"""What the terminal can show: its width, colours, and characters."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from functools import lru_cache

PLAIN_WIDTH = 120
"""columns where standard output is not a terminal and COLUMNS is not set"""
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """How to print."""

    width: int
    colour: bool = False
    blocks: bool = True
    """whether box and block characters can be printed"""

    @classmethod
    def of_output(cls) -> Terminal:
        """Standard output as it is: colours on a terminal only, and never with NO_COLOR."""
        from rich.console import Console

        console = Console(file=sys.stdout)
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        return cls(
            width=max(20, shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns),
            colour=console.is_terminal and not console.no_color and console.color_system is not None,
            blocks=encoding.startswith("utf"),
        )

    def paint(self, text: str, *styles: str) -> str:
        """`text` in styles, when there is colour."""
        if not self.colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"


@lru_cache(maxsize=4096)
def fit(text: str, width: int) -> str:
    """Exactly `width` columns: cut with an ellipsis, or padded; wide characters count twice."""
    from rich.cells import cell_len, set_cell_size

    if text.isascii():
        return text.ljust(width) if len(text) <= width else text[: max(width - 1, 0)] + "…"[:width]
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return set_cell_size(text, max(width - 1, 0)) + "…"[:width]
