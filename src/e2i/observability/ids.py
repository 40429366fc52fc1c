"""Trace and span ids. A trace id of ours is a UUIDv7 (RFC 9562), so that W3C, Opik and a time-ordered index take the same number."""

from __future__ import annotations

import os
import random
import time

# Of its own, so that a study's seed neither repeats our ids nor is moved by them; a forked child begins anew.
_random = random.Random()  # noqa: S311 - ids must differ, they are no secret
os.register_at_fork(after_in_child=_random.seed)
_bits = _random.getrandbits

_VERSION = 7 << 76
_VARIANT = 2 << 62
_SHAPE = (0xF << 76) | (0x3 << 62)


def trace_number() -> int:
    """A new trace id: 48 bits of milliseconds since 1970, version 7, 12 random bits, the variant, 62 random bits."""
    return (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | _VERSION | _bits(12) << 64 | _VARIANT | _bits(62)


def span_number() -> int:
    """A new span id: 64 random bits, never 0."""
    return _bits(64) or span_number()


def is_v7(number: int) -> bool:
    """Whether a 128-bit id has the version and the variant of a UUIDv7."""
    return number & _SHAPE == _VERSION | _VARIANT


def v7_of(milliseconds: int, digest: bytes) -> int:
    """A UUIDv7 with this time whose other 74 bits are taken from `digest`, at least 10 bytes."""
    bits = int.from_bytes(digest[:10], "big")
    return (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | _VERSION | (bits >> 64 & 0xFFF) << 64 | _VARIANT | bits & (1 << 62) - 1
