"""An effect in the terminal: a line per fact, what could not be tested apart, long lines folded under their label."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from e2i.cli.effect import effect_lines, effect_table
from e2i.domain.effect_report import EffectSummary
from e2i.domain.evidence import CausalFinding, Effect, Hazard, Refutation, Verdict, VerdictName
from e2i.domain.report import StudyReport

LONG = "Design    " + " ".join(f"word{number}" for number in range(40))
PRINT = f"from e2i.cli.output import print_paragraph; print_paragraph({LONG!r})"


def report(*reasons: str, verdict: VerdictName = "review") -> StudyReport:
    finding = CausalFinding(
        effect=Effect(
            estimand="ATE", design="cross_section", estimator="AIPW", estimate=1.0, standard_error=0.1,
            n_treated=100, n_untreated=100, naive_difference=None, outcome_mean_untreated=None,
        ),
        verdict=Verdict(name=verdict, reasons=reasons),
        reasons=("one row per unit",),
        hazards=(
            Hazard(code="two_scales", action="review", text="Two groups.", remedy="One unit."),
            Hazard(code="note", action="warn", text="a column was left out"),
        ),
        refutations=(
            Refutation(test="untested_negative_control:x", passed=True, detail="It hardly varies.", is_reported_only=True),
            Refutation(test="bootstrap", passed=True, detail="Fine."),
        ),
    )  # fmt: skip
    effect = EffectSummary(treatment="calls", outcome="nrx", finding=finding)
    return StudyReport(
        study="s", status="completed", run_id="r", experiment_id=None, trace_id=None, synthetic=False,
        created_at=datetime(2026, 1, 1, tzinfo=UTC), effect=effect,
    )  # fmt: skip


def test_several_reasons_have_a_line_each_and_one_stands_beside_the_verdict() -> None:
    assert effect_lines(report("first.")) == ["Effect    calls on nrx: review. first."]
    assert effect_lines(report("first.", "second")) == ["Effect    calls on nrx: review.", "Reason    first.", "Reason    second."]


def test_checks_notes_and_what_could_not_be_tested_are_told_apart() -> None:
    lines = effect_table(report("first."))
    assert lines[:3] == [
        "Design    one row per unit.",
        "Check     two_scales (review): Two groups. One unit.",
        "Note      a column was left out.",
    ]
    assert lines[-2:] == ["Test      passed bootstrap: Fine.", "Untested  negative_control:x: It hardly varies."]


def test_nothing_that_would_tell_a_blocked_effect_is_printed() -> None:
    lines = effect_table(report("first.", verdict="block"))
    assert "Test      passed bootstrap: withheld with the estimate" in lines
    assert not any(line.startswith("Note") for line in lines)
    assert lines[-1] == "Untested  negative_control:x: It hardly varies."


def test_a_long_line_stays_one_line_where_a_program_reads_it() -> None:
    done = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True)
    assert done.stdout == f"  {LONG}\n"


@pytest.mark.parametrize("width", [60, 100])
def test_a_long_line_is_folded_under_its_label_on_a_terminal(width: int) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PRINT], stdout=theirs, env={**os.environ, "COLUMNS": str(width)}) as done:
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
    os.close(ours)
    lines = shown.splitlines()
    assert done.returncode == 0
    assert len(lines) > 2
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(" " * 12 + "word") for line in lines[1:])
