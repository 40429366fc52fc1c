"""Panel estimators beside the Python peers that can be imported: same data, same process, one thread, CPU seconds, medians.

python benchmarks/bench_panel.py                   1,000 and 10,000 units in 20 periods
python benchmarks/bench_panel.py 50000 20          another size: 50,000 units in 20 periods
python benchmarks/bench_panel.py --only plain      questions whose name holds a word

Peers: the packages diff-diff and linearmodels (among the development dependencies), and differences, csdid, moderndid and pyfixest,
which an environment of its own may add. Those that are absent are named. Everybody starts from a table (ours polars, theirs pandas) and
ends with an estimate and its clustered standard error. The group-time questions ask for the effect of every cohort and period with its
analytic standard error, their average, and averages by time since treatment; with draws, for bands over the latter from 999 multiplier
draws. csdid has no row there: its bootstrap ends in an error under numpy 2. A `difference` far from zero marks another estimator.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from statistics import median
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402 - threads are set first
import polars as pl  # noqa: E402

from e2i.causal.design import Identification  # noqa: E402
from e2i.causal.panel.clusters import uniform_critical_value  # noqa: E402
from e2i.causal.panel.group_time import GroupTime  # noqa: E402
from e2i.causal.panel.imputation import Imputation  # noqa: E402
from e2i.causal.panel.prepare import make_panel  # noqa: E402
from e2i.causal.panel.two_way import TwoWayFixedEffects  # noqa: E402

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", cohort="g", treatment_kind="staggered")
SIZES = ((1_000, 20), (10_000, 20))
REPEATS, LONGEST_S, DRAWS = 7, 8.0, 999
PLAIN, GIVEN_X, DRAWN, GIVEN_X_DRAWN = (
    "group-time, plain",
    "group-time, doubly robust",
    "group-time, plain, draws",
    "group-time, doubly robust, draws",
)
Answer = tuple[float, float]
"""estimate and standard error"""
Peer = Callable[[Any], Answer]
"""from a pandas frame"""


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


def ours_group_time(frame: pl.DataFrame, *, given_x: bool, draws: bool) -> Answer:
    spec = replace(SPEC, adjustment=("x",)) if given_x else SPEC
    effects = GroupTime().effects(make_panel(frame, spec), spec)
    effects.standard_errors()
    dynamic, simple = effects.aggregate("dynamic"), effects.aggregate("simple")
    if draws:
        uniform_critical_value(dynamic.influence, seed=1, draws=DRAWS)
    own = simple.overall_influence
    return simple.overall, float(np.sqrt(np.var(own, ddof=1) / len(own)))


def ours_fit(frame: pl.DataFrame, estimator: Imputation | TwoWayFixedEffects) -> Answer:
    found = estimator.fit(make_panel(frame, SPEC), SPEC, seed=1)
    return found.estimate, found.standard_error


OURS: dict[str, Callable[[pl.DataFrame], Answer]] = {
    PLAIN: lambda frame: ours_group_time(frame, given_x=False, draws=False),
    GIVEN_X: lambda frame: ours_group_time(frame, given_x=True, draws=False),
    DRAWN: lambda frame: ours_group_time(frame, given_x=False, draws=True),
    GIVEN_X_DRAWN: lambda frame: ours_group_time(frame, given_x=True, draws=True),
    "imputation": lambda frame: ours_fit(frame, Imputation()),
    "two-way fixed effects": lambda frame: ours_fit(frame, TwoWayFixedEffects()),
}


def of_diff_diff() -> Mapping[str, Peer]:
    import diff_diff

    def group_time(frame: Any, *, given_x: bool, draws: bool) -> Answer:
        model = diff_diff.CallawaySantAnna(control_group="not_yet_treated", n_bootstrap=DRAWS if draws else 0, cband=draws, seed=1)
        found = model.fit(frame, "y", "u", "t", "g", covariates=["x"] if given_x else None, aggregate="event_study")
        return found.overall_att, found.overall_se

    def other(frame: Any, model: Any) -> Answer:
        found = model.fit(frame, "y", "u", "t", "g")
        return found.overall_att, found.overall_se

    return group_time_questions(group_time) | {"imputation": lambda frame: other(frame, diff_diff.ImputationDiD())}


def of_differences() -> Mapping[str, Peer]:
    import differences

    def group_time(frame: Any, *, given_x: bool, draws: bool) -> Answer:
        data = frame.assign(g=frame.g.where(frame.g > 0)).set_index(["u", "t"])
        model, count = differences.ATTgt(data, cohort_column="g"), DRAWS if draws else 0
        model.fit("y ~ x" if given_x else "y", est_method="dr", control_group="not_yet_treated", boot_iterations=count, random_state=1)
        model.aggregate("event", boot_iterations=count, random_state=1)
        simple = model.aggregate("simple")
        return float(simple.iloc[0, 0]), float(simple.iloc[0, 1])

    return group_time_questions(group_time)


def of_csdid() -> Mapping[str, Peer]:
    from csdid.att_gt import ATTgt

    def group_time(frame: Any, *, given_x: bool, draws: bool) -> Answer:
        model = ATTgt("y", "t", "u", "g", frame, control_group=["notyettreated"], xformla="y ~ x" if given_x else None)
        model.fit(est_method="dr", bstrap=draws)
        model.aggte("dynamic", bstrap=draws)
        simple = model.aggte("simple", bstrap=draws).atte
        return float(simple["overall_att"]), float(np.squeeze(simple["overall_se"]))

    found = group_time_questions(group_time)
    return {name: found[name] for name in (PLAIN, GIVEN_X)}


def of_moderndid() -> Mapping[str, Peer]:
    import moderndid

    def group_time(frame: Any, *, given_x: bool, draws: bool) -> Answer:
        formula = "~ x" if given_x else None
        drawn = {"boot": draws, "cband": draws, "biters": DRAWS}
        found = moderndid.att_gt(frame, "y", "t", "u", "g", xformla=formula, control_group="notyettreated", random_state=1, **drawn)
        moderndid.aggte(found, "dynamic", random_state=1)
        simple = moderndid.aggte(found, "simple", random_state=1)
        return float(simple.overall_att), float(simple.overall_se)

    return group_time_questions(group_time)


def of_pyfixest() -> Mapping[str, Peer]:
    import pyfixest

    def treated(frame: Any) -> Any:
        return frame.assign(d=((frame.g > 0) & (frame.t >= frame.g)).astype(float))

    def did2s(frame: Any) -> Answer:
        found = pyfixest.did2s(treated(frame), "y", "~ 0 | u + t", "~ d", "d", "u")
        return float(found.coef().iloc[0]), float(found.se().iloc[0])

    def feols(frame: Any) -> Answer:
        found = pyfixest.feols("y ~ d | u + t", treated(frame), vcov={"CRV1": "u"})
        return float(found.coef().iloc[0]), float(found.se().iloc[0])

    def lpdid(frame: Any) -> Answer:
        found = pyfixest.lpdid(frame, "y", "u", "t", "g", vcov={"CRV1": "u"}).tidy()
        return float(found["Estimate"].iloc[0]), float(found["Std. Error"].iloc[0])

    def saturated(frame: Any) -> Answer:
        found = pyfixest.event_study(frame, "y", "u", "t", "g", estimator="saturated", cluster="u").aggregate()
        after = found[found.index.astype(float) >= 0].iloc[0]
        return float(after["Estimate"]), float(after["Std. Error"])

    return {"imputation": did2s, "two-way fixed effects": feols, f"{PLAIN} (lpdid)": lpdid, f"{PLAIN} (saturated, first period)": saturated}


def of_linearmodels() -> Mapping[str, Peer]:
    from linearmodels import PanelOLS

    def two_way(frame: Any) -> Answer:
        data = frame.assign(d=((frame.g > 0) & (frame.t >= frame.g)).astype(float)).set_index(["u", "t"])
        fit = PanelOLS(data["y"], data[["d"]], entity_effects=True, time_effects=True).fit(cov_type="clustered", cluster_entity=True)
        return float(fit.params["d"]), float(fit.std_errors["d"])

    return {"two-way fixed effects": two_way}


def group_time_questions(call: Callable[..., Answer]) -> dict[str, Peer]:
    return {
        PLAIN: lambda frame: call(frame, given_x=False, draws=False),
        GIVEN_X: lambda frame: call(frame, given_x=True, draws=False),
        DRAWN: lambda frame: call(frame, given_x=False, draws=True),
        GIVEN_X_DRAWN: lambda frame: call(frame, given_x=True, draws=True),
    }


PACKAGES: dict[str, Callable[[], Mapping[str, Peer]]] = {
    "diff_diff": of_diff_diff,
    "differences": of_differences,
    "csdid": of_csdid,
    "moderndid": of_moderndid,
    "pyfixest": of_pyfixest,
    "linearmodels": of_linearmodels,
}


def cpu_seconds(call: Callable[[], Answer]) -> tuple[float, Answer]:
    """Median after one unmeasured call, and the answer; what a peer prints is not shown."""
    taken: list[float] = []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        answer = call()
        while len(taken) < REPEATS and sum(taken) < LONGEST_S:
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return median(taken), answer


def compare(units: int, periods: int, *, peers: Mapping[str, Mapping[str, Peer]], word: str) -> None:
    frame = draw(units, periods)
    table = frame.to_pandas()
    print(f"\n{units:,} units x {periods} periods{'':14}{'CPU s':>10}{'x ours':>8}{'estimate':>11}{'difference':>12}{'s.e.':>10}")
    for question, own in OURS.items():
        if word not in question:
            continue
        ours, (estimate, error) = cpu_seconds(lambda own=own: own(frame))
        print(f"{question}\n{'  e2i':44}{ours:10.4f}{'1.0':>8}{estimate:11.5f}{'':12}{error:10.5f}", flush=True)
        for package, calls in peers.items():
            for name, call in calls.items():
                if name.split(" (")[0] != question:
                    continue
                other, (theirs, its_error) = cpu_seconds(lambda call=call: call(table))
                label = f"  {package}{name.removeprefix(question)}"
                print(f"{label:44}{other:10.4f}{other / ours:8.1f}{theirs:11.5f}{theirs - estimate:+12.1e}{its_error:10.5f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="*", type=int, metavar="UNITS PERIODS")
    parser.add_argument("--only", default="", metavar="WORD")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    missing = [package for package in PACKAGES if find_spec(package) is None]
    print(f"peers that cannot be imported here: {', '.join(missing) or 'none'}")
    peers = {package: calls() for package, calls in PACKAGES.items() if package not in missing}
    for units, periods in [tuple(asked.size)] if asked.size else SIZES:
        compare(units, periods, peers=peers, word=asked.only)


if __name__ == "__main__":
    main()
