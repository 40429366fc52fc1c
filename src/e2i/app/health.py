"""Is everything that a run needs in order, and what has run lately."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from e2i.domain.telemetry import SinkAccount
from e2i.errors import E2IError
from e2i.ports.records import Outbox, RunRecords
from e2i.ports.telemetry import ReceivedSpans, SinkAccounts

MINIMUM_FREE_BYTES = 500 * 1024**2
RECENT = timedelta(hours=1)
"""how far `overview` looks back for spans of others"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `e2i doctor`; `advice` only where there is something to do."""

    check: str
    ok: bool
    detail: str
    advice: str | None = None


class AuditVerdict(Protocol):
    """What verifying the audit chain found."""

    @property
    def ok(self) -> bool: ...  # noqa: D102
    @property
    def entries(self) -> int: ...  # noqa: D102
    @property
    def first_bad_sequence(self) -> int | None: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102


class Disagreement(Protocol):
    """One difference between our rows and the tracker."""

    @property
    def detail(self) -> str: ...  # noqa: D102
    @property
    def is_repaired(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class HealthPorts:
    """What is examined. `repair_tracker` delivers what waits, compares both sides and mends what it can."""

    where: str
    schema: Callable[[], Awaitable[str | None]]
    verify_audit: Callable[[], Awaitable[AuditVerdict]]
    repair_tracker: Callable[[], Awaitable[Sequence[Disagreement]]]
    free_bytes: Callable[[], int]
    outbox: Outbox
    runs: RunRecords
    sinks: SinkAccounts
    received: ReceivedSpans


async def examine(ports: HealthPorts) -> list[Check]:
    """Every check, in the order in which one would mend."""
    audit = await ports.verify_audit()
    free = ports.free_bytes()
    return [
        Check(check="database", ok=True, detail=ports.where),
        Check(check="schema", ok=True, detail=await ports.schema() or "empty"),
        Check(
            check="disk",
            ok=free >= MINIMUM_FREE_BYTES,
            detail=f"{free // 1024**2} MB free",
            advice=None if free >= MINIMUM_FREE_BYTES else "Free some space; a run needs at least 500 MB.",
        ),
        Check(
            check="audit",
            ok=audit.ok,
            detail=f"{audit.entries} entries" if audit.ok else _broken(audit),
            advice=None if audit.ok else "Somebody changed the audit trail: keep a copy of the database, and find out who.",
        ),
        *[_examine_sink(account) for account in await ports.sinks.accounts()],
        *await _examine_tracker(ports),
    ]


def _broken(audit: AuditVerdict) -> str:
    at = "" if audit.first_bad_sequence is None else f" at entry {audit.first_bad_sequence}"
    return f"broken{at}: {audit.reason}"


def _examine_sink(account: SinkAccount) -> Check:
    """A sink that is away is no fault of ours as long as nothing is lost; a loss, or a span that nothing explains, is."""
    lost = sum(account.dropped.values())
    detail = f"{account.delivered} delivered, {account.in_spool} waiting, {account.sampled_out} sampled out, {lost} lost"
    advice = "`e2i status --json` says how they were lost." if lost else None
    if account.last_error is not None:
        detail = f"{'waiting: ' if account.in_spool else ''}{detail}; {account.last_error}"
        advice = advice or "Nothing is lost: what waits is sent as soon as the sink takes it. See to what it last said."
    return Check(check=f"spans to {account.sink}", ok=account.unexplained == 0 and lost == 0, detail=detail, advice=advice)


async def _examine_tracker(ports: HealthPorts) -> list[Check]:
    try:
        found = await ports.repair_tracker()
    except E2IError as error:
        waiting = (await ports.outbox.counts("mlflow"))["pending"]
        return [Check(check="mlflow", ok=False, detail=f"{error.what} {waiting} messages wait.", advice=error.advice)]
    counts = await ports.outbox.counts("mlflow")
    checks = [
        Check(
            check="mlflow",
            ok=counts["pending"] == 0 and counts["quarantined"] == 0,
            detail=f"{counts['delivered']} delivered, {counts['pending']} waiting, {counts['quarantined']} refused",
            advice=None if counts["quarantined"] + counts["pending"] == 0 else "Look at table outbox for the reasons.",
        )
    ]
    for difference in found:
        mended = difference.is_repaired
        advice = None if mended else "This needs a person: neither side may be overwritten."
        checks.append(Check(check="mirror", ok=mended, detail=f"{difference.detail}{' (mended)' if mended else ''}", advice=advice))
    return checks


def sink_rows(accounts: Sequence[SinkAccount]) -> list[dict[str, Any]]:
    """Where the spans of each sink are."""
    return [{**asdict(account), "unexplained": account.unexplained} for account in accounts]


async def overview(ports: HealthPorts, *, limit: int = 10) -> dict[str, Any]:
    """Where the data are, what MLflow is owed, where spans went and came from, and the latest runs."""
    return {
        "database": ports.where,
        "schema": await ports.schema(),
        "outbox": await ports.outbox.counts("mlflow"),
        "sinks": sink_rows(await ports.sinks.accounts()),
        "received": [
            {**asdict(each), "newest": each.newest.isoformat(timespec="seconds")}
            for each in await ports.received.received_since(datetime.now(UTC) - RECENT)
        ],
        "runs": [
            {
                "run_id": run.run_id,
                "study": run.study,
                "status": run.status,
                "started_at": run.started_at.isoformat(timespec="seconds"),
                "report": run.report_path,
            }
            for run in await ports.runs.recent(limit)
        ],
    }
