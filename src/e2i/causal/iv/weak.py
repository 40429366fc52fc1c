"""How strong the instruments are, and intervals that hold however weak they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.estimate import LEVEL
from e2i.causal.iv.residuals import Residuals

BIAS_TOLERATED = 0.10
"""largest share of the worst-case bias that a Wald interval may rest on (Montiel Olea and Pflueger 2013)"""

USUAL_FROM = 104.7
"""first-stage F from which a 5 % t test has its size however strongly treatment is confounded (Lee, McCrary, Moreira and Porter 2022)"""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """First stage of the treatment on the instruments, covariates held fixed."""

    instruments: int

    first_stage_f: float
    """robust (or clustered) Wald statistic over the number of instruments"""
    first_stage_p: float
    effective_f: float
    """Montiel Olea and Pflueger (2013); equal to the robust F with one instrument"""
    critical_value: float
    """of `effective_f`: below it the bias of 2SLS may exceed 10 % of the worst case (5 % test)"""
    partial_r2: float
    """share of the treatment's remaining variance that the instruments explain, in 0-1"""

    @property
    def is_weak(self) -> bool:
        """Whether only weak-instrument-robust intervals may be used."""
        return self.effective_f < self.critical_value

    @property
    def is_middling(self) -> bool:
        """Not weak, and not so strong that the usual interval holds in the worst case."""
        return not self.is_weak and self.effective_f < USUAL_FROM


@dataclass(frozen=True, kw_only=True)
class ConfidenceSet:
    """All effects that a test does not reject: none, one interval, or several with gaps between."""

    segments: tuple[tuple[float, float], ...]

    @property
    def is_bounded(self) -> bool:
        """False where the data cannot bound the effect; an empty set is bounded."""
        return all(np.isfinite(segment).all() for segment in self.segments)

    @property
    def hull(self) -> tuple[float, float]:
        """Smallest interval around the set; NaN where it is empty."""
        return (self.segments[0][0], self.segments[-1][1]) if self.segments else (float("nan"), float("nan"))

    def times(self, factor: float) -> ConfidenceSet:
        """The set in other units; `factor` is positive."""
        return ConfidenceSet(segments=tuple((low * factor, high * factor) for low, high in self.segments))

    def describe(self) -> str:
        """The set in words."""
        if not self.segments:
            return "empty: no effect agrees with all instruments"
        if self.segments == ((-np.inf, np.inf),):
            return "the whole line: the data do not bound the effect"
        parts = [f"({low:.4g} to {high:.4g})" for low, high in self.segments]
        return parts[0] if len(parts) == 1 else f"a union of {len(parts)} intervals, {' and '.join(parts)}; the interval told is its hull"


def strength(residuals: Residuals) -> Strength:
    """Strength of the first stage.

    The critical value is the simplified, conservative one of Montiel Olea and Pflueger (2013, section 4.2): the non-central chi-squared
    quantile with K_eff degrees of freedom and non-centrality 10 · K_eff, over K_eff (23.1 with one instrument).
    """
    from scipy.stats import f, ncx2

    _, pi, joint = residuals.reduced_form
    m = len(pi)
    variance = joint[m:, m:]
    wald = float(pi @ np.linalg.pinv(variance, hermitian=True) @ pi)
    trace = float(np.trace(variance))
    allowed = 1.0 / BIAS_TOLERATED
    largest = float(np.linalg.eigvalsh(variance)[-1])
    effective = trace**2 * (1 + 2 * allowed) / (float(np.sum(variance**2)) + 2 * allowed * trace * largest)
    return Strength(
        instruments=m,
        first_stage_f=wald / m,
        first_stage_p=float(f.sf(wald / m, m, residuals.joint_degrees)),
        effective_f=float(pi @ pi) / trace,
        critical_value=float(ncx2.ppf(0.95, effective, allowed * effective)) / effective,
        partial_r2=min(float(pi @ pi), 1.0),
    )


