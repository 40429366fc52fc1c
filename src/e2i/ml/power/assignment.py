"""Who gets what: chance within blocks, balance as assigned, and the check that the arms came out as planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.sample_ratio import sample_ratio
from e2i.domain.trials import Assignment, BalanceRow
from e2i.errors import ConfigError
from e2i.ml.power.sample import pairs_order
from e2i.ml.power.simulation import assigned

if TYPE_CHECKING:
    from e2i.domain.trials import TrialDesign
    from e2i.ml.columns import FloatArray, IntArray
    from e2i.ml.power.sample import Sample


def assign(sample: Sample, design: TrialDesign, *, treated: float, n: int | None = None, seed: int) -> tuple[Assignment, pl.DataFrame]:
    """Random arms for the sample's units (n of them, drawn by chance; all by default).

    Returns the record and the list: unit, arm, block, and cluster where those are assigned.
    Clusters are assigned whole; matched pairs are neighbours in the predicted outcome, one of each treated; strata split evenly.

    Raises
    ------
    ConfigError
        Clusters or something to match on are missing, or geo markets, which are chosen and not drawn.
    """
    if design == "geo":
        raise ConfigError("test markets are chosen by fit, not drawn.", where="experiment", advice="Read the selection of markets.")
    rng = np.random.default_rng(seed)
    cluster = sample.cluster if design == "cluster_rct" else None
    if design == "cluster_rct" and cluster is None:
        raise ConfigError("the table has no clusters.", where="experiment", advice="Name `cluster`.")
    who = _enrolled(sample, cluster, n, rng=rng)
    blocks = _blocks(sample, design, who, rng=rng)
    if cluster is not None:
        present, position = np.unique(cluster[who], return_inverse=True)
        arm = assigned(np.zeros((1, len(present)), dtype=np.int64), treated, rng=rng)[0][position]
    elif design == "matched_pairs":
        arm = _one_of_each(blocks, rng=rng)
    else:
        arm = assigned(blocks[None, :], treated, rng=rng)[0]
    counts = {"treatment": int(arm.sum()), "control": int((1 - arm).sum())}
    drawn = Assignment(
        method={
            "rct": "complete randomisation",
            "stratified": "randomisation within strata",
            "cluster_rct": "clusters randomised whole",
        }.get(design, "one of each matched pair"),
        seed=seed,
        balance=balance(sample, who, arm),
        counts=counts,
        sample_ratio_p=sample_ratio(counts, {"treatment": treated, "control": 1.0 - treated}) if cluster is None else None,
    )
    names = pl.Series("unit", sample.names)[who.tolist()]
    columns = {"unit": names, "arm": np.where(arm == 1, "treatment", "control"), "block": blocks}
    if cluster is not None and sample.cluster_names is not None:
        columns["cluster"] = pl.Series(sample.cluster_names)[cluster[who].tolist()]
    return drawn, pl.DataFrame(columns)


def balance(sample: Sample, who: IntArray, arm: FloatArray) -> tuple[BalanceRow, ...]:
    """Standardised mean differences of covariates, pre-period and outcome history between the arms."""
    columns = dict(zip(sample.x_names, sample.x.T, strict=True))
    if sample.pre is not None:
        columns["pre-period outcome"] = sample.pre
    columns["outcome before the experiment"] = sample.y
    rows = []
    for name, column in columns.items():
        values = column[who]
        one, other = values[arm == 1], values[arm == 0]
        if min(len(one), len(other)) < 2:
            continue
        spread = float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2.0))
        gap = float(one.mean() - other.mean())
        rows.append(
            BalanceRow(
                covariate=name, treatment_mean=float(one.mean()), control_mean=float(other.mean()), smd=gap / spread if spread else 0.0
            )
        )
    return tuple(rows)


def _enrolled(sample: Sample, cluster: IntArray | None, n: int | None, *, rng: np.random.Generator) -> IntArray:
    """Rows that take part, sorted."""
    if n is None or n >= sample.n:
        return np.arange(sample.n)
    if cluster is None:
        return np.sort(rng.choice(sample.n, size=n, replace=False))
    order = rng.permutation(int(cluster.max()) + 1)
    enough = int(np.searchsorted(np.cumsum(np.bincount(cluster)[order]), n)) + 1
    return np.flatnonzero(np.isin(cluster, order[: max(enough + enough % 2, 4)]))


def _blocks(sample: Sample, design: TrialDesign, who: IntArray, *, rng: np.random.Generator) -> IntArray:
    """Block of each enrolled unit."""
    if design == "matched_pairs":
        predicted = pairs_order(sample)[who]
        order = np.lexsort((rng.random(len(who)), predicted))
        out = np.empty(len(who), dtype=np.int64)
        out[order] = np.arange(len(who)) // 2
        return out
    if design == "stratified" and sample.strata is not None:
        return np.asarray(sample.strata[who], dtype=np.int64)
    return np.zeros(len(who), dtype=np.int64)


def _one_of_each(pairs: IntArray, *, rng: np.random.Generator) -> FloatArray:
    order = np.lexsort((rng.random(len(pairs)), pairs))
    arm = np.empty(len(pairs))
    arm[order] = np.arange(len(pairs)) % 2
    return arm
