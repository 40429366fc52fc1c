"""A gateway over servers of this process, without waiting, and the spans that it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from e2i.llm.building import build_gateway
from e2i.llm.gateway import LanguageModelGateway, Pacing
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.settings.sections import LlmSection
from vendor_servers import KEY, Vendor

PRICES = {
    "claude-sonnet-4": {"input": 3.0, "output": 15.0},
    "gpt-test": {"input": 2.0, "output": 8.0},
    "SmolLM2": {"input": 0.0, "output": 0.0},
}


def settings(*chain: dict[str, Any], **changes: Any) -> LlmSection:
    """The section as it is after loading."""
    found = {
        "chain": chain,
        "timeout_seconds": 20,
        "max_retries": 2,
        "temperature": 0.3,
        "anthropic_api_key": "",
        "openai_api_key": "",
        "prices": PRICES,
    }
    return LlmSection.model_validate(found | changes)


def entry(vendor: Vendor, **changes: Any) -> dict[str, Any]:
    """An entry of the chain that leads to a server of this process."""
    return {"provider": vendor.provider, "model": vendor.model, "base_url": vendor.base_url, "api_key": KEY} | changes


@dataclass
class Patience:
    """Pauses that take no time and are kept; chance always in the middle."""

    pauses: list[float] = field(default_factory=list)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @property
    def pacing(self) -> Pacing:
        return Pacing(pause=self.pause, chance=lambda: 0.5)


@dataclass
class Breakers:
    """Makes breakers and keeps them by name."""

    made: dict[str, CircuitBreaker] = field(default_factory=dict)
    rules: BreakerSettings = field(default_factory=lambda: BreakerSettings(failure_threshold=50, minimum_calls=50))

    def __call__(self, name: str) -> CircuitBreaker:
        assert name not in self.made
        self.made[name] = CircuitBreaker(name, self.rules)
        return self.made[name]


def gateway(
    *servers: Vendor,
    patience: Patience | None = None,
    breakers: Breakers | None = None,
    entries: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> LanguageModelGateway:
    """A chain over these servers."""
    chosen = settings(*(entries or [entry(server) for server in servers]), **changes)
    built = build_gateway(chosen, breaker=breakers or Breakers(), pacing=(patience or Patience()).pacing)
    assert built is not None
    return built


async def read(stream: AsyncIterator[str], into: list[str]) -> None:
    """Keep what came, also where an error ends it."""
    async for piece in stream:
        into.append(piece)  # noqa: PERF401


async def until(is_true: Callable[[], object]) -> None:
    """Let others run until it is; the test's own time limit ends it."""
    while not is_true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@contextmanager
def spans_seen() -> Iterator[InMemorySpanExporter]:
    """Every span that ends inside."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        yield exporter
    finally:
        exporter.shutdown()


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    """The one span of a language model; the SDKs make none."""
    (found,) = exporter.get_finished_spans()
    return found
