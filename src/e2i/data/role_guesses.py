"""Which column of a table may play which role, by names, types and levels; nothing here looks for what fits best."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

TREATMENT_WORDS = (
    "treatment", "treated", "treat", "trt", "arm", "exposed", "exposure", "intervention", "program", "programme", "campaign", "speaker",
    "detailed", "visited", "attended", "enrolled", "mailed", "emailed", "contacted", "called", "sampled", "received", "accepted",
    "invited", "offered", "assigned", "assignment", "train", "training", "grant", "randomized", "randomised", "coupon", "copay",
    "voucher", "policy", "law", "qsmk", "post", "d", "w",
)  # fmt: skip
OUTCOME_WORDS = (
    "y", "outcome", "nrx", "trx", "nbrx", "rx", "scripts", "prescriptions", "sales", "revenue", "response", "adherence", "pdc", "mpr",
    "persistence", "change", "delta", "score", "lwage", "wage", "earnings", "re78", "volume", "units", "cost", "spend",
)  # fmt: skip
EVENT_WORDS = (
    "target", "label", "convert", "converted", "conversion", "churn", "churned", "death", "died", "dead", "survived", "event", "initiated",
    "responded", "responder", "respond", "response", "adherent", "persistent", "discontinued", "relapse", "hospitalized", "readmitted",
    "adopted", "abandoned", "outcome", "y",
)  # fmt: skip
BASELINE_WORDS = frozenset({
    "age", "sex", "gender", "female", "male", "race", "black", "white", "hisp", "hispanic", "ethnicity", "married", "marr", "education",
    "educ", "nodegree", "school", "region", "state", "specialty", "speciality", "decile", "segment", "tier", "practice", "urban", "rural",
    "south", "experience", "exper", "tenure", "insurance", "payer", "plan", "comorbidity", "comorbidities", "charlson", "bmi", "smoker",
    "income", "potential", "size",
})  # fmt: skip
PROTECTED_WORDS = frozenset({"sex", "gender", "race", "ethnicity", "ethnic", "age_group"})
ID_WORDS = frozenset({
    "id", "npi", "seqn", "key", "code", "sid", "pid", "uid", "cid", "hhid", "stateid", "personid", "patientid", "hcpid", "userid", "fips",
    "statefip", "fcode", "idcode",
})  # fmt: skip
UNIT_WORDS = (*sorted(ID_WORDS), "hcp", "patient", "territory", "account", "state", "county", "region", "store", "firm")
TIME_WORDS = frozenset({"date", "day", "week", "month", "quarter", "year", "yr", "period", "time", "wave", "yyyymm"})
CONTROL_LEVELS = frozenset({"control", "placebo", "untreated", "comparison", "holdout", "usual care", "ctrl"})
YES_NO = (frozenset({"yes", "no"}), frozenset({"y", "n"}), frozenset({"true", "false"}), frozenset({"t", "f"}))
NO = frozenset({"no", "n", "false", "f"})
EARLIER = frozenset({
    "pre", "before", "baseline", "base", "prior", "previous", "prev", "lag", "lagged", "bl", "hist", "history", "past", "re74", "re75",
})  # fmt: skip
LATER = frozenset({"post", "after", "followup", "fu", "end"})
OTHER = frozenset({"other", "negative", "nco", "placebo", "competitor", "unrelated"})
WEIGHTS = frozenset({"weight", "weights", "wt", "wgt", "popwt", "pw"})


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A column for each role; None or empty where no column is likely.

    `reference` is the control's level of a treatment that holds text; `two_levels` is what else a treatment could be.
    """

    unit: str | None
    time: str | None
    event_time: str | None
    treatment: str | None
    reference: str | None
    outcome: str | None
    target: str | None
    protected: tuple[str, ...]
    confounders: tuple[str, ...]
    negative_controls: tuple[str, ...]
    two_levels: tuple[str, ...]


def guess_roles(frame: pl.DataFrame, kinds: dict[str, str]) -> Guess:
    """Guess from a table and the kinds of its columns (`boolean`, `integer`, `number`, `text`, `date`, `datetime`, `other`).

    A name counts by its whole words. In a panel only what changes within a unit can be the treatment, and nothing is taken for a
    confounder: what changes over time may be an effect.
    """
    table = _Table(frame, kinds)
    unit, time = table.unit_and_time()
    is_panel = time is not None
    binary = [name for name in table.two_levels() if name not in (unit, time)]
    treatment = table.treatment(binary, unit=unit if is_panel else None)
    outcome = table.outcome([name for name in table.numeric if name not in (unit, time, treatment)])
    dates = table.of_kind("date", "datetime")
    free = [name for name in binary if name in table.numeric and name not in (treatment, outcome) and not _is_baseline(name)]
    target = None if is_panel else _first(free, EVENT_WORDS)
    controls = tuple(name for name in table.numeric if words(name) & OTHER and name not in (treatment, outcome, target))
    taken = {unit, time, treatment, outcome, target, *dates, *controls}
    protected = tuple(name for name in table.several_levels if words(name) & PROTECTED_WORDS or name.lower() == "age_group")
    known_before = tuple(name for name in table.several_levels if name not in taken and table.is_known_before(name))
    return Guess(
        unit=unit,
        time=time,
        event_time=dates[0] if target and dates else None,
        treatment=treatment,
        reference=None if treatment is None else table.reference(treatment),
        outcome=outcome,
        target=target,
        protected=protected if target else (),
        confounders=() if is_panel else known_before,
        negative_controls=controls if outcome else (),
        two_levels=tuple(name for name in binary if name not in (treatment, outcome)),
    )


