"""`e2i init`: a commented study file from the columns of a data file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2i.data.files import FileTable
from e2i.data.whole_file import replacing
from e2i.errors import Conflict, StorageError

if TYPE_CHECKING:
    import polars as pl

TREATMENT_WORDS = ("treat", "program", "exposed", "intervention", "campaign", "qsmk", "speaker", "attended", "accepted")
TARGET_WORDS = ("target", "label", "will_", "convert", "churn", "death", "died", "event", "initiated", "respon", "outcome")
OUTCOME_WORDS = ("nrx", "trx", "nbrx", "outcome", "sales", "revenue", "change", "delta")
PROTECTED_WORDS = ("age_group", "sex", "gender", "race", "ethnic")
YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
"""plain, these are not text"""
EARLIER = re.compile(r"(^|_)(pre|before|baseline|prior)(_|$)")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Which column may play which role, by name and type."""

    unit: str | None
    time: str | None
    event_time: str | None
    treatment: str | None
    outcome: str | None
    target: str | None
    protected: tuple[str, ...]
    confounders: tuple[str, ...]


def write_study(data_path: Path, out_path: Path, *, force: bool = False) -> Path:
    """Write a study file to start from; every role in it is a guess and says so.

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
    return out_path


def guess_roles(frame: pl.DataFrame, kinds: dict[str, str]) -> Guess:
    """Guess by names and types; a role without a likely column stays empty."""
    levels = {name: frame[name].drop_nulls().n_unique() if kinds[name] != "other" else 0 for name in kinds}
    numeric = [name for name, kind in kinds.items() if kind in ("boolean", "integer", "number")]
    binary = [name for name in numeric if levels[name] == 2]
    dates = [name for name, kind in kinds.items() if kind in ("date", "datetime")]
    unit = _unit(frame, kinds, levels)
    treatment = _first(binary, TREATMENT_WORDS)
    target = _first([name for name in binary if name != treatment], TARGET_WORDS)
    amounts = [name for name in numeric if levels[name] > 2 and name != unit and not EARLIER.search(name)]
    outcome = _first(amounts, OUTCOME_WORDS) if treatment else None
    time = dates[0] if unit and dates and frame.select(unit).n_unique() < frame.height else None
    taken = {unit, time, treatment, target, outcome, *dates}
    protected = tuple(name for name in kinds if levels[name] > 1 and any(word in name.lower() for word in PROTECTED_WORDS))
    usable = [name for name in kinds if name not in taken and name not in protected and levels[name] > 1]
    confounders = tuple(name for name in usable if EARLIER.search(name) or (kinds[name] == "text" and levels[name] <= 20))
    return Guess(
        unit=unit, time=time, event_time=dates[0] if target and dates else None, treatment=treatment if outcome else None,
        outcome=outcome, target=target, protected=protected if target else (), confounders=confounders if outcome else (),
    )  # fmt: skip


def _unit(frame: pl.DataFrame, kinds: dict[str, str], levels: dict[str, int]) -> str | None:
    likely = [
        name for name in kinds
        if re.search(r"(^|_)(id|npi|seqn|key|code)$", name.lower()) and kinds[name] in ("text", "integer", "number") and levels[name] > 1
    ]  # fmt: skip
    complete = [name for name in likely if levels[name] == frame.height]
    return next(iter(complete or likely), None)


def _first(names: list[str], words: tuple[str, ...]) -> str | None:
    return next((name for word in words for name in names if word in name.lower()), None)


def study_text(guess: Guess, frame: pl.DataFrame, kinds: dict[str, str], *, source: str, name: str) -> str:
    """The YAML text."""
    lines = [
        "# A study names data and questions by the roles of columns. Every role below is a GUESS from names and types:",
        "# check each one, take out what is wrong, then run it:  e2i run THIS_FILE",
        f"name: {name}",
        "data:",
        f"  source: {_quoted(source)}  # relative to this file",
        *_role("unit", guess.unit, "one value per person, HCP or row"),
        *_role("time", guess.time, "only for panels: when the row was measured"),
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
    mark = "" if guess.treatment else "# "
    head = [] if guess.treatment else ["# No column looks like a treatment with an outcome. To ask for an effect, fill in and uncomment:"]
    return [
        *head,
        f"{mark}effect:  # what did the treatment cause?",
        f"{mark}  treatment: {_quoted(guess.treatment or 'COLUMN')}  # guess: 0/1, or a dose",
        f"{mark}  outcome: {_quoted(guess.outcome or 'COLUMN')}  # guess: a number measured after the treatment",
        f"{mark}  confounders: {_flow(guess.confounders)}  # guess: known BEFORE the treatment, and moving both; add what is missing",
        f"{mark}  modifiers: []  # for whom may the effect differ?",
        f"{mark}  negative_controls: []  # outcomes that the treatment cannot move",
        f"{mark}  estimand: ATE  # ATE: everybody; ATT: those who were treated",
    ]


def _prediction_lines(guess: Guess) -> list[str]:
    mark = "" if guess.target else "# "
    head = [] if guess.target else ["# No column looks like a yes/no target. To ask for a prediction, fill in and uncomment:"]
    after = tuple(name for name in (guess.treatment, guess.outcome) if name is not None)
    return [
        *head,
        f"{mark}prediction:  # what will happen?",
        f"{mark}  target: {_quoted(guess.target or 'COLUMN')}  # guess",
        *([f"  event_time: {_quoted(guess.event_time)}  # guess: when it is predicted; orders the splits"] if guess.event_time else []),
        f"{mark}  after_event: {_flow(after)}  # known only afterwards, never features: LIST THEM ALL",
        f"{mark}  protected: {_flow(guess.protected)}  # fairness groups, never features",
        f"{mark}  exclude: []  # leave out for other reasons",
    ]


def _role(key: str, column: str | None, meaning: str) -> list[str]:
    return [f"{key}: {_quoted(column)}  # guess: {meaning}"] if column else [f"# {key}: COLUMN  # {meaning}"]


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
        with replacing(path) as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), 0o644)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}.", where=str(path), advice="Choose a folder that can be written.") from error
