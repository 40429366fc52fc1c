"""A Provider that does what a script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from e2i.errors import BackendUnavailable
from e2i.llm.faults import Fault
from e2i.llm.provider import Answer, Piece, Request


def answer(text: str = "yes", *, tokens: int | None = 10, finish: str = "stop", model: str | None = None) -> Answer:
    return Answer(text=text, model=model, input_tokens=tokens, output_tokens=tokens, finish_reason=finish)


def busy(*, retry_after_s: float | None = None, may_retry: bool = True) -> Fault:
    fault = Fault("529 overloaded", where="test")
    fault.retry_after_s, fault.may_retry = retry_after_s, may_retry
    return fault


HANG = "hang"
Step = Answer | Exception | str | list[object]


@dataclass
class ScriptedProvider:
    """Each call takes the next step of the script; the last one stays. A list is a stream: text, pieces, at last maybe an error."""

    model: str
    script: list[Step] = field(default_factory=lambda: [answer()])
    name: str = "test"
    left_out: frozenset[str] = frozenset()
    requests: list[Request] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    cancelled: int = 0

    def _next(self, request: Request) -> Step:
        self.requests.append(request)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def complete(self, request: Request) -> Answer:
        step = self._next(request)
        if step == HANG:
            await self._hang()
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Answer)
        return step

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        step = self._next(request)
        for part in step if isinstance(step, list) else [step]:
            if part == HANG:
                await self._hang()
            if isinstance(part, Exception):
                raise part
            yield part if isinstance(part, Piece) else Piece(text=str(part))
            await asyncio.sleep(0)
        if not isinstance(step, list):
            raise BackendUnavailable("a script for a stream is a list")

    async def _hang(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
