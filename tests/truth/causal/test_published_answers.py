"""Answers in print, found again through the public entry on the same real data; libraries beside ours.

The table of cases is `tests/published`; `benchmarks/published_answers.py` prints it with our answers.
"""

from __future__ import annotations

import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding, Effect
from published import CASES, Case

PARAMETERS = [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.is_slow else []) for case in CASES]


def compared(finding: CausalFinding, case: Case) -> Effect:
    """The estimate that the published figure belongs to."""
    assert finding.effect is not None, finding.refusal
    if not case.beside:
        return finding.effect
    return next(effect for effect in finding.alternatives if effect.estimator == case.beside)


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_published_answer_is_found_and_the_library_agrees(case: Case) -> None:
    frame = case.frame()
    finding = analyse(frame, effect=case.effect, unit=case.unit, time=case.time, seed=1)
    ours = compared(finding, case)
    low, high = ours.interval()
    assert low < ours.estimate < high
    if case.published is not None:
        assert abs(ours.estimate - case.published) <= case.tolerance
        assert low < case.published < high
    if case.error_tolerance is not None:
        assert case.published_error is not None
        assert abs(ours.standard_error - case.published_error) <= case.error_tolerance
    if case.library is not None and case.library_tolerance is not None:
        peer = case.library(frame, case)
        assert ours.estimate == pytest.approx(peer.estimate, rel=case.library_tolerance)


def test_the_cases_are_at_least_twenty_over_all_kinds_of_design() -> None:
    assert len(CASES) >= 20
    assert len({case.source for case in CASES}) >= 20
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.tolerance > 0 or case.published is None for case in CASES)
