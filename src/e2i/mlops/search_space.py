"""Search spaces from settings, and the parameters that a search tries first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from e2i.ports.records import Pattern

DEFAULTS, WARM_START = "defaults", "warm_start"


def distributions_of(space: Mapping[str, Mapping[str, object]]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of a search space `{name: {type, low, high, step, log, choices}}`. Raises ConfigError."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds = {"int": IntDistribution, "float": FloatDistribution, "categorical": CategoricalDistribution}
    found: dict[str, BaseDistribution] = {}
    for name, spec in space.items():
        options = {key: value for key, value in spec.items() if key != "type" and value is not None}
        try:
            found[name] = kinds[str(spec["type"])](**options)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the search space of `{name}` is wrong: {error}",
                where="search_space_presets",
                advice="Give `type: int|float` with `low`, `high` and optionally `step` or `log`, or `type: categorical` with `choices`.",
            ) from error
    if not found:
        raise ConfigError("the search space is empty", where="search_space_presets", advice="Name at least one hyperparameter.")
    return found


def start_queue(
    space: Mapping[str, Mapping[str, object]], defaults: Mapping[str, Any], patterns: Sequence[Pattern], *, limit: int
) -> list[dict[str, Any]]:
    """Parameters to try first: the defaults, then at most `limit` distinct patterns, best match first.

    Only parameters of the search space are kept; a number outside its range moves to the nearest allowed one, and what cannot
    be placed (such as None for a number) is left to the sampler.
    """
    distributions = distributions_of(space)
    queue = [{"source": DEFAULTS, "params": _fit(defaults, distributions)}]
    for pattern in patterns:
        params = _fit(pattern.params, distributions)
        if len(queue) <= limit and params and all(params != entry["params"] for entry in queue):
            queue.append({"source": WARM_START, "params": params})
    return queue


def _fit(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    fitted: dict[str, Any] = {}
    for name, distribution in distributions.items():
        value = params.get(name)
        if isinstance(distribution, CategoricalDistribution):
            if name in params and value in distribution.choices:
                fitted[name] = value
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        low, high, step = (float(getattr(distribution, key) or 0) for key in ("low", "high", "step"))
        number = min(max(float(value), low), high)
        if step:
            number = min(low + round((number - low) / step) * step, high)
        fitted[name] = round(number) if isinstance(distribution, IntDistribution) else number
    return fitted
