"""The whole `e2i run` beside a lean script that makes the same fits (lean_run.py): time, CPU, memory, time to the first step.

Both run as processes of their own, in turn (A B A B …), on warm state: the database was initialised and stopped, MLflow's
tables are there, bytecode is compiled. Warm start of the search is off, so that all runs search the same fifty trials; the
reports are compared, and a number that differs fails the benchmark.

CPU is user and system time of every process that a run has started, PostgreSQL too: what has lost its parent becomes a child
of this script, which reaps it. Memory is the largest sum of the resident sets of all these processes, sampled every 0.1 s;
pages that they share count once for each, so it is an upper bound.

python benchmarks/bench_run.py [--pairs N] [--home FOLDER]
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEAN = Path(__file__).with_name("lean_run.py")
RATIO, GIGABYTES, FIRST_STEP_S = 1.1, 4.0, 8.0
FOREIGN = ("E2I_", "DATABASE_URL", "MLFLOW_", "OPTUNA_", "OTEL_")
SAMPLE_S = 0.1
PR_SET_CHILD_SUBREAPER = 36
PAGE = os.sysconf("SC_PAGE_SIZE")
TOLERANCE = 1e-9
COMPARED = ("data", "qc", "splits", "split_plan", "explanation", "effect")
COMPARED_OF_MODEL = (
    "algorithm", "hyperparameters", "threshold", "calibration", "metrics", "baseline", "train_metrics", "validation_metrics",
    "fairness", "success_criteria", "feature_names", "epochs",
)  # fmt: skip
COMPARED_OF_SEARCH = ("best_value", "best_trial", "complete", "pruned", "failed")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process from start to end. `first_line_s` is the time to the first line on standard error, None when there is none."""

    wall_s: float
    cpu_s: float
    peak_gb: float
    first_line_s: float | None
    report: dict[str, Any]


def measure(command: list[str], environment: dict[str, str]) -> Run:
    """Run `command` to its end; raises RuntimeError when it fails."""
    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        listener = threading.Thread(target=_listen, args=(process, lines))
        listener.start()
        peak, cpu, status, ended = 0, 0.0, None, 0.0
        while True:
            pid, code, usage = _reap()
            if pid > 0:
                cpu += usage.ru_utime + usage.ru_stime
                if pid == process.pid:
                    ended, status = time.perf_counter(), os.waitstatus_to_exitcode(code)
                    process.returncode = status
                continue
            if pid < 0:
                break
            peak = max(peak, _resident(os.getpid()))
            time.sleep(SAMPLE_S)
        listener.join()
        output.seek(0)
        text = output.read()
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n" + "\n".join(line for _, line in lines[-20:]))
    first = lines[0][0] - started if lines else None
    return Run(wall_s=ended - started, cpu_s=cpu, peak_gb=peak / 1e9, first_line_s=first, report=json.loads(text))


def _listen(process: subprocess.Popen[str], lines: list[tuple[float, str]]) -> None:
    assert process.stderr is not None
    lines.extend((time.perf_counter(), line.rstrip()) for line in process.stderr)


def _reap() -> tuple[int, int, Any]:
    """A child that has ended: its pid, status and usage with that of its own children; pid 0 when none has, -1 when there is none."""
    try:
        return os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return -1, 0, None


