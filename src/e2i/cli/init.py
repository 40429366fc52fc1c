"""`e2i init`: a first study file from a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from e2i.cli.options import AsJson
from e2i.cli.output import print_json, print_line


def init(
    data: Annotated[Path, typer.Argument(help="A csv or parquet file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the study; default: beside the data, NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file from a data file's columns; roles are guesses that you check."""
    from e2i.data.scaffold import write_study

    target = out or data.with_suffix(".yaml")
    written = write_study(data, target, force=force)
    if as_json:
        print_json({"study": str(written)})
        return
    print_line(f"Wrote {written}. Check the roles in it, then: e2i run {written}")
