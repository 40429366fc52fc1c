"""OpenAI's models, and every server that speaks its chat completions, through OpenAI's SDK. The SDK's own retries are off."""

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

    from openai import APIError, AsyncOpenAI

    from e2i.errors import BackendError
    from e2i.llm.provider import Request


class OpenAICompatibleModel(SdkModel):
    """One model behind `{base_url}/chat/completions`; OpenAI itself without a `base_url`.

    Parameters
    ----------
    is_local : the server runs in this process; no proxy stands between
    """

    def __init__(self, model: str, *, api_key: str = "", base_url: str = "", is_local: bool = False) -> None:
        super().__init__(model, sdk="openai")
        self._key = api_key
        self._base_url = base_url
        self._is_local = is_local
        self.name = "local" if is_local else "openai_compatible" if base_url else "openai"
        path = "; `base_url` usually ends in /v1" if base_url else ""
        self._endpoint = Endpoint(where=f"{self.name} {model}", key=api_key, variable="OPENAI_API_KEY", path=path)

    def _make(self, sdk: Any) -> AsyncOpenAI:
        direct = {"http_client": sdk.DefaultAsyncHttpxClient(trust_env=False, timeout=None)} if self._is_local else {}
        client: AsyncOpenAI = sdk.AsyncOpenAI(
            api_key=self._key or NO_KEY, base_url=self._base_url or None, max_retries=0, timeout=None, **direct
        )
        return client

    async def complete(self, request: Request) -> Answer:
        """See Provider."""
        found = await self._ask(request)
        choices: Any = getattr(found, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        said = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        if message is None or not isinstance(said, str):
            raise self._endpoint.garbled(f"no choices in {str(found)[:80]!r}")
        return Answer(
            text=said,
            model=getattr(found, "model", None),
            input_tokens=_count(found, "prompt_tokens"),
            output_tokens=_count(found, "completion_tokens"),
            finish_reason="refusal" if getattr(message, "refusal", None) else choices[0].finish_reason,
        )

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider. Usage comes in a last chunk of its own, where the server knows `stream_options`."""
        is_complete = False
        async with await self._ask(request, stream=True) as chunks:
            with self._translated():
                async for chunk in chunks:
                    piece = _piece(chunk)
                    is_complete = is_complete or piece.finish_reason is not None
                    yield piece
        if not is_complete:
            raise self._endpoint.broke_off()

    async def _ask(self, request: Request, *, stream: bool = False) -> Any:
        while True:
            body = self._body(request, stream=stream)
            try:
                with self._translated(body):
                    return await self._opened.chat.completions.create(**body)
            except ParameterNotTaken:
                continue

    def _body(self, request: Request, *, stream: bool) -> dict[str, Any]:
        takes = self._parameters.takes
        turns: list[dict[str, Any]] = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        body: dict[str, Any] = {"model": self._model, "messages": turns}
        # OpenAI's own models want the new name; most other servers know only the old one.
        old = bool(self._base_url) and takes(parameters.MAX_TOKENS)
        body["max_tokens" if old else "max_completion_tokens"] = request.max_tokens
        if takes(parameters.TEMPERATURE):
            body["temperature"] = request.temperature
        if request.schema is not None and takes(parameters.SCHEMA):
            shape = {"name": "answer", "schema": request.schema, "strict": structured.is_strict(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif request.schema is not None:
            turns.insert(0, {"role": "system", "content": structured.instruction(request.schema)})
        if stream:
            body["stream"] = True
        if stream and takes(parameters.STREAM_OPTIONS):
            body["stream_options"] = {"include_usage": True}
        return body

    @contextmanager
    def _translated(self, body: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
        import httpx2
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            raise self._refusal(error, error.status_code, error.response.headers, body) from self._endpoint.cause(error)
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            raise self._endpoint.unreachable(error) from self._endpoint.cause(error)
        except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._endpoint.garbled(error) from self._endpoint.cause(error)
        except openai.APIError as error:
            raise self._refusal(error, None, {}, body) from self._endpoint.cause(error)

    def _refusal(self, error: APIError, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]) -> Exception:
        told = error.body if isinstance(error.body, dict) else {}
        message = str(told.get("message") or error.message)
        found = status_of(status, error.type, told.get("code"))
        if self._parameters.learn(found, message, _sent(body)):
            return ParameterNotTaken()
        refusal: BackendError = self._endpoint.refused(found, message, headers, code=str(error.code))
        return refusal


def _sent(body: Mapping[str, Any]) -> frozenset[str]:
    names = set(body) & {parameters.TEMPERATURE, parameters.MAX_TOKENS, parameters.STREAM_OPTIONS}
    return frozenset(names | ({parameters.SCHEMA} if "response_format" in body else set()))


def _piece(chunk: Any) -> Piece:
    choices = getattr(chunk, "choices", None)
    choice = choices[0] if choices else None
    delta = getattr(choice, "delta", None)
    said = getattr(delta, "content", None) or getattr(delta, "refusal", None)
    return Piece(
        text=said if isinstance(said, str) else "",
        model=getattr(chunk, "model", None) or None,
        input_tokens=_count(chunk, "prompt_tokens"),
        output_tokens=_count(chunk, "completion_tokens"),
        finish_reason=getattr(choice, "finish_reason", None),
    )


def _count(found: Any, name: str) -> int | None:
    count = getattr(getattr(found, "usage", None), name, None)
    return count if isinstance(count, int) and count >= 0 else None
