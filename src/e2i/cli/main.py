"""The `e2i` command. Imports nothing heavy: `e2i --help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from e2i import __version__
from e2i.cli import admin, audit, config, data, db, init, retention, run, serve, ship, trace
from e2i.cli.output import print_error, print_json, print_line, print_note
from e2i.errors import E2IError

INTERRUPTED = 130
"""exit code of a command that Ctrl-C ended; typer turns the interrupt into it"""
_GOES_ON = " Finished steps are kept: run the same command again to go on."

app = typer.Typer(
    name="e2i",
    help="Causal analytics for pharma commercial teams. Start with `e2i run`, which runs the bundled study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("effect")(run.effect)
app.command("init")(init.init)
app.command("status")(admin.status)
app.command("doctor")(admin.doctor)
app.command("up")(admin.up)
app.command("down")(admin.down)
app.command("agents")(admin.agents)
app.command("serve")(serve.serve)
trace.app.command("ship")(ship.ship)
app.add_typer(trace.app, name="trace")
app.add_typer(retention.app, name="retention")
app.add_typer(db.app, name="db")
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(audit.app, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        print_line(__version__)
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Causal analytics for pharma commercial teams."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; the one place where every error becomes a message and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(given, prog_name="e2i", standalone_mode=True)
    except E2IError as error:
        _tell(error, as_json="--json" in given)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print_note(f"Stopped.{_GOES_ON if given[:1] in (['run'], ['effect']) else ''}")
        raise
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  the last line of defence: a message, never a traceback
        _tell(_unexpected(error), as_json="--json" in given)
        sys.exit(1)


def _tell(error: E2IError, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "failed", **error.to_dict()})
    print_error(error)


def _unexpected(error: BaseException) -> E2IError:
    import tempfile
    import traceback

    told = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="e2i-crash-", suffix=".txt", delete=False, encoding="utf-8", errors="replace") as file:
            file.write(told)
        what = f"the file {file.name}"
    except OSError:  # nowhere to write, which may be the very cause
        what = f"these lines:\n{told}"
    return E2IError(f"{type(error).__name__}: {error}", advice=f"This is a fault of E2I. Please report it with {what}")
