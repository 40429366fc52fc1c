"""Linear and double-difference models on a Parquet file that memory does not hold, against pandas with statsmodels in memory.

    python benchmarks/bench_compression.py --rows 20000000

Every case runs in a process of its own; printed are seconds (imports, reading, compressing, fitting), peak memory and the coefficient.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PERIODS = 100
CHUNK = 20_000
WORLD = Path(__file__).with_name("compression_world.sql").read_text(encoding="utf-8")


def write_world(path: Path, *, rows: int) -> None:
    import duckdb
    import pyarrow.parquet as pq

    connection, writer = duckdb.connect(), None
    for first in range(0, rows // PERIODS, CHUNK):
        last = min(first + CHUNK, rows // PERIODS)
        table = connection.sql(WORLD.format(first=first, last=last)).to_arrow_table()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def ours_rows(path: Path) -> dict[str, float]:
    from e2i.causal.panel.compressed import fit_rows
    from e2i.data.compress import LargeFile

    data = LargeFile(path=path).rows(outcome="nrx", regressors=["program", "decile", "region"], cluster="territory")
    effect = fit_rows(data, variance="cluster").effect("program", estimand="ATE")
    return {"estimate": effect.estimate, "standard_error": effect.standard_error, "compressed_rows": float(len(data.count))}


def ours_two_way(path: Path) -> dict[str, float]:
    from e2i.causal.panel.compressed import two_way
    from e2i.data.compress import LargeFile

    data = LargeFile(path=path).two_way(unit="npi", time="week", outcome="nrx", treatment="program")
    effect = two_way(data)
    return {"estimate": effect.estimate, "standard_error": effect.standard_error, "compressed_rows": float(len(data.cross))}


def study_panel(path: Path) -> dict[str, float]:
    """All that a study gets of a large panel: profile, estimate, how treatment begins, verdict."""
    return answer_of(path, unit="npi", time="week")


def study_rows(path: Path) -> dict[str, float]:
    """Regressors with many values: cross products, and a second reading for the robust variance."""
    return answer_of(path, unit=None, time=None, confounders=("npi", "week", "region"))


def answer_of(path: Path, *, unit: str | None, time: str | None, **roles: object) -> dict[str, float]:
    from e2i.app.large_effect import answer_large
    from e2i.data.compress import LargeFile
    from e2i.domain.study import Study

    effect = {"treatment": "program", "outcome": "nrx", **roles}
    study = Study.model_validate({"name": "large", "data": {"source": str(path)}, "unit": unit, "time": time, "effect": effect})
    found = answer_large(LargeFile(path=path), study).finding.effect
    assert found is not None
    return {"estimate": found.estimate, "standard_error": found.standard_error}


def statsmodels_rows(path: Path) -> dict[str, float]:
    import pandas as pd
    import statsmodels.formula.api as smf

    frame = pd.read_parquet(path)
    fit = smf.ols("nrx ~ program + decile + region", frame).fit(cov_type="cluster", cov_kwds={"groups": frame["territory"]})
    return {"estimate": float(fit.params["program"]), "standard_error": float(fit.bse["program"])}


def linearmodels_two_way(path: Path) -> dict[str, float]:
    import pandas as pd
    from linearmodels import PanelOLS

    frame = pd.read_parquet(path).set_index(["npi", "week"])
    fit = PanelOLS(frame["nrx"], frame[["program"]], entity_effects=True, time_effects=True).fit(cov_type="clustered", cluster_entity=True)
    return {"estimate": float(fit.params["program"]), "standard_error": float(fit.std_errors["program"])}


CASES = {case.__name__: case for case in (ours_rows, ours_two_way, study_panel, study_rows, statsmodels_rows, linearmodels_two_way)}


def run_case(name: str, path: Path) -> dict[str, float]:
    """In a new process, so that peak memory is the case's own."""
    command = [sys.executable, __file__, "--case", name, "--path", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mb() -> float:
    """Of this program alone; `getrusage` would start from what the parent held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(name: str, path: Path) -> None:
    start = time.perf_counter()
    found = CASES[name](path)
    found["seconds"] = time.perf_counter() - start
    found["peak_mb"] = peak_mb()
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--small", type=int, default=1_000_000, help="rows of the comparison in memory")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--path", type=Path)
    chosen = parser.parse_args()
    if chosen.case:
        measure(chosen.case, chosen.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.parquet", Path(folder) / "small.parquet"
        write_world(large, rows=chosen.rows)
        write_world(small, rows=chosen.small)
        print(f"{'case':<22}{'rows':>12}{'seconds':>9}{'peak MB':>9}{'estimate':>12}{'s.e.':>11}")
        seconds = {}
        for name, path, rows in [(n, small, chosen.small) for n in CASES] + [
            (n, large, chosen.rows) for n in ("ours_rows", "ours_two_way", "study_panel", "study_rows")
        ]:
            found = run_case(name, path)
            seconds[name, rows] = found["seconds"]
            print(
                f"{name:<22}{rows:>12,}{found['seconds']:>9.2f}{found['peak_mb']:>9.0f}{found['estimate']:>12.6f}{found['standard_error']:>11.6f}"
            )
        for ours, peer in (("ours_rows", "statsmodels_rows"), ("ours_two_way", "linearmodels_two_way")):
            ratio = seconds[peer, chosen.small] / seconds[ours, chosen.small]
            print(f"{peer} / {ours} at {chosen.small:,} rows: {ratio:.1f} times the seconds")


if __name__ == "__main__":
    main()
