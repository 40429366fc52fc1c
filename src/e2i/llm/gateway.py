"""The one door to language models: an explicit chain of them, time limits, retries of passing faults, one span a call."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import SpanKind

from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen, ConfigError
from e2i.llm import structured
from e2i.llm.call import Call, asked_again, told
from e2i.llm.faults import Fault
from e2i.llm.provider import Answer, Request
from e2i.observability import spans
from e2i.ports.language import Completion, Message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from e2i.llm.prices import PriceTable
    from e2i.llm.provider import Provider
    from e2i.ports.telemetry import Breaker

T = TypeVar("T")
_TRUNCATED = frozenset({"length", "max_tokens", "model_context_window_exceeded"})
_REFUSED = frozenset({"refusal", "content_filter"})
_ROLES = frozenset({"system", "user", "assistant"})


@dataclass(frozen=True, kw_only=True)
class Link:
    """One model of the chain, and the breaker that keeps calls away from it while it is sick."""

    provider: Provider
    breaker: Breaker


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how often one model is asked; the time for one model never exceeds `timeout_s` times the tries.

    A pause between tries doubles from `first_pause_s` up to `longest_pause_s` or a tenth of `timeout_s`, less up to half by
    chance; a vendor's Retry-After makes it longer, and ends the tries where it does not fit into the time.
    """

    timeout_s: float
    max_retries: int
    temperature: float
    first_pause_s: float = 0.5
    longest_pause_s: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """Time and chance, so that tests need none of either."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


class LanguageModelGateway:
    """`ports.language.LanguageModel` over a chain of models. Belongs to one event loop; `await close()` at the end.

    The next model of the chain is asked only when one is unavailable: a passing fault that outlived its retries, a time-out, an
    open circuit. A refused request is raised at once, for the next model would hide what is wrong.
    """

    def __init__(self, chain: Sequence[Link], *, prices: PriceTable, limits: Limits, pacing: Pacing | None = None) -> None:
        if not chain:
            raise ConfigError("no language model is configured.", where="llm.chain", advice="Add an entry to llm.chain in e2i.toml.")
        self._chain = tuple(chain)
        self._prices = prices
        self._limits = limits
        self._pacing = pacing or Pacing()

    @property
    def models(self) -> tuple[str, ...]:
        """The chain, in order."""
        return tuple(link.provider.model for link in self._chain)

    async def close(self) -> None:
        """Close every connection."""
        for link in self._chain:
            await link.provider.close()

    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Completion:
        """See LanguageModel.

        Raises
        ------
        BackendUnavailable
            No model of the chain answered; the message names each and why. CircuitOpen when none was asked.
        BackendRejected
            A model refused the request, or its answer did not fit the schema twice.
        ConfigError
            The prompt, a limit or the schema is wrong.
        """
        call = self._call(prompt, max_tokens, temperature, schema)
        with self._span(call):
            try:
                return await self._walk(call, lambda link: self._answer(link, call))
            finally:
                call.close()

    async def stream(
        self, prompt: str | Sequence[Message], *, max_tokens: int, temperature: float | None = None
    ) -> AsyncGenerator[str, None]:
        """See LanguageModel. After the first piece was given out, neither a retry nor another model follows.

        The call runs in a task of its own: the time limit and the span measure the model and not its reader, and the span is
        never current in the reader's code.
        """
        call = self._call(prompt, max_tokens, temperature, None)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        speaking = asyncio.create_task(self._speak(call, pieces))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await speaking
        except GeneratorExit:
            call.is_stopped = True
            raise
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])
            if not speaking.cancelled():
                speaking.exception()  # looked at, so that nobody is told of an error that nobody waits for

    async def _speak(self, call: Call, pieces: asyncio.Queue[str | None]) -> None:
        try:
            with self._span(call):
                try:
                    await self._walk(call, lambda link: self._relay(link, call, pieces))
                except asyncio.CancelledError:
                    if not call.is_stopped:
                        raise
                finally:
                    call.close()
        finally:
            pieces.put_nowait(None)

    async def _relay(self, link: Link, call: Call, pieces: asyncio.Queue[str | None]) -> None:
        async def speak() -> None:
            try:
                async with aclosing(link.provider.stream(call.request)) as found:
                    async for piece in found:
                        call.heard(piece)
                        if piece.text:
                            pieces.put_nowait(piece.text)
            except asyncio.CancelledError:
                if not call.is_stopped:
                    raise
                # Swallowed here, inside the breaker's guard: a reader who has enough says nothing against the model.

        await self._tries(link, call, speak)

    async def _answer(self, link: Link, call: Call) -> Completion:
        request = call.request
        answer = await self._asked(link, call, request)
        if request.schema is None:
            return call.completion(link.provider, answer.text)
        text, fault = _checked(answer, request.schema)
        if fault is not None and answer.finish_reason not in _TRUNCATED | _REFUSED:
            asked_again(fault)
            answer = await self._asked(link, call, request.then(*structured.repair(answer.text, fault)))
            text, fault = _checked(answer, request.schema)
        if fault is None:
            return call.completion(link.provider, text)
        is_cut = answer.finish_reason in _TRUNCATED
        raise BackendRejected(
            f"the answer does not fit the schema: {fault}{', cut at max_tokens' if is_cut else ''}.",
            where=f"{link.provider.name} {link.provider.model}",
            advice="Raise max_tokens." if is_cut else "Simplify the schema or the question, or use another model.",
        )

    async def _asked(self, link: Link, call: Call, request: Request) -> Answer:
        answer = await self._tries(link, call, lambda: link.provider.complete(request))
        call.answered(answer)
        return answer

    async def _walk(self, call: Call, ask: Callable[[Link], Awaitable[T]]) -> T:
        """The first answer of the chain."""
        failures: list[tuple[Provider, BackendUnavailable]] = []
        is_stream_begun = False
        for link in self._chain:
            call.turn_to(link.provider)
            try:
                return await ask(link)
            except BackendUnavailable as error:
                failures.append((link.provider, error))
                is_stream_begun = call.is_given_out
            if is_stream_begun:
                break
        kind = CircuitOpen if all(isinstance(error, CircuitOpen) for _, error in failures) else BackendUnavailable
        what = f"the answer broke off, {told(failures)}." if is_stream_begun else f"no language model answered: {told(failures)}."
        raise kind(what, where="llm.chain", advice="Try again later, or add another model to llm.chain.") from failures[-1][1]

    async def _tries(self, link: Link, call: Call, ask: Callable[[], Awaitable[T]]) -> T:
        """One model, again after passing faults while time and number of tries allow."""
        clock = self._pacing.clock
        end = clock() + self._limits.timeout_s * (1 + self._limits.max_retries)
        attempt = 1
        while True:
            begun = clock()
            try:
                await link.provider.open()
                async with link.breaker.guard(min(self._limits.timeout_s, end - clock())):
                    return await ask()
            except BackendUnavailable as error:
                call.failed(error, attempt=attempt, seconds=clock() - begun)
                wait = self._pause_s(error, attempt)
                if call.is_given_out or wait is None or clock() + wait >= end:
                    raise
            except BackendRejected as error:
                call.failed(error, attempt=attempt, seconds=clock() - begun)
                raise
            await self._pacing.pause(wait)
            attempt += 1

    def _pause_s(self, error: BackendUnavailable, attempt: int) -> float | None:
        """Seconds before the next try of the same model; None when there is none."""
        may_retry = not isinstance(error, CircuitOpen) and getattr(error, "may_retry", True)
        if attempt > self._limits.max_retries or not may_retry:
            return None
        limits = self._limits
        longest = min(limits.longest_pause_s, limits.timeout_s / 10, limits.first_pause_s * 2.0 ** (attempt - 1))
        asked_for = error.retry_after_s if isinstance(error, Fault) else None
        return max(longest * (1 - self._pacing.chance() / 2), asked_for or 0.0)

    def _span(self, call: Call) -> spans.Span:
        first = self._chain[0].provider
        return spans.span(f"chat {first.model}", call.opening(first), kind=SpanKind.CLIENT)

    def _call(self, prompt: str | Sequence[Message], max_tokens: int, temperature: float | None, schema: dict[str, Any] | None) -> Call:
        messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)
        chosen = self._limits.temperature if temperature is None else temperature
        if not any(turn.role == "user" and turn.content.strip() for turn in messages):
            raise ConfigError("the prompt is empty.", where="prompt", advice="Give text, or messages with one of the user's.")
        if unknown := sorted({turn.role for turn in messages} - _ROLES):
            raise ConfigError(f"there is no role {unknown[0]!r}.", where="prompt", advice="Use system, user or assistant.")
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}.", where="max_tokens", advice="Give at least 1.")
        if not 0 <= chosen <= 2:
            raise ConfigError(f"temperature is {chosen}.", where="temperature", advice="Give a number from 0 to 2.")
        if schema is not None:
            structured.check_schema(schema)
        return Call(Request(messages=messages, max_tokens=max_tokens, temperature=chosen, schema=schema), self._prices)


def _checked(answer: Answer, schema: dict[str, Any]) -> tuple[str, str | None]:
    text = structured.bare(answer.text)
    return text, structured.fault_of(text, schema)
