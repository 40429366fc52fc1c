"""Which files are too large to load."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.config import Settings
    from e2i.ports.data import LargeTable


def large_tables(settings: Settings) -> Callable[..., LargeTable | None]:
    """`(data, *, base)` -> the file to be streamed, or None where it can be loaded; by `large_files` in the settings."""
    from e2i.data.sources import large_file

    limits = settings.large_files
    return partial(large_file, threshold_gb=limits.threshold_gb, memory_gb=limits.memory_gb, threads=limits.threads)
