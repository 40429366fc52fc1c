"""`e2i init`: a commented study file from the columns of a data file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2i.data.files import FileTable
from e2i.data.role_guesses import Guess, guess_roles
from e2i.errors import Conflict, StorageError
from e2i.whole_files import replace_text

if TYPE_CHECKING:
    import polars as pl

YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
"""plain, these are not text"""
UNKNOWN = "FILL_IN"


@dataclass(frozen=True, kw_only=True)
class WrittenStudy:
    """The file, and what was guessed for it."""

    path: Path
    guess: Guess


def write_study(data_path: Path, out_path: Path, *, force: bool = False) -> WrittenStudy:
    """Write a study file to start from; every role in it is a guess and says so, or is left to fill in.

    Parameters
    ----------
    data_path : a csv, parquet or Stata file
    out_path : the study file; `data.source` is written relative to its folder

    Raises
    ------
    Conflict
        `out_path` exists and `force` is false.
    NotFound, SchemaMismatch, TooFewRows
        As for reading the data.
    StorageError
        The file cannot be written.
    """
    if out_path.exists() and not force:
        raise Conflict("the file exists.", where=str(out_path), advice="Choose another name, or overwrite it with --force.")
    table = FileTable(path=data_path, where=str(data_path))
    kinds = table.columns()
    frame = table.load(None).frame
    guess = guess_roles(frame, kinds)
    source = os.path.relpath(data_path.resolve(), out_path.resolve().parent)
    _write(out_path, study_text(guess, frame, kinds, source=source, name=_study_name(out_path)))
    return WrittenStudy(path=out_path, guess=guess)


def study_text(guess: Guess, frame: pl.DataFrame, kinds: dict[str, str], *, source: str, name: str) -> str:
    """The YAML text."""
    lines = [
        "# A study names data and questions by the roles of columns. Every role marked `guess` was guessed from names, types and levels:",
        f"# check each one, fill in every {UNKNOWN}, take out what is wrong, then run it:  e2i run THIS_FILE",
        f"name: {name}",
        "data:",
        f"  source: {_quoted(source)}  # relative to this file",
        *_role("unit", guess.unit, "who or what a row is about: a person, an HCP, a territory"),
        *_role("time", guess.time, "only for panels, several rows per unit: when the row was measured"),
        "",
        *_effect_lines(guess),
        "",
        *_prediction_lines(guess),
        "",
        "# business: {value_per_unit: 850, cost_per_treated: 1200, horizon_months: 12}  # US dollars; for ROI",
        "# success: {minimum_auc: 0.75}  # what the model must reach before it may leave development",
        "",
        f"# The columns ({frame.height:,} rows):",
        *(f"#   {column}: {_column_note(frame, column, kind)}" for column, kind in kinds.items()),
    ]
    return "\n".join(lines) + "\n"


def _effect_lines(guess: Guess) -> list[str]:
    """The question, as a comment while its treatment or its outcome is not known."""
    missing = [role for role, column in (("treatment", guess.treatment), ("outcome", guess.outcome)) if column is None]
    head = [f"# No column looks like the {' or the '.join(missing)}. To ask for an effect, fill in and uncomment:"] if missing else []
    if guess.treatment is None and guess.two_levels:
        head += [f"# two levels, so perhaps a treatment: {_flow(guess.two_levels)}"]
    lines = [
        "effect:  # what did the treatment cause?",
        f"  treatment: {_guessed(guess.treatment, '0/1, or a dose')}",
        *([f"  reference: {_quoted(guess.reference)}  # guess: the level that the others are compared with"] if guess.reference else []),
        f"  outcome: {_guessed(guess.outcome, 'a number measured after the treatment')}",
        f"  confounders: {_flow(guess.confounders)}  # {_confounder_note(guess)}",
        "  modifiers: []  # for whom may the effect differ?",
        f"  negative_controls: {_flow(guess.negative_controls)}  # {_mark(guess.negative_controls)}outcomes that the treatment cannot move",
        *([] if guess.time else ["  estimand: ATE  # ATE: everybody; ATT: those who were treated"]),
    ]
    return [*head, *_commented(lines, when=bool(missing))]


def _mark(names: tuple[str, ...]) -> str:
    return "guess: " if names else ""


def _confounder_note(guess: Guess) -> str:
    if guess.time:
        return "a panel: only what was fixed before the treatment; the unit's own level and the period are taken out anyway"
    return f"{'guess: ' if guess.confounders else f'{UNKNOWN}: '}known BEFORE the treatment, and moving both; add what is missing"


def _prediction_lines(guess: Guess) -> list[str]:
    head = [] if guess.target else ["# No column looks like a yes/no target. To ask for a prediction, fill in and uncomment:"]
    after = tuple(name for name in (guess.treatment, guess.outcome) if name is not None and name != guess.target)
    lines = [
        "prediction:  # what will happen?",
        f"  target: {_guessed(guess.target, 'yes or no, known only afterwards')}",
        *([f"  event_time: {_quoted(guess.event_time)}  # guess: when it is predicted; orders the splits"] if guess.event_time else []),
        f"  after_event: {_flow(after)}  # known only afterwards, never features: LIST THEM ALL",
        f"  protected: {_flow(guess.protected)}  # {_mark(guess.protected)}fairness groups, never features",
        "  exclude: []  # leave out for other reasons",
    ]
    return [*head, *_commented(lines, when=guess.target is None)]


def _commented(lines: list[str], *, when: bool) -> list[str]:
    return [f"# {line}" for line in lines] if when else lines


def _guessed(column: str | None, meaning: str) -> str:
    return f"{_quoted(column)}  # guess: {meaning}" if column else f"{UNKNOWN}  # {meaning}"


def _role(key: str, column: str | None, meaning: str) -> list[str]:
    return _commented([f"{key}: {_guessed(column, meaning)}"], when=column is None)


def _column_note(frame: pl.DataFrame, column: str, kind: str) -> str:
    missing = frame[column].null_count()
    levels = f", {frame[column].n_unique():,} values" if kind in ("text", "integer", "boolean") else ""
    return f"{kind}{levels}{f', {missing:,} missing' if missing else ''}"


def _flow(names: tuple[str, ...]) -> str:
    return f"[{', '.join(_quoted(name) for name in names)}]"


def _quoted(text: str) -> str:
    """Plain where YAML reads it back as the same text, else in quotes."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in YAML_WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _study_name(path: Path) -> str:
    name = re.sub(r"\W+", "_", path.stem, flags=re.ASCII).strip("_")[:62]
    return name if re.match(r"[A-Za-z]", name) else f"study_{name}"[:62]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}.", where=str(path), advice="Choose a folder that can be written.") from error
