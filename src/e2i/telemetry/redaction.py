"""What is kept of a span: no secrets, no identifiers of people, no more bytes than allowed.

Runs on the caller's thread at the end of every span. A span with nothing to hide costs one linear scan over its texts, of which those
that were found clear before are left out; only a hit, a value over its limit or a key that was never seen takes the slow, exact way
(`values.Cleaner`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_128_intdigest as _fingerprint

from e2i.errors import ConfigError
from e2i.observability import attributes as names
from e2i.telemetry.identifiers import Finder
from e2i.telemetry.sensitive_keys import KeyWords, Label, text_of
from e2i.telemetry.values import Cleaner, Cut, json_text

MAX_ATTRIBUTES = 128
"""of one span or event, as in OpenTelemetry's limits; further ones are left out and named"""
MAX_KEY_BYTES = 256
NOT_LOGGED = "[not logged]"
"""stands for a prompt or an answer that is not to be kept"""

_MAX_KEYS = 4096
_MIN_BYTES = 64
_SHORT = 512
_LONG = 512
_MAX_MARKS = 4096
_BETWEEN = "\x1e"
_LARGEST = 2**63 - 1
_LARGEST_FLOAT = 1.7976931348623157e308


@dataclass(frozen=True)
class SpanLimits:
    """What may be kept of a span. Sizes are bytes of UTF-8 per value.

    Raises
    ------
    ConfigError
        A size is below 64 bytes: not even the marker of a cut would fit.
    """

    include_input: bool
    include_output: bool
    max_input_size_bytes: int
    max_output_size_bytes: int
    max_metadata_size_bytes: int
    redact_patterns: tuple[str, ...]
    """words of keys whose values are never kept"""
    secrets: tuple[str, ...] = ()
    """exact values of configured secrets"""

    def __post_init__(self) -> None:
        for name in ("max_input_size_bytes", "max_output_size_bytes", "max_metadata_size_bytes"):
            if getattr(self, name) < _MIN_BYTES:
                raise ConfigError(f"observability.spans.{name} is {getattr(self, name)}.", advice=f"Set it to {_MIN_BYTES} bytes or more.")


@dataclass(frozen=True, slots=True)
class _Key:
    """What is known of an attribute's name."""

    name: str
    label: Label | None
    limit: int
    is_kept: bool
    is_prompt: bool


