"""Parameters that some models do not take: found out by the vendor's refusal, left out from then on, and recorded."""

from __future__ import annotations

import re

TEMPERATURE = "temperature"
MAX_TOKENS = "max_tokens"
SCHEMA = "schema"
STREAM_OPTIONS = "stream_options"
_NAMES = {
    TEMPERATURE: ("temperature",),
    MAX_TOKENS: ("max_tokens",),
    SCHEMA: ("response_format", "json_schema", "output_config", "output_format", "structured output"),
    STREAM_OPTIONS: ("stream_options",),
}
_NOT_TAKEN = re.compile(
    r"deprecated|unsupported|not (?:be )?(?:supported|permitted|allowed|available|implemented)|(?:does not|doesn't) support|unknown|"
    r"unrecogni[sz]ed|unexpected|no longer|only the default|use 'max_completion_tokens'",
    re.IGNORECASE,
)


class ParameterNotTaken(Exception):
    """The model refused a parameter that it can do without: ask again. Never leaves a provider."""


class Parameters:
    """Which parameters one model does without."""

    def __init__(self, *, left_out: frozenset[str] = frozenset()) -> None:
        self._left_out = left_out

    @property
    def left_out(self) -> frozenset[str]:
        """Names as in `_NAMES`."""
        return self._left_out

    def takes(self, name: str) -> bool:
        """Whether to send it."""
        return name not in self._left_out

    def learn(self, status: int, message: str, sent: frozenset[str]) -> bool:
        """Whether the refusal names a parameter that was sent and that the model does not know; it is left out from now on.

        A value that is out of range is a refusal like any other: leaving it out would hide the mistake.
        """
        if status not in (400, 422) or not _NOT_TAKEN.search(message):
            return False
        found = {name for name in sent & self.known() if any(word in message.lower() for word in _NAMES[name])}
        self._left_out |= found
        return bool(found)

    @staticmethod
    def known() -> frozenset[str]:
        """Every parameter that a request can do without."""
        return frozenset(_NAMES)
