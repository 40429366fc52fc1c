"""Anthropic's models through its SDK. The SDK's own retries and spans are off: the gateway has both."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from e2i.llm import parameters, structured
from e2i.llm.client import SdkModel
from e2i.llm.faults import Endpoint, status_of
from e2i.llm.parameters import ParameterNotTaken
from e2i.llm.provider import NO_KEY, Answer, Piece

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from anthropic import APIStatusError, AsyncAnthropic

    from e2i.llm.provider import Request


class AnthropicModel(SdkModel):
    """One model of Anthropic's Messages API, there or at `base_url`."""

    name = "anthropic"

    def __init__(self, model: str, *, api_key: str = "", base_url: str = "") -> None:
        # API version 2026-10-21, which the SDK speaks, has no temperature: a request with one is refused.
        super().__init__(model, sdk="anthropic", left_out=frozenset({parameters.TEMPERATURE}))
        self._key = api_key
        self._base_url = base_url
        self._endpoint = Endpoint(where=f"anthropic {model}", key=api_key, variable="ANTHROPIC_API_KEY")

    def _make(self, sdk: Any) -> AsyncAnthropic:
        client: AsyncAnthropic = sdk.AsyncAnthropic(
            api_key=self._key or NO_KEY, base_url=self._base_url or None, max_retries=0, timeout=None, open_telemetry=False
        )
        return client

    async def complete(self, request: Request) -> Answer:
        """See Provider."""
        found = await self._ask(request)
        content = getattr(found, "content", None)
        if not isinstance(content, list):
            raise self._endpoint.garbled(f"no message in {str(found)[:80]!r}")
        return Answer(
            text="".join(block.text for block in content if getattr(block, "type", "") == "text"),
            model=_at(found, "model"),
            input_tokens=_input_tokens(_at(found, "usage")),
            output_tokens=_count(_at(found, "usage"), "output_tokens"),
            finish_reason=_at(found, "stop_reason"),
        )

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider. Output tokens are told at the end only: what the first event says of them is no count."""
        is_complete = False
        async with await self._ask(request, stream=True) as events:
            with self._translated():
                async for event in events:
                    is_complete = is_complete or _at(event, "type") == "message_stop"
                    if (piece := _piece(event)) is not None:
                        yield piece
        if not is_complete:
            raise self._endpoint.broke_off()

    async def _ask(self, request: Request, *, stream: bool = False) -> Any:
        """Past `messages.create`: it warns of models near their end, which is an exception where warnings are errors."""
        from anthropic import AsyncStream
        from anthropic.types import Message, RawMessageStreamEvent

        events = AsyncStream[RawMessageStreamEvent]
        while True:
            body = self._body(request) | ({"stream": True} if stream else {})
            try:
                with self._translated(body):
                    return await self._opened.post("/v1/messages", body=body, cast_to=Message, stream=stream, stream_cls=events)
            except ParameterNotTaken:
                continue

    def _body(self, request: Request) -> dict[str, Any]:
        system = [message.content for message in request.messages if message.role == "system"]
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages if turn.role != "system"],
        }
        if request.schema is not None and self._parameters.takes(parameters.SCHEMA):
            from anthropic import transform_schema

            body["output_config"] = {"format": {"type": "json_schema", "schema": transform_schema(request.schema)}}
        elif request.schema is not None:
            system.append(structured.instruction(request.schema))
        if system:
            body["system"] = "\n\n".join(system)
        return body

    @contextmanager
    def _translated(self, body: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
        import anthropic
        import httpx2

        try:
            yield
        except anthropic.APIStatusError as error:
            raise self._refusal(error, body) from self._endpoint.cause(error)
        except (anthropic.APIConnectionError, httpx2.HTTPError) as error:
            raise self._endpoint.unreachable(error) from self._endpoint.cause(error)
        except (anthropic.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._endpoint.garbled(error) from self._endpoint.cause(error)

    def _refusal(self, error: APIStatusError, body: Mapping[str, Any]) -> Exception:
        status = status_of(error.status_code, error.type)
        message = error.api_message or error.message
        sent = frozenset({parameters.SCHEMA} if "output_config" in body else ())
        if self._parameters.learn(status, message, sent):
            return ParameterNotTaken()
        return self._endpoint.refused(status, message, error.response.headers, code=error.error_code)


def _piece(event: Any) -> Piece | None:
    kind = _at(event, "type")
    if kind == "message_start":
        return Piece(model=_at(event, "message", "model"), input_tokens=_input_tokens(_at(event, "message", "usage")))
    if kind == "content_block_delta" and _at(event, "delta", "type") == "text_delta":
        return Piece(text=_at(event, "delta", "text") or "")
    if kind == "message_delta":
        return Piece(finish_reason=_at(event, "delta", "stop_reason"), output_tokens=_count(_at(event, "usage"), "output_tokens"))
    return None


def _at(found: Any, *path: str) -> Any:
    """A field of a field; None where it is missing. The SDK builds its records without looking at them."""
    for name in path:
        found = getattr(found, name, None)
    return found


def _input_tokens(usage: Any) -> int | None:
    """All input tokens; the API counts those of its cache apart."""
    fresh = _count(usage, "input_tokens")
    cached = (_count(usage, name) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
    return None if fresh is None else fresh + sum(cached)


def _count(usage: Any, name: str) -> int | None:
    found = getattr(usage, name, None)
    return found if isinstance(found, int) and found >= 0 else None
