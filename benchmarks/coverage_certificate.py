"""Coverage of 95 % intervals by estimator and data shape; writes the table that `causal.certificate` reads.

python benchmarks/coverage_certificate.py --seeds 400                       every cell, two processes, resumes where it stopped
python benchmarks/coverage_certificate.py --seeds 400 --worlds linear count --rows 500 1000
python benchmarks/coverage_certificate.py --show

Each batch of seeds that is finished is one line of the table; a run that is stopped loses at most one batch per process.
"""

from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from e2i.causal.certificate import HIGH, LOW, Shape, read  # noqa: E402 - threads are set first

TABLE = Path(__file__).parents[1] / "src" / "e2i" / "causal" / "certificates.csv"
COLUMNS = ("estimator", "world", "rows", "overlap", "zeros", "grouping", "staggering", "first_seed", "seeds", "covered")
ESTIMATOR = "cross-fitted doubly robust (AIPW), stacked nuisances"
WORLDS = ("linear", "curved", "heterogeneous", "binary", "count", "rare_treatment", "no_effect", "stepped")
ROWS = (500, 1_000, 2_000, 5_000)
BATCH = 20
_OFFSET = 50_000
"""seeds of certificates are no seeds of tests or of the gate's grid"""


def batch(world: str, rows: int, first: int) -> dict[str, object]:
    """Cover or not over one batch of seeds."""
    import numpy as np

    from e2i.causal.design import prepare
    from e2i.causal.estimators.doubly_robust import doubly_robust, fit_propensity, repetitions_for
    from e2i.causal.estimators.features import make_features
    from e2i.causal.overlap import measure_overlap
    from e2i.causal.router import identify
    from e2i.causal.worlds import WORLDS as ALL

    story = ALL[world]
    covered, shares, zeros = 0, [], []
    for seed in range(_OFFSET + first, _OFFSET + first + BATCH):
        frame = story.draw(rows, seed=seed)
        sample = prepare(frame, identify(story.effect(), frame))
        features = make_features(sample.covariates.matrix)
        propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=repetitions_for(rows), seed=seed)
        fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand="ATE", seed=seed)
        covered += abs(fit.estimate - story.truth("ATE")) <= 1.96 * fit.standard_error
        shares.append(measure_overlap(sample.treatment, propensity.mean, "ATE").effective_share)
        zeros.append(float((sample.outcome == 0).mean()))
    shape = Shape(rows=rows, effective_share=float(np.median(shares)), zero_share=float(np.median(zeros)))
    return {
        "estimator": ESTIMATOR,
        "world": world,
        "rows": rows,
        "overlap": shape.overlap,
        "zeros": shape.zeros,
        "grouping": shape.grouping,
        "staggering": shape.staggering,
        "first_seed": first,
        "seeds": BATCH,
        "covered": int(covered),
    }


def done() -> set[tuple[str, int, int]]:
    if not TABLE.exists():
        return set()
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {(row["world"], int(row["rows"]), int(row["first_seed"])) for row in csv.DictReader(file)}


def append(row: dict[str, object]) -> None:
    is_new = not TABLE.exists() or TABLE.stat().st_size == 0
    with TABLE.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def show() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        for cell in read(csv.DictReader(file)):
            mark = "certified" if cell.seeds >= 400 and LOW <= cell.coverage <= HIGH else ""
            print(f"{cell.world:16}{cell.rows:8}{cell.overlap:>6}{cell.zeros:>8}{cell.seeds:6}{cell.coverage:8.3f}  {mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--worlds", nargs="*", default=WORLDS)
    parser.add_argument("--rows", nargs="*", type=int, default=ROWS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    if not asked.show:
        finished = done()
        cells = [(w, n, first) for n in asked.rows for w in asked.worlds for first in range(0, asked.seeds, BATCH)]
        open_cells = [cell for cell in cells if cell not in finished]
        print(f"{len(open_cells)} batches of {BATCH} seeds to run, {len(cells) - len(open_cells)} are there")
        with ProcessPoolExecutor(asked.processes) as pool:
            for future in as_completed([pool.submit(batch, *cell) for cell in open_cells]):
                append(future.result())
    show()


if __name__ == "__main__":
    main()
