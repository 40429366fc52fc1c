"""What happens around every step, outside the agents: trace, record, audit, signal.

A hook is an async context manager around one attempt of one step. Trace and signal never fail a run; record and audit do,
because a number without its evidence is worth nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from e2i.domain.runs import AuditEntry, StepRecord, Tier
from e2i.engine.usage import counting
from e2i.errors import BudgetExceeded, E2IError
from e2i.observability import attributes as names
from e2i.observability import spans
from e2i.ports.records import AuditTrail, RunRecords

_log = logging.getLogger(__name__)
StepStatus = Literal["success", "error", "timeout", "cancelled"]


@dataclass(kw_only=True)
class StepAttempt:
    """One attempt of one step; hooks fill in what later hooks need."""

    run_id: str
    agent: str
    tier: Tier
    step: str
    attempt: int
    trace_id: str | None = None
    span_id: str | None = None
    state: bytes = b""
    """canonical JSON of the state after the step; empty until it succeeded"""


@dataclass(kw_only=True)
class AgentCall:
    """One call of one agent; states are canonical JSON, `after` stays empty until it succeeded."""

    run_id: str
    agent: str
    tier: Tier
    before: str
    after: str = ""


class AgentHook(Protocol):
    """Something that happens around a whole call of an agent."""

    def around_agent(self, call: AgentCall) -> AbstractAsyncContextManager[None]:
        """Enter before the first step, leave after the last; exceptions pass through."""
        ...


class Hook(Protocol):
    """Something that happens around a step."""

    def around(self, attempt: StepAttempt) -> AbstractAsyncContextManager[None]:
        """Enter before the step, leave after it; exceptions of the step pass through."""
        ...


def status_of(error: BaseException | None) -> StepStatus:
    """`success`, `timeout`, `cancelled` or `error`."""
    if error is None:
        return "success"
    if isinstance(error, BudgetExceeded | TimeoutError):
        return "timeout"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"


class TraceHook:
    """One OpenTelemetry span per call of an agent, and below it one per attempt of a step."""

    @asynccontextmanager
    async def around_agent(self, call: AgentCall) -> AsyncIterator[None]:
        """A span with the state before and after as its input and output."""
        attributes: dict[str, str | int | float | bool] = {
            names.OPERATION: "agent",
            names.GEN_AI_OPERATION: "invoke_agent",
            names.GEN_AI_AGENT_NAME: call.agent,
            names.RUN_ID: call.run_id,
            names.AGENT: call.agent,
            names.TIER: call.tier.value,
            names.INPUT: call.before,
        }
        with spans.span(f"invoke_agent {call.agent}", attributes) as current:
            yield
            current.set(names.OUTPUT, call.after)

    @asynccontextmanager
    async def around(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Open the span and note its ids."""
        attributes: dict[str, str | int | float | bool] = {
            names.OPERATION: "step",
            names.RUN_ID: attempt.run_id,
            names.AGENT: attempt.agent,
            names.TIER: attempt.tier.value,
            names.STEP: attempt.step,
            names.ATTEMPT: attempt.attempt,
        }
        with spans.span(f"{attempt.agent}.{attempt.step}", attributes) as (trace_id, span_id):
            attempt.trace_id, attempt.span_id = trace_id, span_id
            yield


class RecordHook:
    """One row in agent_steps per attempt."""

    def __init__(self, runs: RunRecords) -> None:
        self._runs = runs

    @asynccontextmanager
    async def around(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Time the step, count the tokens of its language models, and write the row, also when it fails."""
        started_at, started = datetime.now(UTC), time.perf_counter()
        error: BaseException | None = None
        with counting() as used:
            try:
                yield
            except BaseException as caught:
                error = caught
                raise
            finally:
                record = StepRecord(
                    run_id=attempt.run_id,
                    agent=attempt.agent,
                    tier=attempt.tier,
                    step=attempt.step,
                    attempt=attempt.attempt,
                    status=status_of(error),
                    started_at=started_at,
                    duration_ms=(time.perf_counter() - started) * 1e3,
                    trace_id=attempt.trace_id,
                    span_id=attempt.span_id,
                    error=_error_as_data(error),
                    input_tokens=used.input_tokens,
                    output_tokens=used.output_tokens,
                )
                await self._write(record, step_failed=error is not None)

    async def _write(self, record: StepRecord, *, step_failed: bool) -> None:
        try:
            await self._runs.record_step(record)
        except E2IError as error:
            if not step_failed:
                raise
            # The step's own error is the one that people must see; the lost row is said in the log.
            _log.warning("step record lost: %s.%s of run %s: %s", record.agent, record.step, record.run_id, error.what)


class AuditHook:
    """One link of the audit chain per finished step, with the digest of its state."""

    def __init__(self, trail: AuditTrail, actor: str) -> None:
        self._trail = trail
        self._actor = actor

    @asynccontextmanager
    async def around(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Append after success; an audit that cannot be written fails the step."""
        yield
        await self._trail.append(
            AuditEntry(
                actor=self._actor,
                action="step.finished",
                subject=f"{attempt.run_id}/{attempt.agent}/{attempt.step}",
                details={"attempt": attempt.attempt, "span_id": attempt.span_id, "state_sha256": hashlib.sha256(attempt.state).hexdigest()},
            )
        )


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What listeners (the progress display, later the learning loops) are told."""

    run_id: str
    agent: str
    step: str
    phase: Literal["started", "finished", "failed"]
    seconds: float = 0.0


class SignalHook:
    """Tells listeners; a listener that fails is logged and never fails the run."""

    def __init__(self, listener: Callable[[Signal], None]) -> None:
        self._listener = listener

    @asynccontextmanager
    async def around(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Started, then finished or failed."""
        started = time.perf_counter()
        self._tell(attempt, "started", 0.0)
        try:
            yield
        except BaseException:
            self._tell(attempt, "failed", time.perf_counter() - started)
            raise
        self._tell(attempt, "finished", time.perf_counter() - started)

    def _tell(self, attempt: StepAttempt, phase: Literal["started", "finished", "failed"], seconds: float) -> None:
        try:
            self._listener(Signal(run_id=attempt.run_id, agent=attempt.agent, step=attempt.step, phase=phase, seconds=seconds))
        except (E2IError, OSError, ValueError, TypeError, KeyError, AttributeError):
            _log.exception("a listener failed on %s.%s", attempt.agent, attempt.step)


def _error_as_data(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    if isinstance(error, E2IError):
        return dict(error.to_dict())
    return {"error": type(error).__name__, "category": "computation", "what": str(error), "where": None, "advice": None}