def _resident(root: int) -> int:
    """Bytes in the resident sets of all descendants of `root`."""
    parents, total = {}, 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = stat.rpartition(")")[2].split()
    for pid, fields in parents.items():
        above = pid
        while above in parents and above != root:
            above = int(parents[above][1])
        if above == root and pid != root:
            total += int(fields[21]) * PAGE
    return total


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two reports do not say the same; numbers may differ by 1e-9 of their size."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys())
        return [text for key in keys for text in differences(ours.get(key), theirs.get(key), f"{where}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = zip(ours, theirs, strict=True)
        return [text for index, (one, other) in enumerate(pairs) for text in differences(one, other, f"{where}/{index}")]
    if isinstance(ours, float) and isinstance(theirs, float) and abs(ours - theirs) <= TOLERANCE * max(abs(ours), 1.0):
        return []
    return [] if ours == theirs else [f"{where}: {ours} and {theirs}"]


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """What both must say alike: everything but ids and times."""
    model = report["model"]
    told = {name: report[name] for name in COMPARED} | {name: model[name] for name in COMPARED_OF_MODEL}
    return told | {"search": {name: model["search"][name] for name in COMPARED_OF_SEARCH}}


def median(values: list[float]) -> float:
    return statistics.median(values)


def show(name: str, runs: list[Run]) -> None:
    wall, cpu, peak = ([getattr(run, key) for run in runs] for key in ("wall_s", "cpu_s", "peak_gb"))
    each = " ".join(f"{value:.1f}" for value in wall)
    print(f"{name:8} wall {median(wall):6.1f} s   CPU {median(cpu):6.1f} s   peak {max(peak):5.2f} GB   (wall of each: {each})")


def steps(name: str, runs: list[Run]) -> None:
    print(f"\n{name}, median seconds by step")
    for step in runs[0].report["timings_s"]:
        print(f"  {step:28} {median([run.report['timings_s'][step] for run in runs]):7.2f}")
    rest = median([run.wall_s for run in runs])
    print(f"  {'whole process':28} {rest:7.2f}")


def main() -> int:
    """Print the figures; 1 when a budget is broken or the reports differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--home", type=Path, help="folder for the state of both; default: a temporary one")
    asked = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="e2i-bench-") as temporary:
        home = (asked.home or Path(temporary)).absolute()
        ours, theirs = pairs(home, asked.pairs)
    show("e2i run", ours)
    show("lean", theirs)
    ratios = [one.wall_s / other.wall_s for one, other in zip(ours, theirs, strict=True)]
    cpu = [one.cpu_s / other.cpu_s for one, other in zip(ours, theirs, strict=True)]
    first = median([run.first_line_s or 0.0 for run in ours])
    print(
        f"ratio    wall {median(ratios):6.2f}     CPU {median(cpu):6.2f}     (wall by pair: {' '.join(f'{value:.2f}' for value in ratios)})"
    )
    print(f"first step of a second run ended after {first:.1f} s")
    steps("e2i run", ours)
    steps("lean", theirs)
    found = [
        text for one, other in zip(ours, theirs, strict=True) for text in differences(comparable(one.report), comparable(other.report))
    ]
    print("\nresults: the same" if not found else "\nresults DIFFER (e2i and lean):\n  " + "\n  ".join(dict.fromkeys(found)))
    broken = median(ratios) > RATIO or max(run.peak_gb for run in ours) > GIGABYTES or first > FIRST_STEP_S
    print(f"budgets (ratio {RATIO}, {GIGABYTES:g} GB, {FIRST_STEP_S:g} s): {'BROKEN' if broken else 'kept'}")
    return int(broken or bool(found))


def pairs(home: Path, count: int) -> tuple[list[Run], list[Run]]:
    """Warm both up with two trials, then run them in turn."""
    compileall.compile_dir(ROOT / "src", quiet=1)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    fixed = {**clean, "E2I_HOME": str(home / "e2i"), "E2I_OPTUNA__WARMSTART__ENABLED": "false", "NO_COLOR": "1"}
    e2i, lean = [sys.executable, "-m", "e2i", "run", "--json"], [sys.executable, str(LEAN), str(home / "lean")]
    measure(e2i, {**fixed, "E2I_OPTUNA__OPTIMIZATION__DEFAULT_N_TRIALS": "2"})
    measure([*lean, "--trials", "2"], clean)
    ours, theirs = [], []
    for number in range(count):
        ours.append(measure(e2i, fixed))
        theirs.append(measure(lean, clean))
        for name, run in (("e2i", ours[-1]), ("lean", theirs[-1])):
            print(f"pair {number + 1} {name:5} wall {run.wall_s:6.1f} s  CPU {run.cpu_s:6.1f} s  peak {run.peak_gb:.2f} GB", flush=True)
    print()
    return ours, theirs


if __name__ == "__main__":
    sys.exit(main())
