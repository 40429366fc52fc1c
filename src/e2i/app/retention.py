"""Old days of spans go: archived first when asked, never while a legal hold keeps them, each with an entry in the audit trail."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from e2i.domain.runs import AuditEntry
from e2i.errors import ConfigError, Conflict, E2IError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from e2i.ports.records import AuditTrail
    from e2i.ports.telemetry import Partition, SpanArchive, SpanRetention

_ROUNDS = 3
Action = Literal["drop", "archive and drop", "keep"]


@dataclass(frozen=True, kw_only=True)
class RetentionPorts:
    """What retention needs. `archive` None: days are dropped without one."""

    retention: SpanRetention
    archive: SpanArchive | None
    audit: AuditTrail
    ttl_days: int
    actor: str


@dataclass(frozen=True, kw_only=True)
class DayOutcome:
    """What happens, or happened, to a day that is older than the TTL."""

    day: date
    partition: str
    spans: int
    bytes: int
    action: Action
    held_by: tuple[str, ...] = ()
    archived: int | None = None
    """spans of the day that the archive is known to hold; None before, or without an archive"""
    has_archive: bool = False
    """a file for the day is there already: only what it lacks is added"""


@dataclass(frozen=True, kw_only=True)
class RetentionReport:
    """One run. With `dry_run` nothing was changed and `days` is what a run would do now."""

    dry_run: bool
    ttl_days: int
    before: date
    """days before this one are old, and days ahead whose spans came before it"""
    days: tuple[DayOutcome, ...]

    @property
    def dropped(self) -> tuple[DayOutcome, ...]:
        """Days that went, or would go."""
        return tuple(each for each in self.days if each.action != "keep")

    @property
    def kept(self) -> tuple[DayOutcome, ...]:
        """Old days that a legal hold keeps."""
        return tuple(each for each in self.days if each.action == "keep")


async def run_retention(
    ports: RetentionPorts,
    *,
    now: datetime,
    days: int | None = None,
    dry_run: bool = False,
    on_day: Callable[[DayOutcome], None] | None = None,
) -> RetentionReport:
    """Drop the days whose every span is older than the TTL, oldest first.

    A day is archived, read back and counted before it is dropped; the entry in the audit trail is written before the drop, so that
    nothing disappears unrecorded. Stopped at any point, it has lost nothing, and the next run goes on.

    Parameters
    ----------
    now : in UTC
    days : instead of the TTL in the settings; at least 1

    Raises
    ------
    ConfigError
        `days` is below 1.
    StorageError
        A day cannot be archived or dropped; days before it are done, it and those after it are untouched.
    """
    ttl = ports.ttl_days if days is None else days
    if ttl < 1:
        raise ConfigError(f"{ttl} days is too few.", where="--days", advice="Keep at least one day: today's spans are still arriving.")
    before = now.date() - timedelta(days=ttl)
    outcomes: list[DayOutcome] = []
    for partition in await _all_days(ports):
        if partition.counts_from >= before:
            continue
        outcome = await _plan(ports, partition)
        if not dry_run and outcome.action != "keep":
            done = await _drop(ports, outcome, ttl=ttl)
            if done is None:
                continue
            outcome = done
        outcomes.append(outcome)
        if on_day is not None:
            on_day(outcome)
    return RetentionReport(dry_run=dry_run, ttl_days=ttl, before=before, days=tuple(outcomes))


async def _all_days(ports: RetentionPorts) -> list[Partition]:
    """Days with a partition and days without one, oldest first."""
    return sorted([*await ports.retention.partitions(), *await ports.retention.strays()], key=lambda each: each.day)


async def _plan(ports: RetentionPorts, partition: Partition) -> DayOutcome:
    action: Action = "keep" if partition.held_by else "drop" if ports.archive is None else "archive and drop"
    return DayOutcome(
        day=partition.day,
        partition=partition.name,
        spans=partition.spans,
        bytes=partition.bytes,
        action=action,
        held_by=partition.held_by,
        has_archive=ports.archive is not None and action != "keep" and await ports.archive.exists(partition.day),
    )


async def _drop(ports: RetentionPorts, outcome: DayOutcome, *, ttl: int) -> DayOutcome | None:
    """Archive and drop one day; None when another process has dropped it meanwhile."""
    if ports.archive is not None:
        safe = await _archived(ports, ports.archive, outcome)
        if safe is None or safe.action == "keep":
            return safe
        outcome = safe
    details: dict[str, Any] = {
        "day": outcome.day.isoformat(),
        "partition": outcome.partition,
        "spans": outcome.spans,
        "bytes": outcome.bytes,
        "archived_spans": outcome.archived,
        "ttl_days": ttl,
    }
    subject = f"spans/{outcome.day.isoformat()}"
    await _record(ports, "retention.drop", subject, details)
    try:
        await ports.retention.drop_day(outcome.day, most=None if ports.archive is None else outcome.archived)
    except NotFound:
        return None
    except E2IError as error:
        await _record(ports, "retention.drop_failed", subject, {**details, "error": error.what})
        raise
    return outcome


async def _archived(ports: RetentionPorts, archive: SpanArchive, outcome: DayOutcome) -> DayOutcome | None:
    """The day once the archive holds all of it, also what arrived meanwhile; kept when a hold came; None when the day is gone."""
    for _ in range(_ROUNDS):
        archived = await _archive(ports, archive, outcome.day)
        fresh = {each.day: each for each in await _all_days(ports)}.get(outcome.day)
        if fresh is None:
            return None
        outcome = replace(outcome, spans=fresh.spans, bytes=fresh.bytes, held_by=fresh.held_by, archived=archived)
        if fresh.held_by:
            return replace(outcome, action="keep")
        if fresh.spans <= archived:
            return outcome
    raise Conflict(
        f"{outcome.spans} spans are there and {outcome.archived} are in the archive: more arrive while it is written.",
        where=outcome.partition,
        advice="The day was not dropped. Run again when the late spans have arrived: they are added to the archive.",
    )


async def _archive(ports: RetentionPorts, archive: SpanArchive, day: date) -> int:
    batches = ports.retention.read_day(day)
    try:
        return await archive.write(day, batches)
    finally:
        if isinstance(batches, AsyncGenerator):  # it holds a transaction open until it is closed
            await batches.aclose()


async def hold(ports: RetentionPorts, name: str, *, first: date, last: date, reason: str) -> None:
    """Keep these days whatever the TTL says.

    Raises
    ------
    ConfigError
        The last day is before the first, or name or reason is empty.
    Conflict
        A hold has that name.
    """
    if last < first:
        raise ConfigError(f"{last} is before {first}.", where="--to", advice="Give the first day with --from and the last with --to.")
    for what, text in (("name", name), ("reason", reason)):
        if not text.strip():
            raise ConfigError(f"the {what} is empty.", where="legal hold", advice="Say which case it is for: others will read it.")
    await ports.retention.hold(name, first=first, last=last, reason=reason, actor=ports.actor)
    await _record(ports, "retention.hold", f"legal_hold/{name}", {"first": first.isoformat(), "last": last.isoformat(), "reason": reason})


async def release(ports: RetentionPorts, name: str) -> None:
    """End a legal hold: its days go with the next run when they are old. Raises NotFound."""
    await _record(ports, "retention.release", f"legal_hold/{name}", {})
    try:
        await ports.retention.release(name)
    except E2IError as error:
        await _record(ports, "retention.release_failed", f"legal_hold/{name}", {"error": error.what})
        raise


async def _record(ports: RetentionPorts, action: str, subject: str, details: dict[str, Any]) -> None:
    await ports.audit.append(AuditEntry(actor=ports.actor, action=action, subject=subject, details=details))
