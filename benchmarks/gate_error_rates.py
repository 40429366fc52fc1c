"""How often the gate lets a wrong effect pass, and how often it blocks a right one.

python benchmarks/gate_error_rates.py --seeds 40 --rows 1500 --output docs/causal-gate-rates.md
python benchmarks/gate_error_rates.py --worlds linear hidden_50_null --evidence controls
python benchmarks/gate_error_rates.py --held-out        # the worlds of held_out_worlds.py, which no rule was made on

Every row of the table is one world with one kind of evidence, through the public `analyse`. A false pass is `proceed` in an unsound
world; "and misses" counts those whose 95 % interval misses the truth as well. A false block is `block`, or a refusal, in a sound
world. Seeds start at 10,000: rules were made on seeds below 100. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

FIRST_SEED = 10_000
SOUND = ("linear", "curved", "heterogeneous", "stepped", "binary", "count", "rare_treatment", "no_effect", "aimed_at_the_last_outcome")
UNSOUND = (
    *(f"hidden_{strength}_{story}" for strength in (25, 50, 75, 120) for story in ("null", "lift")),
    "trend_targeting",
    "mediator",
    "collider",
    "no_overlap",
)
EVIDENCE = ("nothing", "controls", "earlier", "both")
PANEL_EVIDENCE = ("earlier", "both", "place", "place and both")
_UNITS = 400
_Z = 1.959963984540054


@dataclass(kw_only=True)
class Cell:
    """One world with one kind of evidence."""

    world: str
    evidence: str
    is_sound: bool
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong_passes: int = 0

    @property
    def runs(self) -> int:
        return self.verdicts.total()

    @property
    def errors(self) -> int:
        return self.verdicts["block"] if self.is_sound else self.verdicts["proceed"]


def one(world: str, evidence: str, rows: int, seed: int) -> tuple[str, bool]:
    """The verdict, and whether the interval covers the truth."""
    import numpy as np

    from e2i.causal.analysis import analyse
    from e2i.causal.worlds import PANEL_WORLDS, WORLDS
    from held_out_worlds import HELD_OUT

    if world in HELD_OUT:
        unseen = HELD_OUT[world]
        frame, truth = unseen.draw(np.random.default_rng(seed))
        unit, time = ("account", "week") if unseen.is_panel else (None, None)
        finding = analyse(frame, effect=unseen.effect, unit=unit, time=time, seed=seed)
    elif world in PANEL_WORLDS:
        panel = PANEL_WORLDS[world]
        spec = panel.effect(negative_control=evidence.endswith("both"), place=evidence.startswith("place"))
        finding = analyse(panel.draw(_UNITS, seed=seed), effect=spec, unit="unit", time="time", seed=seed)
        truth = panel.truth(_UNITS, seed=seed)
    else:
        story = WORLDS[world]
        spec = story.effect(negative_control=evidence in ("controls", "both"), earlier=evidence in ("earlier", "both"))
        finding = analyse(story.draw(rows, seed=seed), effect=spec, seed=seed)
        truth = story.truth("ATE")
    if finding.effect is None:
        return "block", False
    low, high = finding.effect.interval()
    return finding.verdict.name, low <= truth <= high


def cells(worlds: list[str], evidences: list[str], *, held_out: bool) -> Iterator[Cell]:
    from e2i.causal.worlds import PANEL_WORLDS
    from held_out_worlds import HELD_OUT

    if held_out:
        for unseen in HELD_OUT.values():
            if not worlds or unseen.name in worlds:
                named = (("controls", unseen.effect.negative_controls), ("earlier", unseen.effect.pre_outcomes or unseen.is_panel))
                evidence = " + ".join(kind for kind, given in named if given)
                yield Cell(world=unseen.name, evidence=evidence, is_sound=unseen.is_sound)
        return
    for world in worlds or [*SOUND, *UNSOUND, *PANEL_WORLDS]:
        panel = PANEL_WORLDS.get(world)
        for evidence in evidences:
            if evidence in (EVIDENCE if panel is None else PANEL_EVIDENCE):
                yield Cell(world=world, evidence=evidence, is_sound=panel.is_sound if panel else world in SOUND)


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, square = hits / runs, _Z**2 / runs
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * (share * (1 - share) / runs + square / (4 * runs)) ** 0.5
    return max(middle - half, 0.0), min(middle + half, 1.0)


def table(found: list[Cell]) -> str:
    lines = [
        "| World | Sound | Evidence | Runs | proceed | review | block | Error | Rate (95 % interval) | and misses |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in found:
        low, high = wilson(cell.errors, cell.runs)
        kind = "false block" if cell.is_sound else "false pass"
        misses = "" if cell.is_sound else str(cell.wrong_passes)
        verdicts = " | ".join(str(cell.verdicts[name]) for name in ("proceed", "review", "block"))
        lines.append(
            f"| {cell.world} | {'yes' if cell.is_sound else 'no'} | {cell.evidence} | {cell.runs} | {verdicts} | {kind} "
            f"| {cell.errors / cell.runs:.1%} ({low:.1%} to {high:.1%}) | {misses} |"
        )
    return "\n".join(lines)


def summary(found: list[Cell]) -> str:
    lines = []
    for title, chosen in (
        ("False pass, with evidence", [c for c in found if not c.is_sound and c.evidence != "nothing"]),
        ("False pass, without evidence", [c for c in found if not c.is_sound and c.evidence == "nothing"]),
        ("False block, sound worlds", [c for c in found if c.is_sound]),
    ):
        runs = sum(cell.runs for cell in chosen)
        if runs:
            errors = sum(cell.errors for cell in chosen)
            low, high = wilson(errors, runs)
            lines.append(f"{title}: {errors} of {runs}, {errors / runs:.1%} ({low:.1%} to {high:.1%}).")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1_500)
    parser.add_argument("--worlds", nargs="*", default=[])
    parser.add_argument("--evidence", nargs="*", default=list(dict.fromkeys((*EVIDENCE, *PANEL_EVIDENCE))))
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    found = list(cells(asked.worlds, asked.evidence, held_out=asked.held_out))
    with ProcessPoolExecutor(asked.processes) as pool:
        for cell in found:
            jobs = [pool.submit(one, cell.world, cell.evidence, asked.rows, FIRST_SEED + k) for k in range(asked.seeds)]
            for job in jobs:
                verdict, covers = job.result()
                cell.verdicts[verdict] += 1
                cell.wrong_passes += verdict == "proceed" and not covers
            print(table([cell]).splitlines()[-1], flush=True)
    text = f"{summary(found)}\n\n{table(found)}\n"
    print(f"\n{summary(found)}")
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
