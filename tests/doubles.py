"""Small honest stand-ins for ports, where the thing behind the port is not the point of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from e2i.engine.hooks import StepAttempt
from e2i.errors import BackendUnavailable, StorageError
from e2i.ports.language import Completion

T = TypeVar("T")


class Inline:
    """An Executor that runs where it is asked."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return function(*args, **kwargs)


@dataclass
class DyingWorker:
    """An Executor whose worker dies in the function called `dies_in`, every time."""

    dies_in: str

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        if getattr(function, "__name__", "") == self.dies_in:
            raise BackendUnavailable("the worker process ended with code -9.", where="executor")
        return function(*args, **kwargs)


@dataclass
class Counter:
    """A Progress that keeps what it was told."""

    told: list[tuple[str, int, int]] = field(default_factory=list)

    def advance(self, what: str, *, done: int, of: int, note: str = "") -> None:
        self.told.append((what, done, of))


@dataclass
class ScriptedLanguage:
    """A LanguageModel that says `answer` and keeps what it was asked."""

    answer: str
    asked: list[str] = field(default_factory=list)

    async def complete(self, prompt, *, max_tokens, temperature=None, schema=None) -> Completion:
        self.asked.append(prompt)
        return Completion(
            text=self.answer,
            model="scripted",
            provider="test",
            input_tokens=len(prompt) // 4,
            output_tokens=len(self.answer) // 4,
            cost_usd=None,
            latency_ms=0.0,
            finish_reason="stop",
            fallback_chain=("scripted",),
        )

    async def stream(self, prompt, *, max_tokens, temperature=None) -> AsyncIterator[str]:
        self.asked.append(prompt)
        for word in self.answer.split(" "):
            yield word


@dataclass(frozen=True)
class CrashAfter:
    """A Hook that ends the run after a step did its work and before its checkpoint is kept, as a full disk would."""

    step: str

    @asynccontextmanager
    async def around(self, attempt: StepAttempt) -> AsyncIterator[None]:
        yield
        if attempt.step == self.step:
            raise StorageError("the disk is full.", where="audit_log")
