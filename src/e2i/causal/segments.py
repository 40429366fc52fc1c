"""Effects in segments from doubly robust scores: many looks at the same data, so with multiplicity control and shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.hierarchical import pool, shrink
from e2i.causal.cate.sums import NORMAL, cluster_sums, critical_value, numbered, stretched, two_sided
from e2i.causal.groupings import Grouping
from e2i.domain.disclosure import SMALL_CELL, visible_counts
from e2i.domain.segments import Interval, Pooling, ResponderType, SegmentEffect, SegmentStatus

HIGH, LOW = 1.5, 0.5
FALSE_DISCOVERIES = 0.05
_DRAWS = 4_000
_CHUNK = 50_000


@dataclass(frozen=True, kw_only=True)
class SegmentEffects:
    """All segments, by modifier, and how much each modifier's segments differ beyond chance."""

    overall: Interval
    by_modifier: dict[str, tuple[SegmentEffect, ...]]
    pooling: dict[str, Pooling]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Estimates of S segments with errors that share rows."""

    estimates: FloatArray
    errors: FloatArray
    differences: FloatArray
    difference_errors: FloatArray
    critical: float
    difference_critical: float
    freedom: FloatArray
    """degrees of freedom of each segment's error: its own clusters less 1, infinite over rows"""


def segment_effects(scores: Scores, groupings: Sequence[Grouping], *, seed: int) -> SegmentEffects:
    """The estimand within every segment of every modifier.

    Segments of 1-10 people are suppressed, those without both arms or with an arm of 1-10 people have no effect. Flags control
    the false discovery rate at 5 % (Benjamini and Hochberg 1995), simultaneous intervals come from a Gaussian multiplier
    bootstrap of the largest ratio (Chernozhukov, Chetverikov and Kato 2013). With clusters every p-value and interval is a t's with
    as many degrees of freedom as the segment has clusters, less 1; the bootstrap's value is stretched to that t.
    """
    drafts = {item.modifier: _drafts(scores, item) for item in groupings}
    places = [(item, level) for item in groupings for level, draft in enumerate(drafts[item.modifier]) if draft.status == "estimated"]
    overall, error = _overall(scores)
    critical, _ = critical_value(scores.cluster)
    told = Interval(estimate=overall, low=overall - critical * error, high=overall + critical * error)
    pooling: dict[str, Pooling] = {}
    if places:
        found = _estimate(scores, places, overall, seed=seed)
        for place, effect in enumerate(_records(found, told)):
            item, level = places[place]
            drafts[item.modifier][level] = _merge(drafts[item.modifier][level], effect)
        for item in groupings:
            pooling |= _shrink_modifier(item.modifier, drafts[item.modifier])
    notes = _notes(drafts, told)
    return SegmentEffects(overall=told, by_modifier={name: tuple(rows) for name, rows in drafts.items()}, pooling=pooling, notes=notes)


def adjusted(p_values: FloatArray) -> FloatArray:
    """Benjamini-Hochberg adjusted p-values, shape (m,)."""
    order = np.argsort(p_values)
    ranked = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return out


def responder(effect: SegmentEffect, overall: Interval) -> ResponderType | None:
    """`high` from 1.5 times and `low` up to 0.5 times the overall effect, only when the difference is beyond chance.

    None without an overall effect that differs from zero: a multiple of nothing tells nothing.
    """
    if effect.estimate is None or not overall.excludes_zero:
        return None
    ratio = effect.estimate / overall.estimate
    if not effect.differs or LOW < ratio < HIGH:
        return "average"
    return "high" if ratio >= HIGH else "low"


def _drafts(scores: Scores, item: Grouping) -> list[SegmentEffect]:
    """Who can be told about at all."""
    levels = len(item.labels)
    size = np.bincount(item.codes, minlength=levels)
    treated = np.bincount(item.codes, weights=scores.treatment, minlength=levels).astype(np.int64)
    shown = [visible_counts({str(level): int(count) for level, count in enumerate(counts)}) for counts in (size, treated, size - treated)]
    out = []
    for level, label in enumerate(item.labels):
        status, reason = _status(int(size[level]), int(treated[level]))
        if status == "estimated" and scores.cluster is not None and np.ptp(scores.cluster[item.codes == level]) == 0:
            status, reason = "one_cluster", "all people here are of one cluster: nothing tells how far its effect is from others'"
        counts = [each[str(level)] for each in shown]
        visible = None not in counts
        out.append(
            SegmentEffect(
                segment_name=item.modifier,
                segment_value=label,
                status=status,
                reason=reason,
                size=counts[0],
                treatment_rate=float(treated[level] / size[level]) if visible and size[level] else None,
            )
        )
    return out


