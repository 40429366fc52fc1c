"""The connector end to end: SDK, spool, shipper, the real table, and an Opik that is well, sick, dead or not there."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from span_line import SpanLine, span_line

from e2i.domain.telemetry import SpanQuery
from e2i.mlops.opik_connector import OpikConnector, OpikSettings
from e2i.observability import attributes as names
from e2i.storage.repositories.span_shipments import SpanShipmentRepository
from e2i.storage.repositories.spans import ObservabilitySpanRepository
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.ids import span_uuid, trace_uuid
from e2i.telemetry.sinks.opik import OpikExporter
from e2i.telemetry.sinks.postgres import PostgresSink
from opik_server import Mode, OpikServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2i.storage.postgres import Database

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TIERS = {"explainer": "self_improvement", "orchestrator": "coordination", "feedback_learner": "self_improvement"}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SpanLine]:
    with span_line(tmp_path / "spool", silent_agents=["feedback_learner"]) as made:
        yield made


@pytest.fixture
def server() -> Iterator[OpikServer]:
    with OpikServer() as running:
        yield running


@pytest.fixture
def opik(line: SpanLine, server: OpikServer) -> Iterator[OpikConnector]:
    OpikConnector.reset()
    yield OpikConnector(OpikSettings(endpoint=server.endpoint, tiers=TIERS), accounts=line)
    OpikConnector.reset()


def exporter(server: OpikServer) -> OpikExporter:
    return OpikExporter(server.endpoint, project_name="e2i-causal-analytics", batch_size=20, timeout_s=0.5)


def table(line: SpanLine, database: Database) -> PostgresSink:
    return PostgresSink(SpanShipmentRepository(database), CursorFile(line.folder, "postgres"))


async def rows(database: Database, **asked: Any) -> list[Any]:
    return list((await ObservabilitySpanRepository(database).search(SpanQuery(limit=1000, **asked))).spans)


async def ask(opik: OpikConnector, question: str, *, agent: str = "explainer") -> tuple[str, str]:
    """One agent with one model call; the ids of both spans' trace and the call."""
    async with opik.trace_agent(agent, "explain", input_data={"question": question}) as span:
        async with opik.trace_llm_call("claude-sonnet-4", prompt=question, provider="anthropic") as call:
            call.log_llm_response(f"answer to {question}", 12, 3, 0.0002)
        span.set_output({"answer": f"answer to {question}"})
    assert span.trace_id is not None
    assert call.span_id is not None
    return span.trace_id, call.span_id


