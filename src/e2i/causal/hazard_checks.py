"""Checks of a table of one row per unit before anything is estimated. Each finds hazards and raises nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.causal.hazard_table import Table, cell, found, numbers, people, refuse
from e2i.causal.spelling import spelled_alike
from e2i.domain.disclosure import counted
from e2i.domain.evidence import Hazard

_FEWEST_PER_ARM = 30
_YES_NO = frozenset(("0", "1", "0.0", "1.0", "yes", "no", "true", "false", "y", "n", "t", "f", "treated", "control", "untreated"))
_MISSING_REVIEW = 0.2
_SEPARATION_AUC = 0.99
_EXPECTED = 10.0
_LATE_NAME = re.compile(r"(^|_)(post(?!_?(code|al))|after|followup|follow_up|discharge|subsequent)(_|$)", re.IGNORECASE)
_FEW_CLUSTERS = 10
_TIGHT_R2 = 0.99
EXTREME_TIMES = 1e12
MIXED_SHARE = 0.002
SCALE_GAP = 10.0
_DISTINCT = 10
_STRAY = 0.02
_NUMBERS, _LEVELS = 0.9, 12
_ROWS_A_DAY = 25
"""with as many rows, days are categories like others"""
_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    r"(?i)^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[ .-]?{_MONTH}[ .-]?\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{4}})"
    r"([ T]\d{1,2}:\d{2}(:\d{2})?)?$"
)
_BOTH_ARMS = "An effect needs treated and untreated rows."


def coding(table: Table) -> Iterator[Hazard]:
    """Treatment and outcome in a form that can be read only one way."""
    spec, frame = table.spec, table.frame
    for role, name in (("treatment", spec.treatment), ("outcome", spec.outcome)):
        series = frame[name]
        if numbers(series) is not None or series.null_count() == len(series):
            continue
        levels = [str(level) for level in series.drop_nulls().cast(pl.String).unique().sort().head(6).to_list()]
        if role == "treatment" and len(levels) == 1:
            yield refuse("constant_treatment", f'every row has the treatment "{levels[0]}".', _BOTH_ARMS, 1.0, 2.0)
        if role == "treatment" and (len(levels) != 2 or spec.reference is not None):
            continue
        shown = ", ".join(f'"{level}"' for level in levels[:4])
        is_yes_no = len(levels) <= 2 and {level.strip().lower() for level in levels} <= _YES_NO
        parsed = series.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        recode = "Recode it in the source: 1 for yes or treated, 0 for no." if is_yes_no else "Recode it to a number in the source."
        if not is_yes_no and parsed.null_count() == series.null_count():
            recode = f"Its texts are numbers: cast `{name}` to a number in the source."
        elif role == "treatment":
            recode += f" Or name the level that the other is compared with: `reference: {levels[0]}`."
        yield refuse(f"{role}_as_text", f"{role} `{name}` is stored as text ({shown}).", recode, measured=float(len(levels)))
    values = table.treatment
    if values is not None and spec.reference is None:
        known = values[~np.isnan(values)]
        coded = np.unique(known)
        stray = 1.0 - float(np.isin(known, (0.0, 1.0)).mean()) if len(coded) == 3 else 0.0
        if 0.0 < stray < _STRAY:
            text = f"treatment `{spec.treatment}` is 0 or 1 but for {stray:.2%} of rows, and was taken as a dose."
            yield found("stray_treatment_value", "review", text, "Correct these rows, if it is 0/1.", measure=(stray, _STRAY))
        if len(coded) == 2 and set(coded.tolist()) != {0.0, 1.0}:
            low, high = coded
            yield refuse(
                "treatment_coding",
                f"treatment `{spec.treatment}` is coded {low:g}/{high:g}, not 0/1: which of them is treated?",
                f"Recode it in the source: 1 = treated, 0 = not treated (for instance {high:g} -> 1, {low:g} -> 0).",
                measured=float(high),
            )


def confounders_as_text(table: Table) -> Iterator[Hazard]:
    """Numbers that a stray word or a mark of thousands has turned into text, and so into many levels that hardly adjust.

    Text with leading zeros, or digits of one length or hardly ever repeated, is meant as text: 02139 and 101 are places, 7 to 10482
    identifiers, which `encode` refuses.
    """
    for name in table.confounders:
        series = table.frame[name]
        known = series.drop_nulls()
        if series.dtype not in (pl.String, pl.Categorical, pl.Enum) or known.n_unique() <= _LEVELS:
            continue
        text = known.cast(pl.String).str.strip_chars()
        if len(known) < _ROWS_A_DAY * known.n_unique() and float(text.str.contains(_DATE).mean()) > _NUMBERS:  # type: ignore[arg-type]
            told = f"confounder `{name}` holds dates as text: each day would count as a group."
            remedy = (
                f"Write them as 2024-01-31, or derive a date under `data` and name that: "
                f"`derive: {{{name}_day: \"DATE({name}, '%d/%m/%Y')\"}}`."
            )
            yield refuse("dates_as_text", told, remedy)
            continue
        is_own = known.n_unique() > 0.5 * len(known)
        is_code = text.str.contains(r"^\d+$").all() and (is_own or text.str.len_chars().n_unique() == 1)
        if text.str.contains(r"^0\d").any() or is_code:
            continue
        plain = text.str.replace_all(r"[\s,$€%]", "")
        share = float(plain.cast(pl.Float64, strict=False).is_not_null().mean())  # type: ignore[arg-type]
        if share > _NUMBERS:
            told = f"{share:.0%} of the values of confounder `{name}` are numbers, but it is stored as text: each value counts as a group."
            yield found("numbers_as_text", "override", told, "Write all of them as numbers, or as missing.", measure=(share, _NUMBERS))


def infinities(table: Table) -> Iterator[Hazard]:
    """Infinite numbers in any role."""
    spec = table.spec
    single = (spec.treatment, spec.outcome, spec.weights)
    for name in (*single, *table.confounders, *spec.negative_controls, *spec.negative_exposures, *spec.pre_outcomes, *spec.instruments):
        values = numbers(table.frame[name]) if name is not None and name in table.frame.columns else None
        count = 0 if values is None else int(np.isinf(values).sum())
        if count:
            yield refuse(
                "infinite_values",
                f"column `{name}` holds infinite values.",
                "Replace them by missing values or correct them.",
                measured=cell(count),
                threshold=0.0,
            )


def variation(table: Table) -> Iterator[Hazard]:
    """Two arms of 30 rows, and an outcome that varies."""
    rows = int(table.complete.sum())
    if rows < 2 * _FEWEST_PER_ARM:
        yield refuse(
            "too_few_rows",
            f"{people(rows)} have treatment and outcome; {2 * _FEWEST_PER_ARM} are needed.",
            "Collect more rows.",
            cell(rows),
            2 * _FEWEST_PER_ARM,
        )
    if table.treatment is not None and rows and np.ptp(table.treatment[table.complete]) == 0:
        yield refuse("constant_treatment", "every row has the same treatment.", _BOTH_ARMS, 1.0, 2.0)
    elif table.arm is not None and rows:
        treated = int(table.arm[table.complete].sum())
        if min(treated, rows - treated) < _FEWEST_PER_ARM:
            yield refuse(
                "few_per_arm",
                f"the smaller arm has {people(min(treated, rows - treated))}; {_FEWEST_PER_ARM} are needed.",
                "Collect more rows or widen the definition of treatment.",
                cell(min(treated, rows - treated)),
                float(_FEWEST_PER_ARM),
            )
    outcome = None if table.outcome is None else table.outcome[table.complete]
    if outcome is None or len(outcome) == 0:
        return
    if np.ptp(outcome) == 0:
        yield refuse("constant_outcome", "the outcome is the same in every row.", "Check how the outcome was built.", 1.0, 2.0)
    elif table.arm is not None and all(np.ptp(outcome[table.arm[table.complete] == a]) == 0 for a in (False, True) if _any(table, a)):
        yield refuse("outcome_repeats_treatment", "the outcome does not vary within the arms.", "Check how the outcome was built.")


def missing(table: Table) -> Iterator[Hazard]:
    """Confounders that were never, or hardly ever, measured; outcomes that went missing by arm."""
    for name in table.confounders:
        series = table.frame[name]
        values = numbers(series)
        share = float(np.isnan(values).sum()) / max(len(values), 1) if values is not None else series.null_count() / max(len(series), 1)
        if share == 1.0 or table.frame.height == 0:
            yield refuse("confounder_without_values", f"confounder `{name}` has no values.", "Fill it or take it out.", 1.0, 1.0)
        elif share > _MISSING_REVIEW:
            text = f"confounder `{name}` is missing in {share:.0%} of rows: there it is filled in, not measured."
            yield found(
                "confounder_mostly_missing", "review", text, "Adjust for something better measured.", measure=(share, _MISSING_REVIEW)
            )


def units(table: Table) -> Iterator[Hazard]:
    """One row per unit."""
    if table.unit is None or table.unit not in table.frame.columns:
        return
    keys = table.frame[table.unit].drop_nulls()
    copies = int(keys.is_duplicated().sum())
    if copies:
        yield refuse(
            "duplicate_units", f"{people(copies)} share their `{table.unit}` with another row.", "Aggregate to one row.", cell(copies), 0
        )
    yield from about_spelling(keys.cast(pl.String), table.unit)


def about_spelling(names: Iterable[str], column: str) -> Iterator[Hazard]:
    """Units that are most likely one under two names."""
    count = spelled_alike(name for name in names if name is not None)
    if count:
        text = f"{counted(count, 'names')} in `{column}` equal another but for blanks, case or zeros: are they two spellings of one unit?"
        yield found("units_alike", "review", text, "Write every unit in one way, in the source.", measure=(cell(count), 0.0))


def sampling_weights(table: Table) -> Iterator[Hazard]:
    """Weights are positive numbers."""
    name = table.spec.weights
    if name is None:
        return
    values = numbers(table.frame[name])
    if values is None:
        yield refuse("weights_as_text", f"weights `{name}` are not numbers.", "Convert them to positive numbers.")
        return
    bad = int((~(values > 0)).sum())
    if bad:
        negative = int((values < 0).sum())
        what = "negative" if negative else "zero or missing"
        remedy = "Correct them, or leave these rows out."
        yield refuse("weights_not_positive", f"weights `{name}` are {what} in some rows.", remedy, cell(bad), 0)


def order_in_time(table: Table) -> Iterator[Hazard]:
    """Entry, then treatment, then measurement."""
    spec = table.spec
    days = {
        role: numbers(table.frame[name])
        for role, name in (("treated", spec.treated_at), ("measured", spec.measured_at), ("entered", spec.entered_at))
        if name is not None
    }
    text_columns = [role for role, values in days.items() if values is None]
    if text_columns:
        yield refuse("dates_as_text", f"the day of `{text_columns[0]}` is not a date.", "Convert it to a date in the source.")
        return
    treated = days.get("treated")
    for role, code, words in (
        ("measured", "outcome_before_treatment", "have their outcome measured before treatment"),
        ("entered", "entry_after_treatment", "came under observation only after their treatment began"),
    ):
        other = days.get(role)
        if treated is None or other is None:
            continue
        dated = np.isfinite(treated) & np.isfinite(other)
        if table.arm is not None:
            dated &= table.arm
        early = dated & (other < treated if role == "measured" else other > treated)
        share = float(early.sum()) / max(float(dated.sum()), 1.0)
        if early.any():
            remedy = (
                "Measure the outcome after treatment." if role == "measured" else "Start everyone's clock at the same event (time zero)."
            )
            yield found(code, "override", f"{share:.1%} of treated rows {words}.", remedy, measure=(share, 0.0))


def late_names(table: Table) -> Iterator[Hazard]:
    """Confounders whose names say that they were measured after treatment."""
    for name in table.confounders:
        if _LATE_NAME.search(name):
            text = f"confounder `{name}` sounds as if it were measured after treatment."
            yield found("confounder_after_treatment", "review", text, "Take out mediators and colliders; keep what came before.")


def collinear(table: Table) -> Iterator[Hazard]:
    """Confounders that the others determine; a treatment that they determine."""
    names, matrix = table.matrix()
    if matrix.shape[1] < 2 or len(matrix) <= matrix.shape[1] + 2:
        return
    standard = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    gram = standard.T @ standard / len(matrix)
    values = np.linalg.eigvalsh(gram)
    if values[0] < 1e-8 * values[-1]:
        inverse = np.diag(np.linalg.pinv(gram + 1e-9 * np.eye(len(gram))))
        tied = [name for name, factor in zip(names, inverse, strict=True) if factor > 1e3]
        text = f"confounders are collinear: {', '.join(f'`{name}`' for name in tied[:5]) or 'several'}."
        yield found(
            "collinear_confounders",
            "warn",
            text,
            "Nothing to do: repeated columns are left out or shrunk.",
            measure=(float(values[0]), 1e-8),
        )
    if table.treatment is not None:
        target = table.treatment[table.complete]
        target = target - target.mean()
        solved = np.linalg.lstsq(standard, target, rcond=None)[0]
        share = 1.0 - float(np.sum((target - standard @ solved) ** 2)) / max(float(target @ target), 1e-300)
        if share > _TIGHT_R2:
            yield refuse("treatment_determined", "the confounders together determine the treatment.", "Take some out.", share, _TIGHT_R2)


def assignment(table: Table) -> Iterator[Hazard]:
    """A single column, or a level of one, that decides who is treated."""
    if table.arm is None or not 0 < table.arm[table.complete].sum() < table.complete.sum():
        return
    from e2i.causal.overlap import auc

    arm = table.arm[table.complete].astype(np.float64)
    names, matrix = table.matrix()
    for name, column in zip(names, matrix.T, strict=True):
        area = auc(column, arm)
        if max(area, 1.0 - area) > _SEPARATION_AUC:
            yield refuse(
                "perfect_separation",
                f"`{name}` alone tells treated from untreated rows (AUC {max(area, 1 - area):.3f}): there is nobody to compare with.",
                "Restrict the study to units that could have gone either way, or use a design for thresholds.",
                max(area, 1.0 - area),
                _SEPARATION_AUC,
            )
    yield from _segments(table, arm)


def _segments(table: Table, arm: FloatArray) -> Iterator[Hazard]:
    share = float(arm.mean())
    for name in table.confounders:
        series = table.frame[name].filter(pl.Series(table.complete))
        if not (series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean) or series.n_unique() <= 10):
            continue
        levels = series.cast(pl.String).fill_null("(missing)").to_numpy().astype(str)
        for level in np.unique(levels):
            inside = levels == level
            count, treated = float(inside.sum()), float(arm[inside].sum())
            everyone = treated == count and count * (1 - share) >= _EXPECTED
            nobody = treated == 0 and count * share >= _EXPECTED and table.spec.estimand != "ATT"
            if (everyone or nobody) and inside.mean() > 0.05:
                text = f"{'everyone' if everyone else 'nobody'} with {name} = {level} is treated ({inside.mean():.0%} of rows)."
                yield refuse(
                    "segment_with_one_arm", text, "Leave this group out of the study and say so in the question.", inside.mean(), 0.05
                )


def clusters(table: Table) -> Iterator[Hazard]:
    """Enough clusters for an interval."""
    if table.spec.cluster is None:
        return
    named = table.frame[table.spec.cluster]
    if named.null_count():
        text = f"`{table.spec.cluster}` is missing in {people(named.null_count())}: it is unknown which rows belong together."
        yield refuse("cluster_missing", text, "Fill it, or leave those rows out.", cell(named.null_count()), 0)
    count = named.drop_nulls().n_unique()
    if count < 2:
        yield refuse(
            "one_cluster", f"`{table.spec.cluster}` has one value: no interval comes from one cluster.", "Name finer ones.", count, 2
        )
    elif count < _FEW_CLUSTERS:
        text = f"`{table.spec.cluster}` has {count} values: intervals from so few clusters are rough."
        yield found("few_clusters", "review", text, "Use finer clusters or a design for few clusters.", measure=(count, _FEW_CLUSTERS))


def extreme_outcome(outcome: FloatArray) -> float | None:
    """How many times the usual distance from the median the farthest outcome lies, when more than 10¹² times; else None."""
    distance = np.abs(outcome - np.median(outcome))
    times = float(distance.max() / np.median(distance[distance > 0]))
    return times if times > EXTREME_TIMES else None


def mixed_units(values: FloatArray) -> float | None:
    """Share of values in another unit: 100 times the usual distance from the median or more, with a gap before them; else None.

    Where most values are equal (doses and counts with many zeros), the others are looked at alone.
    """
    distance = np.abs(values - np.median(values))
    if np.median(distance) == 0:
        others = values[distance > 0]
        return mixed_units(others) if _FEWEST_PER_ARM <= len(others) < len(values) and np.ptp(others) > 0 else None
    usual = float(np.median(distance[distance > 0]))
    far, middling = float((distance > 100 * usual).mean()), float(((distance > 10 * usual) & (distance <= 100 * usual)).mean())
    return far if far > MIXED_SHARE and far > 2 * middling else None


def two_scales(values: FloatArray) -> float | None:
    """By which factor two groups of positive values lie apart, where the gap between them is tenfold or more; else None.

    Each group holds at least ten distinct values and 0.5 % of all, so neither a lone value nor a list of dose levels counts.
    """
    positive = np.sort(values[values > 0])
    if len(positive) < 2 * _FEWEST_PER_ARM or (values < 0).any():
        return None
    place = int(np.argmax(positive[1:] / positive[:-1])) + 1
    low, high = positive[:place], positive[place:]
    if high[0] < SCALE_GAP * low[-1] or min(len(low), len(high)) < 0.005 * len(values):
        return None
    if min(len(np.unique(low)), len(np.unique(high))) < _DISTINCT:
        return None
    return float(np.median(high) / np.median(low))


def _any(table: Table, arm: bool) -> bool:
    return table.arm is not None and bool((table.arm[table.complete] == arm).any())