def _status(size: int, treated: int) -> tuple[SegmentStatus, str | None]:
    smaller = min(treated, size - treated)
    if size <= SMALL_CELL:
        return "suppressed", f"{SMALL_CELL} people or fewer"
    if smaller == 0:
        return "one_arm", f"nobody here is {'treated' if treated == 0 else 'untreated'}: no effect can be learned"
    if smaller <= SMALL_CELL:
        return "too_few", f"{SMALL_CELL} people or fewer in an arm"
    return "estimated", None


def _overall(scores: Scores) -> tuple[float, float]:
    mass = float(scores.mass.sum())
    overall = float(scores.asked.sum()) / mass
    rest = ((scores.asked - overall * scores.mass) / mass)[:, None]
    sums = cluster_sums(rest, scores.cluster)
    return overall, float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum()))


def _estimate(scores: Scores, places: list[tuple[Grouping, int]], overall: float, *, seed: int) -> _Found:
    """Estimates with the covariance that overlapping segments and the overall effect share."""
    asked, mass = scores.asked, scores.mass
    masses = np.array([mass[item.codes == level].sum() for item, level in places])
    estimates = np.array([asked[item.codes == level].sum() for item, level in places]) / masses

    def part(rows: slice) -> FloatArray:
        columns = [
            np.where(item.codes[rows] == level, (asked[rows] - theta * mass[rows]) / total, 0.0)
            for (item, level), theta, total in zip(places, estimates, masses, strict=True)
        ]
        return np.column_stack([*columns, (asked[rows] - overall * mass[rows]) / mass.sum()])

    covariance = _crossed(part, len(asked), scores.cluster)
    inner, own = covariance[:-1, :-1], covariance[:-1, -1]
    apart = inner - own[:, None] - own[None, :] + covariance[-1, -1]
    freedom, widened = _own_clusters(scores.cluster, places)
    errors, gaps = widened * np.sqrt(np.diag(inner)), widened * np.sqrt(np.maximum(np.diag(apart), 0.0))
    return _Found(
        estimates=estimates,
        errors=errors,
        differences=estimates - overall,
        difference_errors=gaps,
        critical=_largest(inner, seed=seed),
        difference_critical=_largest(apart, seed=seed),
        freedom=freedom,
    )


def _own_clusters(cluster: IntArray | None, places: list[tuple[Grouping, int]]) -> tuple[FloatArray, FloatArray]:
    """Degrees of freedom of each segment's error, and what its few clusters widen it by against the factor of all clusters."""
    if cluster is None:
        return np.full(len(places), np.inf), np.ones(len(places))
    codes, groups = numbered(cluster)
    own = np.array([len(np.unique(codes[item.codes == level])) for item, level in places], dtype=np.float64)
    return own - 1.0, np.sqrt(own / (own - 1.0) / (groups / (groups - 1)))


def _crossed(part: object, rows: int, cluster: IntArray | None) -> FloatArray:
    """Sum over units of the outer product of their contributions."""
    assert callable(part)
    if cluster is not None:
        sums = cluster_sums(part(slice(0, rows)), cluster)
        out: FloatArray = sums.T @ sums * len(sums) / max(len(sums) - 1, 1)
        return out
    blocks = (part(slice(start, start + _CHUNK)) for start in range(0, rows, _CHUNK))
    total: FloatArray = sum(block.T @ block for block in blocks) * (rows / (rows - 1))
    return total


