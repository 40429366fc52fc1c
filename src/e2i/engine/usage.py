"""Tokens of the language models that a step asks, counted for the step's record."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Tokens:
    """Of all answers together. None: no model answered, or one did not say how many it was."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    answers: int = 0

    def add(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """One answer more; a number that is not known makes the sum unknown."""
        self.input_tokens = input_tokens if self.answers == 0 else _sum(self.input_tokens, input_tokens)
        self.output_tokens = output_tokens if self.answers == 0 else _sum(self.output_tokens, output_tokens)
        self.answers += 1


_current: ContextVar[Tokens | None] = ContextVar("tokens_of_the_step", default=None)


@contextmanager
def counting() -> Iterator[Tokens]:
    """What `count` is told inside, also by tasks that begin inside."""
    tokens = Tokens()
    outer = _current.set(tokens)
    try:
        yield tokens
    finally:
        _current.reset(outer)


def count(*, input_tokens: int | None, output_tokens: int | None) -> None:
    """A model answered; nothing happens outside of `counting`."""
    tokens = _current.get()
    if tokens is not None:
        tokens.add(input_tokens, output_tokens)


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
