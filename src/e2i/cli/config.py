"""`e2i config`: what is set, and where each value came from."""

from __future__ import annotations

from textwrap import shorten
from typing import Annotated

import typer

from e2i.cli.options import AsJson, Home
from e2i.cli.output import print_json, print_table

app = typer.Typer(help="Settings.", no_args_is_help=True)


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value came from.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting; secrets are masked."""
    from e2i import config

    arguments = {"home": home} if home is not None else {}
    table = config.origins(config.load(**arguments), **arguments)
    if as_json:
        print_json({key: {"value": value, "origin": source} if origin else value for key, (value, source) in table.items()})
        return
    rows = [{"key": key, "value": shorten(str(value), 60, placeholder=" …"), "origin": source} for key, (value, source) in table.items()]
    print_table(rows, ["key", "value", "origin"] if origin else ["key", "value"])


@app.callback()
def callback() -> None:
    """Settings."""