async def test_a_traced_answer_is_in_opik_and_in_the_table_with_all_that_was_said(
    opik: OpikConnector, line: SpanLine, server: OpikServer, database: Database
) -> None:
    async with line.shipping(exporter(server), table(line, database)):
        trace, call = await ask(opik, "Why did NRx rise?")
        opik.log_metric("faithfulness", 0.9, trace_id=trace, span_id=call)
        opik.log_feedback(trace, "helpful", 1.0, reason="the number was right")
        await line.settled("opik", "postgres")
    kept = server.spans[span_uuid(trace, call)]
    assert (kept["type"], kept["model"], kept["provider"]) == ("llm", "claude-sonnet-4", "anthropic")
    assert kept["input"] == {"input": "Why did NRx rise?"}
    assert kept["output"] == {"output": "answer to Why did NRx rise?"}
    assert kept["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert kept["total_estimated_cost"] == 0.0002
    assert kept["metadata"]["e2i.agent.name"] == "explainer"
    whole = server.traces[trace_uuid(trace)]
    assert (whole["name"], whole["input"], whole["output"]) == (
        "explainer.explain",
        {"question": "Why did NRx rise?"},
        {"answer": "answer to Why did NRx rise?"},
    )
    assert server.scores["trace", trace_uuid(trace), "helpful"]["value"] == 1.0
    assert server.scores["trace", trace_uuid(trace), "helpful"]["reason"] == "the number was right"
    assert server.scores["span", span_uuid(trace, call), "faithfulness"]["value"] == 0.9
    found = {row.span.name: row for row in await rows(database, trace_id=trace)}
    assert set(found) == {"explainer.explain", "chat claude-sonnet-4", "metric faithfulness", "feedback helpful"}
    columns = found["chat claude-sonnet-4"].columns
    assert (columns.agent_name, columns.agent_tier, columns.operation_type) == ("explainer", "self_improvement", "llm")
    assert (columns.input_tokens, columns.output_tokens, columns.total_cost, columns.status) == (12, 3, 0.0002, "success")
    account = await opik.account()
    assert account is not None
    assert (account.delivered, account.dropped, account.breaker) == (4, {}, "closed")


async def test_without_any_opik_the_table_has_everything(line: SpanLine, database: Database) -> None:
    OpikConnector.reset()
    opik = OpikConnector(OpikSettings(tiers=TIERS), accounts=line)
    async with line.shipping(table(line, database)):
        await asyncio.gather(*(ask(opik, f"question {number}") for number in range(50)))
        await line.settled("postgres")
    assert not opik.is_enabled
    assert await opik.account() is None
    assert len(await rows(database)) == 100
    assert len(await rows(database, operation="llm", agent="explainer")) == 50
    OpikConnector.reset()


@pytest.mark.parametrize("sickness", [Mode.SLOW, Mode.BUSY, Mode.FAILING, Mode.BLACK_HOLE, Mode.GARBAGE, Mode.UNAUTHORIZED, "down"])
async def test_a_sick_opik_costs_the_caller_nothing_and_gets_everything_once_when_it_is_well(
    opik: OpikConnector, line: SpanLine, server: OpikServer, database: Database, sickness: Mode | str
) -> None:
    server.retry_after = "0"
    server.slow_s = 0.05
    async with line.shipping(exporter(server), table(line, database)):
        asked = [await ask(opik, "before")]
        await line.settled("opik", "postgres")
        if sickness == "down":
            server.stop()
        else:
            server.mode = Mode(sickness)
        began = time.perf_counter()
        asked += [await ask(opik, f"question {number}") for number in range(30)]
        spent = time.perf_counter() - began
        await line.settled("postgres")  # PostgreSQL only
        assert len(await rows(database)) == 62
        if sickness not in (Mode.SLOW, Mode.BUSY):  # these two answer
            await line.troubled("opik")
            assert len(server.spans) == 2
        server.mode = Mode.HEALTHY
        if sickness == "down":
            server.start()
        asked.append(await ask(opik, "after"))
        opik.log_feedback(asked[5][0], "helpful", 0.5)
        accounts = await line.settled("opik", "postgres")
    assert spent < 1.0
    assert [(one.emitted, one.delivered, one.dropped) for one in accounts] == [(65, 65, {})] * 2
    assert len(server.traces) == 32
    assert len(server.spans) == 64
    assert {span_uuid(*ids) for ids in asked} <= set(server.spans)
    assert [key[1] for key in server.scores] == [trace_uuid(asked[5][0])]
    assert len(await rows(database)) == 65


async def test_what_a_silent_agent_says_is_kept_nowhere_and_secrets_are_kept_nowhere(
    opik: OpikConnector, line: SpanLine, server: OpikServer, database: Database
) -> None:
    async with line.shipping(exporter(server), table(line, database)):
        await ask(opik, "PLANTED-QUESTION", agent="feedback_learner")
        async with opik.trace_agent("explainer", input_data={"api_key": "PLANTED-KEY", "mail": "jane.doe@example.com"}) as agent:
            agent.set_output({"patient": "SSN 078-05-1120"})
        opik.emit_span("feedback_learner", "late", started_at=datetime.now(UTC), input_data="PLANTED-LATE")
        await line.settled("opik", "postgres")
    everything = json.dumps([server.traces, server.spans]) + str(await rows(database))
    everything += "".join(path.read_bytes().decode(errors="replace") for path in line.folder.rglob("*") if path.is_file())
    for planted in ("PLANTED", "jane.doe", "078-05-1120"):
        assert planted not in everything
    silent = [row.span.attributes for row in await rows(database, agent="feedback_learner")]
    assert len(silent) == 3
    said = [found[key] for found in silent for key in (names.INPUT, names.OUTPUT) if key in found]
    assert said == ["[not logged]"] * 5


async def test_a_span_emitted_again_with_the_same_ids_is_one_row(
    opik: OpikConnector, line: SpanLine, server: OpikServer, database: Database
) -> None:
    async with line.shipping(exporter(server), table(line, database)):
        moment = datetime.now(UTC)
        for _ in range(3):
            assert opik.emit_span("explainer", "late", started_at=moment, duration_ms=5, trace_id=TRACE, span_id=SPAN) == (TRACE, SPAN)
        await line.settled("opik", "postgres")
    (row,) = await rows(database)
    assert row.span.duration_ms == 5.0
    assert len(server.spans) == 1
    assert row.columns.status == "success"


async def test_what_ended_before_a_kill_is_on_disk_when_end_returns(opik: OpikConnector, line: SpanLine, server: OpikServer) -> None:
    """No shipper ran yet; a new one finds everything."""
    for number in range(20):
        await ask(opik, f"question {number}")
    assert opik.flush()
    async with line.shipping(exporter(server)):
        (account,) = await line.settled("opik")
    assert (account.emitted, account.delivered, len(server.spans)) == (40, 40, 40)