def _largest(covariance: FloatArray, *, seed: int) -> float:
    """95 % quantile of the largest absolute ratio of centred normals with this covariance; never below the pointwise one."""
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    varies = error > 1e-12 * error.max(initial=0.0)
    if not varies.any():
        return NORMAL
    shape = covariance[np.ix_(varies, varies)] / np.outer(error[varies], error[varies])
    values, vectors = np.linalg.eigh(shape)
    draws = np.random.default_rng(seed).normal(size=(_DRAWS, len(values))) * np.sqrt(np.maximum(values, 0.0))
    return max(NORMAL, float(np.quantile(np.abs(draws @ vectors.T).max(axis=1), 0.95)))


def _records(found: _Found, overall: Interval) -> list[SegmentEffect]:
    ratios = found.estimates / np.where(found.errors > 0, found.errors, np.inf)
    gaps = found.differences / np.where(found.difference_errors > 0, found.difference_errors, np.inf)
    p_values, gap_p = (np.array([two_sided(r, df) for r, df in zip(each, found.freedom, strict=True)]) for each in (ratios, gaps))
    p_adjusted, gap_adjusted = adjusted(p_values), adjusted(gap_p)
    out = []
    for place, (estimate, error) in enumerate(zip(found.estimates.tolist(), found.errors.tolist(), strict=True)):
        single, joint, apart = (
            stretched(each, float(found.freedom[place])) for each in (NORMAL, found.critical, found.difference_critical)
        )
        gap, half = float(found.differences[place]), apart * float(found.difference_errors[place])
        effect = SegmentEffect(
            segment_name="",
            segment_value="",
            status="estimated",
            estimate=estimate,
            standard_error=error,
            low=estimate - single * error,
            high=estimate + single * error,
            simultaneous_low=estimate - joint * error,
            simultaneous_high=estimate + joint * error,
            p_value=float(p_values[place]),
            p_adjusted=float(p_adjusted[place]),
            is_significant=bool(p_adjusted[place] <= FALSE_DISCOVERIES),
            difference=Interval(estimate=gap, low=gap - half, high=gap + half),
            difference_p_adjusted=float(gap_adjusted[place]),
            differs=bool(gap_adjusted[place] <= FALSE_DISCOVERIES),
        )
        out.append(replace(effect, responder_type=responder(effect, overall)))
    return out


def _merge(draft: SegmentEffect, effect: SegmentEffect) -> SegmentEffect:
    return replace(
        effect,
        segment_name=draft.segment_name,
        segment_value=draft.segment_value,
        size=draft.size,
        treatment_rate=draft.treatment_rate,
    )


def _shrink_modifier(modifier: str, effects: list[SegmentEffect]) -> dict[str, Pooling]:
    """Pooling of one modifier's segments; their shrunken effects are set in place."""
    known: BoolArray = np.array([bool(effect.standard_error) for effect in effects])
    if known.sum() < 2:
        return {}
    rows = np.flatnonzero(known)
    estimates = np.array([effects[row].estimate for row in rows], dtype=np.float64)
    errors = np.array([effects[row].standard_error for row in rows], dtype=np.float64)
    pooling = pool(estimates, errors)
    middle, spread = shrink(estimates, errors, pooling)
    for row, value, sd in zip(rows, middle.tolist(), spread.tolist(), strict=True):
        effects[row] = replace(effects[row], shrunken=Interval(estimate=value, low=value - NORMAL * sd, high=value + NORMAL * sd))
    return {modifier: pooling}


def _notes(drafts: dict[str, list[SegmentEffect]], overall: Interval) -> tuple[str, ...]:
    notes = []
    for name, effects in drafts.items():
        notes += [f"`{name}` {effect.segment_value}: {effect.reason}." for effect in effects if effect.status in ("one_arm", "one_cluster")]
        hidden = sum(effect.status in ("suppressed", "too_few") for effect in effects)
        if hidden:
            notes.append(f"`{name}`: {hidden} segment(s) with few people have no effect told.")
        against = [e.segment_value for e in effects if e.is_significant and e.estimate is not None and e.estimate * overall.estimate < 0]
        if against and overall.excludes_zero:
            notes.append(f"`{name}` {', '.join(against)}: the effect points the other way than the overall one.")
    if not overall.excludes_zero:
        notes.append("The overall effect does not differ from zero: no segment is called a high or low responder.")
    return tuple(notes)
