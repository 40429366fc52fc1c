"""Columns that name rows instead of describing them, and text that should be something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from e2i.domain.scope import is_identifier
from e2i.mlops.quality_checks import Findings, count, known

if TYPE_CHECKING:
    from e2i.mlops.quality_checks import Subject

MANY_LEVELS = 1_000
FEW_ROWS_PER_LEVEL = 10
UNIQUE_SHARE = 0.95
"""a text column with so many distinct values names rows, it does not describe them"""
_MINIMUM_FOR_SHAPE = 100
_DATE_TEXT = r"^\s*(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})(?:[T ].*)?$"


def check_identifiers(subject: Subject) -> Findings:
    """Columns that name a row or a person instead of describing it."""
    found = Findings()
    for column in subject.used:
        if not subject.is_feature(column):
            continue
        why = _identifies(subject, column)
        found.rule("describes", "validity", column, unexpected=float(why is not None), passed=why is None)
        if why is not None:
            found.add(
                "identifier_feature",
                "blocking",
                f"{column!r} {why}; a model would learn rows by heart.",
                advice="Name it as unit or prediction.group, list it under prediction.exclude, or take it out of the study's columns.",
                column=column,
            )
    return found


def _identifies(subject: Subject, column: str) -> str | None:
    if is_identifier(column):
        return "is an identifier by its name"
    values = known(subject.frame[column])
    if len(values) < _MINIMUM_FOR_SHAPE:
        return None
    if values.dtype == pl.String and not _looks_like_dates(values):
        distinct = values.n_unique()
        return f"has {distinct:,} different texts in {len(values):,} rows" if distinct >= UNIQUE_SHARE * len(values) else None
    if values.dtype.is_integer() and values.n_unique() == len(values):
        span = int(values.max()) - int(values.min()) + 1  # type: ignore[arg-type]  # not empty
        return "numbers the rows (whole numbers, all different, hardly a gap)" if span <= 1.5 * len(values) else None
    return None


def _looks_like_dates(values: pl.Series) -> bool:
    head = values.head(200)
    return float(head.str.contains(_DATE_TEXT).mean() or 0.0) >= 0.8  # type: ignore[arg-type]  # mean of booleans


def check_texts(subject: Subject) -> Findings:
    """Text columns: too many levels, dates or numbers kept as text, one label in several spellings."""
    found = Findings()
    for column in subject.used:
        values = known(subject.frame[column])
        if values.dtype not in (pl.String, pl.Categorical, pl.Enum) or values.is_empty() or not subject.is_feature(column):
            continue
        levels = values.cast(pl.String).value_counts().rename({column: "level"})
        if _looks_like_dates(values.cast(pl.String)):
            found.rule("date_type", "validity", column, unexpected=1.0, passed=False)
            found.add(
                "date_as_text",
                "warning",
                f"{column!r} holds dates as text (such as {values[0]!r}); it is not used as a feature.",
                advice="Store it as a date (YYYY-MM-DD in CSV).",
                column=column,
            )
            continue
        _judge_levels(found, column, levels.height, len(values))
        _judge_spelling(found, column, levels, len(values))
    return found


def _judge_levels(found: Findings, column: str, levels: int, rows: int) -> None:
    many = levels > MANY_LEVELS or (levels > MANY_LEVELS / 20 and rows < FEW_ROWS_PER_LEVEL * levels)
    found.rule("few_levels", "validity", column, unexpected=float(many), passed=not many)
    if many:
        found.add(
            "high_cardinality",
            "blocking",
            f"{column!r} has {levels:,} levels in {rows:,} rows.",
            advice="Group the levels (for instance ZIP3 instead of ZIP5), or take the column out of the study (prediction.exclude).",
            column=column,
            value=levels,
            threshold=MANY_LEVELS,
        )


def _judge_spelling(found: Findings, column: str, levels: pl.DataFrame, rows: int) -> None:
    numbers = levels.filter(pl.col("level").str.strip_chars().cast(pl.Float64, strict=False).is_not_null())["count"].sum()
    mixed = 0.5 <= numbers / rows < 1
    plain = levels.with_columns(pl.col("level").str.strip_chars().str.to_lowercase().alias("plain"))
    variants = plain.group_by("plain").agg(pl.len().alias("n"), pl.col("count").sum() - pl.col("count").max()).filter(pl.col("n") > 1)
    odd = int(rows - numbers) if mixed else int(variants["count"].sum())
    found.rule("one_kind", "consistency", column, unexpected=odd / rows, passed=odd == 0)
    if mixed:
        found.add(
            "mixed_types",
            "warning",
            f"{column!r} is text, yet {numbers / rows:.1%} of its values are numbers.",
            advice="Replace codes such as 'unknown' by empty values and load the column as numbers.",
            column=column,
            value=odd / rows,
        )
    elif odd:
        found.add(
            "inconsistent_labels",
            "warning",
            f"{column!r} writes {variants.height} label(s) in several ways (case or blanks); {count(odd, rows)} use a rarer one.",
            advice="Write every label in one way.",
            column=column,
            value=odd / rows,
        )
