"""A span processor that hands on to another, which may change while the process runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span


class Relay(SpanProcessor):
    """`target` gets every span; None keeps none."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        self.target: SpanProcessor | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Hand on."""
        target = self.target
        if target is not None:
            target.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand on."""
        target = self.target
        if target is not None:
            target.on_end(span)

    def shutdown(self) -> None:
        """With the provider."""
        if self.target is not None:
            self.target.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hand on."""
        return self.target is None or self.target.force_flush(timeout_millis)
