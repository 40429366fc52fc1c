"""Does treating those with the largest predicted effect first pay? Gain curves from doubly robust scores.

Radcliffe (2007), "Using control groups to target on predicted lift"; Yadlowsky, Fleming, Shah, Brunskill and Wager (2021),
"Evaluating treatment prioritization rules via rank-weighted average treatment effects": half-sample bootstrap intervals. Scores
instead of raw outcomes make the curves hold in observational data.
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.sums import critical_value, freedom_of, halves, two_sided
from e2i.domain.segments import GainPoint, Interval, Uplift

DRAWS = 200
_POINTS = 10
_DRAWS_MANY_ROWS = 100
_MANY_ROWS = 200_000


def rank_gain(scores: Scores, priority: FloatArray, *, seed: int) -> Uplift:
    """Area under the gain curve, Qini and AUTOC of a priority that was learned on other rows.

    Parameters
    ----------
    priority : shape (n,), the larger the earlier treated; see `calibration.ranks`

    Returns
    -------
    Uplift
        On the outcome's scale per person. The gain at share u is the effect that treating the first u of all people brings,
        spread over all; `auuc` is its mean over u, `qini` is `auuc` less that of a random order, `autoc` the mean over u of how
        much the first u gain more than everybody.
    """
    order = np.argsort(-priority, kind="stable")
    weights, values = scores.weights[order], (scores.weights * scores.effect)[order]
    whole = _statistics(weights, values)
    rng = np.random.default_rng(seed)
    cluster: IntArray | None = None if scores.cluster is None else scores.cluster[order]
    draws = DRAWS if len(order) <= _MANY_ROWS else _DRAWS_MANY_ROWS
    found = []
    for _ in range(draws):
        inside = halves(len(order), cluster, draws=1, rng=rng)[0]
        found.append(_statistics(weights[inside], values[inside]))
    spread = np.stack(found).std(axis=0, ddof=1)
    critical, method = critical_value(scores.cluster)
    auuc, qini, autoc = (
        Interval(estimate=float(value), low=float(value - critical * error), high=float(value + critical * error))
        for value, error in zip(whole[:3], spread[:3], strict=True)
    )
    shares = np.linspace(0.0, 1.0, _POINTS + 1)
    total = float(whole[-1])
    curve = tuple(
        GainPoint(
            share=float(share),
            gain=float(gain),
            low=float(gain - critical * error),
            high=float(gain + critical * error),
            random=total * float(share),
        )
        for share, gain, error in zip(shares, np.append(0.0, whole[3:]), np.append(0.0, spread[3:]), strict=True)
    )
    return Uplift(
        auuc=auuc,
        qini=qini,
        autoc=autoc,
        autoc_p_value=two_sided(float(whole[2] / spread[2]), freedom_of(scores.cluster)) if spread[2] > 0 else None,
        targeting_efficiency=_efficiency(curve),
        curve=curve,
        interval_method=f"half-sample bootstrap, {draws} draws, {method}",
    )


def _statistics(weights: FloatArray, values: FloatArray) -> FloatArray:
    """AUUC, Qini, AUTOC, then the gain at each tenth; rows in the order of treatment."""
    mass = weights.cumsum()
    share = mass / mass[-1]
    gain = values.cumsum() / mass[-1]
    step = weights / mass[-1]
    auuc = float(step @ gain)
    points = np.interp(np.linspace(0.0, 1.0, _POINTS + 1)[1:], share, gain)
    return np.array([auuc, auuc - float(step @ share) * gain[-1], float(step @ (gain / share - gain[-1])), *points])


def _efficiency(curve: tuple[GainPoint, ...]) -> float | None:
    """Share of the curve's largest gain that the first half of the people brings; None where treating nobody is best."""
    best = max(point.gain for point in curve)
    return curve[_POINTS // 2].gain / best if best > 0 else None
