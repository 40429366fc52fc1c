"""Bodies that come compressed, opened piece by piece, so that a small bomb never becomes a big body."""

from __future__ import annotations

import zlib
from http import HTTPStatus

from e2i.api.problems import Refused

ENCODINGS = ("gzip", "deflate")
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15
_MOST_MEMBERS = 64


class Inflater:
    """Opens one body of Content-Encoding `encoding`.

    Raises
    ------
    Refused
        415 for an encoding that is not known; 413 as soon as more than `limit` bytes have come out; 400 for what is not the
        named encoding, breaks off or goes on after its end.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        if encoding not in _WINDOW:
            raise Refused(
                f"the content encoding {encoding[:40]!r} is not known.",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                where="Content-Encoding",
                advice=f"Send {', '.join(ENCODINGS)} or no encoding.",
                headers={"Accept-Encoding": ", ".join(ENCODINGS)},
            )
        self._encoding = encoding
        self._limit = limit
        self._produced = 0
        self._members = 1
        self._started = False
        self._stream = zlib.decompressobj(_WINDOW[encoding])

    def feed(self, data: bytes) -> bytes:
        """What `data` opens to; at most the limit, over all calls."""
        out = bytearray()
        while data:
            if self._stream.eof:
                self._next_member()
            out += self._open(data)
            if self._produced > self._limit:
                raise oversize(self._limit, "after it was opened")
            data = self._stream.unconsumed_tail or (self._stream.unused_data if self._stream.eof else b"")
        return bytes(out)

    def finish(self) -> None:
        """The body is over."""
        if self._started and not self._stream.eof:
            raise self._broken("it breaks off before its end")

    def _open(self, data: bytes) -> bytes:
        room = self._limit - self._produced + 1
        try:
            piece = self._stream.decompress(data, room)
        except zlib.error as error:
            if self._encoding != "deflate" or self._started:
                raise self._broken(str(error)) from error
            # Some clients mean the bare format by `deflate`, not the one with zlib's frame.
            self._stream = zlib.decompressobj(_RAW_DEFLATE)
            try:
                piece = self._stream.decompress(data, room)
            except zlib.error as second:
                raise self._broken(str(second)) from second
        self._started = True
        self._produced += len(piece)
        return piece

    def _next_member(self) -> None:
        if self._encoding == "deflate" or self._members >= _MOST_MEMBERS:
            raise self._broken("there are bytes after its end")
        self._members += 1
        self._stream = zlib.decompressobj(_WINDOW[self._encoding])

    def _broken(self, why: str) -> Refused:
        return Refused(
            f"the body is not valid {self._encoding}: {why}.", where="body", advice="Compress the whole body once, or send it plain."
        )


def oversize(limit: int, when: str = "as it was sent") -> Refused:
    """The 413 for a body of more than `limit` bytes."""
    return Refused(
        f"the body has more than {limit:,} bytes {when}.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        where="body",
        advice="Send fewer spans in one request, or raise observability.receiver.max_body_bytes.",
    )
