"""`e2i retention`: how long spans stay, where they go, and which legal holds keep them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from e2i.app.retention import DayOutcome, RetentionPorts, RetentionReport
    from e2i.ports.telemetry import Partition

    T = TypeVar("T")

app = typer.Typer(help="Old spans: drop, archive, legal holds.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The hold's name.")]


@app.callback()
def callback() -> None:
    """Old spans."""


@app.command()
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Instead of observability.retention.span_ttl_days.")] = None,
    archive: Annotated[Path | None, typer.Option(file_okay=False, help="Archive to Parquet in this folder first.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Drop days of spans that are older than the TTL; days under a legal hold stay.

    With an archive (--archive, or observability.retention.archive), a day is written to Parquet, read back and counted before it goes.
    """
    from e2i.app.retention import run_retention

    def work(ports: RetentionPorts) -> Awaitable[RetentionReport]:
        return run_retention(with_archive(ports, archive), now=datetime.now(UTC), days=days, dry_run=dry_run)

    report = _ask(home, work)
    if as_json:
        print_json(report_to_dict(report))
        return
    for line in report_lines(report):
        print_line(line)


@app.command()
def ls(home: Home = None, as_json: AsJson = False) -> None:
    """List the days in the database, oldest first, with the holds that keep them."""
    found, ttl = _ask(home, _days)
    rows = [partition_row(each, ttl_days=ttl) for each in found]
    if as_json:
        print_json(rows)
        return
    print_table([{**row, "held_by": ", ".join(row["held_by"]) or None} for row in rows])


@app.command()
def hold(
    name: Name,
    *,
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", help="The first day to keep.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], metavar="DAY", help="The last day to keep.")],
    reason: Annotated[str, typer.Option(help="Kept in the audit trail.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Place a legal hold: these days stay whatever the TTL says."""
    from e2i.app import retention

    _ask(home, lambda ports: retention.hold(ports, name, first=first.date(), last=last.date(), reason=reason))
    if as_json:
        print_json({"hold": name, "first": first.date().isoformat(), "last": last.date().isoformat(), "reason": reason})
        return
    print_line(f"{name} keeps {first.date()} to {last.date()}.")


@app.command()
def release(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """End a legal hold."""
    from e2i.app import retention

    _ask(home, lambda ports: retention.release(ports, name))
    if as_json:
        print_json({"released": name})
        return
    print_line(f"{name} is released: its days go with the next `e2i retention run` when they are old.")


def with_archive(ports: RetentionPorts, folder: Path | None) -> RetentionPorts:
    """The same ports, with an archive in `folder` when there is one."""
    from e2i.data.span_archive import ParquetSpanArchive

    return ports if folder is None else replace(ports, archive=ParquetSpanArchive(folder))


def report_to_dict(report: RetentionReport) -> dict[str, Any]:
    """The report for programs."""
    return {
        "dry_run": report.dry_run,
        "ttl_days": report.ttl_days,
        "before": report.before.isoformat(),
        "dropped": [_day(each) for each in report.dropped],
        "kept": [_day(each) for each in report.kept],
    }


def _day(outcome: DayOutcome) -> dict[str, Any]:
    return {**asdict(outcome), "day": outcome.day.isoformat(), "held_by": list(outcome.held_by)}


def report_lines(report: RetentionReport) -> list[str]:
    """The report for people."""
    lines = [f"Days before {report.before} are older than {report.ttl_days} days."]
    for each in report.days:
        if each.action == "keep":
            what = f"kept by legal hold {', '.join(each.held_by)}"
        elif report.dry_run:
            first = "" if each.action == "drop" else "compared with its archive and " if each.has_archive else "archived and "
            what = f"would be {first}dropped"
        else:
            what = "dropped" if each.archived is None else f"archived ({each.archived:,} spans) and dropped"
        lines.append(f"{each.day}  {each.spans:>12,} spans  {each.bytes / 1e6:>10,.1f} MB  {what}")
    spans, size = sum(each.spans for each in report.dropped), sum(each.bytes for each in report.dropped)
    verb = "Would drop" if report.dry_run else "Dropped"
    days = len(report.dropped)
    lines.append(f"{verb} {days} day{'s' * (days != 1)}: {spans:,} spans, {size / 1e6:,.1f} MB. Kept by legal holds: {len(report.kept)}.")
    return lines


def partition_row(partition: Partition, *, ttl_days: int) -> dict[str, Any]:
    """One day, and the first day on which it is old."""
    from datetime import timedelta

    return {
        "day": partition.day.isoformat(),
        "spans": partition.spans,
        "bytes": partition.bytes,
        "old_on": (partition.day + timedelta(days=ttl_days + 1)).isoformat(),
        "held_by": list(partition.held_by),
    }


async def _days(ports: RetentionPorts) -> tuple[list[Partition], int]:
    found = [*await ports.retention.partitions(), *await ports.retention.strays()]
    return sorted(found, key=lambda each: each.day), ports.ttl_days


def _ask(home: Path | None, question: Callable[[RetentionPorts], Awaitable[T]]) -> T:
    from e2i import bootstrap

    async def asked() -> T:
        async with bootstrap.retention(settings(home)) as ports:
            return await question(ports)

    return asyncio.run(asked())
