"""Local HTTP servers that speak two vendors' protocols, well or badly, so that the real SDKs can be tested against every fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

KEY = "sk-secret-4711-abcdef"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


class Wire:
    """One connection, for a reply to write to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self.reader, self.writer, self.gone = reader, writer, gone

    async def send(self, status: int, body: bytes, *, kind: str = "application/json", **headers: str) -> None:
        lines = {"content-type": kind, "content-length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        self.writer.write(_head(status, lines) + body)
        await self.writer.drain()

    async def begin_stream(self) -> None:
        self.writer.write(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        await self.writer.drain()

    async def event(self, data: Any, name: str | None = None) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        block = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        self.writer.write(f"{len(block.encode()):x}\r\n".encode() + block.encode() + b"\r\n")
        await self.writer.drain()

    async def end_stream(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def wait_until_gone(self) -> None:
        """Answer nothing until the other side gives up."""
        await self.reader.read(1)
        self.gone.set()


def _head(status: int, headers: dict[str, str]) -> bytes:
    return (f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {text}\r\n" for name, text in headers.items()) + "\r\n").encode()


Reply = Callable[["Vendor", Wire, Asked], Awaitable[None]]


@dataclass(kw_only=True)
class Says:
    """An answer, whole or streamed, as asked."""

    pieces: Sequence[str] = ("Hel", "lo ", "there")
    input_tokens: int | None = 11
    output_tokens: int | None = 7
    is_cut: bool = False
    """cut at max_tokens"""
    ending: str = "whole"
    """`whole`, `torn` (the connection breaks), `early` (the response ends and says nothing of an end), `error`, `hang`"""
    delay_s: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    async def __call__(self, vendor: Vendor, wire: Wire, asked: Asked) -> None:
        if not asked.body.get("stream"):
            await wire.send(200, json.dumps(vendor.message(self, asked)).encode())
            return
        await wire.begin_stream()
        for piece in vendor.opening(self, asked):
            await wire.event(*piece)
        for text in self.pieces:
            await wire.event(*vendor.piece(text, asked))
            await asyncio.sleep(self.delay_s)
        if self.ending == "hang":
            await wire.wait_until_gone()
        if self.ending in ("torn", "hang"):
            wire.writer.close()
            return
        closing = vendor.closing(self, asked) if self.ending == "whole" else vendor.failing() if self.ending == "error" else []
        for event in closing:
            await wire.event(*event)
        await wire.end_stream()


@dataclass
class Fails:
    """An error answer."""

    status: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str | None = None

    async def __call__(self, vendor: Vendor, wire: Wire, asked: Asked) -> None:
        await wire.send(self.status, json.dumps(vendor.error(self.status, self.message, self.kind)).encode(), **self.headers)


@dataclass
class Sends:
    """Bytes that are no answer."""

    content: bytes
    kind: str = "application/json"

    async def __call__(self, vendor: Vendor, wire: Wire, asked: Asked) -> None:
        await wire.send(200, self.content, kind=self.kind)


async def hangs(vendor: Vendor, wire: Wire, asked: Asked) -> None:
    """Takes the request and never answers."""
    await wire.wait_until_gone()


async def drops(vendor: Vendor, wire: Wire, asked: Asked) -> None:
    """Takes the request and closes the connection."""
    wire.writer.close()


class Vendor:
    """A server. Each request takes the next reply of the script; the last one stays."""

    provider: ClassVar[str]
    path: ClassVar[str]
    settings_path: ClassVar[str] = ""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script) or [Says()]
        self.asked: list[Asked] = []
        self.gone = asyncio.Event()
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.settings_path}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Vendor]:
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                self.gone.set()
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
            asked = Asked(path=head[0].split(" ")[1], headers=headers, body=body, at=asyncio.get_running_loop().time())
            self.asked.append(asked)
            wire = Wire(reader, writer, self.gone)
            fault = self.fault_of(asked)
            if fault is not None:
                await fault(self, wire, asked)
                continue
            reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            await reply(self, wire, asked)

    def fault_of(self, asked: Asked) -> Fails | None:
        """What the vendor itself refuses."""
        if asked.path != self.path:
            return Fails(404, f"no {asked.path} here")
        if KEY not in (asked.headers.get("x-api-key"), asked.headers.get("authorization", "").removeprefix("Bearer ")):
            return Fails(401, f"invalid key {asked.headers.get('x-api-key') or asked.headers.get('authorization')}")
        if not asked.body.get("model") or not asked.body.get("messages"):
            return Fails(400, "model and messages are required")
        return None

    def message(self, says: Says, asked: Asked) -> dict[str, Any]:
        raise NotImplementedError

    def opening(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        raise NotImplementedError

    def piece(self, text: str, asked: Asked) -> tuple[Any, str | None]:
        raise NotImplementedError

    def closing(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        raise NotImplementedError

    def failing(self) -> list[tuple[Any, str | None]]:
        raise NotImplementedError

    def error(self, status: int, message: str, kind: str | None) -> dict[str, Any]:
        raise NotImplementedError


class AnthropicServer(Vendor):
    """The Messages API."""

    provider = "anthropic"
    path = "/v1/messages"
    model = "claude-sonnet-4-5"

    def fault_of(self, asked: Asked) -> Fails | None:
        if "anthropic-version" not in asked.headers:
            return Fails(400, "anthropic-version: header is required")
        if any(turn["role"] not in ("user", "assistant") for turn in asked.body.get("messages", ())) or "max_tokens" not in asked.body:
            return Fails(400, "messages: Unexpected role, or max_tokens: Field required")
        return super().fault_of(asked)

    def message(self, says: Says, asked: Asked) -> dict[str, Any]:
        return {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": asked.body["model"],
            "content": [{"type": "text", "text": says.text}],
            "stop_reason": "max_tokens" if says.is_cut else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": says.input_tokens, "output_tokens": says.output_tokens},
        }

    def opening(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        begun = self.message(says, asked) | {"content": [], "stop_reason": None}
        begun["usage"] = {"input_tokens": says.input_tokens, "output_tokens": 1}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return [
            ({"type": "message_start", "message": begun}, "message_start"),
            (block, "content_block_start"),
            ({"type": "ping"}, "ping"),
        ]

    def piece(self, text: str, asked: Asked) -> tuple[Any, str | None]:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, "content_block_delta"

    def closing(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        delta = {"stop_reason": "max_tokens" if says.is_cut else "end_turn", "stop_sequence": None}
        return [
            ({"type": "content_block_stop", "index": 0}, "content_block_stop"),
            ({"type": "message_delta", "delta": delta, "usage": {"output_tokens": says.output_tokens}}, "message_delta"),
            ({"type": "message_stop"}, "message_stop"),
        ]

    def failing(self) -> list[tuple[Any, str | None]]:
        return [({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")]

    def error(self, status: int, message: str, kind: str | None) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind or "invalid_request_error", "message": message}, "request_id": "req_01"}


class OpenAIServer(Vendor):
    """Chat completions."""

    provider = "openai_compatible"
    path = "/v1/chat/completions"
    settings_path = "/v1"
    model = "gpt-test-1"

    def _frame(self, asked: Asked, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": asked.body["model"], "choices": choices}

    def _usage(self, says: Says) -> dict[str, Any] | None:
        if says.input_tokens is None or says.output_tokens is None:
            return None
        total = says.input_tokens + says.output_tokens
        return {"prompt_tokens": says.input_tokens, "completion_tokens": says.output_tokens, "total_tokens": total}

    def message(self, says: Says, asked: Asked) -> dict[str, Any]:
        said = {"role": "assistant", "content": says.text}
        choice = {"index": 0, "message": said, "finish_reason": "length" if says.is_cut else "stop"}
        return self._frame(asked, "chat.completion", [choice]) | {"usage": self._usage(says)}

    def opening(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return [(self._frame(asked, "chat.completion.chunk", [choice]), None)]

    def piece(self, text: str, asked: Asked) -> tuple[Any, str | None]:
        return self._frame(asked, "chat.completion.chunk", [{"index": 0, "delta": {"content": text}, "finish_reason": None}]), None

    def closing(self, says: Says, asked: Asked) -> list[tuple[Any, str | None]]:
        choice = {"index": 0, "delta": {}, "finish_reason": "length" if says.is_cut else "stop"}
        events: list[tuple[Any, str | None]] = [(self._frame(asked, "chat.completion.chunk", [choice]), None)]
        if asked.body.get("stream_options", {}).get("include_usage") and self._usage(says):
            events.append((self._frame(asked, "chat.completion.chunk", []) | {"usage": self._usage(says)}, None))
        return [*events, ("[DONE]", None)]

    def failing(self) -> list[tuple[Any, str | None]]:
        return [({"error": {"message": "Overloaded", "type": "server_error", "code": None}}, None)]

    def error(self, status: int, message: str, kind: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": kind}}


VENDORS = (AnthropicServer, OpenAIServer)
