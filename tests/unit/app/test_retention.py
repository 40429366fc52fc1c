"""Old days of spans: what goes, what stays, what is archived first, and what the audit trail says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from e2i.app.retention import RetentionPorts, hold, release, run_retention
from e2i.data.span_archive import ParquetSpanArchive
from e2i.errors import ConfigError, Conflict, NotFound, StorageError
from span_doubles import AuditInMemory, RetentionInMemory, spans_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAYS = [date(2026, 10, 18) + timedelta(days=n) for n in range(6)]  # with a TTL of 30 days, the first four are old


@dataclass
class Archive:
    """A SpanArchive in memory."""

    days: dict[date, dict[tuple[str, str], object]] = field(default_factory=dict)
    written: list[date] = field(default_factory=list)
    breaks_at: date | None = None

    async def exists(self, day):
        return day in self.days

    async def write(self, day, batches):
        if day == self.breaks_at:
            raise StorageError("the disk is full.", where=str(day))
        found = {each.span.key: each async for batch in batches for each in batch}
        if not found.keys() <= self.days.get(day, {}).keys():
            self.days[day] = self.days.get(day, {}) | found
            self.written.append(day)
        return len(found)


def ports(**changes) -> RetentionPorts:
    made = RetentionPorts(
        retention=RetentionInMemory({day: spans_of(day, 20) for day in DAYS}), archive=None, audit=AuditInMemory(), ttl_days=30, actor="ana"
    )
    return replace(made, **changes)


async def test_days_older_than_the_ttl_go_oldest_first_and_the_others_stay():
    given = ports()
    report = await run_retention(given, now=NOW)
    assert given.retention.dropped == DAYS[:4]
    assert list(given.retention.days) == DAYS[4:]
    assert [each.day for each in report.dropped] == DAYS[:4]
    assert (report.before, report.ttl_days, report.dry_run) == (date(2026, 10, 22), 30, False)
    assert given.retention.read == []


async def test_no_span_younger_than_the_ttl_goes():
    given = ports()
    await run_retention(given, now=NOW)
    for day in given.retention.dropped:
        assert NOW - datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC) > timedelta(days=30)


async def test_a_day_ahead_goes_when_its_last_span_came_before_the_ttl_began():
    far, near = date(2126, 1, 1), date(2126, 1, 2)
    given = ports(retention=RetentionInMemory({day: spans_of(day, 3) for day in (far, near)}, ahead={far: DAYS[3], near: DAYS[4]}))
    planned = await run_retention(given, now=NOW, dry_run=True)
    assert [each.day for each in planned.dropped] == [far]
    await run_retention(given, now=NOW)
    assert (given.retention.dropped, list(given.retention.days)) == ([far], [near])


async def test_a_dry_run_says_what_a_run_does_and_changes_nothing():
    given = ports(archive=Archive())
    given.retention.holds["case 7"] = (DAYS[1], DAYS[1])
    before = dict(given.retention.days)
    planned = await run_retention(given, now=NOW, dry_run=True)
    assert (given.retention.days, given.audit.entries, given.archive.days, given.retention.dropped) == (before, [], {}, [])
    done = await run_retention(given, now=NOW)
    assert [(each.day, each.action, each.spans, each.bytes, each.held_by) for each in planned.days] == [
        (each.day, each.action, each.spans, each.bytes, each.held_by) for each in done.days
    ]


async def test_held_days_are_kept_and_told_with_the_name_of_the_hold():
    given = ports()
    given.retention.holds["case 7"] = (DAYS[1], DAYS[2])
    report = await run_retention(given, now=NOW)
    assert given.retention.dropped == [DAYS[0], DAYS[3]]
    assert [(each.day, each.held_by) for each in report.kept] == [(DAYS[1], ("case 7",)), (DAYS[2], ("case 7",))]


async def test_each_drop_is_audited_before_it_happens():
    given = ports(archive=Archive())

    @dataclass
    class Watching(RetentionInMemory):
        async def drop_day(self, day, *, most=None):
            assert given.audit.entries[-1].subject == f"spans/{day}"
            await super().drop_day(day, most=most)

    given = replace(given, retention=Watching(given.retention.days))
    await run_retention(given, now=NOW)
    entries = given.audit.entries
    assert [(each.actor, each.action, each.subject) for each in entries] == [("ana", "retention.drop", f"spans/{day}") for day in DAYS[:4]]
    assert entries[0].details == {
        "day": "2026-10-18", "partition": "spans_20261018", "spans": 20, "bytes": 20_000, "archived_spans": 20, "ttl_days": 30,
    }  # fmt: skip


async def test_a_day_that_cannot_be_archived_is_not_dropped_and_the_next_run_goes_on():
    archive = Archive(breaks_at=DAYS[2])
    given = ports(archive=archive)
    with pytest.raises(StorageError, match="disk is full"):
        await run_retention(given, now=NOW)
    assert given.retention.dropped == DAYS[:2]
    archive.breaks_at = None
    await run_retention(given, now=NOW)
    assert given.retention.dropped == DAYS[:4]
    assert archive.written == DAYS[:4]


@dataclass
class Busy(RetentionInMemory):
    """The first old day gets a span more in each of the first `rounds` readings."""

    rounds: int = 1

    async def read_day(self, day, *, batch=5000):
        async for each in super().read_day(day, batch=batch):
            yield each
        if day == DAYS[0] and self.read.count(day) <= self.rounds:
            self.days[day] = spans_of(day, len(self.days[day]) + 1)


async def test_spans_that_arrive_while_a_day_is_archived_are_archived_too():
    given = ports(archive=Archive(), retention=Busy({day: spans_of(day, 20) for day in DAYS}))
    report = await run_retention(given, now=NOW)
    assert report.days[0].archived == report.days[0].spans == 21
    assert given.retention.dropped == DAYS[:4]


async def test_a_day_to_which_spans_keep_coming_is_not_dropped():
    given = ports(archive=Archive(), retention=Busy({day: spans_of(day, 20) for day in DAYS}, rounds=99))
    with pytest.raises(Conflict, match="23 spans are there and 22"):
        await run_retention(given, now=NOW)
    assert (given.retention.dropped, given.audit.entries) == ([], [])


async def test_a_hold_that_is_placed_during_the_archiving_keeps_the_day():
    given = ports(archive=Archive())

    @dataclass
    class Held(RetentionInMemory):
        async def read_day(self, day, *, batch=5000):
            async for each in super().read_day(day, batch=batch):
                yield each
            self.holds["sudden"] = (DAYS[0], DAYS[5])

    given = replace(given, retention=Held(given.retention.days))
    report = await run_retention(given, now=NOW)
    assert given.retention.dropped == []
    assert {each.held_by for each in report.kept} == {("sudden",)}


async def test_a_drop_that_fails_is_audited_as_failed():
    given = ports()

    @dataclass
    class Stubborn(RetentionInMemory):
        async def drop_day(self, day, *, most=None):
            raise Conflict("a legal hold came first.", where=str(day))

    given = replace(given, retention=Stubborn(given.retention.days))
    with pytest.raises(Conflict):
        await run_retention(given, now=NOW)
    assert [each.action for each in given.audit.entries] == ["retention.drop", "retention.drop_failed"]


async def test_a_span_that_comes_after_the_last_count_is_not_dropped_with_its_day():
    given = ports(archive=Archive())

    @dataclass
    class Late(RetentionInMemory):
        async def drop_day(self, day, *, most=None):
            if day == DAYS[1]:
                self.days[day].append(self.days[day][0])
            await super().drop_day(day, most=most)

    given = replace(given, retention=Late(given.retention.days))
    with pytest.raises(Conflict, match="of which 20 are safe"):
        await run_retention(given, now=NOW)
    assert given.retention.dropped == DAYS[:1]
    assert [each.action for each in given.audit.entries] == ["retention.drop", "retention.drop", "retention.drop_failed"]


async def test_a_day_that_somebody_else_has_dropped_is_passed_over():
    given = ports()

    @dataclass
    class Racing(RetentionInMemory):
        async def drop_day(self, day, *, most=None):
            if day == DAYS[0]:
                raise NotFound("gone.", where=str(day))
            await super().drop_day(day, most=most)

    given = replace(given, retention=Racing(given.retention.days))
    report = await run_retention(given, now=NOW)
    assert [each.day for each in report.dropped] == DAYS[1:4]


async def test_days_can_be_given_but_not_none():
    given = ports()
    assert [each.day for each in (await run_retention(given, now=NOW, days=33, dry_run=True)).days] == DAYS[:1]
    for days in (0, -1):
        with pytest.raises(ConfigError):
            await run_retention(given, now=NOW, days=days)


async def test_a_day_that_came_back_after_it_was_dropped_is_added_to_its_archive(tmp_path: Path):
    import pyarrow.parquet as pq

    given = ports(archive=ParquetSpanArchive(tmp_path))
    await run_retention(given, now=NOW)
    path = tmp_path / "spans-2026-10-18.parquet"
    assert pq.read_metadata(path).num_rows == 20
    given.retention.days[DAYS[0]] = spans_of(DAYS[0], 25)[18:]  # two that are archived, five that are late
    report = await run_retention(given, now=NOW)
    assert (report.days[0].has_archive, report.days[0].archived) == (True, 7)
    assert pq.read_metadata(path).num_rows == 25


async def test_holds_and_releases_are_audited_with_their_reason():
    given = ports()
    await hold(given, "case 7", first=DAYS[0], last=DAYS[1], reason="litigation")
    await release(given, "case 7")
    assert [(each.action, each.subject, each.details) for each in given.audit.entries] == [
        ("retention.hold", "legal_hold/case 7", {"first": "2026-10-18", "last": "2026-10-19", "reason": "litigation"}),
        ("retention.release", "legal_hold/case 7", {}),
    ]
    assert given.retention.holds == {}


async def test_a_hold_that_makes_no_sense_is_refused():
    given = ports()
    with pytest.raises(ConfigError, match="before"):
        await hold(given, "x", first=DAYS[1], last=DAYS[0], reason="r")
    for name, reason in (("", "r"), ("x", "  ")):
        with pytest.raises(ConfigError, match="empty"):
            await hold(given, name, first=DAYS[0], last=DAYS[0], reason=reason)
    await hold(given, "x", first=DAYS[0], last=DAYS[0], reason="r")
    with pytest.raises(Conflict):
        await hold(given, "x", first=DAYS[0], last=DAYS[0], reason="r")
    with pytest.raises(NotFound):
        await release(given, "y")
    assert [each.action for each in given.audit.entries] == ["retention.hold", "retention.release", "retention.release_failed"]
