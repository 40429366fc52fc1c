"""Ids for the SDK's tracer, and the UUIDs under which Opik knows our traces and spans."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from e2i.observability.ids import is_v7, span_number, trace_number, v7_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator
else:
    # The SDK takes anything with these methods; importing it here would slow down every reader of Opik's ids.
    IdGenerator = object

_UNKNOWN_TIME = 1_577_836_800_000
"""2020-01-01, for a trace of a system whose ids tell no time: every process must come to the same UUID"""


class E2IIdGenerator(IdGenerator):
    """Trace ids in the form of UUIDv7; their last seven bytes are random, as W3C's `random` flag promises."""

    generate_trace_id = staticmethod(trace_number)  # 128 bits
    generate_span_id = staticmethod(span_number)  # 64 bits

    def is_trace_id_random(self) -> bool:
        """The flag `random` of traceparent is set."""
        return True


def trace_uuid(trace_id: str) -> str:
    """The UUIDv7 of a trace: the same 128 bits when they are one already, otherwise always the same one.

    Parameters
    ----------
    trace_id : 32 hexadecimal digits
    """
    return str(uuid.UUID(int=_trace(trace_id)))


def span_uuid(trace_id: str, span_id: str) -> str:
    """The UUIDv7 of a span: the same for the same pair in every process; its time is that of its trace.

    Parameters
    ----------
    trace_id : 32 hexadecimal digits
    span_id : 16 hexadecimal digits; 32 when an Opik SDK made it, which are its UUID already
    """
    if len(span_id) == 32 and is_v7(int(span_id, 16)):
        return str(uuid.UUID(int=int(span_id, 16)))
    digest = hashlib.blake2b(f"{int(trace_id, 16):032x}/{int(span_id, 16):x}".encode(), digest_size=10).digest()
    return str(uuid.UUID(int=v7_of(_trace(trace_id) >> 80, digest)))


def _trace(trace_id: str) -> int:
    number = int(trace_id, 16)
    if is_v7(number):
        return number
    return v7_of(_UNKNOWN_TIME, hashlib.blake2b(number.to_bytes(16, "big"), digest_size=10).digest())
