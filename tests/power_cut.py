"""A disk as it is found after the power went: what was forced is there, of everything else nothing, all, a part or rubbish.

It replays a journal of `power_recorder.py`. A file's content is as safe as its last forcing, a name in a folder as the folder's; the two
have nothing to do with each other, as POSIX has it, so that a forced file without a forced name is lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

_PAGE = 512
"""a sector: the unit that a disk writes whole"""
Change = dict[str, Any]


@dataclass
class _File:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytes = b""

    def after(self, fate: Fate) -> bytes:
        """What is found: sectors that differ are the old ones, the new ones, zeros or rubbish."""
        old, new = self.durable, bytes(self.cached)
        if fate.keeps == "nothing" or old == new:
            return old
        if fate.keeps == "all":
            return new
        size = fate.chance.choice([len(old), len(new), fate.chance.randint(min(len(old), len(new)), max(len(old), len(new)))])
        found = bytearray()
        for at in range(0, size, _PAGE):
            was, would_be, end = old[at : at + _PAGE], new[at : at + _PAGE], min(_PAGE, size - at)
            kinds = [was, would_be, b"", fate.chance.randbytes(end) if fate.has_rubbish else b""]
            found += _unless_same(was, would_be, fate.chance.choice(kinds)[:end].ljust(end, b"\0"))
        return bytes(found)


@dataclass
class _Folder:
    cached: Change = field(default_factory=dict)
    durable: Change = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    """what happened since it was forced; a renaming is one change"""

    def change(self, change: Change) -> None:
        """A new state of some names; None: gone."""
        self.pending.append(change)
        _apply(self.cached, change)

    def after(self, fate: Fate) -> Change:
        """Names found. The changes may have come to the disk in any number, in their order or, at worst, in none."""
        found = dict(self.durable)
        kept = {"nothing": [], "all": self.pending}.get(fate.keeps)
        if kept is None and fate.has_rubbish:
            kept = [change for change in self.pending if fate.chance.random() < 0.5]
        elif kept is None:
            kept = self.pending[: fate.chance.randint(0, len(self.pending))]
        for change in kept:
            _apply(found, change)
        return found


@dataclass(frozen=True)
class Fate:
    """`keeps`: nothing, all, or a part of what was not forced."""

    keeps: str
    chance: random.Random
    has_rubbish: bool = False


class Platter:
    """The files below `root`, as the system sees them and as the disk has them; `root` itself is safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._folders = {str(root): _Folder()}
        self._begun: dict[tuple[int, Any], Any] = {}

    def replay(self, entry: tuple[Any, ...]) -> None:
        """One entry of the journal; those that speak of no file are passed over."""
        play = getattr(self, f"_{entry[0]}", None)
        if play is not None:
            play(*entry[1:])

    def put(self, place: Path, fate: Fate) -> None:
        """Write what is found below `place`, which takes the part of `root`."""
        place.mkdir(parents=True)
        self._put(str(self._root), place, fate)

    def _put(self, folder: str, place: Path, fate: Fate) -> None:
        for name, what in self._folders[folder].after(fate).items():
            if isinstance(what, str):
                (place / name).mkdir()
                self._put(what, place / name, fate)
            else:
                (place / name).write_bytes(self._files[what].after(fate))

    def _make(self, path: str) -> None:
        if path not in self._folders:
            self._folders[path] = _Folder()
            self._in(path).change({PurePath(path).name: path})

    def _create(self, path: str, number: int) -> None:
        self._files[number] = _File()
        self._in(path).change({PurePath(path).name: number})

    def _write(self, number: int, offset: int, data: bytes) -> None:
        cached = self._files[number].cached
        cached.extend(bytes(max(0, offset + len(data) - len(cached))))
        cached[offset : offset + len(data)] = data

    def _whole(self, number: int, data: bytes) -> None:
        self._files[number].cached[:] = data

    def _cut(self, number: int, size: int) -> None:
        cached = self._files[number].cached
        cached[:] = bytes(cached[:size]).ljust(size, b"\0")

    def _move(self, old: str, new: str) -> None:
        folder, name = self._in(old), PurePath(old).name
        if name in folder.cached:
            folder.change({name: None, PurePath(new).name: folder.cached[name]})

    def _link(self, old: str, new: str) -> None:
        folder = self._in(old)
        folder.change({PurePath(new).name: folder.cached[PurePath(old).name]})

    def _remove(self, path: str) -> None:
        self._in(path).change({PurePath(path).name: None})

    def _force(self, thread: int, key: int | str | None) -> None:
        if isinstance(key, str):
            folder = self._folders.get(key)
            self._begun[thread, key] = None if folder is None else (dict(folder.cached), len(folder.pending), folder)
        elif key is not None:
            self._begun[thread, key] = bytes(self._files[key].cached)

    def _forced(self, thread: int, key: int | str | None) -> None:
        asked = self._begun.pop((thread, key), None)
        if isinstance(key, str) and asked is not None:
            durable, count, folder = asked
            done = min(count, len(folder.pending))
            folder.durable, folder.pending = durable, folder.pending[done:]
        elif asked is not None and isinstance(key, int):
            self._files[key].durable = asked

    def _in(self, path: str) -> _Folder:
        return self._folders[str(PurePath(path).parent)]


def _unless_same(was: bytes, would_be: bytes, found: bytes) -> bytes:
    """Bytes that a write does not change are not harmed by it: disks write whole sectors."""
    same = next((at for at, (old, new) in enumerate(zip(was, would_be, strict=False)) if old != new), min(len(was), len(would_be)))
    return was[:same][: len(found)] + found[same:]


def _apply(names: Change, change: Change) -> None:
    for name, what in change.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


def moments(entries: int, count: int, chance: random.Random) -> list[int]:
    """Numbers of entries before which the power goes: all over the journal, and half of them near its end, where much was deleted."""
    late = chance.sample(range(entries - entries // 10, entries + 1), count // 2)
    return sorted({*late, *chance.sample(range(1, entries - entries // 10), count - len(late))})
