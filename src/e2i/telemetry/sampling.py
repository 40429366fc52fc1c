"""Which traces are kept: decided per trace from its id alone, so that every process decides alike, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from e2i.errors import ConfigError
from e2i.telemetry.layout import SpanClass

_RANDOM_BITS = 56
"""W3C Trace Context level 2: the last seven bytes of a trace id are random. The eighth from the right is not in an id of the form of
UUIDv7: it begins with the two bits of the variant, and a threshold over 64 bits would keep nothing below a rate of 0.5."""
_RANDOM = (1 << _RANDOM_BITS) - 1


@dataclass(frozen=True)
class SamplingRules:
    """What is kept.

    Parameters
    ----------
    rate : share of traces, in 0-1
    agent_rates : agent -> share, instead of `rate`
    always_agents : traces with a span of one of these are kept
    always_errors : traces with a span that failed are kept

    Raises
    ------
    ConfigError
        A rate is not in 0-1.
    """

    rate: float
    agent_rates: Mapping[str, float] = field(default_factory=dict)
    always_agents: frozenset[str] = frozenset()
    always_errors: bool = True

    def __post_init__(self) -> None:
        for where, rate in (("the rate", self.rate), *((f"the rate of {agent}", rate) for agent, rate in self.agent_rates.items())):
            if not 0 <= rate <= 1:
                raise ConfigError(f"{where} is {rate}.", where="observability.sampling", advice="A share is between 0 and 1.")


class Sampler:
    """Classes spans by rules.

    A trace has one place in 0-1, the last 56 bits of its id over 2^56; a rate keeps every trace whose place is below it. So a trace
    that is kept at a low rate is kept at every higher one.
    """

    def __init__(self, rules: SamplingRules) -> None:
        self._threshold = _threshold(rules.rate)
        self._of_agent: dict[str | None, int] = {agent: _threshold(rate) for agent, rate in rules.agent_rates.items()}
        self._lowest = min(self._threshold, *self._of_agent.values()) if self._of_agent else self._threshold
        self._always_agents = rules.always_agents
        self._always_errors = rules.always_errors

    @property
    def agents(self) -> frozenset[str]:
        """Agents with a rate of their own; who classifies must know which traces they began."""
        return frozenset(agent for agent in self._of_agent if agent is not None)

    def classify(
        self, trace_id: int, *, agent: str | None, is_error: bool, root: str | None = None, is_entry: bool = False
    ) -> tuple[SpanClass, bool]:
        """The class of a span, and whether its trace is to be noted so that all its spans, in every process, are kept.

        A trace has the rate of the agent that began it, or the common one; an agent with a higher rate of its own lifts the trace.

        Parameters
        ----------
        root : the agent that began the trace, where this process saw it
        is_entry : the span's parent is in another process, which may know of another root
        """
        place = trace_id & _RANDOM
        if (is_error and self._always_errors) or agent in self._always_agents:
            return SpanClass.ERROR, place >= self._lowest
        if place < self._of_agent.get(root, self._threshold):
            return SpanClass.KEPT, place >= self._threshold or (is_entry and place >= self._lowest)
        if place < self._of_agent.get(agent, 0):
            return SpanClass.KEPT, True
        return SpanClass.MAYBE, False


def _threshold(rate: float) -> int:
    return round(rate * (1 << _RANDOM_BITS))