class Redactor:
    """Cleans attributes and texts of spans. One per process; safe to use from several threads.

    Parameters
    ----------
    limits : what may be kept
    """

    def __init__(self, limits: SpanLimits) -> None:
        self._limits = limits
        self._words = KeyWords(limits.redact_patterns)
        self._finder = Finder(self._words, limits.secrets)
        self._cleaner = Cleaner(self._finder, self._words)
        self._may_hold = self._finder.may_hold
        self._smallest = min(limits.max_input_size_bytes, limits.max_output_size_bytes, limits.max_metadata_size_bytes)
        self._most = limits.max_input_size_bytes + limits.max_output_size_bytes + limits.max_metadata_size_bytes
        self._short = min(self._smallest // 4, _SHORT)
        self._seen: set[str] = set()
        """short values, such as names of agents and steps, that were found clear: most of a span's values come again"""
        self._marks: set[int] = set()
        """fingerprints of long texts that were found clear"""
        self._key_of_marks = secrets.randbits(64)
        """so that nobody can make a text with the fingerprint of another"""
        self._keys: dict[str, _Key] = {}
        self._plain: set[str] = set()
        self._plain_metadata: set[str] = set()

    # One loop without calls: it runs for every span, and each call would cost as much as the check it makes.
    def clean(self, attributes: Mapping[str, Any], *, log_prompts: bool = True) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912
        """Attributes of a span or event as they may be kept; never raises for what the attributes hold.

        Parameters
        ----------
        attributes : any values; a plain dict is quickest
        log_prompts : whether inputs and outputs of people and models are kept at all

        Returns
        -------
        dict
            Values are str, int, float, bool or lists (or tuples, as given) of one of these. Names of cut attributes are in `e2i.truncated`.
        """
        kept = dict(attributes)
        known = self._plain if log_prompts else self._plain_metadata
        if len(kept) > MAX_ATTRIBUTES or not known.issuperset(kept):
            return self._clean_each(kept, log_prompts=log_prompts)
        texts: list[str] = []
        new_marks: list[int] = []
        size, known_size, most, is_ascii = 0, 0, self._most, True
        seen, short = self._seen, self._short
        for value in kept.values():
            kind = type(value)
            if kind is str:
                length = len(value)
                if length <= short and value in seen:  # fits wherever it stands
                    continue
                size += length
                is_ascii = is_ascii and value.isascii()
                if _LONG <= length <= most:
                    try:
                        mark = _fingerprint(value.encode(), self._key_of_marks)
                    except UnicodeEncodeError:  # lone surrogates
                        return self._clean_each(kept, log_prompts=log_prompts)
                    if mark in self._marks:
                        known_size += length
                        continue
                    new_marks.append(mark)
                texts.append(value)
            elif kind is int:
                if not -_LARGEST <= value <= _LARGEST:
                    return self._clean_each(kept, log_prompts=log_prompts)
            elif kind is float:
                if not -_LARGEST_FLOAT <= value <= _LARGEST_FLOAT:
                    return self._clean_each(kept, log_prompts=log_prompts)
            elif (kind is tuple or kind is list) and {*map(type, value)} == {str}:
                size += sum(map(len, value)) + len(value)
                is_ascii = is_ascii and all(map(str.isascii, value))
                texts.extend(value)
            elif kind is not bool:
                return self._clean_each(kept, log_prompts=log_prompts)
        if size > most:
            return self._clean_each(kept, log_prompts=log_prompts)
        is_seen = not texts or (size - known_size <= short and seen.issuperset(texts))
        is_short = (size if is_ascii else 4 * size) <= self._smallest
        if is_seen and (is_short or self._fits(kept)):
            return kept
        text = _BETWEEN.join(texts)
        if (is_short or self._fits(kept)) and self._is_clear(text):
            if new_marks:
                self._mark(new_marks)
            elif size - known_size <= short:
                self._remember(texts)
            return kept
        return self._clean_each(kept, log_prompts=log_prompts)

    def clean_text(self, text: str) -> str:
        """A span's name or status message as it may be kept."""
        if (len(text) if text.isascii() else 4 * len(text)) <= self._limits.max_metadata_size_bytes and self._is_clear(text):
            return text
        return self._cleaner.text(text, self._limits.max_metadata_size_bytes, Cut())

    def _is_clear(self, text: str) -> bool:
        try:
            return self._may_hold(text.encode()) is None
        except UnicodeEncodeError:  # lone surrogates: the slow way replaces them
            return False

    def _remember(self, texts: list[str]) -> None:
        if len(self._seen) >= _MAX_KEYS:
            self._seen.clear()
        self._seen.update(texts)

    def _mark(self, marks: list[int]) -> None:
        """Prompts and templates come again and again."""
        if len(self._marks) >= _MAX_MARKS:
            self._marks.clear()
        self._marks.update(marks)

    def _fits(self, kept: dict[str, Any]) -> bool:
        for key, value in kept.items():
            if type(value) is str:
                limit, size = self._keys[key].limit, len(value)
                if 4 * size > limit and not (size <= limit and value.isascii()):
                    return False
            elif type(value) in (list, tuple) and 4 * (sum(map(len, value)) + len(value)) > self._keys[key].limit:
                return False
        return True

    def _clean_each(self, attributes: dict[Any, Any], *, log_prompts: bool) -> dict[str, Any]:
        cut = Cut()
        earlier = attributes.pop(names.TRUNCATED, None)
        kept: dict[str, Any] = {}
        for position, (given, value) in enumerate(attributes.items()):
            if position == MAX_ATTRIBUTES:
                cut.names.append(f"{len(attributes) - MAX_ATTRIBUTES} more attributes")
                break
            key = self._key(given if type(given) is str else f"{given}" if isinstance(given, str | int | float) else type(given).__name__)
            if value is None:
                continue
            cut.happened = False
            if not key.is_kept or (key.is_prompt and not log_prompts):
                kept[key.name] = NOT_LOGGED
            else:
                kept[key.name] = self._cleaner.value(value, key.label, key.limit, cut)
            if cut.happened:
                cut.names.append(key.name)
        if cut.names or earlier is not None:
            kept[names.TRUNCATED] = self._cut_names(earlier, cut)
        return kept

    def _cut_names(self, earlier: Any, cut: Cut) -> Any:
        limit = self._limits.max_metadata_size_bytes
        before = [] if earlier is None else self._cleaner.value(earlier, None, limit, Cut())
        before = [str(name) for name in before] if isinstance(before, list) else [before if isinstance(before, str) else json_text(before)]
        return self._cleaner.value([*dict.fromkeys((*before, *cut.names))], None, limit, Cut())

    def _key(self, name: str) -> _Key:
        known = self._keys.get(name)
        return known if known is not None else self._learn(name)

    def _learn(self, name: str) -> _Key:
        # What a key says is read from the name as it is kept: cleaning twice must come to the same.
        clean = self._cleaner.text(name, MAX_KEY_BYTES, Cut())
        limits, kind = self._limits, text_of(clean)
        limit = {"input": limits.max_input_size_bytes, "output": limits.max_output_size_bytes}.get(kind, limits.max_metadata_size_bytes)
        is_kept = {"input": limits.include_input, "output": limits.include_output}.get(kind, True)
        key = _Key(clean, self._words.label_of(clean), limit, is_kept, is_prompt=kind != "metadata")
        if len(name) <= MAX_KEY_BYTES:
            if len(self._keys) >= _MAX_KEYS:  # a stranger's names, new ones every time
                self._plain.clear()
                self._plain_metadata.clear()
                self._keys.clear()
            self._keys[name] = key
            if clean == name and key.label is None and is_kept and name != names.TRUNCATED:
                self._plain.add(name)
                if not key.is_prompt:
                    self._plain_metadata.add(name)
        return key
