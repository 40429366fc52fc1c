"""Power by simulation on the user's own units: resample them, assign by chance, plant an effect, run the planned analysis.

Units (clusters, where those are assigned) are drawn with replacement; the analysis is least squares on arm, covariates and strata
with cluster-robust errors (CR1; for single units HC1), against t with clusters - 2 degrees of freedom, or the paired t test.
Everything an analysis needs is a sum over clusters of small cross-products, so a simulation is a gather and a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.trials import SimulatedPower
from e2i.errors import ConfigError, TooFewRows
from e2i.ml.power.sample import adjusters, pairs_order

if TYPE_CHECKING:
    from e2i.domain.trials import Analysis
    from e2i.ml.columns import FloatArray, IntArray
    from e2i.ml.power.sample import Sample

_CELLS = 4_000_000
_TOLERANCE = 0.02
_FEWEST_CLUSTERS = 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is simulated: n units in all, the analysis, the effect (a ratio for a count), and how chance assigns."""

    n: int
    effect: float
    analysis: Analysis
    alpha: float = 0.05
    treated: float = 0.5
    is_clustered: bool = False


def simulate_power(sample: Sample, trial: Trial, *, nominal: float, simulations: int, seed: int) -> SimulatedPower:
    """Share of rejections without and with the planted effect.

    Parameters
    ----------
    nominal : the formula's power, in [0, 1], for comparison

    Raises
    ------
    ConfigError
        A time-to-event outcome, an effect that the outcome cannot show, or a double difference without a pre-period.
    TooFewRows
        Fewer than four clusters to draw.
    """
    if sample.outcome_type == "time_to_event":
        raise ConfigError("power of a time-to-event outcome is not simulated.", where="experiment", advice="Read the formula's power.")
    rng = np.random.default_rng(seed)
    none = 1.0 if sample.outcome_type == "count" else 0.0
    rates = []
    for effect in (none, trial.effect):
        run = _paired if trial.analysis == "paired" else _regression
        rates.append(run(sample, trial, effect, simulations=simulations, rng=rng))
    (size, size_interval), (power, power_interval) = ((k / simulations, wilson(k, simulations)) for k in rates)
    return SimulatedPower(
        analysis=trial.analysis,
        n=trial.n,
        effect=trial.effect,
        simulations=simulations,
        size=size,
        size_interval=size_interval,
        nominal_size=trial.alpha,
        power=power,
        power_interval=power_interval,
        nominal_power=nominal,
        agrees=_within(trial.alpha, size_interval) and _within(nominal, power_interval),
    )


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927).

    >>> [round(x, 4) for x in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    from scipy import special

    z = float(special.ndtri(0.5 + level / 2.0))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def planted(y: FloatArray, effect: float, *, kind: str, rng: np.random.Generator) -> FloatArray:
    """The outcome under treatment: shifted; as many 0/1 values turned as move the share; counts thinned or topped up.

    Raises ConfigError when a share would leave [0, 1].
    """
    if kind == "count":
        if effect <= 1.0:
            return rng.binomial(y.astype(np.int64), effect).astype(np.float64)
        return y + rng.poisson((effect - 1.0) * _own_rates(y, rng=rng))
    if kind != "binary":
        return y + effect
    share = float(y.mean())
    if not 0.0 <= share + effect <= 1.0:
        raise ConfigError(f"a share of {share:.3g} cannot move by {effect:.3g}.", where="experiment", advice="Ask for a smaller effect.")
    movable = np.flatnonzero(y == (0.0 if effect > 0 else 1.0))
    turned = rng.permutation(movable)[: int(abs(effect) * len(y) + rng.random())]
    out = y.copy()
    out[turned] = 1.0 - out[turned]
    return out


def _own_rates(y: FloatArray, *, rng: np.random.Generator) -> FloatArray:
    """A unit's rate, drawn from what its count says under a gamma mixture, so that counts topped up by it stay negative binomial."""
    mean = float(y.mean())
    dispersion = (float(y.var()) - mean) / mean**2 if mean > 0 else 0.0
    if dispersion <= 0:
        return np.full(len(y), mean)
    shape = 1.0 / dispersion
    return rng.gamma(y + shape, 1.0 / (1.0 + shape / mean))


def _within(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] - _TOLERANCE <= value <= interval[1] + _TOLERANCE


def assigned(strata: IntArray, share: float, *, rng: np.random.Generator) -> FloatArray:
    """Arms by systematic chance within strata, so that each stratum's split is within one unit of `share`; shape of `strata`, (B, G)."""
    blocks, size = strata.shape
    order = np.argsort(strata + rng.random(strata.shape), axis=1)
    start = rng.random((blocks, 1))
    place = np.arange(size + 1)[None, :] * share + start
    arm = np.diff(np.floor(place), axis=1)
    out = np.empty(strata.shape)
    np.put_along_axis(out, order, arm, axis=1)
    return out


def _regression(sample: Sample, trial: Trial, effect: float, *, simulations: int, rng: np.random.Generator) -> int:
    """Rejections of the least-squares test over all simulations."""
    y0, cluster, draws = _setup(sample, trial)
    design = np.column_stack([np.ones(sample.n), adjusters(sample, covariates=trial.analysis == "ancova")])
    groups, p = int(cluster.max()) + 1, design.shape[1]
    gram = _cluster_sums(np.einsum("ni,nj->nij", design, design), cluster, groups)
    plain = _cluster_sums(design * y0[:, None], cluster, groups)
    strata = np.zeros(groups, dtype=np.int64)
    if sample.strata is not None and not trial.is_clustered:
        strata = sample.strata
    block = max(1, min(25, simulations, _CELLS // (draws * p * p)))
    rejected = 0
    for start in range(0, simulations, block):
        size = min(block, simulations - start)
        shifted = y0 + (planted(sample.y, effect, kind=sample.outcome_type, rng=rng) - sample.y)
        moved = _cluster_sums(design * shifted[:, None], cluster, groups)
        drawn = rng.integers(0, groups, size=(size, draws))
        arm = assigned(strata[drawn], trial.treated, rng=rng)
        score = plain[drawn] + arm[:, :, None] * (moved - plain)[drawn]
        t, df = _robust_t(gram[drawn], score, arm)
        rejected += int((2.0 * _t_tail(np.abs(t), df) < trial.alpha).sum())
    return rejected


def _setup(sample: Sample, trial: Trial) -> tuple[FloatArray, IntArray, int]:
    """The analysed outcome, who is drawn together, and how many are drawn."""
    y = sample.y
    if trial.analysis == "double_difference":
        if sample.pre is None:
            raise ConfigError("a double difference needs a panel.", where="experiment", advice="Name `time`.")
        y = y - sample.pre
    if not trial.is_clustered:
        return y, np.arange(sample.n), max(4, trial.n)
    if sample.cluster is None:
        raise ConfigError("the table has no clusters.", where="experiment", advice="Name `cluster`.")
    groups = int(sample.cluster.max()) + 1
    draws = max(1, round(trial.n / (sample.n / groups)))
    if min(groups, draws) < _FEWEST_CLUSTERS:
        raise TooFewRows(f"{min(groups, draws)} clusters are too few to simulate.", where="experiment", advice="Add clusters.")
    return y, sample.cluster, draws


def _robust_t(gram: FloatArray, score: FloatArray, arm: FloatArray) -> tuple[FloatArray, int]:
    """T of the arm's coefficient; gram (B, G, p, p) and score (B, G, p) are sums per cluster, arm (B, G) is 0 or 1."""
    blocks, groups, p = score.shape
    normal = np.empty((blocks, p + 1, p + 1))
    normal[:, :p, :p] = gram.sum(axis=1)
    normal[:, :p, p] = normal[:, p, :p] = np.einsum("bg,bgi->bi", arm, gram[:, :, :, 0])
    normal[:, p, p] = np.einsum("bg,bg->b", arm, gram[:, :, 0, 0])
    right = np.concatenate([score.sum(axis=1), np.einsum("bg,bg->b", arm, score[:, :, 0])[:, None]], axis=1)
    inverse = np.linalg.pinv(normal, hermitian=True)
    beta = np.einsum("bij,bj->bi", inverse, right)
    residual = score - np.einsum("bgij,bj->bgi", gram, beta[:, :p]) - gram[:, :, :, 0] * (arm * beta[:, p : p + 1])[:, :, None]
    influence = np.einsum("bgi,bi->bg", residual, inverse[:, p, :p]) + arm * residual[:, :, 0] * inverse[:, p, p : p + 1]
    n = normal[:, 0, 0]
    small = groups / (groups - 1.0) * (n - 1.0) / np.maximum(n - p - 1.0, 1.0)
    error = np.sqrt(small * np.einsum("bg,bg->b", influence, influence))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, beta[:, p] / error, 0.0)
    return t, max(1, groups - 2 - (p - 1 if (gram[:, :, 0, 0] == 1.0).all() else 0))


def _paired(sample: Sample, trial: Trial, effect: float, *, simulations: int, rng: np.random.Generator) -> int:
    """Rejections of the paired t test; pairs are neighbours in the predicted outcome."""
    pairs = max(2, trial.n // 2)
    predicted = pairs_order(sample)
    block = max(1, min(25, _CELLS // (2 * max(pairs, sample.n))))
    rejected = 0
    for start in range(0, simulations, block):
        size = min(block, simulations - start)
        treated = planted(sample.y, effect, kind=sample.outcome_type, rng=rng)
        drawn = _drawn_pairs(predicted, pairs, size=size, rng=rng)
        first = rng.integers(0, 2, size=(size, pairs, 1))
        one, other = np.take_along_axis(drawn, first, axis=2)[:, :, 0], np.take_along_axis(drawn, 1 - first, axis=2)[:, :, 0]
        gap = treated[one] - sample.y[other]
        error = gap.std(axis=1, ddof=1) / math.sqrt(pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 0, gap.mean(axis=1) / error, 0.0)
        rejected += int((2.0 * _t_tail(np.abs(t), pairs - 1) < trial.alpha).sum())
    return rejected


def _drawn_pairs(predicted: FloatArray, pairs: int, *, size: int, rng: np.random.Generator) -> IntArray:
    """Pairs of neighbours, shape (size, pairs, 2), never a unit with itself: units drawn with replacement would meet their own copies
    and look more alike than any two people are. Where more pairs are planned than the table holds, its pairs are drawn again.
    """  # noqa: D205
    n = len(predicted)
    if 2 * pairs <= n:
        drawn = np.argsort(rng.random((size, n)), axis=1)[:, : 2 * pairs]
        return np.take_along_axis(drawn, np.argsort(predicted[drawn], axis=1, kind="stable"), axis=1).reshape(size, pairs, 2)
    alike = np.argsort(predicted, kind="stable")[: n // 2 * 2].reshape(-1, 2)
    return np.asarray(alike[rng.integers(0, len(alike), size=(size, pairs))], dtype=np.int64)


def _cluster_sums(rows: FloatArray, cluster: IntArray, groups: int) -> FloatArray:
    if groups == len(rows):
        return rows[np.argsort(cluster)]
    out = np.zeros((groups, *rows.shape[1:]))
    np.add.at(out, cluster, rows)
    return out


def _t_tail(t: FloatArray, df: int) -> FloatArray:
    from scipy import special

    return np.asarray(special.stdtr(df, -t), dtype=np.float64)
