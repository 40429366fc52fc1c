"""Did the arms come out in the shares that were planned: one check for the plan, the assignment and the analysis."""

from __future__ import annotations

from e2i.errors import ConfigError

SAMPLE_RATIO_ALPHA = 0.001
"""below this p the arms did not come from the planned shares (Fabijan et al. 2019)"""


def sample_ratio(observed: dict[str, int], expected: dict[str, float]) -> float:
    """P of the chi-square test that the arms hold their planned shares; below 0.001 something is broken.

    Raises ConfigError when the arms differ, or nobody was counted.

    >>> round(sample_ratio({"treatment": 5200, "control": 4800}, {"treatment": 0.5, "control": 0.5}), 6)
    6.3e-05
    """
    from scipy import special

    total, weight = sum(observed.values()), sum(expected.values())
    if set(observed) != set(expected) or total <= 0 or weight <= 0 or min(expected.values()) <= 0:
        raise ConfigError("observed and planned arms do not match.", where="sample ratio", advice="Count every planned arm.")
    chi = sum((observed[arm] - total * share / weight) ** 2 / (total * share / weight) for arm, share in expected.items())
    return float(special.chdtrc(len(expected) - 1, chi))
