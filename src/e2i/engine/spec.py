"""An agent is data: a state, a list of steps, routes between them, a budget."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from e2i.domain.runs import Tier
from e2i.errors import SpecError

T = TypeVar("T")
Step = Callable[[Any, Any], Awaitable[Any]]
Route = Callable[[Any], str]
FINISH = "finish"
"""What a route returns to end the agent."""


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One agent.

    Parameters
    ----------
    name : snake_case; the name in records, spans and the CLI
    tier : one of the six tiers
    kind : `standard` computes, `hybrid` computes and asks a language model once, `deep` reasons throughout
    budget_s : seconds of wall time for all steps together; work is stopped when they are used up
    steps : functions `async (State, Deps) -> State`, run in list order
    routes : step name -> function of the state that returns the next step's name or "finish"; its return annotation
        is a Literal of all names it may return, so that a wrong name fails at import
    asked_for : seconds beyond the budget that a state asks for, where a study may set how long the work lasts

    Raises
    ------
    SpecError
        A step is not async, has another signature or state, appears twice, or a route names an unknown step.
    """

    name: str
    tier: Tier
    kind: Literal["standard", "hybrid", "deep"]
    budget_s: float
    steps: Sequence[Step]
    routes: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    asked_for: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        names = self.step_names
        if not names:
            raise SpecError("an agent needs at least one step.", where=f"agent {self.name}")
        if len(set(names)) != len(names):
            raise SpecError(f"step names repeat: {', '.join(names)}.", where=f"agent {self.name}", advice="Name each step once.")
        if FINISH in names:
            raise SpecError(f"a step is named {FINISH!r}, which ends an agent.", where=f"agent {self.name}", advice="Name it otherwise.")
        if self.budget_s <= 0:
            raise SpecError(f"budget_s is {self.budget_s}.", where=f"agent {self.name}", advice="Give seconds above zero.")
        kinds = {self._types(step) for step in self.steps}
        if len(kinds) != 1:
            raise SpecError("steps disagree on State or Deps.", where=f"agent {self.name}", advice="Annotate all steps alike.")
        for source, route in self.routes.items():
            self._check_route(source, route)

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(getattr(step, "__name__", repr(step)) for step in self.steps)

    @property
    def state_type(self) -> type[Any]:
        """The agent's State."""
        return self._types(self.steps[0])[0]

    @property
    def deps_type(self) -> type[Any]:
        """The agent's Deps."""
        return self._types(self.steps[0])[1]

    @property
    def purpose(self) -> str:
        """The first line of the agent module's docstring."""
        return (inspect.getdoc(inspect.getmodule(self.steps[0])) or "").split("\n", 1)[0]

    def targets(self, source: str) -> tuple[str, ...]:
        """Every step (or "finish") that may follow `source`."""
        if source in self.routes:
            return tuple(get_args(get_type_hints(self.routes[source])["return"]))
        position = self.step_names.index(source) + 1
        return (self.step_names[position] if position < len(self.steps) else FINISH,)

    def _types(self, step: Step) -> tuple[type[Any], type[Any]]:
        where = f"agent {self.name}, step {getattr(step, '__name__', step)!s}"
        if not inspect.iscoroutinefunction(step):
            raise SpecError("a step must be an async function.", where=where)
        parameters = list(inspect.signature(step).parameters)
        hints = get_type_hints(step)
        if len(parameters) != 2 or any(name not in hints for name in (*parameters, "return")):
            raise SpecError("a step is `async (state: State, deps: Deps) -> State`.", where=where)
        state, deps = hints[parameters[0]], hints[parameters[1]]
        if hints["return"] is not state or not isinstance(state, type) or not is_dataclass(state):
            raise SpecError("a step returns the same State dataclass that it takes.", where=where)
        return state, deps

    def _check_route(self, source: str, route: Route) -> None:
        where = f"agent {self.name}, route from {source}"
        if source not in self.step_names:
            raise SpecError("no such step.", where=where, advice=f"Steps: {', '.join(self.step_names)}.")
        returned = get_type_hints(route).get("return")
        if get_origin(returned) is not Literal:
            raise SpecError("a route's return annotation is a Literal of step names.", where=where)
        unknown = [name for name in get_args(returned) if name not in (*self.step_names, FINISH)]
        if unknown:
            raise SpecError(f"unknown step {', '.join(unknown)}.", where=where, advice=f"Steps: {', '.join(self.step_names)}, {FINISH}.")


def known(value: T | None) -> T:
    """A part of the state that an earlier step has set. Raises SpecError when it has not."""
    if value is None:
        raise SpecError("a step ran before the step that feeds it.", where="an agent's state")
    return value