def anderson_rubin(delta: FloatArray, pi: FloatArray, joint: FloatArray, *, degrees: int) -> ConfidenceSet:
    """Effects b at which `delta - b pi` is not rejected to be 0 (Anderson and Rubin 1949; robust form, Andrews, Stock and Sun 2019).

    The statistic is at most its critical value exactly where the matrix `[[c, g(b)'], [g(b), V(b)]]` has a determinant of at least 0; that
    is a polynomial in b whose roots are eigenvalues, so no grid is searched.

    Parameters
    ----------
    delta, pi : shape (m,), coefficients of the instruments for outcome and treatment
    joint : shape (2m, 2m), their variance
    degrees : of the F distribution's denominator
    """
    from scipy.linalg import eigvals
    from scipy.stats import f

    m = len(pi)
    critical = m * float(f.ppf(LEVEL, m, degrees))
    centre, step = _guess(delta, pi, joint)
    delta, pi = delta - centre * pi, step * pi
    turn = np.block([[np.eye(m), -centre * np.eye(m)], [np.zeros((m, m)), step * np.eye(m)]])
    joint = turn @ joint @ turn.T
    size = np.sqrt(np.trace(joint[:m, :m]) / m)
    delta, pi, joint = delta / size, pi / size, joint / size**2
    constant, linear, square = _bordered(delta, pi, joint, critical)
    zero, one = np.zeros((m + 1, m + 1)), np.eye(m + 1)
    left, right = np.block([[zero, one], [-constant, -linear]]), np.block([[one, zero], [zero, square]])
    above, below = eigvals(left, right, homogeneous_eigvals=True)
    finite = np.abs(below) > 1e-12 * np.abs(above)
    # Complex roots come along as harmless further cuts: between any two cuts the answer cannot change.
    cuts = np.unique(np.real(above[finite] / below[finite]))
    segments = _accepted(cuts, delta, pi, joint, critical)
    return ConfidenceSet(segments=tuple((float(centre + step * low), float(centre + step * high)) for low, high in segments))


def anderson_rubin_p(delta: FloatArray, pi: FloatArray, joint: FloatArray, *, effect: float, degrees: int) -> float:
    """Probability of an Anderson-Rubin statistic at least as large if `effect` were true."""
    from scipy.stats import f

    return float(f.sf(_statistic(effect, delta, pi, joint) / len(pi), len(pi), degrees))


def _guess(delta: FloatArray, pi: FloatArray, joint: FloatArray) -> tuple[float, float]:
    """Two-stage least squares and its standard error: origin and unit in which the roots are of order one."""
    m = len(pi)
    centre = float(pi @ delta) / float(pi @ pi)
    contrast = np.concatenate([pi, -centre * pi]) / float(pi @ pi)
    assert len(contrast) == 2 * m
    return centre, float(np.sqrt(contrast @ joint @ contrast))


def _bordered(delta: FloatArray, pi: FloatArray, joint: FloatArray, critical: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Coefficients of 1, b and b² in the bordered matrix, shape (m + 1, m + 1) each."""
    m = len(pi)
    cross = joint[:m, m:]
    constant, linear, square = (np.zeros((m + 1, m + 1)) for _ in range(3))
    constant[0, 0], constant[0, 1:], constant[1:, 0], constant[1:, 1:] = critical, delta, delta, joint[:m, :m]
    linear[0, 1:], linear[1:, 0], linear[1:, 1:] = -pi, -pi, -(cross + cross.T)
    square[1:, 1:] = joint[m:, m:]
    return constant, linear, square


def _accepted(cuts: FloatArray, delta: FloatArray, pi: FloatArray, joint: FloatArray, critical: float) -> tuple[tuple[float, float], ...]:
    """Stretches between cuts on which the statistic stays below its critical value, neighbours joined."""
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    segments: list[tuple[float, float]] = []
    for low, high in pairwise(edges.tolist()):
        if _statistic(_inside(low, high), delta, pi, joint) > critical:
            continue
        if segments and segments[-1][1] == low:
            segments[-1] = (segments[-1][0], float(high))
        else:
            segments.append((float(low), float(high)))
    return tuple(segments)


def _inside(low: float, high: float) -> float:
    """A point between two cuts, either of which may be infinite."""
    if np.isinf(low) and np.isinf(high):
        return 0.0
    if np.isinf(low):
        return high - max(1.0, abs(high))
    return low + max(1.0, abs(low)) if np.isinf(high) else 0.5 * (low + high)


def _statistic(effect: float, delta: FloatArray, pi: FloatArray, joint: FloatArray) -> float:
    m = len(pi)
    contrast = np.hstack([np.eye(m), -effect * np.eye(m)])
    gap = delta - effect * pi
    return float(gap @ np.linalg.solve(contrast @ joint @ contrast.T, gap))
