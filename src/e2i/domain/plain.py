"""Records as plain data for JSON, which knows no number that is not finite."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The same mappings and lists, where a number that is not finite is None.

    >>> plain({"roi": float("inf"), "ends": (1.0, float("nan"))})
    {'roi': None, 'ends': [1.0, None]}
    """
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
