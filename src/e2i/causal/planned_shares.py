"""Did a lottery come out as it was planned: the share of each arm against its planned share, before anything was lost.

Where it did not, units of one arm are missing for a reason, and no estimate of an effect is safe from that reason (Fabijan et al. 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import polars as pl

from e2i.causal.design import Identification
from e2i.domain.disclosure import visible
from e2i.domain.evidence import Hazard
from e2i.domain.sample_ratio import SAMPLE_RATIO_ALPHA, sample_ratio
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified

_WHERE = "effect.assigned_share"
_EXPECTED = 5.0
"""units of an arm that a stratum's own chi-square expects at least (Cochran 1954)"""
_LEAVE_OUT = "Leave `assigned_share` out."


def about_planned_shares(frame: pl.DataFrame, effect: EffectSpec, identification: Identification) -> tuple[Hazard, ...]:
    """A block where the arms' shares depart from the plan beyond chance. Code: `sample_ratio`.

    Every unit with an arm counts, with or without an outcome: a unit once however many periods it has, and a cluster once where all of
    its units share an arm. Where chance drew within strata, arms are held against the plan
    within them. With `instruments` the arms are those of the instrument.

    Parameters
    ----------
    frame : as given to `analyse`

    Raises
    ------
    NotIdentified
        Nothing says that chance assigned, units have no single arm, or the planned arms are not those of the data.
    """
    if effect.assigned_share is None:
        return ()
    if not identification.is_randomised:
        advice = "Say `randomised: true`, or leave `assigned_share` out."
        raise NotIdentified("a planned share is given, but nothing says that chance assigned.", where=_WHERE, advice=advice)
    column = _what_was_drawn(effect, identification)
    by_stratum = _counts(frame, column, identification)
    shares = _by_stratum(effect.assigned_share, by_stratum, column)
    p_value, departure = _against_the_plan(by_stratum, shares)
    if p_value >= SAMPLE_RATIO_ALPHA:
        return ()
    within = f" within {' and '.join(f'`{name}`' for name in identification.drawn_within)}" if len(by_stratum) > 1 else ""
    text = (
        f"the arms of `{column}` do not hold their planned shares{within} ({departure}; chi-square p "
        f"{f'= {p_value:.1g}' if p_value >= 1e-4 else '< 0.0001'}): units of an arm are missing, or the assignment is broken."
    )
    remedy = "Find out where units were lost (a join, a filter, a log of one arm): what removed them may go with the outcome."
    return (Hazard(code="sample_ratio", action="block", text=text, remedy=remedy, measured=p_value, threshold=SAMPLE_RATIO_ALPHA),)


def _what_was_drawn(effect: EffectSpec, identification: Identification) -> str:
    if len(effect.instruments) > 1:
        raise NotIdentified("a planned share belongs to one instrument; several are named.", where=_WHERE, advice=_LEAVE_OUT)
    if effect.instruments:
        return effect.instruments[0]
    if effect.cohort is not None or (identification.time is not None and identification.treatment_kind in ("on_off", "continuous")):
        what = "units that start at different times, or go on and off, have no single arm whose share was planned."
        raise NotIdentified(what, where=_WHERE, advice=_LEAVE_OUT)
    return effect.treatment


def _counts(frame: pl.DataFrame, column: str, identification: Identification) -> dict[str, dict[str, int]]:
    """Units, or whole clusters, by stratum and arm; one stratum without a name where all shared one lottery."""
    within = {f"within_{place}": name for place, name in enumerate(identification.drawn_within)}
    roles = within | {role: name for role, name in (("unit", identification.unit), ("cluster", identification.cluster)) if name}
    rows = frame.select(pl.col(column).alias("arm"), *(pl.col(name).alias(role) for role, name in roles.items()))
    rows = rows.filter(pl.col("arm").is_not_null() & (pl.col("arm").is_not_nan() if rows["arm"].dtype.is_float() else True))
    if identification.time is not None and "unit" in rows.columns:
        rows = rows.group_by("unit").agg(pl.col("arm").max(), *(pl.col(role).first() for role in roles if role != "unit"))
    if "cluster" in rows.columns:
        whole = rows.group_by("cluster", *within).agg(pl.col("arm").n_unique().alias("arms"), pl.col("arm").first())
        rows = whole if (whole["arms"] == 1).all() else rows
    out: dict[str, Counter[str]] = {}
    for *stratum, arm, count in rows.group_by(*within, "arm").len().sort(*within, "arm").iter_rows():
        out.setdefault(" / ".join(map(_name, stratum)), Counter())[_name(arm)] += count
    return {stratum: dict(arms) for stratum, arms in out.items()}


