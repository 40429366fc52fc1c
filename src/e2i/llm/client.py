"""An SDK's client: imported and made on first use."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class SdkClient:
    """Made from the SDK's module, and anew in another event loop, where the connections of the first cannot be used."""

    def __init__(self, module: str, make: Callable[[Any], Any]) -> None:
        self._module = module
        self._make = make
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Make ready. The import takes a second and runs beside the event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            sdk = await asyncio.to_thread(importlib.import_module, self._module)
            if self._client is None or self._loop is not loop:
                self._client, self._loop = self._make(sdk), loop

    @property
    def opened(self) -> Any:
        """The client."""
        if self._client is None:
            raise RuntimeError("a provider is opened before it is asked")
        return self._client

    async def close(self) -> None:
        """Close the connections; those of another loop ended with it."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()
