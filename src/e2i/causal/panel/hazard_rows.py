"""What is wrong with the rows of single units: zeros for missing, running totals, one unit under two names, two rhythms, one row alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.hazard_checks import about_spelling
from e2i.causal.hazard_scale import about_weights, carries_most
from e2i.causal.panel.absorb import TwoWay, sum_by
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.spelling import plain_names
from e2i.domain.disclosure import counted, visible
from e2i.domain.evidence import Hazard

_ZERO_SHARE, _ZERO_ROWS, _ZERO_MOST = 0.005, 5, 0.30
_FEWEST_OTHERS, _FAR, _MAD = 4, 4.0, 1.4826
_STEPS, _STARTS = 50, 3.0
_RESET, _UNEVEN = 0.9, 0.15
_SLOWER, _REGULAR, _FEW_UNITS = 1.75, 0.8, 0.05
_LOST_GAP, _LOST_Z = 0.05, 3.5
_FEWEST_LEFT, _ROUNDING = 20, 1e-9
"""rows beyond the unit and period effects, from which one row's share of the rest says something"""


def alike(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Units that are one under two names: likely so, and surely where no period has a row of both."""
    for hazard in about_spelling(panel.unit_names, str(spec.unit)):
        key = plain_names(pl.Series(panel.unit_names)).rank("dense").to_numpy().astype(np.int64)
        cells = key[panel.unit] * panel.n_periods + panel.time
        apart = not spec.is_repeated_cross_section and len(np.unique(cells)) == len(cells)
        yield replace(hazard, action="override") if apart else hazard


def stray_zeros(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Zeros in units whose other outcomes never come near zero; where zeros are exactly the treated rows, treatment may have made them."""
    zero = panel.outcome == 0
    if not zero.any() or panel.outcome.min() < 0 or zero.mean() > _ZERO_MOST:
        return
    zeros = np.bincount(panel.unit, weights=zero, minlength=panel.n_units)
    apart = np.bincount(panel.unit, weights=zero != (panel.treatment > 0), minlength=panel.n_units)
    suspect = _never_near_zero(panel, ~zero) & (zeros > 0) & (apart > 0)
    count = int(zeros[suspect].sum())
    if count < max(_ZERO_ROWS, _ZERO_SHARE * len(zero)):
        return
    share = count / len(zero)
    text = f"{share:.1%} of `{spec.outcome}` are 0 in units whose other values never come near it: does 0 stand for missing?"
    remedy = "Where nothing was reported, leave the value empty; a true zero may stay."
    measured = None if visible(count) is None else share
    yield Hazard(code="zero_for_missing", action="review", text=text, remedy=remedy, measured=measured, threshold=_ZERO_SHARE)


def _never_near_zero(panel: Panel, rows: BoolArray) -> BoolArray:
    """Units whose values in `rows` all lie above half of their median, which is four robust standard deviations from zero, shape (N,)."""
    unit, values = panel.unit[rows], panel.outcome[rows]
    out = np.zeros(panel.n_units, dtype=np.bool_)
    if len(unit) == 0:
        return out
    present, count = np.unique(unit, return_counts=True)
    start = np.cumsum(count) - count
    place = np.repeat(np.arange(len(present)), count)

    def medians(numbers: FloatArray) -> FloatArray:
        found: FloatArray = numbers[np.lexsort((numbers, place))][start + count // 2]
        return found

    middle = medians(values)
    spread = _MAD * medians(np.abs(values - middle[place]))
    if (panel.outcome == np.round(panel.outcome)).all():  # counts scatter by chance as Poisson's do, however alike those above zero are
        spread = np.maximum(spread, np.sqrt(np.maximum(middle, 0.0)))
    lowest = np.minimum.reduceat(values, start)
    out[present] = (count >= _FEWEST_OTHERS) & (lowest > 0.5 * middle) & (middle > _FAR * spread)
    return out


def running_totals(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Outcomes that never fall, or only when all start anew, and that begin with about one step: totals since a start, not per period."""
    if spec.is_repeated_cross_section or panel.outcome.min() < 0:
        return
    inside = np.diff(panel.unit) == 0
    steps, period = np.diff(panel.outcome)[inside], panel.time[1:][inside]
    if len(steps) < _STEPS or not (steps > 0).any():
        return
    per_period = np.bincount(period, minlength=panel.n_periods)
    falls = np.bincount(period, weights=steps < 0, minlength=panel.n_periods)
    anew = (falls > _RESET * per_period) & (per_period > 0)
    if (falls[~anew] > 0).any() or anew.sum() > 0.5 * (per_period > 0).sum() or not _by_the_calendar(np.flatnonzero(anew)):
        return
    begins = (np.diff(panel.unit, prepend=-1) != 0) | anew[panel.time]
    usual = float(np.median(steps[~anew[period]]))
    if usual <= 0 or float(np.median(panel.outcome[begins])) > _STARTS * usual:
        return
    ending = "but when all units start anew" if anew.any() else "in any of its steps"
    text = f"`{spec.outcome}` never falls {ending}, and begins with about one step: is it a total up to the period, and not of the period?"
    remedy = "Take the difference to the period before, within units."
    share = float(anew.sum()) / float((per_period > 0).sum())
    yield Hazard(code="running_total", action="review", text=text, remedy=remedy, measured=share, threshold=0.0)


def _by_the_calendar(resets: IntArray) -> bool:
    """Whether totals start anew after equal times, as years and months are; the falls of a single noisy series do not."""
    between = np.diff(resets)
    return len(between) == 0 or bool(between.max() - between.min() <= max(1.0, _UNEVEN * between.max()) and between.min() > 1)


def single_row(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """One row that carries the outcome's scatter about unit, period and treatment; one that carries the weight."""
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    both = np.column_stack([panel.outcome, panel.treatment])
    alone = panel.n_units == 1
    spent = 1 if alone else panel.n_units + panel.n_periods - 1
    if len(weights) - spent >= _FEWEST_LEFT:
        inside = both - both.mean(axis=0) if alone else TwoWay(unit=panel.unit, time=panel.time, weights=weights).residual(both)
        outcome, treatment = inside.T
        power = float(treatment @ (weights * treatment))
        left = outcome - (float(treatment @ (weights * outcome)) / power * treatment if power > 0 else 0.0)
        if np.abs(left).max() > _ROUNDING * np.abs(panel.outcome).max():
            yield from carries_most(left, f"the scatter of `{spec.outcome}`")
    if panel.weights is not None:
        yield from about_weights(panel.weights, str(spec.weights))


def rhythms(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Units whose rows come in steps of another length than those of others, or that are never seen when others are."""
    if spec.is_repeated_cross_section or panel.n_units < 2:
        return
    inside = np.flatnonzero(np.diff(panel.unit) == 0)
    unit, steps = panel.unit[inside], np.diff(panel.period_values[panel.time])[inside]
    present, count = np.unique(unit, return_counts=True)
    if len(present) == 0:
        return
    place = np.repeat(np.arange(len(present)), count)
    start = np.cumsum(count) - count
    usual = steps[np.lexsort((steps, place))][start + count // 2]
    alike_steps = sum_by(place, (np.abs(steps - usual[place]) < 0.25 * usual[place]).astype(np.float64), len(present)) / count
    regular = (count >= 3) & (alike_steps >= _REGULAR)
    if not regular.any():
        return
    shortest = float(usual[regular].min())
    slow = regular & (usual > _SLOWER * shortest)
    few = max(2.0, _FEW_UNITS * panel.n_units)
    if few <= slow.sum() and (regular & ~slow).sum() >= few:
        times = float(np.median(usual[slow])) / shortest
        text = f"{counted(int(slow.sum()), 'units')} have rows in steps {times:.3g} times as long as the others': are two rhythms mixed?"
        remedy = "Bring all units to one kind of period (weeks to months by their sums), or study them apart."
        yield Hazard(code="rhythms_mixed", action="review", text=text, remedy=remedy, measured=times, threshold=_SLOWER)
    yield from _clocks(panel)


def _clocks(panel: Panel) -> Iterator[Hazard]:
    """Groups of units that share no period with one another, in the same stretch of time."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = panel.n_units + panel.n_periods
    edges = coo_matrix((np.ones(len(panel.unit)), (panel.unit, panel.n_units + panel.time)), shape=(count, count))
    groups, group = connected_components(edges, directed=False)
    of_units, of_periods = group[: panel.n_units], group[panel.n_units :]
    if groups < 2 or (np.diff(of_periods) != 0).sum() < groups:  # one after the other: two stretches of one clock
        return
    sizes = np.sort(np.bincount(of_units, minlength=groups))[::-1]
    if sizes[1] < 2:
        return
    other = int(np.flatnonzero(of_periods != of_periods[0])[0])
    text = (
        f"units fall into {groups} groups that have no period in common (one has {panel.period_names[0]}, another "
        f"{panel.period_names[other]}): are there two clocks, or two time zones?"
    )
    remedy = "Write one date for one period, the same for all units; a rotating panel is compared within its groups."
    yield Hazard(code="clocks_mixed", action="override", text=text, remedy=remedy, measured=float(groups), threshold=1.0)


def lost_after_treatment(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Treatments that change: rows that are missing more often in the period after a treated one (a high dose) than after others."""
    if spec.treatment_kind not in ("on_off", "continuous") or spec.is_repeated_cross_section:
        return
    rows = np.flatnonzero(panel.time < panel.n_periods - 1)
    limit = 0.0 if spec.treatment_kind == "on_off" else float(np.median(panel.treatment))
    on = panel.treatment[rows] > limit
    lost = ~panel.observed[panel.unit[rows], panel.time[rows] + 1]
    if not lost.any() or not 0 < on.sum() < len(on):
        return
    shares = [float(lost[arm].mean()) for arm in (on, ~on)]
    pooled = float(lost.mean())
    error = float(np.sqrt(pooled * (1.0 - pooled) * (1.0 / on.sum() + 1.0 / (~on).sum())))
    gap = abs(shares[0] - shares[1])
    if gap > _LOST_GAP and gap > _LOST_Z * error:
        what = "treated rows" if spec.treatment_kind == "on_off" else "high doses"
        text = f"the next row is missing after {shares[0]:.0%} of {what} and {shares[1]:.0%} of the others."
        remedy = "Find out why rows are missing; if treatment or its result decides it, the effect is not identified."
        yield Hazard(code="differential_attrition", action="review", text=text, remedy=remedy, measured=gap, threshold=_LOST_GAP)


def gone_at_the_start(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Units whose rows end just before the first treatment, far more often than anywhere else: treatment may have made them leave.

    Such a unit is never seen treated, so that no comparison of the arms shows it.
    """
    del spec
    treated = panel.cohort != NEVER
    if panel.cohort_given is not None or panel.row_cluster is not None or not treated.any():
        return
    start = int(panel.cohort[treated].min())
    if not 2 <= start <= panel.n_periods - 1:
        return
    last = panel.n_periods - 1 - panel.observed[:, ::-1].argmax(axis=1)
    ends = np.bincount(last, minlength=panel.n_periods)[:-1].astype(np.float64)
    present = len(last) - np.concatenate([[0.0], np.cumsum(ends)[:-1]])
    there, at = (np.array([values.sum() - values[start - 1], values[start - 1]]) for values in (present, ends))
    shares = at / np.maximum(there, 1.0)
    pooled = at.sum() / max(there.sum(), 1.0)
    error = float(np.sqrt(pooled * (1.0 - pooled) * np.sum(1.0 / np.maximum(there, 1.0))))
    gap = float(shares[1] - shares[0])
    if gap > _LOST_GAP and gap > _LOST_Z * error:
        text = f"{shares[1]:.0%} of units have their last row just before treatment begins, and {shares[0]:.1%} in any other period."
        remedy = "Find out why units leave; if treatment makes them leave, the effect is not identified."
        yield Hazard(code="differential_attrition", action="review", text=text, remedy=remedy, measured=gap, threshold=_LOST_GAP)
