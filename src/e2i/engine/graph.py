"""Run an agent: compile its spec to a LangGraph graph, wrap every step in the hooks, keep the budget, resume."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from e2i.domain.foreign_errors import without_words
from e2i.engine.checkpoint import StateCodec
from e2i.engine.faults import failure
from e2i.engine.hooks import AgentCall, AgentHook, Hook, StepAttempt
from e2i.engine.spec import FINISH, AgentSpec, Step
from e2i.errors import BackendUnavailable, BudgetExceeded, CircuitOpen, E2IError, StepFailed

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Only BackendUnavailable is tried again; an open circuit is not, it has said no already."""

    attempts: int = 3
    first_s: float = 1.0
    longest_s: float = 30.0

    def delay_s(self, attempt: int) -> float:
        """Seconds before the attempt after `attempt` (1, 2, …): exponential."""
        return min(self.first_s * 2.0 ** (attempt - 1), self.longest_s)


class _Channels(TypedDict):
    state: str


@dataclass(frozen=True, kw_only=True)
class _Invocation:
    """What a node needs and a checkpoint must not hold."""

    run_id: str
    deps: Any


class Engine:
    """Runs agents.

    Parameters
    ----------
    hooks : entered in order around every attempt of every step
    agent_hooks : entered in order around every call of an agent that has steps left to run
    saver : LangGraph checkpointer; None keeps nothing, so nothing resumes
    retry : for transient faults of backends
    budgets_s : agent -> seconds, instead of its spec's
    """

    def __init__(
        self,
        hooks: Sequence[Hook] = (),
        *,
        agent_hooks: Sequence[AgentHook] = (),
        saver: BaseCheckpointSaver[str] | None = None,
        retry: RetryPolicy | None = None,
        budgets_s: Mapping[str, float] | None = None,
    ) -> None:
        self._hooks = tuple(hooks)
        self._agent_hooks = tuple(agent_hooks)
        self._saver = saver
        self._retry = retry or RetryPolicy()
        self._budgets_s = dict(budgets_s or {})
        self._compiled: dict[str, tuple[Any, StateCodec]] = {}

    async def run(self, spec: AgentSpec, state: Any, deps: Any, *, run_id: str, part: str | None = None) -> Any:
        """Run `spec` from `state`, or go on where run `run_id` stopped; a finished agent is not run again.

        Parameters
        ----------
        part : tells two uses of one agent in one run apart

        Raises
        ------
        BudgetExceeded
            The steps took longer than the agent's budget; the work is stopped, not left running.
        E2IError
            What a step raised. Anything else that a step raises becomes one of ours, see `faults.failure`.
        """
        graph, codec = self._graph(spec)
        config = {
            "configurable": {"thread_id": "/".join(filter(None, (run_id, spec.name, part)))},
            "recursion_limit": 10 * len(spec.steps) + 25,
        }
        before = codec.dump(state)
        start: dict[str, str] | None = {"state": before}
        if self._saver is not None:
            snapshot = await graph.aget_state(config)
            if snapshot.values:
                if not snapshot.next:
                    return codec.load(snapshot.values["state"])
                start = None
        invocation = _Invocation(run_id=run_id, deps=deps)
        call = AgentCall(run_id=run_id, agent=spec.name, tier=spec.tier, before=before)
        async with AsyncExitStack() as stack:
            for hook in self._agent_hooks:
                await stack.enter_async_context(hook.around_agent(call))
            call.after = await self._invoke(
                graph, start, config, invocation, where=f"agent {spec.name}", budget_s=self._budget_s(spec, state)
            )
        return codec.load(call.after)

    async def _invoke(
        self, graph: Any, start: dict[str, str] | None, config: dict[str, Any], invocation: _Invocation, *, where: str, budget_s: float
    ) -> str:
        try:
            async with asyncio.timeout(budget_s) as budget:
                result = await graph.ainvoke(start, config, context=invocation, durability="sync" if self._saver is not None else None)
        except TimeoutError as error:
            if not budget.expired():
                raise StepFailed(f"a call timed out ({without_words(error)}).", where=where) from error
            raise BudgetExceeded(
                f"used up its {budget_s:g} s.",
                where=where,
                advice="Finished steps are kept; run again to go on, or lower the work.",
            ) from error
        return str(result["state"])

    def _budget_s(self, spec: AgentSpec, state: Any) -> float:
        return self._budgets_s.get(spec.name, spec.budget_s) + (0.0 if spec.asked_for is None else spec.asked_for(state))

    def _graph(self, spec: AgentSpec) -> tuple[Any, StateCodec]:
        if spec.name not in self._compiled:
            self._compiled[spec.name] = self._compile(spec)
        return self._compiled[spec.name]

    def _compile(self, spec: AgentSpec) -> tuple[Any, StateCodec]:
        codec = StateCodec(spec.state_type)
        builder: StateGraph[_Channels, _Invocation, _Channels, _Channels] = StateGraph(_Channels, context_schema=_Invocation)
        for name, step in zip(spec.step_names, spec.steps, strict=True):
            builder.add_node(name, self._node(spec, name, step, codec))
        builder.add_edge(START, spec.step_names[0])
        for name in spec.step_names:
            targets: dict[Hashable, str] = {target: END if target == FINISH else target for target in spec.targets(name)}
            if name in spec.routes:
                builder.add_conditional_edges(name, _route(spec, name, codec), targets)
            else:
                builder.add_edge(name, next(iter(targets.values())))
        return builder.compile(checkpointer=self._saver, name=spec.name), codec

    def _node(self, spec: AgentSpec, name: str, step: Step, codec: StateCodec) -> Any:
        async def node(channels: _Channels, runtime: Runtime[_Invocation]) -> dict[str, str]:
            state = codec.load(channels["state"])
            attempt = 0
            while True:
                attempt += 1
                try:
                    return {"state": await self._attempt(spec, name, step, codec, state=state, invocation=runtime.context, attempt=attempt)}
                except CircuitOpen:
                    raise
                except BackendUnavailable:
                    if attempt >= self._retry.attempts:
                        raise
                    await asyncio.sleep(self._retry.delay_s(attempt))

        return node

    async def _attempt(
        self, spec: AgentSpec, name: str, step: Step, codec: StateCodec, *, state: Any, invocation: _Invocation, attempt: int
    ) -> str:
        context = StepAttempt(run_id=invocation.run_id, agent=spec.name, tier=spec.tier, step=name, attempt=attempt)
        async with AsyncExitStack() as stack:
            for hook in self._hooks:
                await stack.enter_async_context(hook.around(context))
            try:
                text = codec.dump(await step(state, invocation.deps))
            except (E2IError, TimeoutError):
                raise
            except Exception as error:  # every foreign error leaves the engine as one of ours, with its cause
                raise failure(error, where=f"agent {spec.name}, step {name}") from error
            context.state = text.encode()
        return text


def _route(spec: AgentSpec, name: str, codec: StateCodec) -> Any:
    def route(channels: _Channels) -> str:
        return spec.routes[name](codec.load(channels["state"]))

    return route
