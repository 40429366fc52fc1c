"""Attributes on a span of OpenTelemetry's SDK, without its second look at values that are clean already: half a span's cost.

The SDK copies and checks every value again and takes two locks for each. Where its span is not as we know it, its own way is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_TAKES_ALL = ("AlwaysOnSampler", "ParentBased{root:AlwaysOnSampler,")


def put(span: Span, attributes: dict[str, Any]) -> None:
    """Set attributes whose values are `str`, `bool`, `int`, `float` or tuples of one of them, under non-empty names."""
    held = getattr(span, "_attributes", None)
    if type(held) is BoundedAttributes and held.max_value_len is None and not held._immutable:  # noqa: SLF001
        known = held._dict  # noqa: SLF001
        if held.maxlen is None or len(known) + len(attributes) <= held.maxlen:
            known.update(attributes)
            return
    span.set_attributes(attributes)


def may_come_later(tracer: Tracer) -> bool:
    """Whether a span may begin without its attributes: nobody decides by them whether it is recorded."""
    sampler = getattr(tracer, "sampler", None)
    return sampler is None or sampler.get_description().startswith(_TAKES_ALL)
