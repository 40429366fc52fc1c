"""A finding in plain words, from its evidence alone; for effects that may be told."""

from __future__ import annotations

from dataclasses import dataclass

from e2i.domain.evidence import CausalFinding, Effect
from e2i.domain.numbers import numbers_in

_WHOM = {
    "ATT": "Among those who were treated",
    "ATE": "Over all units",
    "ATO": "Among units that could have gone either way",
    "LATE": "Among units whose treatment the instrument moves",
    "APE": "For one unit more of it",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """A text with the names and numbers that it holds."""

    text: str
    names: tuple[str, ...]
    numbers: frozenset[str]


def narrate(finding: CausalFinding, *, treatment: str, outcome: str) -> Told:
    """What was found, how sure it is, and what it rests on. `finding.effect` is not None."""
    effect = finding.effect
    assert effect is not None
    sentences = [
        _main(effect, treatment, outcome),
        *_naive(effect),
        f"Method: {effect.estimator}; interval: {effect.interval_method}.",
        *finding.verdict.reasons,
        *([effect.certificate] if effect.certificate else []),
    ]
    text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    return Told(text=text, names=(treatment, outcome), numbers=frozenset(numbers_in(text)))


def levels_compared(estimator: str) -> str | None:
    """The two levels that an estimate compares, None where treatment has no levels.

    >>> levels_compared("difference in means, level rep against none")
    'rep against none'
    """
    return estimator.partition(", level ")[2] or None


def _main(effect: Effect, treatment: str, outcome: str) -> str:
    low, high = effect.interval()
    whom = _WHOM.get(effect.estimand, effect.estimand)
    levels = levels_compared(effect.estimator)
    cause = f"`{treatment}` ({levels})" if levels else f"`{treatment}`"
    if effect.scale == "ratio":
        return f"{whom}, {cause} multiplies `{outcome}` by {effect.estimate:.3g} (95 % interval {low:.3g} to {high:.3g})."
    moved = "raises" if effect.estimate > 0 else "lowers"
    unsure = " The interval includes no effect." if low <= 0 <= high else ""
    if effect.outcome_kind == "binary" and effect.scale == "outcome":
        size, ends = f"{100 * abs(effect.estimate):.3g} percentage points", f"{100 * low:.3g} to {100 * high:.3g} points"
        return f"{whom}, {cause} {moved} `{outcome}` by {size} on average (95 % interval of the change {ends}).{unsure}"
    size = f"{abs(effect.estimate):.3g}"
    return f"{whom}, {cause} {moved} `{outcome}` by {size} on average (95 % interval of the change {low:.3g} to {high:.3g}).{unsure}"


def _naive(effect: Effect) -> list[str]:
    if effect.naive_difference is None:
        return []
    if effect.outcome_kind == "binary" and effect.scale == "outcome":
        return [f"A plain comparison of treated and untreated would say {100 * effect.naive_difference:.3g} percentage points."]
    return [f"A plain comparison of treated and untreated would say {effect.naive_difference:.3g}."]
