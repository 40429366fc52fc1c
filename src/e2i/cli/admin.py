"""`e2i status`, `doctor`, `up`, `down`, `agents`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_error, print_json, print_line, print_table

if TYPE_CHECKING:
    from e2i.errors import E2IError


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show the server, the schema, the outbox, where spans went and came from, and the latest runs.

    Without the database it still says where spans are: delivered, waiting, lost.
    """
    from e2i import bootstrap

    found, problem = asyncio.run(bootstrap.status(settings(home)))
    if problem is not None:
        _without_database(found["sinks"], problem, as_json=as_json)
    if as_json:
        print_json(found)
        return
    print_line(f"database  {found['database']}")
    print_line(f"schema    {found['schema']}")
    print_line("outbox    " + ", ".join(f"{name} {count}" for name, count in found["outbox"].items()))
    _print_sinks(found["sinks"])
    for each in found["received"]:
        print_line(f"received  {each['origin']}: {each['spans']:,} spans of the last hour, the latest of {each['newest'][11:19]} UTC")
    print_line()
    print_table(found["runs"])


def _without_database(sinks: list[dict[str, Any]], problem: E2IError, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"status": "failed", **problem.to_dict(), "sinks": sinks})
    else:
        _print_sinks(sinks)
    print_error(problem)
    raise typer.Exit(problem.exit_code)


def _print_sinks(sinks: list[dict[str, Any]]) -> None:
    for sink in sinks:
        lost = "".join(f", {count} lost ({reason})" for reason, count in sink["dropped"].items())
        print_line(
            f"spans     {sink['sink']}: {sink['delivered']} of {sink['emitted']} delivered, {sink['in_spool']} waiting, "
            f"{sink['sampled_out']} sampled out{lost}; lag {sink['lag_s']:.1f} s, breaker {sink['breaker']}"
        )
        if sink["last_error"]:
            print_line(f"          {sink['last_error']}")


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check everything a run needs, deliver what MLflow is still owed, and repair differences."""
    from e2i import bootstrap

    checks = asyncio.run(bootstrap.doctor(settings(home)))
    healthy = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            print_line(f"{'ok  ' if check.ok else 'BAD '} {check.check:<10} {check.detail}")
            if check.advice is not None:
                print_line(f"     {check.advice}")
    if not healthy:
        raise typer.Exit(1)


def up(home: Home = None, as_json: AsJson = False) -> None:
    """Start the embedded server and leave it running until `e2i down`."""
    from e2i import bootstrap

    found = bootstrap.up(settings(home))
    if as_json:
        print_json(found)
        return
    print_line(f"Database is up: {found['database']}")


def down(home: Home = None, as_json: AsJson = False) -> None:
    """Stop the embedded server."""
    from e2i import bootstrap

    stopped = bootstrap.down(settings(home))
    if as_json:
        print_json({"stopped": stopped})
        return
    print_line("Stopped." if stopped else "Nothing to stop.")


def agents(as_json: AsJson = False) -> None:
    """List the agents, their steps and budgets."""
    from e2i.agents.registry import AGENTS

    rows = [
        {
            "agent": spec.name,
            "tier": spec.tier.value,
            "kind": spec.kind,
            "budget_s": spec.budget_s,
            "steps": list(spec.step_names),
            "purpose": spec.purpose,
        }
        for spec in AGENTS.values()
    ]
    if as_json:
        print_json(rows)
        return
    print_table([{**row, "steps": len(row["steps"])} for row in rows], ["agent", "tier", "kind", "budget_s", "steps", "purpose"])  # type: ignore[arg-type]
