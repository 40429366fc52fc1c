"""What the receiver refuses, and how."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import time
import zlib
from typing import Any

import httpx
import pytest
from receiving import HEAD, JSON, PROTOBUF, body, example, message, serving, told
from spans_in_memory import SpansInMemory

from e2i.errors import BackendUnavailable, CircuitOpen, MigrationNeeded, StorageError
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"{", "body, line 1, column 2"),
        (b"[]", "body"),
        (b"", "body, line 1, column 1"),
        (b'{"resourceSpans": NaN}', "resourceSpans"),
        (b'{"resourceSpans": [NaN, 1e999, nan]}', "body, line 1"),
        (b'{"resourceSpans": [NaN, "\\ud800"]}', "body"),
        (b'{"resourceSpans": [NaN, "\xff"]}', "body, line 1"),
        (b'{"resourceSpans": [NaN, 99999999999999999999]}', "body"),
        (b'{"resourceSpans": [NaN, ' + b"[" * 100_000, "body"),
        (json.dumps(body(example(startTimeUnixNano=float("nan")))).encode(), "resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano"),
        (b'{"resourceSpans": [1e999]}', "body, line 1"),
        (b'{"resourceSpans": "\\ud800"}', "body, line 1"),
        (b'{"resourceSpans": "\xff"}', "body, line 1"),
        (b"[" * 100_000, "body, line 1"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "body, line 1"),
        (json.dumps(body(example(name=1))).encode(), "resourceSpans[0].scopeSpans[0].spans[0].name"),
        (json.dumps(body(example(startTimeUnixNano="soon"))).encode(), "resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano"),
        (json.dumps(body(example(attributes={"a": 1}))).encode(), "resourceSpans[0].scopeSpans[0].spans[0].attributes"),
        (json.dumps(body(example(attributes=[{"key": "a", "value": {"intValue": str(2**63)}}]))).encode(), "intValue"),
        (json.dumps(body(example(attributes=[{"key": "a", "value": {"bytesValue": "%%"}}]))).encode(), "bytesValue"),
        (json.dumps(body(7)).encode(), "resourceSpans[0].scopeSpans[0].spans[0]"),
    ],
)
async def test_a_body_that_is_no_trace_message_gets_400_and_the_place(
    client: httpx.AsyncClient, spans: SpansInMemory, content: bytes, where: str
) -> None:
    answer = await client.post("/v1/traces", content=content, headers=JSON)
    assert where in told(answer, 400)["where"]
    assert not spans.rows


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x05abc", b"{}", message("a").SerializeToString()[:-3], b"\x0b"])
async def test_a_body_that_is_no_protobuf_gets_400(client: httpx.AsyncClient, content: bytes) -> None:
    assert "protobuf" in told(await client.post("/v1/traces", content=content, headers=PROTOBUF), 400)["detail"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_an_unknown_content_type_gets_415(client: httpx.AsyncClient, kind: str | None) -> None:
    answer = await client.post("/v1/traces", content=b"{}", headers={"content-type": kind} if kind else {})
    assert "application/json" in told(answer, 415)["advice"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_an_unknown_encoding_gets_415(client: httpx.AsyncClient, encoding: str) -> None:
    answer = await client.post("/v1/traces", content=b"{}", headers=JSON | {"content-encoding": encoding})
    assert "gzip" in told(answer, 415)["advice"]


@pytest.mark.parametrize(
    "content",
    [
        b"plain",
        gzip.compress(b"{}", mtime=0)[:-4],
        gzip.compress(b"{}", mtime=0) + b"more",
        gzip.compress(b"", mtime=0) * 100,
        b"\x1f\x8b\x08",
        b"",
    ],
)
async def test_what_cannot_be_opened_gets_400(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/traces", content=content, headers=JSON | {"content-encoding": "gzip"})
    told(answer, 400)


async def test_an_announced_oversize_is_refused_before_it_is_read(spans: SpansInMemory) -> None:
    async with serving(spans, max_body_bytes=1000) as client:
        answer = await client.post("/v1/traces", content=b" " * 1001, headers=JSON)
        assert "1,000 bytes" in told(answer, 413)["detail"]
        assert (await client.post("/v1/traces", content=b"{" + b" " * 998 + b"}", headers=JSON)).status_code == 200


async def test_an_oversize_that_nobody_announced_is_refused_while_it_is_read(spans: SpansInMemory) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b" " * 10_000

    async with serving(spans, max_body_bytes=100_000) as client:
        # The connection may be closed under a client that goes on sending.
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            told(await client.post("/v1/traces", content=endless(), headers=JSON), 413)
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_costs_bounded_memory(wire: httpx.AsyncClient, encoding: str) -> None:
    press = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join([*(press.compress(bytes(1_000_000)) for _ in range(150)), press.flush()])
    assert len(bomb) < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told(await wire.post("/v1/traces", content=bomb, headers=JSON | {"content-encoding": encoding}), 413)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


async def test_while_a_compressed_body_is_opened_others_are_served(spans: SpansInMemory) -> None:
    turns, is_over = 0, False

    async def others() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            await asyncio.sleep(0.001)

    async with serving(spans, max_body_bytes=50_000_000) as client:
        bomb = gzip.compress(bytes(40_000_000))
        beside = asyncio.create_task(others())
        told(await client.post("/v1/traces", content=bomb, headers={**JSON, "Content-Encoding": "gzip"}), 400)
        is_over = True
        await beside
    assert turns > 10


@pytest.mark.parametrize("span", [b"\x12\x00", b"\x12\x02\x28\x01"])
async def test_a_million_spans_in_one_body_are_refused_before_they_are_made(client: httpx.AsyncClient, span: bytes) -> None:
    inner = span * 1_000_000

    def field(number: int, content: bytes) -> bytes:
        size, rest = b"", len(content)
        while rest > 127:
            size, rest = size + bytes([rest & 127 | 128]), rest >> 7
        return bytes([number << 3 | 2]) + size + bytes([rest]) + content

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await client.post("/v1/traces", content=field(1, field(2, inner)), headers=PROTOBUF)
    assert "more than 50,000 spans" in told(answer, 413)["detail"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    spans = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 1_000_000 + b"{}]}]}]}"
    told(await client.post("/v1/traces", content=spans, headers=JSON), 413)


async def test_too_many_in_flight_get_429_and_when_to_come_back(spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    async with serving(spans, max_in_flight=2) as client:
        waiting = [asyncio.create_task(client.post("/v1/traces", json=body(example()))) for _ in range(2)]
        await asyncio.sleep(0.3)
        answer = await client.post("/v1/traces", json=body(example()))
        told(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["ratelimit-reset"]) >= 1
        assert (await client.get("/livez")).status_code == 200
        spans.hold.set()
        assert [one.status_code for one in await asyncio.gather(*waiting)] == [200, 200]
        assert (await client.post("/v1/traces", json=body(example()))).status_code == 200


async def test_a_slow_body_gets_408_and_keeps_nobody_out(spans: SpansInMemory) -> None:
    async with serving(spans, idle_s=0.3, max_in_flight=1) as client:
        host, port = client.base_url.host, client.base_url.port
        slow = [await asyncio.open_connection(host, port) for _ in range(20)]
        for _, writer in slow:
            writer.write(HEAD + b"{")
        assert (await client.post("/v1/traces", json=body(example()))).status_code == 200
        for reader, writer in slow:
            assert b"408 Request Timeout" in await asyncio.wait_for(reader.readline(), 5)
            writer.close()


async def test_a_body_that_drips_gets_408_too(spans: SpansInMemory) -> None:
    async with serving(spans, idle_s=1, body_s=0.4) as client:
        start = time.monotonic()
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(HEAD)
        answer = asyncio.create_task(reader.readline())
        while not answer.done() and time.monotonic() - start < 3:
            writer.write(b" ")
            await asyncio.sleep(0.05)
        assert b"408 Request Timeout" in await answer
        assert time.monotonic() - start < 1.5
        writer.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(spans: SpansInMemory) -> None:
    async with serving(spans, max_in_flight=1, max_body_bytes=1000) as client:
        host, port = client.base_url.host, client.base_url.port
        for _ in range(5):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(HEAD + b" " * 500)
            await writer.drain()
            writer.close()
        await asyncio.sleep(0.3)
        assert (await client.post("/v1/traces", json=body(example()))).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        BackendUnavailable("server at secret-host:5432 is gone.", where="secret-host", advice="."),
        CircuitOpen("held back.", where="postgres"),
        MigrationNeeded("no such table.", where="secret-host"),
        StorageError("insert into t failed.", where="secret-host"),
    ],
    ids=lambda fault: type(fault).__name__,
)
@pytest.mark.parametrize("path", ["/v1/traces", "/api/v1/private/traces/batch"])
async def test_a_database_that_is_down_is_503_and_tells_no_secret(
    client: httpx.AsyncClient, spans: SpansInMemory, fault: Exception, path: str
) -> None:
    spans.fault = fault
    sent = body(example()) if path == "/v1/traces" else {"traces": [{"name": "t", "start_time": "2026-01-01T00:00:00Z"}]}
    answer = await client.post(path, json=sent)
    told(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    assert "secret" not in answer.text
    assert "insert" not in answer.text


async def test_an_open_breaker_answers_at_once_and_logs_what_opened_it_alone(
    spans: SpansInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker("receiver", BreakerSettings(failure_threshold=2, reset_timeout_s=0.4, jitter=0.0, success_threshold=1))
    async with serving(spans, breaker=breaker) as client:
        spans.fault = BackendUnavailable("gone.")
        for _ in range(3):
            told(await client.post("/v1/traces", json=body(example())), 503)
        assert str(breaker.state) == "open"
        told(await client.get("/readyz"), 503)
        spans.fault = None
        told(await client.post("/v1/traces", json=body(example())), 503)
        logged = [record.getMessage() for record in caplog.records if record.name == "e2i.api.problems"]
        assert logged == ["BackendUnavailable: gone."] * 2
        await asyncio.sleep(0.5)
        assert (await client.post("/v1/traces", json=body(example()))).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_database_that_hangs_is_503_after_the_breakers_time(spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    breaker = CircuitBreaker("receiver", BreakerSettings(call_timeout_s=0.2))
    async with serving(spans, breaker=breaker) as client:
        told(await client.post("/v1/traces", json=body(example())), 503)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_a_wrong_method_gets_405_and_the_right_one(wire: httpx.AsyncClient, method: str) -> None:
    answer = await wire.request(method, "/v1/traces")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == "application/problem+json"
    assert bool(answer.content) == (method != "HEAD")


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1/traces/", "/v1//traces", "/%00", "/..%2f..%2fetc/passwd", "/docs"])
async def test_an_unknown_path_gets_404(wire: httpx.AsyncClient, path: str) -> None:
    told(await wire.get(path), 404)


async def test_nul_surrogates_and_duplicate_keys_are_stored_as_clean_text(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    attributes = [{"key": "a\0b", "value": {"stringValue": "c\0d"}}, {"key": "m", "value": {"kvlistValue": {"values": [{"key": "\0"}]}}}]
    content = json.dumps(body(example(name="n\0", attributes=attributes))).replace('"kind": 2', '"kind": 3, "kind": 2')
    assert (await client.post("/v1/traces", content=content, headers=JSON)).status_code == 200
    (span,) = spans.rows.values()
    assert "\0" not in repr(span)
    assert "\\x00" not in repr(span)
    assert span.kind == "server"
