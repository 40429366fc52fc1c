"""`e2i init`: a first study file from a data file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from e2i.cli.options import AsJson
from e2i.cli.output import print_json, print_line


def init(
    data: Annotated[Path, typer.Argument(help="A csv, parquet or Stata file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the study; default: beside the data, NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file from a data file's columns; roles are guesses that you check."""
    from e2i.data.scaffold import write_study

    written = write_study(data, out or data.with_suffix(".yaml"), force=force)
    roles = {role: getattr(written.guess, role) for role in ("unit", "time", "treatment", "outcome", "target")}
    if as_json:
        print_json({"study": str(written.path), "guessed": roles})
        return
    guessed = ", ".join(f"{role} {column}" for role, column in roles.items() if column is not None)
    print_line(f"Wrote {written.path}. Guessed from names and types: {guessed or 'nothing'}.")
    if None in (written.guess.treatment, written.guess.outcome):
        print_line("No treatment with an outcome was found: fill them in before you ask for an effect.")
    print_line(f"Check the roles in it, then: e2i run {shlex.quote(str(written.path))}")
