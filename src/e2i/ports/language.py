"""A language model, where one is configured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer and what it cost. Tokens are those the provider counted; None when it did not say."""

    text: str
    model: str
    provider: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    """None when the price table has no entry for the model: unknown, not free"""
    latency_ms: float
    finish_reason: str | None
    fallback_chain: tuple[str, ...]
    """models in the order tried, the answering one last; one entry means the first answered"""


class LanguageModel(Protocol):
    """Completes text. Every call is a span with tokens, cost and latency."""

    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Completion:
        """The answer; with `schema` (JSON Schema) an answer that is JSON. Raises BackendUnavailable or BackendRejected."""
        ...

    def stream(self, prompt: str | Sequence[Message], *, max_tokens: int, temperature: float | None = None) -> AsyncIterator[str]:
        """Pieces of the answer as they come; the span ends with the stream. Raises as `complete`."""
        ...
