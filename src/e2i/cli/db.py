"""`e2i db`: the schema."""

from __future__ import annotations

import asyncio

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_line

app = typer.Typer(help="The database schema.", no_args_is_help=True)


@app.command()
def upgrade(home: Home = None, as_json: AsJson = False) -> None:
    """Apply every migration that is missing; safe to repeat."""
    from e2i import bootstrap

    applied = asyncio.run(bootstrap.upgrade_database(settings(home)))
    if as_json:
        print_json({"applied": applied})
        return
    print_line(f"Applied {', '.join(applied)}." if applied else "Nothing to do: the schema is up to date.")


@app.command()
def current(home: Home = None, as_json: AsJson = False) -> None:
    """Print the newest migration that the database has."""
    from e2i import bootstrap

    found = asyncio.run(bootstrap.current_migration(settings(home)))
    if as_json:
        print_json({"current": found})
        return
    print_line(found or "No migrations yet: run `e2i db upgrade`.")
