"""Coverage of 95 % intervals by estimator, estimand and data shape; writes the table that `causal.certificate` reads.

python benchmarks/coverage_certificate.py --seeds 400                       every cell, two processes, resumes where it stopped
python benchmarks/coverage_certificate.py --seeds 400 --worlds linear count --rows 500 1000
python benchmarks/coverage_certificate.py --fast                            closed forms and panels only: minutes
python benchmarks/coverage_certificate.py --show
python benchmarks/coverage_certificate.py --markdown                        the table of docs/causal-gate.md

Worlds are those of `certificate_cells.STORIES`. A finished batch of seeds is one line per estimator; a run that is stopped loses at
most one batch per process. After an estimator has changed, delete its lines first: they were measured on another one.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from certificate_cells import STORIES, Story  # noqa: E402 - threads are set first
from certificate_panels import Told  # noqa: E402
from e2i.causal.certificate import COLUMNS, HIGH, LOW, SEEDS_NEEDED, SHAPE, Certificate, read  # noqa: E402
from e2i.errors import CausalError, DataError  # noqa: E402

TABLE = Path(__file__).parents[1] / "src" / "e2i" / "causal" / "certificates.csv"
_STORIES = {story.world: story for story in STORIES}
_SLOW = 20
"""a batch of so few seeds is a slow one"""
_OFFSET = 50_000
"""seeds of certificates are no seeds of tests or of the gate's grid"""


def batch(world: str, rows: int, first: int) -> list[dict[str, object]]:
    """Cover or not over one batch of seeds, a line per estimator and estimand."""
    story = _STORIES[world]
    answered: Counter[tuple[str, str]] = Counter()
    covered: Counter[tuple[str, str]] = Counter()
    shapes: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
    for seed in range(_OFFSET + first, _OFFSET + first + story.batch):
        for told in _answers(story, rows, seed):
            key = (told.estimator, told.estimand)
            answered[key] += 1
            covered[key] += told.interval[0] <= told.truth <= told.interval[1]
            shapes.setdefault(key, Counter())[tuple(getattr(told.shape, name) for name in SHAPE)] += 1
    return [
        {"estimator": estimator, "estimand": estimand, "world": world, "rows": rows, "first_seed": first}
        | {"seeds": answered[estimator, estimand], "covered": int(covered[estimator, estimand])}
        | dict(zip(SHAPE, common.most_common(1)[0][0], strict=True))
        for (estimator, estimand), common in shapes.items()
    ]


def _answers(story: Story, rows: int, seed: int) -> list[Told]:
    """What is told about one draw: nothing where it is refused, so that coverage is that of the intervals that people see."""
    try:
        return list(story.fit(rows, seed))
    except (CausalError, DataError):
        return []


def done() -> set[tuple[str, int, int]]:
    if not TABLE.exists():
        return set()
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {(row["world"], int(row["rows"]), int(row["first_seed"])) for row in csv.DictReader(file)}


def append(lines: list[dict[str, object]]) -> None:
    is_new = not TABLE.exists() or TABLE.stat().st_size == 0
    with TABLE.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(lines)


def show() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        for cell in read(csv.DictReader(file)):
            mark = "certified" if cell.seeds >= SEEDS_NEEDED and LOW <= cell.coverage <= HIGH else ""
            shape = " ".join(getattr(cell, name) for name in SHAPE)
            print(
                f"{cell.estimator[:42]:43}{cell.estimand:5}{cell.world:24}{cell.rows:6} {shape:34}{cell.seeds:5}{cell.coverage:7.3f} {mark}"
            )


_PLAIN = {"overlap": "good", "zeros": "few", "grouping": "none", "arms": "", "staggering": "single"}
_WORDS = {"overlap": "overlap {}", "zeros": "zeros {}", "grouping": "clusters {}", "arms": "arms {}", "staggering": "{}"}


def markdown() -> None:
    """The table of docs/causal-gate.md: the worst world of each shape and size."""
    worst: dict[tuple[str, str, str], dict[int, Certificate]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for cell in read(csv.DictReader(file)):
            if cell.seeds < 0.95 * SEEDS_NEEDED:  # a few draws may have been refused
                continue
            shape = ", ".join(_WORDS[name].format(getattr(cell, name)) for name in SHAPE if getattr(cell, name) != _PLAIN[name])
            sizes = worst.setdefault((cell.estimator, cell.estimand, shape.replace("arms dose", "dose")), {})
            if cell.rows not in sizes or abs(cell.coverage - 0.95) > abs(sizes[cell.rows].coverage - 0.95):
                sizes[cell.rows] = cell
    print("| Estimator | Estimand | Shape | n: worst coverage over worlds |\n| --- | --- | --- | --- |")
    for (estimator, estimand, shape), sizes in worst.items():
        told = "; ".join(
            f"{rows:,}: {cell.coverage:.1%}{'' if LOW <= cell.coverage <= HIGH else ' (no)'}" for rows, cell in sorted(sizes.items())
        )
        print(f"| {estimator} | {estimand} | {shape} | {told} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS_NEEDED)
    parser.add_argument("--worlds", nargs="*", choices=tuple(_STORIES), default=tuple(_STORIES))
    parser.add_argument("--rows", nargs="*", type=int)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    if asked.markdown:
        markdown()
        return
    if not asked.show:
        finished = done()
        stories = [_STORIES[world] for world in asked.worlds if not (asked.fast and _STORIES[world].batch == _SLOW)]
        cells = [
            (story.world, rows, first)
            for story in stories
            for rows in story.rows
            if asked.rows is None or rows in asked.rows
            for first in range(0, asked.seeds, story.batch)
        ]
        open_cells = [cell for cell in cells if cell not in finished]
        print(f"{len(open_cells)} batches to run, {len(cells) - len(open_cells)} are there", flush=True)
        with ProcessPoolExecutor(asked.processes) as pool:
            for future in as_completed([pool.submit(batch, *cell) for cell in open_cells]):
                append(future.result())
    show()


if __name__ == "__main__":
    main()
