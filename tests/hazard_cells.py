"""Cells of the hazard corpora: a study with a known effect, what `analyse` answers, and whether that answer is a silent wrong number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import polars as pl

from e2i.causal.analysis import analyse
from e2i.domain.study import EffectSpec
from e2i.errors import E2IError

TRUE_EFFECT = 2.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A table with its question."""

    frame: pl.DataFrame
    spec: EffectSpec
    unit: str | None = None
    time: str | None = None
    truth: float = TRUE_EFFECT

    def put(self, **columns: pl.Expr | pl.Series) -> Cell:
        """With columns changed."""
        return replace(self, frame=self.frame.with_columns(**columns))

    def only(self, rows: pl.Expr) -> Cell:
        """With these rows alone."""
        return replace(self, frame=self.frame.filter(rows))

    def asking(self, **roles: object) -> Cell:
        """With roles of the question changed."""
        return replace(self, spec=self.spec.model_copy(update=roles))


Fault = Callable[[Cell], Cell]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a user reads."""

    verdict: str
    """refused, block, review or proceed"""
    words: str
    """why, with all hazards and their remedies"""
    covers: bool
    """whether the interval holds the truth; False without an interval"""

    @property
    def is_silent_and_wrong(self) -> bool:
        """A number that may be told, and is not true."""
        return self.verdict == "proceed" and not self.covers


def ask(cell: Cell) -> Told:
    """The public call on one cell. Anything raised but our own errors is a fault of the test."""
    try:
        finding = analyse(cell.frame, effect=cell.spec, unit=cell.unit, time=cell.time, seed=1)
    except E2IError as error:
        return Told(verdict="refused", words=f"{type(error).__name__}: {error}", covers=False)
    if finding.effect is None:
        return Told(verdict="refused", words=f"{finding.refusal} {_hazards(finding.hazards)}", covers=False)
    low, high = finding.effect.interval()
    words = f"{' '.join(finding.verdict.reasons)} {_hazards(finding.hazards)}"
    return Told(verdict=finding.verdict.name, words=words, covers=low <= cell.truth <= high)


@cache
def sound_draws(world: Callable[[int], Cell]) -> tuple[Cell, Cell]:
    """The first two draws, from seed 1 on, that are answered and covered without a fault: one interval in twenty misses by chance alone."""
    draws = (world(seed) for seed in count(1))
    sound = (cell for cell in draws if (told := ask(cell)).covers and told.verdict in ("proceed", "review"))
    return next(sound), next(sound)


def _hazards(hazards: tuple[object, ...]) -> str:
    return " ".join(f"[{getattr(each, 'code', '')}] {getattr(each, 'text', '')}" for each in hazards)


def require_honest(world: Callable[[int], Cell], break_it: Fault, words: str) -> None:
    """No silent wrong number; what is held back says why, in `words` (a pattern), and what is harmless (no words) is answered.

    What is harmless makes another draw, so that chance may speak once more: it is judged by a second one then.
    """
    told = [ask(break_it(cell)) for cell in sound_draws(world)[:1]]
    if not words and not _is_honest(told[0], words):
        told += [ask(break_it(cell)) for cell in sound_draws(world)[1:]]
    assert any(_is_honest(each, words) for each in told), told


def _is_honest(told: Told, words: str) -> bool:
    if told.is_silent_and_wrong:
        return False
    if not words:
        return told.verdict in ("proceed", "review")
    return told.verdict == "proceed" or re.search(words, told.words) is not None
