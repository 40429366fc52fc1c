"""What the gateway asks of a vendor: one answer, or one answer in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from e2i.ports.language import Message

NO_KEY = "none"
"""what servers that want no key are sent, because the SDKs want one"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to one model."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    schema: dict[str, Any] | None = None
    """JSON Schema that the answer has to fit"""

    def then(self, *turns: Message) -> Request:
        """The same question with more turns."""
        return replace(self, messages=(*self.messages, *turns))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer. What the vendor did not say is None."""

    text: str
    model: str | None
    """the model's name as the vendor gave it back"""
    input_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a streamed answer: text, or something the vendor told about it by the way."""

    text: str = ""
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None


class Provider(Protocol):
    """One model of one vendor.

    Raises BackendUnavailable (a `faults.Fault` where the vendor said when to come back) for what may pass, BackendRejected for
    what will not, and never retries by itself.
    """

    @property
    def name(self) -> str:
        """`gen_ai.provider.name`."""
        ...

    @property
    def model(self) -> str:
        """The model's name as configured."""
        ...

    @property
    def left_out(self) -> frozenset[str]:
        """Parameters that the model was found not to take and is no longer sent."""
        ...

    async def open(self) -> None:
        """Import what is needed and make ready; does nothing the second time."""
        ...

    async def complete(self, request: Request) -> Answer:
        """The whole answer."""
        ...

    def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The answer as it comes. An answer that breaks off raises BackendUnavailable."""
        ...

    async def close(self) -> None:
        """Close connections; the next call opens again."""
        ...
