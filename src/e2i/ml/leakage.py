"""Finds features that know what they should not: the target, the future, another split, or who the row is.

Every finding carries the measured value and the threshold it passed. Detectors look at one column at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.experiments import SPLITS
from e2i.domain.quality import QCIssue
from e2i.ml.association import correlation, level_scores, neighbour_r2, rank_auc
from e2i.ml.columns import as_float, kind_of, level_codes, require_columns, target_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2i.domain.experiments import ProblemType, SplitPlan
    from e2i.ml.columns import FloatArray, LabelArray

BLOCKING_AUC = 0.98
BLOCKING_R2 = 0.98
BLOCKING_CORRELATION = 0.95
SUSPECT_AUC = 0.95
EXACT = 1.0 - 1e-9
MAXIMUM_ROWS = 50_000
MINIMUM_KNOWN = 30
MINIMUM_CASES = 5
IDENTIFIER_SHARE = 0.95
MANY_LEVELS = 1_000
CODE_LEVELS = 50
LATE_DATE_SHARE = 0.01
_IDENTIFIER_NAME = re.compile(r"(^|_)(id|ids|npi|uuid|guid|mrn|ssn|hash|key|identifier)$|^(npi|uuid|mrn|ssn)_", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class LeakageRoles:
    """What the study says about its columns. `event_time` is when the prediction is made; default: `time`."""

    target: str
    problem_type: ProblemType
    time: str | None = None
    event_time: str | None = None
    unit: str | None = None
    group: str | None = None
    after_event: tuple[str, ...] = ()


def find_leakage(
    frame: pl.DataFrame,
    *,
    features: Sequence[str],
    roles: LeakageRoles,
    labels: LabelArray | None = None,
    plan: SplitPlan | None = None,
) -> tuple[QCIssue, ...]:
    """Findings about `features`, and about the division into splits when `labels` is given.

    Parameters
    ----------
    frame : shape (n, k)
        Rows whose target is null are left out of the checks against the target.
    labels : shape (n,), see `splits.plan_splits`
    plan : needed for the check of the order of splits in time

    Returns
    -------
    Issues with check `target_copy`, `target_near_copy`, `missingness_leak`, `after_event_column`, `date_after_event`,
    `identifier_feature`, `high_cardinality`, `target_as_feature`, `id_across_splits`, `group_across_splits`, `split_date_violation`.
    A single-column AUC in (0.95, 0.98] is a warning `target_suspect`.

    Raises
    ------
    SchemaMismatch
        A column is missing, or the target is not of the problem's type.
    """
    require_columns(frame, [*features, roles.target], where="leakage")
    issues = list(_declared(features, roles))
    named = {issue.column for issue in issues}
    rest = [name for name in features if name not in named]
    issues += _against_target(frame, rest, roles)
    for name in rest:
        issues += _identifiers(frame[name])
        issues += _late_dates(frame, name, roles)
    if labels is not None:
        issues += _across_splits(frame, labels, roles)
        if plan is not None and plan.strategy == "chronological" and roles.time is not None:
            issues += _split_dates(frame[roles.time], labels, plan.gap_days)
    return tuple(issues)


def _declared(features: Sequence[str], roles: LeakageRoles) -> Iterator[QCIssue]:
    for name in features:
        if name == roles.target:
            yield QCIssue(
                check="target_as_feature",
                severity="blocking",
                column=name,
                detail=f"'{name}' is the target and is listed as a feature.",
                advice="Remove it from the features.",
            )
        elif name in roles.after_event:
            yield QCIssue(
                check="after_event_column",
                severity="blocking",
                column=name,
                detail=f"'{name}' is declared as known only after the event and is listed as a feature.",
                advice="Remove it from the features.",
            )


def _against_target(frame: pl.DataFrame, features: Sequence[str], roles: LeakageRoles) -> list[QCIssue]:
    known = frame.filter(pl.col(roles.target).is_not_null())
    # Random order makes ties harmless to `neighbour_r2` and `level_scores`; a fixed seed makes the findings repeatable.
    known = known[np.random.default_rng(0).permutation(known.height)[:MAXIMUM_ROWS]]
    target = target_values(known[roles.target], roles.problem_type)
    if len(target) < MINIMUM_KNOWN or not _varies_enough(target, roles):
        return []
    issues = []
    for name in features:
        issue = _copy_of_target(known[name], target, roles) or _missingness(known[name], target, roles)
        if issue is not None:
            issues.append(issue)
    return issues


def _copy_of_target(series: pl.Series, target: FloatArray, roles: LeakageRoles) -> QCIssue | None:
    is_category = kind_of(series.dtype, series.name) == "categorical"
    if not is_category:
        values = as_float(series)
        finite = np.isfinite(values)
        issue = _copy_of_outcome(series.name, values[finite], target[finite], roles)
        if issue is not None or not series.dtype.is_integer():
            return issue
    # Integers may be codes: what each level says, whatever its order.
    codes, n_levels = level_codes(series)
    if not is_category and n_levels > CODE_LEVELS:
        return None
    return _copy_of_outcome(series.name, level_scores(codes, n_levels, target), target, roles)


def _copy_of_outcome(name: str, values: FloatArray, outcome: FloatArray, roles: LeakageRoles) -> QCIssue | None:
    if len(values) < MINIMUM_KNOWN or values.min() == values.max() or not _varies_enough(outcome, roles):
        return None
    linear = abs(correlation(values, outcome))
    if linear >= EXACT:
        return _copy_issue("target_copy", name, roles, measure="absolute correlation", value=linear, threshold=EXACT)
    if roles.problem_type == "regression":
        return _near_copy_of_number(name, values, outcome, roles, linear=linear)
    return _near_copy_of_class(name, values, outcome, roles, linear=linear)


def _varies_enough(outcome: FloatArray, roles: LeakageRoles) -> bool:
    """With fewer cases than this, chance alone separates the classes of a clean column now and then."""
    if roles.problem_type == "regression":
        return bool(outcome.min() < outcome.max())
    return min(int(outcome.sum()), int(len(outcome) - outcome.sum())) >= MINIMUM_CASES


def _near_copy_of_class(name: str, values: FloatArray, outcome: FloatArray, roles: LeakageRoles, *, linear: float) -> QCIssue | None:
    area = rank_auc(values, outcome > 0.5)
    area = max(area, 1.0 - area)
    if area >= EXACT:
        return _copy_issue("target_copy", name, roles, measure="single-column AUC", value=area, threshold=EXACT)
    if area > BLOCKING_AUC:
        return _copy_issue("target_near_copy", name, roles, measure="single-column AUC", value=area, threshold=BLOCKING_AUC)
    if linear > BLOCKING_CORRELATION:
        return _copy_issue("target_near_copy", name, roles, measure="absolute correlation", value=linear, threshold=BLOCKING_CORRELATION)
    explained = neighbour_r2(values, outcome)
    if explained > BLOCKING_CORRELATION:
        return _copy_issue("target_near_copy", name, roles, measure="explained share", value=explained, threshold=BLOCKING_CORRELATION)
    if area > SUSPECT_AUC:
        return _copy_issue("target_suspect", name, roles, measure="single-column AUC", value=area, threshold=SUSPECT_AUC)
    return None


def _near_copy_of_number(name: str, values: FloatArray, outcome: FloatArray, roles: LeakageRoles, *, linear: float) -> QCIssue | None:
    if linear > BLOCKING_CORRELATION:
        return _copy_issue("target_near_copy", name, roles, measure="absolute correlation", value=linear, threshold=BLOCKING_CORRELATION)
    explained = neighbour_r2(values, outcome)
    if explained > BLOCKING_R2:
        return _copy_issue("target_near_copy", name, roles, measure="explained share", value=explained, threshold=BLOCKING_R2)
    return None


def _copy_issue(check: str, name: str, roles: LeakageRoles, *, measure: str, value: float, threshold: float) -> QCIssue:
    words = {
        "target_copy": "is a copy of the target, possibly recoded or rescaled",
        "target_near_copy": "is nearly a copy of the target",
        "target_suspect": "alone predicts the target unusually well",
    }
    return QCIssue(
        check=check,
        severity="warning" if check == "target_suspect" else "blocking",
        column=name,
        detail=f"'{name}' {words[check]} '{roles.target}': {measure} {value:.4f}, threshold {min(threshold, 1.0):.2f}.",
        advice="List it under `after_event` or `exclude`; or choose another target if it is truly known beforehand.",
        value=value,
        threshold=threshold,
    )


def _missingness(series: pl.Series, target: FloatArray, roles: LeakageRoles) -> QCIssue | None:
    missing = series.is_null().to_numpy()
    if not missing.any() or missing.all():
        return None
    if roles.problem_type == "regression":
        value, threshold, measure = abs(correlation(missing.astype(np.float64), target)), BLOCKING_CORRELATION, "absolute correlation"
    else:
        area = rank_auc(missing.astype(np.float64), target > 0.5)
        value, threshold, measure = max(area, 1.0 - area), BLOCKING_AUC, "AUC"
    if value <= threshold:
        return None
    return QCIssue(
        check="missingness_leak",
        severity="blocking",
        column=series.name,
        detail=f"whether '{series.name}' is missing alone predicts '{roles.target}': {measure} {value:.4f}, threshold {threshold:.2f}.",
        advice="The column is probably filled in after the event; list it under `after_event` or `exclude`.",
        value=value,
        threshold=threshold,
    )


def _identifiers(series: pl.Series) -> Iterator[QCIssue]:
    known = series.drop_nulls()
    kind = kind_of(series.dtype, series.name)
    if len(known) < MINIMUM_KNOWN or not (kind == "categorical" or series.dtype.is_integer()):
        return
    levels = known.n_unique()
    share = levels / len(known)
    is_named = _IDENTIFIER_NAME.search(series.name) is not None
    if share >= IDENTIFIER_SHARE and (kind == "categorical" or is_named or _looks_numbered(known)):
        yield _identifier_issue(series.name, "blocking", share, IDENTIFIER_SHARE, f"{share:.1%} of its values are unique")
    elif is_named:
        severity_is_high = share >= 0.5
        yield _identifier_issue(
            series.name,
            "blocking" if severity_is_high else "warning",
            share,
            0.5,
            f"it is named like an identifier; {share:.1%} of its values are unique",
        )
    if kind == "categorical" and levels >= MANY_LEVELS and share < IDENTIFIER_SHARE:
        yield QCIssue(
            check="high_cardinality",
            severity="warning",
            column=series.name,
            detail=f"'{series.name}' has {levels} levels, threshold {MANY_LEVELS}; rare levels are pooled and carry little.",
            advice="Group the levels (for instance by region or class), or exclude the column.",
            value=float(levels),
            threshold=float(MANY_LEVELS),
        )


def _looks_numbered(known: pl.Series) -> bool:
    """A row number (dense range) or a code of fixed length (all values with the same eight or more digits)."""
    low, high = known.min(), known.max()
    if not isinstance(low, int) or not isinstance(high, int):
        return False
    is_dense = high - low + 1 <= 1.5 * len(known)
    is_code = low >= 10**7 and len(str(low)) == len(str(high))
    return is_dense or is_code


def _identifier_issue(name: str, severity: str, share: float, threshold: float, reason: str) -> QCIssue:
    return QCIssue(
        check="identifier_feature",
        severity="blocking" if severity == "blocking" else "warning",
        column=name,
        detail=f"'{name}' identifies the row and is listed as a feature: {reason}, threshold {threshold:.0%}.",
        advice="List it under `exclude`, or name it as `unit` or `group`.",
        value=share,
        threshold=threshold,
    )


def _late_dates(frame: pl.DataFrame, name: str, roles: LeakageRoles) -> Iterator[QCIssue]:
    moment = roles.event_time or roles.time
    if moment is None or name == moment or not _is_date(frame, name) or not _is_date(frame, moment):
        return
    later = as_float(frame[name].cast(pl.Date)) > as_float(frame[moment].cast(pl.Date))
    known = frame.select((pl.col(name).is_not_null() & pl.col(moment).is_not_null()).sum()).item()
    share = float(later.sum()) / known if known else 0.0
    if share == 0.0:
        return
    yield QCIssue(
        check="date_after_event",
        severity="blocking" if share > LATE_DATE_SHARE else "warning",
        column=name,
        detail=f"'{name}' lies after '{moment}' in {share:.1%} of the rows, threshold {LATE_DATE_SHARE:.0%}.",
        advice="List it under `after_event` or `exclude`, or correct the dates.",
        value=share,
        threshold=LATE_DATE_SHARE,
    )


def _is_date(frame: pl.DataFrame, name: str) -> bool:
    return frame.schema[name] in (pl.Date, pl.Datetime)


def _across_splits(frame: pl.DataFrame, labels: LabelArray, roles: LeakageRoles) -> Iterator[QCIssue]:
    split = pl.Series("split", labels)
    for column, check in ((roles.unit, "id_across_splits"), (roles.group, "group_across_splits")):
        if column is None or (check == "group_across_splits" and column == roles.unit):
            continue
        pairs = pl.DataFrame({"member": frame[column], "split": split}).filter((pl.col("split") != "") & pl.col("member").is_not_null())
        shared = pairs.unique().group_by("member").len().filter(pl.col("len") > 1).height
        if shared:
            yield QCIssue(
                check=check,
                severity="blocking",
                column=column,
                detail=f"{shared} values of '{column}' have rows in more than one split, threshold 0.",
                advice=f"Split by '{column}' (`group: {column}` in the study).",
                value=float(shared),
                threshold=0.0,
            )


def _split_dates(time: pl.Series, labels: LabelArray, gap_days: int) -> Iterator[QCIssue]:
    days = as_float(time.cast(pl.Date) if time.dtype.is_temporal() else time)
    gap = gap_days if time.dtype.is_temporal() else min(gap_days, 1)
    for earlier, later in pairwise(SPLITS):
        before, after = days[labels == earlier], days[labels == later]
        if not len(before) or not len(after):
            continue
        early = int((after <= before.max() + gap).sum())
        if early:
            yield QCIssue(
                check="split_date_violation",
                severity="blocking",
                column=time.name,
                detail=f"{early} rows of {later} lie before the end of {earlier} plus its gap of {gap}, threshold 0.",
                advice="Divide again by time; do not move rows between splits by hand.",
                value=float(early),
                threshold=0.0,
            )
