"""One call of a language model: what was tried, said and counted, and its span."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from e2i.engine.usage import Tokens, count
from e2i.errors import E2IError
from e2i.observability import attributes as names
from e2i.ports.language import Completion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2i.llm.prices import PriceTable
    from e2i.llm.provider import Answer, Piece, Provider, Request


@dataclass
class Call:
    """Filled while the chain is walked; written to the span when the call ends, however it ends."""

    request: Request
    prices: PriceTable
    started: float = field(default_factory=time.perf_counter)
    provider: Provider | None = None
    tried: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    tally: Tokens | None = None
    """None until a model said something"""
    response_model: str | None = None
    finish_reason: str | None = None
    is_given_out: bool = False
    """text of a stream has reached its reader: no other try may begin"""
    is_stopped: bool = False
    """the reader of a stream has enough; that is no error"""

    def turn_to(self, provider: Provider) -> None:
        """The next model of the chain is asked."""
        self.provider = provider
        self.tried.append(provider.model)
        self.tally = self.response_model = self.finish_reason = None
        self.pieces = []

    def failed(self, error: E2IError, *, attempt: int, seconds: float) -> None:
        """Record a try that gave no answer, as an event of the span."""
        if self.provider is None:
            return
        found: dict[str, str | int | float] = {
            names.GEN_AI_REQUEST_MODEL: self.provider.model,
            names.GEN_AI_PROVIDER: self.provider.name,
            names.LLM_TRY: attempt,
            names.ERROR_TYPE: type(error).__name__,
            names.EXCEPTION_MESSAGE: error.what,
            "duration_ms": round(seconds * 1000, 3),
        }
        trace.get_current_span().add_event(names.LLM_TRY_FAILED, found)

    def answered(self, answer: Answer) -> None:
        """A model gave a whole answer; what it cost counts also when it is not good enough."""
        self.tally = self.tally or Tokens()
        self.tally.add(answer.input_tokens, answer.output_tokens)
        self.pieces = [answer.text]
        self.response_model, self.finish_reason = answer.model, answer.finish_reason

    def heard(self, piece: Piece) -> None:
        """A piece of a streamed answer. Vendors repeat running totals: the latest counts."""
        self.tally = self.tally or Tokens()
        self.tally.input_tokens = self.tally.input_tokens if piece.input_tokens is None else piece.input_tokens
        self.tally.output_tokens = self.tally.output_tokens if piece.output_tokens is None else piece.output_tokens
        self.response_model = piece.model or self.response_model
        self.finish_reason = piece.finish_reason or self.finish_reason
        if piece.text:
            self.is_given_out = True
            self.pieces.append(piece.text)

    @property
    def cost_usd(self) -> float | None:
        """Of the model that answered; None when its price or its tokens are unknown."""
        if self.tally is None or self.provider is None:
            return None
        tokens = {"input_tokens": self.tally.input_tokens, "output_tokens": self.tally.output_tokens}
        return self.prices.cost_usd((self.response_model, self.provider.model), **tokens)

    def completion(self, provider: Provider, text: str) -> Completion:
        """The result."""
        tally = self.tally or Tokens()
        return Completion(
            text=text,
            model=self.response_model or provider.model,
            provider=provider.name,
            input_tokens=tally.input_tokens,
            output_tokens=tally.output_tokens,
            cost_usd=self.cost_usd,
            latency_ms=(time.perf_counter() - self.started) * 1000,
            finish_reason=self.finish_reason,
            fallback_chain=tuple(self.tried),
        )

    def opening(self, first: Provider) -> dict[str, str | int | float | bool]:
        """Attributes that the span begins with."""
        return {
            names.OPERATION: "llm",
            names.GEN_AI_OPERATION: "chat",
            names.GEN_AI_PROVIDER: first.name,
            names.GEN_AI_REQUEST_MODEL: first.model,
            names.GEN_AI_MAX_TOKENS: self.request.max_tokens,
        }

    def close(self) -> None:
        """Write to the span what is known now, and tell the step that asks; must run inside the span."""
        if self.tally is not None:
            count(input_tokens=self.tally.input_tokens, output_tokens=self.tally.output_tokens)
        span = trace.get_current_span()
        if not span.is_recording() or self.provider is None:
            return
        left_out = self.provider.left_out
        tally = self.tally or Tokens()
        found: dict[str, Any] = {
            names.INPUT: _readable(self.request),
            names.OUTPUT: "".join(self.pieces) or None,
            names.GEN_AI_PROVIDER: self.provider.name,
            names.GEN_AI_REQUEST_MODEL: self.provider.model,
            names.GEN_AI_RESPONSE_MODEL: self.response_model,
            names.GEN_AI_TEMPERATURE: None if "temperature" in left_out else self.request.temperature,
            names.GEN_AI_INPUT_TOKENS: tally.input_tokens,
            names.GEN_AI_OUTPUT_TOKENS: tally.output_tokens,
            names.GEN_AI_FINISH_REASONS: [self.finish_reason] if self.finish_reason else None,
            names.COST_USD: self.cost_usd,
            names.FALLBACK_CHAIN: list(self.tried),
            names.LLM_LEFT_OUT: sorted(left_out) or None,
        }
        span.set_attributes({name: value for name, value in found.items() if value is not None})


def asked_again(fault: str) -> None:
    """Record that an answer did not fit the schema and is asked for once more."""
    trace.get_current_span().add_event(names.LLM_ASKED_AGAIN, {names.EXCEPTION_MESSAGE: fault})


def _readable(request: Request) -> str:
    """One user turn as it is; a conversation as JSON."""
    if len(request.messages) == 1 and request.messages[0].role == "user":
        return request.messages[0].content
    return json.dumps([{"role": turn.role, "content": turn.content} for turn in request.messages], ensure_ascii=False)


def told(failures: Iterable[tuple[Provider, E2IError]]) -> str:
    """Each model that failed, and why."""
    return "; ".join(f"{provider.model} ({provider.name}): {error.what.rstrip('.')}" for provider, error in failures)
