"""The first sixteen bytes of every file in the spool: what it is and in which format version, with a checksum."""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

VERSION = 1
_FORM = struct.Struct("<6sHQ")
SIZE = _FORM.size
SEGMENT = b"\xfeE2ISP"
COUNTER = b"\xfeE2ICT"


def heading(kind: bytes, version: int = VERSION) -> bytes:
    """The bytes that begin a file of this kind."""
    start = kind + version.to_bytes(2, "little")
    return start + xxh3_64_intdigest(start).to_bytes(8, "little")


def version_of(kind: bytes, start: bytes) -> int | None:
    """The format version that a file's first bytes name; None when they are damaged or missing."""
    if len(start) < SIZE:
        return None
    magic, version, check = _FORM.unpack_from(start)
    return int(version) if magic == kind and check == xxh3_64_intdigest(start[:8]) else None


def is_foreign(kind: bytes, start: bytes) -> bool:
    """Whether another version of E2I wrote the file: not ours to read or to delete."""
    return version_of(kind, start) not in {None, VERSION}
