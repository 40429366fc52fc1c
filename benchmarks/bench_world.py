"""How long the pharma world takes and how much memory: 5,000 HCPs x 104 weeks x all tables and 30,000 patients.

The budget is 20 s and 2 GB on one busy core. The yardstick beside it is plain numpy drawing one Poisson number per
HCP, brand and week, so that the ratio says something on any machine.

python benchmarks/bench_world.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

SECONDS, GIGABYTES = 20.0, 2.0
WORLD = """
import json, resource, time
start = time.perf_counter()
from e2i.data.synthetic import generate
imported = time.perf_counter()
world = generate(7)
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "import_s": imported - start, "generate_s": end - imported, "cpu_s": peak.ru_utime + peak.ru_stime, "peak_gb": peak.ru_maxrss / 1e6,
    "rows": {name: table.height for name, table in world.tables.items()},
}))
"""
STUDY = """
import time
from e2i.data.synthetic import study_world
start = time.perf_counter(); study_world(seed=7); print(time.perf_counter() - start)
"""


def _run(code: str) -> str:
    environment = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout


def _yardstick() -> float:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(104):
        rng.poisson(0.5, (5_000, 3))
    return time.perf_counter() - start


def main() -> int:
    """Print the figures; 1 when the budget is broken."""
    best = min((json.loads(_run(WORLD)) for _ in range(3)), key=lambda figures: figures["generate_s"])
    study_s = min(float(_run(STUDY)) for _ in range(3))
    yardstick_s = min(_yardstick() for _ in range(3))
    for name, rows in best["rows"].items():
        print(f"{name:20} {rows:>9,} rows")
    print(f"whole world   {best['generate_s']:6.2f} s  ({best['cpu_s']:.2f} s of CPU with imports), peak {best['peak_gb']:.2f} GB")
    print(f"study alone   {study_s:6.2f} s")
    print(f"ratio to one Poisson draw per HCP, brand and week ({yardstick_s:.3f} s): {best['generate_s'] / yardstick_s:.0f}")
    return int(best["generate_s"] > SECONDS or best["peak_gb"] > GIGABYTES)


if __name__ == "__main__":
    sys.exit(main())
