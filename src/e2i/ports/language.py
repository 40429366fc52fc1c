"""A language model, where one is configured."""

from __future__ import annotations

from typing import Protocol


class LanguageModel(Protocol):
    """Completes text."""

    async def complete(self, prompt: str, *, max_tokens: int) -> str:
        """The answer. Raises BackendUnavailable or BackendRejected."""
        ...
