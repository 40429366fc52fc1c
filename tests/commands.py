"""The command line as a user runs it, and a small honest study to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
CLEAN = ("E2I_", "DATABASE_URL", "MLFLOW_", "OPTUNA_", "OTEL_", "OPIK_", "TRACE", "ANTHROPIC_", "OPENAI_")


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which holds JSON alone."""
        return json.loads(self.out)  # type: ignore[no-any-return]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The caller's environment without settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    return {**kept, "E2I_HOME": str(home), "NO_COLOR": "1", **more}


def e2i(*arguments: str | Path, home: Path, cwd: Path | None = None, timeout: float = 280, **more: str) -> Result:
    """Run `e2i`."""
    done = subprocess.run(
        [sys.executable, "-m", "e2i", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, cwd=cwd or ROOT, env=environment(home, **more), check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def visits(rows: int = 1500, seed: int = 3) -> pl.DataFrame:
    """A plain table: HCPs, a treatment with confounding, a continuous outcome, a binary target, dates over two years."""
    rng = np.random.default_rng(seed)
    decile = rng.integers(1, 11, rows)
    calls = rng.poisson(1 + 0.4 * decile)
    share = np.clip(rng.beta(2, 5, rows), 0, 1)
    specialty = rng.choice(["oncology", "hematology", "internal_medicine"], rows, p=[0.4, 0.3, 0.3])
    treated = rng.random(rows) < 1 / (1 + np.exp(-(-1.6 + 0.15 * decile + 0.1 * (specialty == "oncology"))))
    scripts = np.round(2 + 0.8 * decile + 0.3 * calls + 2.0 * treated + rng.normal(0, 2, rows), 1)
    score = -2.2 + 0.25 * decile + 2.5 * share + 0.15 * calls + 0.5 * (specialty == "oncology")
    days = np.sort(rng.integers(0, 720, rows))
    return pl.DataFrame(
        {
            "hcp": [f"H{i:05d}" for i in range(rows)],
            "index_date": (np.datetime64("2023-01-06") + days).astype("datetime64[D]"),
            "decile": decile,
            "calls": calls,
            "share": np.round(share, 4),
            "specialty": specialty,
            "region": rng.choice(["northeast", "south", "midwest", "west"], rows),
            "program": treated.astype(np.int64),
            "scripts": scripts,
            "converts": (rng.random(rows) < 1 / (1 + np.exp(-score + 1.8))).astype(np.int64),
        }
    )


def study(**changes: Any) -> dict[str, Any]:
    """A study on `visits`, small enough to run in seconds."""
    return {
        "name": "tried",
        "data": {"source": "visits.csv"},
        "unit": "hcp",
        "effect": {"treatment": "program", "outcome": "scripts", "confounders": ["decile", "calls", "specialty"], "estimand": "ATE"},
        "prediction": {"target": "converts", "event_time": "index_date", "after_event": ["scripts"], "exclude": ["program"]},
        "search": {"trials": 3, "algorithms": ["logistic_regression", "lightgbm"]},
        **changes,
    }


def write(folder: Path, frame: pl.DataFrame | None = None, content: dict[str, Any] | None = None) -> Path:
    """Write `visits.csv` and `study.yaml`; returns the study's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if frame is not None:
        frame.write_csv(folder / "visits.csv")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content or study(), sort_keys=False))
    return path
