"""The study file: YAML in, a validated Study out, every problem with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from e2i.data.study_roles import role_problems
from e2i.data.yaml_marks import MarkedYaml, Problem, read_yaml
from e2i.domain.nearest import suggestion
from e2i.domain.study import Study
from e2i.errors import ConfigError, SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from e2i.data.yaml_marks import Place
    from e2i.errors import E2IError

WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list: [a, b]",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "date_from_datetime_parsing": "a date: 2024-12-31",
    "date_type": "a date: 2024-12-31",
}


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises
    ------
    ConfigError
        All problems at once, each with file and line: no such file, not YAML, unknown or repeated key (with the nearest
        valid key), missing key, wrong type, a value outside its range.
    """
    marked = read_yaml(path)
    problems = list(marked.problems)
    study: Study | None = None
    try:
        study = Study.model_validate(marked.content)
    except ValidationError as error:
        problems += [_problem(detail, marked) for detail in error.errors(include_url=False)]
    if problems or study is None:
        raise _all(problems, path=path, kind=ConfigError)
    return study


def check_roles(study: Study, columns: Mapping[str, str], *, path: Path) -> None:
    """Check that every column which the study names exists and can play its role.

    Parameters
    ----------
    columns : column -> kind, from FrameSource.columns
    path : the study file, read again for its line numbers

    Raises
    ------
    SchemaMismatch
        A column is missing (the nearest name is offered) or of the wrong kind. All problems come at once, each with file and line.
    ConfigError
        All problems lie in the file alone: two roles that exclude each other, a design without what it needs.
    """
    problems = role_problems(study, columns, read_yaml(path))
    if problems:
        is_in_data = any(problem.is_in_data for problem in problems)
        raise _all(problems, path=path, kind=SchemaMismatch if is_in_data else ConfigError)


def _all(problems: Sequence[Problem], *, path: Path, kind: type[E2IError]) -> E2IError:
    """One error for all problems; its `where` is the first line, the others carry their own."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    texts = [f"{problem.what}. {problem.advice}" if problem.advice else f"{problem.what}." for problem in ordered]
    first, *others = ordered
    if not others:
        return kind(f"{first.what}.", where=f"{path}:{first.line}", advice=first.advice)
    rest = [f"{path}:{problem.line}: {text}" for problem, text in zip(others, texts[1:], strict=True)]
    return kind("\n".join([texts[0], *rest]), where=f"{path}:{first.line}", advice=f"\n{len(ordered)} problems.")


def _problem(detail: ErrorDetails, marked: MarkedYaml) -> Problem:
    place: Place = detail["loc"]
    line, kind = marked.line(place), detail["type"]
    name = ".".join(str(part) for part in place if isinstance(part, str)) or "study"
    if kind == "extra_forbidden":
        known = _fields(place[:-1])
        advice = suggestion(str(place[-1]), sorted(known), otherwise="The keys are")
        return Problem(line=line, what=f"unknown key `{place[-1]}`", advice=advice)
    if kind == "missing":
        section = f" in `{'.'.join(str(part) for part in place[:-1])}`" if len(place) > 1 else ""
        return Problem(line=line, what=f"key `{place[-1]}` is missing{section}", advice=f"Add `{place[-1]}: …`.")
    if kind == "literal_error":
        return _not_one_of(detail, name=name, line=line)
    if kind in WANTED:
        hint = "Put it in quotes if it is a name." if kind == "string_type" else None
        return Problem(line=line, what=f"`{name}` is {_show(detail['input'])}; it should be {WANTED[kind]}", advice=hint)
    if kind == "string_pattern_mismatch":
        what = f"`{name}` is {_show(detail['input'])}; a name starts with a letter and holds letters, digits and _ (63 at most)"
        return Problem(line=line, what=what)
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(line=line, what=f"`{name}`: {message[:1].lower()}{message[1:]}" if place else message)


def _not_one_of(detail: ErrorDetails, *, name: str, line: int) -> Problem:
    expected = detail.get("ctx", {}).get("expected", "")
    options = [option.strip(" '") for option in expected.replace(" or ", ", ").split(",")]
    advice = suggestion(str(detail["input"]), options, otherwise="Use one of")
    return Problem(line=line, what=f"`{name}` is {_show(detail['input'])}; it should be one of {', '.join(options)}", advice=advice)


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _fields(place: Place) -> list[str]:
    """The keys that are valid at `place`."""
    model: Any = Study
    for part in place:
        if not isinstance(part, str):
            return []
        annotation = model.model_fields[part].annotation
        model = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