def _by_stratum(given: float | Mapping[str, float], found: dict[str, dict[str, int]], column: str) -> dict[str, dict[str, float]]:
    """Stratum -> arm -> planned share: one plan for all, or with the strata's names the share of the treated in each."""
    counts = {arm: count for arms in found.values() for arm, count in arms.items()}
    if not isinstance(given, Mapping) or "" in found or not set(found) & (set(given) - set(counts)):
        return dict.fromkeys(found, _planned(given, counts, column))
    if missing := sorted(set(found) - set(given)):
        what = f"no share was planned for {', '.join(f'`{stratum}`' for stratum in missing[:12])}, within which chance assigned as well."
        raise NotIdentified(what, where=_WHERE, advice="Give the share of every stratum.")
    return {stratum: _planned(given[stratum], counts, column) for stratum in found}


def _against_the_plan(found: dict[str, dict[str, int]], shares: dict[str, dict[str, float]]) -> tuple[float, str]:
    """P that the arms came from the plan, over all strata and stratum by stratum, and in words what departs most.

    Over all strata the chi-square is at most too careful, because the plan fixes more within them. Stratum by stratum the smallest p
    counts, times the number of strata (Bonferroni); where there are several, the smaller of both is doubled.
    """
    expected: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for stratum, arms in found.items():
        counts.update(arms)
        weight = sum(shares[stratum].values())
        for arm, share in shares[stratum].items():
            expected[arm] = expected.get(arm, 0.0) + sum(arms.values()) * share / weight
    together = sample_ratio(dict(counts), expected)
    if len(found) == 1:
        return together, _told(counts, expected)
    own = {}
    for stratum, arms in found.items():
        smallest = sum(arms.values()) * min(shares[stratum].values()) / sum(shares[stratum].values())
        if smallest >= _EXPECTED:
            own[stratum] = sample_ratio({arm: arms.get(arm, 0) for arm in shares[stratum]}, shares[stratum])
    worst = min(own, key=lambda stratum: own[stratum], default=None)
    if worst is None:
        return together, _told(counts, expected)
    if len(own) * own[worst] < together:
        return min(1.0, 2.0 * len(own) * own[worst]), f"worst in `{worst}`: {_told(found[worst], shares[worst])}"
    return min(1.0, 2.0 * together), _told(counts, expected)


def _planned(given: float | Mapping[str, float], counts: dict[str, int], column: str) -> dict[str, float]:
    """Arm -> planned share, of the arms in the data."""
    found = ", ".join(f"`{name}`" for name in sorted(counts)[:12])
    if not isinstance(given, Mapping):
        if set(counts) - {"0", "1"}:
            advice = "Give a share for each, `assigned_share: {none: 0.5, email: 0.25, rep: 0.25}`, or leave it out for a dose."
            raise NotIdentified(f"one share was planned, and `{column}` is not 0/1: {found}.", where=_WHERE, advice=advice)
        return {"0": 1.0 - given, "1": given}
    if set(given) != set(counts):
        planned = ", ".join(f"`{name}`" for name in sorted(given))
        advice = "Name every arm as the data do (quote yes, no, on and off), and no other."
        raise NotIdentified(f"shares were planned for {planned}; `{column}` holds {found}.", where=_WHERE, advice=advice)
    return dict(given)


def _told(counts: Mapping[str, int], planned: dict[str, float]) -> str:
    """Shares in words; what is found is left out where a small cell could be told from it."""
    total, weight = sum(counts.values()), sum(planned.values())
    is_visible = all(visible(counts.get(arm, 0)) is not None for arm in planned)
    parts = (
        f"`{arm}` {planned[arm] / weight:.1%}{f', found {counts.get(arm, 0) / total:.1%}' if is_visible else ''}" for arm in sorted(planned)
    )
    return "; ".join(parts)


def _name(value: object) -> str:
    """As a study writes it: 1 for 1.0 and for true."""
    return f"{float(value):g}" if isinstance(value, bool | int | float) else str(value)
