"""What is said about an address that nothing can be sent to."""

from __future__ import annotations

import asyncio

import pytest

from e2i.errors import BackendUnavailable
from e2i.telemetry.sinks.http import HttpEndpoint


async def fault(url: str, **headers: str) -> BackendUnavailable:
    endpoint = HttpEndpoint(url, name="opik", headers=headers, timeout_s=2.0)
    try:
        with pytest.raises(BackendUnavailable) as caught:
            await endpoint.send("POST", "/v1", b"{}", "application/json")
    finally:
        await endpoint.close()
    assert ".." not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("url", ["localhost:5173/api", "ftp://host/api", "http://", "http://host:port", "http://h\x01st", "host"])
async def test_a_wrong_address_is_called_wrong_and_nobody_is_told_to_wait(url: str) -> None:
    told = await fault(url)
    assert "is no http address" in told.what
    assert "answers again" not in str(told)
    assert "settings" in str(told.advice)


async def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        first = await fault(address, authorization="Bearer QX7\nevil")
    for told in (first, await fault(address, authorization="QX7é")):
        assert "a header for it cannot be sent" in told.what
        assert "QX7" not in str(told)


async def test_the_password_in_an_address_is_not_shown() -> None:
    told = await fault("ftp://user:QX7@host/api")
    assert told.what == "the address ftp://host/api is no http address."
    assert "QX7" not in str(told)


async def test_nobody_there_is_told_with_one_full_stop_and_will_be_tried_again() -> None:
    told = await fault("http://127.0.0.1:9")
    assert told.what.startswith("no answer: ")
    assert "answers again" in str(told.advice)
