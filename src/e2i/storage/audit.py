"""The audit chain: what an entry hashes to, where its key and its head are kept, and how the chain is checked.

The hash of an entry is HMAC-SHA256 (RFC 2104) over the previous hash and the canonical JSON of all columns. The key and the
head (how long the chain is, and the hash of its last entry) lie in a folder outside the database, so whoever rules the
database can neither make entries nor cut the chain unseen.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from e2i.errors import StorageError
from e2i.storage.address import address
from e2i.whole_files import replace_text

if TYPE_CHECKING:
    from pathlib import Path

GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class AuditVerification:
    """What a walk over the chain found; `first_bad_sequence` is None when all is well, or when no single entry is to blame."""

    ok: bool
    entries: int
    first_bad_sequence: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Link:
    """An entry with every column of its row; `details` is the exact text in the table."""

    sequence: int
    occurred_at: datetime
    actor: str
    action: str
    subject: str
    details: str
    previous_hash: str
    entry_hash: str = ""

    def sealed(self, key: bytes) -> str:
        """The hash that the entry must have."""
        columns = {
            "action": self.action,
            "actor": self.actor,
            "details": self.details,
            "occurred_at": _moment(self.occurred_at),
            "previous_hash": self.previous_hash,
            "sequence": self.sequence,
            "subject": self.subject,
        }
        text = json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hmac.digest(key, self.previous_hash.encode() + text.encode(), "sha256").hex()


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last entry that is known to be committed; `count` is how many entries there are up to it."""

    sequence: int = 0
    entry_hash: str = GENESIS
    count: int = 0


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no white space, floats as `repr`, moments in UTC with microseconds.

    Raises
    ------
    StorageError
        A key that is not text, a number that is not finite, a moment without zone, a type that has no canonical form.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [True, None]})
    '{"a":[true,null],"b":1.0}'
    """
    text = json.dumps(_plain(value, "details"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise StorageError("a text is not valid Unicode", where="audit entry, details", advice="Remove lone surrogates.") from exc
    return text


def _plain(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return _moment(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise StorageError(
        f"{value!r} of type {type(value).__name__} has no canonical form",
        where=f"audit entry, {where}",
        advice="Use text, finite numbers, booleans, null, moments with a zone, and lists or mappings (with text keys) of these.",
    )


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")


class AuditFiles:
    """Key and head in a folder outside the database: `audit.key` (mode 0600), `audit.head`, `audit.lock`.

    The head carries a hash of its own under the key, so that nobody writes a shorter one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key: bytes | None = None

    @classmethod
    def of(cls, home: Path, *, url: str) -> AuditFiles:
        """The files of one database: in `home / audit`, for an external `url` (else empty) in a folder named after its address."""
        folder = home / "audit"
        return cls(folder / re.sub(r"[^A-Za-z0-9.-]+", "_", address(url)) if url else folder)

    def key(self, *, is_empty: bool) -> bytes:
        """The key; made together with the first head when there is none and the chain is empty.

        Raises
        ------
        StorageError
            The chain has entries and the key is gone, or a file cannot be read or written.
        """
        if self._key is None:
            path = self.folder / "audit.key"
            try:
                if not path.exists():
                    self._make_key(path, is_empty=is_empty)
                self._key = bytes.fromhex(path.read_text(encoding="ascii").strip())
            except (OSError, ValueError) as exc:
                raise _unusable(path, exc) from exc
        return self._key

    def head(self, *, is_empty: bool) -> Head:
        """The head. Raises StorageError when it is gone while the chain has entries, or was written by somebody else."""
        key, path = self.key(is_empty=is_empty), self.folder / "audit.head"
        if not path.exists() and is_empty:
            self.advance(Head())
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            head = Head(sequence=content["sequence"], entry_hash=content["entry_hash"], count=content["count"])
            is_ours = hmac.compare_digest(str(content["mac"]), _mac(key, head))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise _unusable(path, exc) from exc
        if not is_ours:
            raise StorageError("the head was not written with this key", where=str(path), advice=_RESTORE)
        return head

    def advance(self, head: Head) -> None:
        """Replace the head, unless it is further already."""
        key, path = self.key(is_empty=False), self.folder / "audit.head"
        try:
            with (self.folder / "audit.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if path.exists() and json.loads(path.read_text(encoding="utf-8"))["sequence"] >= head.sequence:
                    return
                content = {"sequence": head.sequence, "entry_hash": head.entry_hash, "count": head.count, "mac": _mac(key, head)}
                # The folder is not flushed: after a power cut an older head may be back, and a head may be behind.
                replace_text(path, json.dumps(content) + "\n", is_private=True, is_named_at_once=False)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise _unusable(path, exc) from exc

    def _make_key(self, path: Path, *, is_empty: bool) -> None:
        if not is_empty:
            raise StorageError("the audit key is gone, and the chain has entries that need it", where=str(path), advice=_RESTORE)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "audit.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                replace_text(path, secrets.token_hex(32) + "\n", is_private=True)


_RESTORE = "Bring the folder back from a backup; without it the entries cannot be verified, and a new database is needed."


def verify_link(link: Link, *, before: Link | None, key: bytes) -> str | None:
    """What is wrong with an entry, seen from the one before it; None when nothing is."""
    sequence, previous = (before.sequence, before.entry_hash) if before is not None else (0, GENESIS)
    if link.sequence != sequence + 1:
        return f"entry {sequence + 1} is missing"
    if link.previous_hash != previous:
        return "it does not continue the entry before it"
    if not hmac.compare_digest(link.entry_hash, link.sealed(key)):
        return "a column was changed, or the entry was not written with this key"
    return None


def _mac(key: bytes, head: Head) -> str:
    return hmac.digest(key, f"head {head.sequence} {head.count} {head.entry_hash}".encode(), hashlib.sha256).hex()


def _unusable(path: Path, cause: Exception) -> StorageError:
    what = cause.strerror if isinstance(cause, OSError) else f"not what was written ({cause})"
    return StorageError(f"a file of the audit chain cannot be used: {what}", where=str(path), advice=_RESTORE)
