"""Cells of the hazard corpora: a study with a known effect, what `analyse` answers, and whether that answer is a silent wrong number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

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


def _hazards(hazards: tuple[object, ...]) -> str:
    return " ".join(f"[{getattr(each, 'code', '')}] {getattr(each, 'text', '')}" for each in hazards)


def require_honest(told: Told, words: str) -> None:
    """No silent wrong number; what is held back says why, in `words` (a pattern), and what is harmless (no words) is answered."""
    assert not told.is_silent_and_wrong, told
    if not words:
        assert told.verdict in ("proceed", "review"), told
    elif told.verdict != "proceed":
        assert re.search(words, told.words), told
