"""Faults of panels and of instruments: each is refused, held back with a reason that names it, or survived."""

from __future__ import annotations

import pytest

import hazard_instruments
import hazard_panels
from hazard_cells import ask, require_honest

CORPORA = {"panel": hazard_panels, "instrument": hazard_instruments}
DAILY = {("panel", "one start"), ("instrument", "dose")}
"""run every time; the others on request"""
WORLDS = [(corpus, world) for corpus, told in CORPORA.items() for world in told.WORLDS]
CELLS = [(corpus, world, fault) for corpus, told in CORPORA.items() for fault, (_, worlds, _) in told.FAULTS.items() for world in worlds]


def params(rows: list[tuple[str, ...]]) -> list[object]:
    return [pytest.param(*row, marks=() if row[:2] in DAILY else pytest.mark.corpus, id=" - ".join(row)) for row in rows]


@pytest.mark.parametrize(("corpus", "world", "fault"), params(CELLS))
def test_no_fault_gives_a_silent_wrong_number(corpus: str, world: str, fault: str) -> None:
    break_it, _, words = CORPORA[corpus].FAULTS[fault]
    require_honest(CORPORA[corpus].WORLDS[world], break_it, words)


@pytest.mark.parametrize(("corpus", "world"), params(WORLDS))
def test_a_study_without_a_fault_is_answered(corpus: str, world: str) -> None:
    """Of 10 sound studies none is refused, and one at most is blocked by chance (its tests alarm below p = 0.01)."""
    told = [ask(CORPORA[corpus].WORLDS[world](seed)) for seed in range(10)]
    assert not any(each.verdict == "refused" for each in told), told
    assert sum(each.verdict == "block" for each in told) <= 1, told
