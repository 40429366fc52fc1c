"""Panel estimators beside the Python peers that can be imported: same data, same process, one thread, medians.

python benchmarks/bench_panel.py              1,000 and 10,000 units in 20 periods
python benchmarks/bench_panel.py 50000 20     another size: 50,000 units in 20 periods
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import polars as pl

from e2i.causal.design import Identification
from e2i.causal.panel.event_study import event_study
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import TwoWayFixedEffects

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", cohort="g", treatment_kind="staggered")
SIZES = ((1_000, 20), (10_000, 20))
REPEATS = 5


def draw(units: int, periods: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    g = rng.choice([0, *range(5, periods - 1, 3)], units)
    t = np.arange(1, periods + 1)
    x = rng.normal(size=units)
    effect = ((g[:, None] > 0) & (t >= g[:, None])) * (1.0 + 0.1 * (t - g[:, None]))
    y = rng.normal(size=units)[:, None] + 0.05 * x[:, None] * t + effect + rng.normal(size=(units, periods))
    return pl.DataFrame(
        {
            "u": np.repeat(np.arange(units), periods),
            "t": np.tile(t, units),
            "g": np.repeat(g, periods),
            "y": y.ravel(),
            "x": np.repeat(x, periods),
        }
    )


def seconds(call: Callable[[], float]) -> tuple[float, float]:
    """Median wall seconds after one unmeasured call, and the answer."""
    answer, taken = call(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
        if sum(taken) > 20:
            break
    return median(taken), answer


def peers() -> dict[str, tuple[str, Callable[[pl.DataFrame, list[str] | None], float]]]:
    """Name -> what of ours it is compared with, and the call on a pandas frame."""
    import diff_diff
    from linearmodels import PanelOLS

    def group_time(frame: object, names: list[str] | None) -> float:
        fit = diff_diff.CallawaySantAnna(control_group="not_yet_treated").fit(frame, "y", "u", "t", "g", covariates=names)
        return float(fit.overall_att)

    def imputation(frame: object, _: list[str] | None) -> float:
        return float(diff_diff.ImputationDiD().fit(frame, "y", "u", "t", "g").overall_att)

    def two_way(frame: object, _: list[str] | None) -> float:
        data = frame.assign(d=((frame.g > 0) & (frame.t >= frame.g)).astype(float)).set_index(["u", "t"])
        fit = PanelOLS(data["y"], data[["d"]], entity_effects=True, time_effects=True).fit(cov_type="clustered", cluster_entity=True)
        return float(fit.params["d"])

    return {
        "group-time, plain": ("diff_diff CallawaySantAnna", group_time),
        "group-time, doubly robust": ("diff_diff CallawaySantAnna", group_time),
        "imputation": ("diff_diff ImputationDiD", imputation),
        "two-way fixed effects": ("linearmodels PanelOLS", two_way),
    }


def ours(frame: pl.DataFrame, name: str) -> float:
    """From the table to the estimate, preparation included, as the peer's call is."""
    spec = replace(SPEC, adjustment=("x",)) if "robust" in name else SPEC
    estimator = {"group": GroupTime(), "imput": Imputation(), "two-w": TwoWayFixedEffects()}[name[:5]]
    return estimator.fit(make_panel(frame, spec), spec, seed=1).estimate


def fitted(frame: pl.DataFrame, name: str) -> Callable[[], float]:
    """The estimate alone, from a prepared panel."""
    spec = replace(SPEC, adjustment=("x",)) if "robust" in name else SPEC
    estimator = {"group": GroupTime(), "imput": Imputation(), "two-w": TwoWayFixedEffects()}[name[:5]]
    panel = make_panel(frame, spec)
    return lambda: estimator.fit(panel, spec, seed=1).estimate


def compare(units: int, periods: int) -> None:
    frame = draw(units, periods)
    table = frame.to_pandas()
    print(f"\n{units:,} units x {periods} periods\n{'':28}{'ours s':>9}{'of it fit':>10}{'peer s':>9}{'ratio':>8}  difference, peer")
    for name, (peer, call) in peers().items():
        names = ["x"] if "robust" in name else None
        own, answer = seconds(lambda name=name: ours(frame, name))
        other, theirs = seconds(lambda call=call, names=names: call(table, names))
        alone, _ = seconds(fitted(frame, name))
        print(f"{name:28}{own:9.4f}{alone:10.4f}{other:9.4f}{other / own:8.1f}  {answer - theirs:+.1e}, {peer}", flush=True)
    panel = make_panel(frame, SPEC)
    print(f"{'event study, uniform bands':28}{seconds(lambda: event_study(panel, SPEC, seed=1)[0].estimate)[0]:9.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="*", type=int, metavar="UNITS PERIODS")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    for units, periods in [tuple(asked.size)] if asked.size else SIZES:
        compare(units, periods)


if __name__ == "__main__":
    main()