def words(name: str) -> set[str]:
    """The words of a column's name in lower case: `TRx_post12w`, `preTrx`, `nrx 3` are also `trx`, `post`, `pre`, `nrx`."""
    whole = re.findall(r"[A-Za-z0-9]+", name)
    humps = [part for word in whole for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)]
    bare = [match[0] for word in whole if (match := re.match(r"[A-Za-z]{2,}", word))]
    return {word.lower() for word in (*whole, *humps, *bare) if len(word) > 1 or word == name}


class _Table:
    """The columns of a table by what they hold."""

    def __init__(self, frame: pl.DataFrame, kinds: dict[str, str]) -> None:
        self._frame = frame
        self._kinds = kinds
        self._levels = {name: frame[name].drop_nulls().n_unique() if kinds[name] != "other" else 0 for name in kinds}
        self.several_levels = [name for name in kinds if self._levels[name] > 1]
        self.numeric = [name for name in self.of_kind("boolean", "integer", "number") if self._levels[name] > 1]

    def of_kind(self, *kinds: str) -> list[str]:
        return [name for name, kind in self._kinds.items() if kind in kinds]

    def two_levels(self) -> list[str]:
        """0/1, yes/no, or one of the levels is called a control."""
        texts = [name for name in self.of_kind("text") if 2 <= self._levels[name] <= 5 and self.reference(name) is not None]
        found = {*texts, *(name for name in self.numeric if self._levels[name] == 2)}
        return [name for name in self._kinds if name in found]

    def unit_and_time(self) -> tuple[str | None, str | None]:
        """The unit, and the time when the unit has several rows, each at another time."""
        likely = [name for name in self.of_kind("text", "integer", "number") if self._levels[name] > 1]
        ids = _by_words(likely, UNIT_WORDS)
        every_row = next((name for name in ids if self._levels[name] == self._frame.height), None)
        if every_row is not None:
            return every_row, None
        times = [name for name in self._kinds if words(name) & TIME_WORDS and name in self.several_levels and name not in ids]
        for time in times:
            for unit in ids:
                if self._frame.select(unit, time).drop_nulls().is_unique().all():
                    return unit, time
        return next(iter(ids), None), None

    def treatment(self, binary: Sequence[str], *, unit: str | None) -> str | None:
        """By its name, its levels, or because nothing else has two levels."""
        changing = [name for name in binary if unit is None or self._changes_within(name, unit)]
        allowed = [name for name in changing if not _is_baseline(name)]
        named = _first(allowed, TREATMENT_WORDS if unit is not None else tuple(word for word in TREATMENT_WORDS if word != "post"))
        arms = [name for name in allowed if self._kinds[name] == "text" and CONTROL_LEVELS & self._texts(name).keys()]
        others = [name for name in allowed if not words(name) & set(EVENT_WORDS)]
        return named or next(iter(arms), None) or (others[0] if len(others) == 1 else None)

    def outcome(self, numeric: Sequence[str]) -> str | None:
        """By its name, amounts before events; else the only amount that is left."""
        free = [name for name in numeric if not _is_baseline(name) and not words(name) & (OTHER | WEIGHTS | TIME_WORDS | ID_WORDS)]
        amounts = [name for name in free if self._levels[name] > 2]
        later_first = sorted(amounts, key=lambda name: not words(name) & LATER)
        events = [name for name in free if self._levels[name] == 2]
        named = _first(later_first, OUTCOME_WORDS) or _first(events, EVENT_WORDS)
        return named or (amounts[0] if len(amounts) == 1 else None)

    def is_known_before(self, name: str) -> bool:
        """By its name, or a group of few levels."""
        if words(name) & (ID_WORDS | WEIGHTS | LATER | set(EVENT_WORDS)):
            return False
        return _is_baseline(name) or (self._kinds[name] == "text" and self._levels[name] <= 20 and not words(name) & set(TREATMENT_WORDS))

    def reference(self, treatment: str) -> str | None:
        """The level of a treatment in text that the others are compared with."""
        levels = self._texts(treatment) if self._kinds[treatment] == "text" else {}
        controls = NO if frozenset(levels) in YES_NO else CONTROL_LEVELS
        return next((levels[level] for level in sorted(levels) if level in controls), None)

    def _texts(self, name: str) -> dict[str, str]:
        """A level in lower case -> as it stands."""
        return {str(level).strip().lower(): str(level) for level in self._frame[name].drop_nulls().unique()}

    def _changes_within(self, name: str, unit: str) -> bool:
        return bool((self._frame.group_by(unit).agg(pl.col(name).drop_nulls().n_unique())[name] > 1).any())


def _is_baseline(name: str) -> bool:
    return bool(words(name) & (EARLIER | BASELINE_WORDS))


def _first(names: Sequence[str], by: Sequence[str]) -> str | None:
    return next(iter(_by_words(names, by)), None)


def _by_words(names: Sequence[str], by: Sequence[str]) -> list[str]:
    """The names that hold one of the words, in the order of the words."""
    return list(dict.fromkeys(name for word in by for name in names if word in words(name)))
