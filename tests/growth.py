"""How work grows with its size: a ratio of two times of one run, so that a slow or busy machine is no failure."""

from __future__ import annotations

import time
from collections.abc import Callable


def growth(work: Callable[[int], object], size: int, *, factor: int = 10) -> float:
    """CPU time of `work(factor * size)` over that of `work(size)`, the least of three each: `factor` where it is linear."""

    def least(of: int) -> float:
        times = []
        for _ in range(3):
            began = time.process_time()
            work(of)
            times.append(time.process_time() - began)
        return min(times)

    least_small = least(size)
    return least(factor * size) / max(least_small, 1e-3)
