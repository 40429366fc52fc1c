"""What every provider that rests on a vendor's SDK has: a model's name, the parameters it takes, and a client made on first use."""

from __future__ import annotations

import asyncio
import importlib
from abc import ABC, abstractmethod
from typing import Any

from e2i.llm.parameters import Parameters


class SdkModel(ABC):
    """One model behind an SDK's client, which is made anew in another event loop, where the connections of the first cannot be used.

    Parameters
    ----------
    sdk : the module to import
    left_out : parameters that the model is known not to take
    """

    def __init__(self, model: str, *, sdk: str, left_out: frozenset[str] = frozenset()) -> None:
        self._model = model
        self._sdk = sdk
        self._parameters = Parameters(left_out=left_out)
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    def _make(self, sdk: Any) -> Any:
        """A client of the imported SDK."""

    @property
    def model(self) -> str:
        """See Provider."""
        return self._model

    @property
    def left_out(self) -> frozenset[str]:
        """See Provider."""
        return self._parameters.left_out

    async def open(self) -> None:
        """See Provider. The import takes a second and runs beside the event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            sdk = await asyncio.to_thread(importlib.import_module, self._sdk)
            if self._client is None or self._loop is not loop:
                self._client, self._loop = self._make(sdk), loop

    @property
    def _opened(self) -> Any:
        if self._client is None:
            raise RuntimeError("a provider is opened before it is asked")
        return self._client

    async def close(self) -> None:
        """See Provider. Connections of another loop ended with it."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()
