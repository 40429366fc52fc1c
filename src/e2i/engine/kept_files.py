"""What a step keeps beside the run because it is too large for the state: the state has its digest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from e2i.errors import NotFound, SchemaMismatch
from e2i.whole_files import replacing

if TYPE_CHECKING:
    from pathlib import Path


def keep(path: Path, content: bytes) -> str:
    """Write `path`, whole or not at all; the sha256 of the content, 64 hexadecimal digits."""
    with replacing(path) as (part,):
        part.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def kept(path: Path, sha256: str | None) -> bytes:
    """What `keep` wrote. Raises NotFound when it is gone, SchemaMismatch when it is something else."""
    if not path.is_file():
        raise NotFound("a file of this run is gone.", where=str(path), advice="Start the study anew.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SchemaMismatch("the file is not the one that this run wrote.", where=str(path), advice="Start the study anew.")
    return content
