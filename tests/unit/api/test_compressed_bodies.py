"""Compressed bodies, piece by piece."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2i.api.compression import Inflater
from e2i.api.problems import Refused


def opened(encoding: str, data: bytes, *, step: int, limit: int = 10_000) -> bytes:
    inflater = Inflater(encoding, limit)
    content = b"".join(inflater.feed(data[start : start + step]) for start in range(0, len(data), step))
    inflater.finish()
    return content


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4), st.integers(1, 300))
def test_members_of_gzip_open_to_their_sum_however_they_are_cut(members: list[bytes], step: int) -> None:
    assert opened("gzip", b"".join(map(gzip.compress, members)), step=step) == b"".join(members)


@given(st.binary(max_size=2000), st.sampled_from([15, -15]), st.integers(50, 300))
def test_deflate_is_opened_with_and_without_its_frame(content: bytes, wbits: int, step: int) -> None:
    assert opened("deflate", zlib.compress(content, wbits=wbits), step=step) == content


@pytest.mark.parametrize("size", [99, 100, 101, 5000])
def test_no_more_than_the_limit_comes_out(size: int) -> None:
    if size <= 100:
        assert len(opened("gzip", gzip.compress(bytes(size)), step=10, limit=100)) == size
        return
    with pytest.raises(Refused) as refused:
        opened("gzip", gzip.compress(bytes(size)), step=10, limit=100)
    assert refused.value.status == 413
