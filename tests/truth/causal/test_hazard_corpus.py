"""What other libraries answer in silence. Here each cell is refused, held back, or its interval covers the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.hazards import validate
from e2i.domain.study import EffectSpec
from hazard_cells import TRUE_EFFECT, Cell, ask

SPEC = EffectSpec(treatment="t", outcome="y", confounders=("a", "b", "segment"), negative_controls=("other",), pre_outcomes=("before",))


def clean(rows: int = 500, seed: int = 11) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    segment = rng.choice(["north", "south", "west"], rows)
    t = (rng.random(rows) < sigmoid(0.5 * a - 0.3 * b)).astype(int)
    base = a + 0.5 * b + 0.4 * (segment == "west")
    y = TRUE_EFFECT * t + base + rng.normal(size=rows)
    frame = {"a": a, "b": b, "segment": segment, "t": t, "y": y}
    return pl.DataFrame(frame | {"other": base + rng.normal(size=rows), "before": base + rng.normal(size=rows)})


ROW = pl.int_range(pl.len())


def put(**columns: pl.Expr) -> pl.DataFrame:
    return clean().with_columns(**columns)


def hidden(strength: float) -> pl.DataFrame:
    """A trait moves treatment, outcome, control and the outcome before; nobody recorded it."""
    rng = np.random.default_rng(5)
    base, trait = clean(), rng.normal(size=500)
    t = (rng.random(500) < sigmoid(strength * trait + 0.5 * base["a"].to_numpy())).astype(int)
    moved = {name: base[name].to_numpy() + strength * trait for name in ("y", "other", "before")}
    return base.with_columns(t=pl.Series(t), **{name: pl.Series(values) for name, values in moved.items()}).with_columns(
        y=pl.col("y") + TRUE_EFFECT * (pl.col("t") - base["t"])
    )


NOISE = pl.Series(np.random.default_rng(0).normal(size=500))
CORPUS: dict[str, Callable[[], pl.DataFrame]] = {
    "clean": clean,
    "no overlap": lambda: put(t=(pl.col("a") > 0).cast(pl.Int64)),
    "99 % separated": lambda: put(t=((pl.col("a") > 0) ^ (ROW % 100 == 0)).cast(pl.Int64)),
    "all control": lambda: put(t=pl.lit(0)),
    "all treated": lambda: put(t=pl.lit(1)),
    "one treated": lambda: put(t=(ROW == 7).cast(pl.Int64)),
    "25 treated": lambda: put(t=(ROW < 25).cast(pl.Int64)),
    "3 rows": lambda: clean().head(3),
    "no row": lambda: clean().head(0),
    "constant outcome": lambda: put(y=pl.lit(3.5)),
    "outcome repeats treatment": lambda: put(y=2.0 * pl.col("t")),
    "NaN in the outcome by arm": lambda: put(y=pl.when((pl.col("t") == 1) & (pl.col("y") > 2)).then(None).otherwise(pl.col("y"))),
    "NaN in the treatment": lambda: put(t=pl.when(ROW % 20 == 0).then(None).otherwise(pl.col("t"))),
    "NaN in a confounder": lambda: put(a=pl.when(ROW % 9 == 0).then(None).otherwise(pl.col("a"))),
    "infinite outcome": lambda: put(y=pl.when(ROW == 5).then(float("inf")).otherwise(pl.col("y"))),
    "infinite confounder": lambda: put(b=pl.when(ROW == 5).then(float("-inf")).otherwise(pl.col("b"))),
    "infinite control": lambda: put(other=pl.when(ROW == 5).then(float("inf")).otherwise(pl.col("other"))),
    "1e308 in the outcome": lambda: put(y=pl.when(ROW == 5).then(1e308).otherwise(pl.col("y"))),
    "1e200 in a confounder": lambda: put(b=pl.when(ROW == 5).then(1e200).otherwise(pl.col("b"))),
    "every row ten times": lambda: pl.concat([clean(150)] * 10),
    "leak": lambda: put(a=3 * pl.col("y") - 1),
    "near leak": lambda: put(a=pl.col("y") + 0.1 * NOISE),
    "mediator": lambda: put(b=pl.col("t") + 0.5 * NOISE, y=pl.col("y") + pl.col("t") + 0.5 * NOISE - pl.col("t")),
    "collider": lambda: put(b=pl.col("t") + pl.col("y") + NOISE),
    "10 % of the outcome in thousands": lambda: put(y=pl.when(ROW % 10 == 0).then(pl.col("y") * 1000).otherwise(pl.col("y"))),
    "10 % of the outcome in thousandths": lambda: put(y=pl.when(ROW % 10 == 0).then((pl.col("y") + 50) / 1000).otherwise(pl.col("y") + 50)),
    "confounder in two units": lambda: put(a=pl.when(ROW % 7 == 0).then(pl.col("a") * 1000).otherwise(pl.col("a"))),
    "treatment with 9 for missing": lambda: put(t=pl.when(ROW % 12 == 0).then(9).otherwise(pl.col("t"))),
    "all treated in a segment": lambda: put(t=pl.when(pl.col("segment") == "west").then(1).otherwise(pl.col("t"))),
    "treatment coded 1/2": lambda: put(t=pl.col("t") + 1),
    "treatment as text": lambda: put(t=pl.col("t").cast(pl.String)),
    "outcome 0/1 as text": lambda: put(y=pl.when(pl.col("y") > 1).then(pl.lit("1")).otherwise(pl.lit("0"))),
    "outcome as text": lambda: put(y=pl.col("y").cast(pl.String)),
    "constant confounder": lambda: put(segment=pl.lit("all")),
    "repeated confounder": lambda: put(segment=2 * pl.col("a") + 1),
    "treatment among confounders": lambda: put(b=pl.col("t").cast(pl.Float64)),
    "identifier as category": lambda: put(segment=ROW.cast(pl.String)),
    "empty confounder": lambda: put(a=pl.lit(None, dtype=pl.Float64)),
    "control is the outcome": lambda: put(other=pl.col("y")),
    "hidden trait": lambda: hidden(1.0),
    "strong hidden trait": lambda: hidden(2.0),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("estimand", ["ATE", pytest.param("ATT", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scenario", CORPUS)
def test_no_hazard_gives_a_silent_wrong_number(scenario: str, estimand: str) -> None:
    frame, spec = CORPUS[scenario](), SPEC.model_copy(update={"estimand": estimand})
    stops = [one for one in validate(frame, spec) if one.action in ("refuse", "override", "block")]
    if stops:
        assert scenario not in ("clean", "constant confounder", "repeated confounder", "NaN in a confounder", "NaN in the treatment"), stops
        return
    told = ask(Cell(frame=frame, spec=spec))
    assert not told.is_silent_and_wrong, told
