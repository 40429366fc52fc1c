"""`e2i audit`: the chain of who did what."""

from __future__ import annotations

import asyncio

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_line

app = typer.Typer(help="The audit trail.", no_args_is_help=True)


@app.callback()
def callback() -> None:
    """The audit trail."""


@app.command()
def verify(home: Home = None, as_json: AsJson = False) -> None:
    """Check every link of the chain; names the first bad entry."""
    from e2i import bootstrap

    result = asyncio.run(bootstrap.verify_audit(settings(home)))
    if as_json:
        print_json(result)
    elif result["ok"]:
        print_line(f"The audit trail verifies: {result['entries']} entries.")
    else:
        entry = result["first_bad_sequence"]
        print_line(f"The audit trail is broken{'' if entry is None else f' at entry {entry}'}: {result['reason']}.")
    if not result["ok"]:
        raise typer.Exit(1)
