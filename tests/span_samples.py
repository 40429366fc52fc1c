"""Spans for tests: small traces, arbitrary ones, nasty ones."""

from __future__ import annotations

import random
import time
from typing import Any

from hypothesis import strategies as st

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord

HOUR, DAY = 3_600_000_000_000, 86_400_000_000_000


def hour_ago(hours: float = 1.0) -> int:
    """Nanoseconds since 1970, so many hours ago."""
    return time.time_ns() - int(hours * HOUR)


_BASE = hour_ago()


def a_span(number: int, **changes: Any) -> SpanRecord:
    """Span `number` of a trace of ten; an hour ago, 5 ms long, by an agent."""
    start = changes.pop("started_ns", _BASE + number * 1_000_003)
    attributes = {"e2i.agent.name": "causal_impact", "e2i.agent.tier": "causal_analytics", "e2i.operation.type": "agent", "number": number}
    given: dict[str, Any] = {
        "trace_id": f"{number // 10 + 1:032x}",
        "span_id": f"{number + 1:016x}",
        "parent_span_id": None if number % 10 == 0 else f"{number // 10 * 10 + 1:016x}",
        "name": f"step {number}",
        "started_ns": start,
        "ended_ns": start + 5_000_000 if isinstance(start, int) else None,
        "attributes": attributes | changes.pop("also", {}),
    }
    return SpanRecord(**given | changes)


def random_spans(count: int, *, seed: int, hours: float = 20.0, spread: float = 1.5) -> list[SpanRecord]:
    """Calls of four agents over the last `hours`, with errors, fallbacks, tokens and maybe a cost; some are parts or do not count."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        agent = dice.randrange(4)
        also: dict[str, Any] = {
            "e2i.agent.name": f"agent_{agent}",
            "e2i.agent.tier": ("monitoring", "coordination")[agent % 2],
            "e2i.operation.type": dice.choice(["agent", "llm", "tool", "step", "metric"]),
            "gen_ai.usage.input_tokens": dice.randrange(1000),
            **({"e2i.cost.usd": dice.random() / 100} if agent and dice.random() < 0.7 else {}),
            **({"e2i.agent.is_part": True} if dice.random() < 0.1 else {}),
            "e2i.fallback.chain": ["a", "b"][: dice.randrange(1, 3)],
        }
        start = hour_ago(0.02) - int(dice.random() * hours * HOUR)
        changes: dict[str, Any] = {
            "trace_id": f"{dice.getrandbits(128):032x}",
            "span_id": f"{seed:08x}{number:08x}",
            "started_ns": start,
            "ended_ns": None if dice.random() < 0.05 else start + int(dice.lognormvariate(0, spread) * 1e8),
            "status": dice.choice(["ok", "ok", "unset", "error"]),
        }
        made.append(a_span(number, also=also, **changes))
    return made


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_number = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_plain = st.recursive(
    st.none() | st.booleans() | _number | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_hex = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
_moment = st.integers(0, 2**63 - 1)
_attributes = st.dictionaries(_text | st.sampled_from(["e2i.agent.name", "e2i.cost.usd", "gen_ai.usage.input_tokens"]), _plain, max_size=5)

spans = st.builds(
    SpanRecord,
    trace_id=_hex,
    span_id=_hex.map(lambda text: text[16:]),
    parent_span_id=st.none() | _hex,
    name=_text,
    started_ns=_moment,
    ended_ns=st.none() | _moment,
    status=st.sampled_from(["unset", "ok", "error"]),
    status_message=st.none() | _text,
    kind=st.sampled_from(["internal", "server", "client"]),
    service=_text,
    scope=_text,
    origin=st.sampled_from(["e2i", "otlp", "opik"]),
    attributes=_attributes,
    events=st.lists(st.builds(SpanEvent, name=_text, at_ns=_moment, attributes=_attributes), max_size=2).map(tuple),
    links=st.lists(st.builds(SpanLink, trace_id=_hex, span_id=_hex, attributes=_attributes), max_size=2).map(tuple),
)

_dirty_text = st.text(max_size=10) | st.sampled_from(["\0", "a\ud800", "\udc00b", "\\u0000", "\\\0"])
_dirty = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -(2**80), 10**4000, 1e300, float("nan"), float("inf"), -float("inf"), b"x", object()])
    | st.floats()
    | _dirty_text,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(_dirty_text | st.integers(), inner, max_size=3),
    max_leaves=6,
)
_dirty_attributes = st.dictionaries(
    _dirty_text | st.sampled_from(["e2i.agent.name", "e2i.operation.type", "e2i.cost.usd", "gen_ai.usage.input_tokens"]), _dirty, max_size=4
)
dirty_spans = st.builds(
    SpanRecord,
    trace_id=_hex,
    span_id=_hex.map(lambda text: text[16:]),
    parent_span_id=st.none() | _dirty_text,
    name=_dirty_text,
    started_ns=st.integers(-(2**70), 2**70),
    ended_ns=st.none() | st.integers(-(2**70), 2**70),
    status=st.sampled_from(["unset", "ok", "error", "strange"]),  # type: ignore[arg-type]
    status_message=st.none() | _dirty_text,
    service=_dirty_text,
    attributes=_dirty_attributes,
    events=st.lists(st.builds(SpanEvent, name=_dirty_text, at_ns=st.integers(), attributes=_dirty_attributes), max_size=2).map(tuple),
)
