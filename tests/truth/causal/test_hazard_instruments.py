"""Faults of instruments: each is refused, held back with a reason that names it, or survived."""

from __future__ import annotations

import pytest

from hazard_cells import ask, require_honest
from hazard_instruments import FAULTS, WORLDS

CELLS = [(world, fault) for fault, (_, worlds, _) in FAULTS.items() for world in worlds]
DAILY = "dose"


@pytest.mark.parametrize(
    ("world", "fault"), [pytest.param(*cell, marks=() if cell[0] == DAILY else pytest.mark.corpus, id=" - ".join(cell)) for cell in CELLS]
)
def test_no_fault_of_an_instrument_gives_a_silent_wrong_number(world: str, fault: str) -> None:
    break_it, _, words = FAULTS[fault]
    require_honest(WORLDS[world], break_it, words)


@pytest.mark.corpus
@pytest.mark.parametrize("world", WORLDS)
def test_an_instrument_without_a_fault_is_answered(world: str) -> None:
    """Of 10 sound studies none is refused, and one at most is blocked by chance (its tests alarm below p = 0.01)."""
    told = [ask(WORLDS[world](seed)) for seed in range(10)]
    assert not any(each.verdict == "refused" for each in told), told
    assert sum(each.verdict == "block" for each in told) <= 1, told
