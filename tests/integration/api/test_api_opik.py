"""Opik's REST as its SDK speaks it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from receiving import application, body, calling, example, serving
from spans_in_memory import SpansInMemory

from e2i.domain.telemetry import SpanRecord
from e2i.errors import BackendUnavailable
from e2i.observability.mapping import columns_of

PROGRAM = Path(__file__).with_name("their_opik.py")
PRIVATE = "/api/v1/private"


async def run_their_program(url: str, home: Path, **more: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPIK_")}
    environment |= {
        "OPIK_URL_OVERRIDE": f"{url}/api",
        "OPIK_PROJECT_NAME": "their project",
        "OPIK_SENTRY_ENABLE": "false",
        "OPIK_ANALYTICS_ENABLE": "false",
        "DO_NOT_TRACK": "true",
        "HOME": str(home),
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", PROGRAM, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "Failed" not in err.decode(), err.decode()
    assert "rror" not in err.decode(), err.decode()
    return dict(json.loads(out.decode().splitlines()[-1]))


def check_their_spans(rows: list[SpanRecord], ids: dict[str, str]) -> None:
    """What `their_opik.py` did, as rows."""
    named = {span.name: span for span in rows if span.parent_span_id is not None}
    traces = {span.name: span for span in rows if span.parent_span_id is None}
    feedback = {span.attributes["e2i.feedback.name"]: span for span in rows if span.attributes.get("e2i.operation.type") == "feedback"}
    assert set(traces) == {"root", "by hand", "ended at once"}
    assert {span.service for span in rows} == {"their project"}
    assert {span.origin for span in rows} == {"opik"}
    assert all(len(span.trace_id) == len(span.span_id) == 32 for span in rows)
    assert all(span.ended_ns is not None and span.ended_ns >= span.started_ns > 10**18 for span in rows)

    trace = traces["root"]
    assert trace.span_id == trace.trace_id
    assert json.loads(trace.attributes["input.value"]) == {"question": "why?"}
    assert json.loads(trace.attributes["output.value"]) == {"output": "answer to why?"}
    assert trace.attributes["e2i.tags"] == ["x", "y"]
    assert trace.attributes["opik.metadata.user"] == 2
    assert columns_of(trace).session_id == "thread-1"
    assert (named["root"].parent_span_id, named["root"].trace_id) == (trace.span_id, trace.trace_id)
    assert named["ask"].parent_span_id == named["broken"].parent_span_id == named["root"].span_id

    llm = columns_of(named["ask"])
    assert (llm.operation_type, llm.model_name, llm.input_tokens, llm.output_tokens, llm.total_cost) == ("llm", "gpt-4o", 3, 5, 0.01)
    tool = columns_of(named["broken"])
    assert (tool.operation_type, tool.status, tool.error_type, tool.error_message) == ("tool", "error", "ValueError", "boom")
    assert "their_opik.py" in named["broken"].events[0].attributes["exception.stacktrace"]

    assert set(feedback) == {"accuracy", "helpful", "fluency"}
    assert feedback["accuracy"].parent_span_id == named["ask"].span_id
    assert feedback["accuracy"].trace_id == trace.trace_id
    assert feedback["accuracy"].attributes["e2i.feedback.value"] == 0.5
    assert feedback["accuracy"].attributes["e2i.feedback.reason"] == "half right"
    assert feedback["helpful"].parent_span_id == trace.span_id
    assert feedback["fluency"].attributes["e2i.feedback.value"] == 0.7

    by_hand, piece = traces["by hand"], named["piece"]
    assert (by_hand.trace_id, piece.span_id) == (ids["by hand"].replace("-", ""), ids["piece"].replace("-", ""))
    assert (json.loads(by_hand.attributes["input.value"]), json.loads(by_hand.attributes["output.value"])) == ({"q": 1}, {"y": 2})
    assert (piece.name, piece.parent_span_id) == ("piece", by_hand.span_id)
    assert (columns_of(piece).output_tokens, columns_of(piece).model_name, columns_of(piece).operation_type) == (2, "m", "llm")
    assert json.loads(traces["ended at once"].attributes["output.value"]) == {"z": 3}


async def test_the_real_sdk_finds_its_server_here(wire: httpx.AsyncClient, spans: SpansInMemory, tmp_path: Path) -> None:
    ids = await run_their_program(str(wire.base_url).rstrip("/"), tmp_path)
    check_their_spans(list(spans.rows.values()), ids)


async def test_the_real_sdk_sends_its_key(spans: SpansInMemory, tmp_path: Path) -> None:
    async with serving(spans, api_key="the key") as client:
        await run_their_program(str(client.base_url).rstrip("/"), tmp_path, OPIK_API_KEY="the key")
    assert len(spans.rows) == 10


async def test_a_score_that_waits_for_its_span_does_not_keep_it_out(spans: SpansInMemory) -> None:
    async with serving(spans, max_in_flight=1) as client:
        whole = span(project_name="p")
        score = {"name": "accuracy", "value": 1.0, "source": "sdk"}
        waiting = asyncio.create_task(client.put(f"{PRIVATE}/spans/{whole['id']}/feedback-scores", json=score))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert (await client.post(f"{PRIVATE}/spans/batch", json={"spans": [whole]})).status_code == 204
        assert (await waiting).status_code == 204
    assert {row.trace_id for row in spans.rows.values()} == {UUID(whole["trace_id"]).hex}
    assert len(spans.rows) == 2


async def test_the_real_sdk_that_is_told_to_wait_comes_again_and_loses_nothing(spans: SpansInMemory, tmp_path: Path) -> None:
    spans.hold = asyncio.Event()
    refused: list[int] = []
    async with serving(spans, max_in_flight=1) as client:
        blocking = asyncio.create_task(client.post("/v1/traces", json=body(example())))
        theirs = asyncio.create_task(run_their_program(str(client.base_url).rstrip("/"), tmp_path))
        while not theirs.done() and 429 not in refused:
            await asyncio.sleep(0.2)
            text = (await client.get("/metrics")).text
            refused += [429 for line in text.splitlines() if 'status="429"' in line and not line.endswith(" 0")]
        spans.hold.set()
        assert (await blocking).status_code == 200
        ids = await theirs
    assert refused, "the receiver was full while they sent"
    check_their_spans([row for row in spans.rows.values() if row.origin == "opik"], ids)


def span(**more: Any) -> dict[str, Any]:
    """A span as the SDK sends it; its id is a UUID of version 7 and tells its start."""
    made = UUID(int=1795168800_000 << 80 | 7 << 76 | 2 << 62 | uuid4().int & (1 << 62) - 1)
    return {"id": str(made), "trace_id": str(uuid4()), "name": "n", "start_time": "2026-11-20T10:00:00.000001Z", **more}


@pytest.mark.parametrize("order", ["create first", "change first"])
async def test_pieces_unite_in_any_order(client: httpx.AsyncClient, spans: SpansInMemory, order: str) -> None:
    whole = span(input={"a": 1}, project_name="p", type="llm")
    change = {"trace_id": whole["trace_id"], "end_time": "2026-11-20T10:00:01Z", "output": "text", "project_name": "p"}
    calls = [("POST", f"{PRIVATE}/spans/batch", {"spans": [whole]}), ("PATCH", f"{PRIVATE}/spans/{whole['id']}", change)]
    for method, path, content in calls if order == "create first" else reversed(calls):
        assert (await client.request(method, path, json=content)).status_code == 204
    (row,) = spans.rows.values()
    assert (row.name, row.started_ns, row.ended_ns) == ("n", 1795168800_000001000, 1795168801_000000000)
    assert (row.attributes["input.value"], row.attributes["output.value"]) == ('{"a":1}', "text")
    assert row.parent_span_id == row.trace_id
    assert columns_of(row).operation_type == "llm"


async def test_a_created_trace_and_span_are_named_in_the_answer(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    answer = await client.post(f"{PRIVATE}/traces", json={"name": "t", "start_time": "2026-11-20T10:00:00Z"})
    assert answer.status_code == 201
    (row,) = spans.rows.values()
    assert answer.headers["location"].replace("-", "").endswith(row.trace_id)
    answer = await client.post(f"{PRIVATE}/spans", json=span())
    assert (answer.status_code, len(spans.rows)) == (201, 2)


async def test_several_spans_change_at_once(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    both = [span(trace_id="01a1fdc9-9651-757a-b89b-7531469e4e95") for _ in range(2)]
    assert (await client.post(f"{PRIVATE}/spans/batch", json={"spans": both})).status_code == 204
    change = {"ids": [one["id"] for one in both], "update": {"tags": ["late"]}, "merge_tags": False}
    assert (await client.patch(f"{PRIVATE}/spans/batch", json=change)).status_code == 204
    assert [row.attributes["e2i.tags"] for row in spans.rows.values()] == [["late"], ["late"]]
    change = {"ids": ["01a1fdc9-9651-757a-b89b-7531469e4e95"], "update": {"tags": ["root"]}}
    assert (await client.patch(f"{PRIVATE}/traces/batch", json=change)).status_code == 204
    assert len(spans.rows) == 3


async def test_tags_are_added_and_taken_away(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    sent = span(tags=["a", "b"])
    await client.post(f"{PRIVATE}/spans/batch", json={"spans": [sent]})
    key = (sent["trace_id"].replace("-", ""), sent["id"].replace("-", ""))
    path, trace = f"{PRIVATE}/spans/{sent['id']}", {"trace_id": sent["trace_id"]}
    await client.patch(path, json={**trace, "tags_to_add": ["c", "a"], "tags_to_remove": ["b"]})
    assert spans.rows[key].attributes["e2i.tags"] == ["a", "c"]
    await client.patch(f"{PRIVATE}/spans/batch", json={"ids": [sent["id"]], "update": {**trace, "tags": ["d"]}, "merge_tags": True})
    assert spans.rows[key].attributes["e2i.tags"] == ["a", "c", "d"]
    await client.patch(path, json={**trace, "tags": ["e"]})
    assert spans.rows[key].attributes["e2i.tags"] == ["e"]


async def test_a_score_may_come_before_its_span(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    late = span()
    scores = {"scores": [{"id": late["id"], "name": "s", "value": 1, "source": "sdk"}]}
    scoring = asyncio.create_task(client.put(f"{PRIVATE}/spans/feedback-scores", json=scores))
    await asyncio.sleep(0.3)
    await client.post(f"{PRIVATE}/spans/batch", json={"spans": [late]})
    assert (await scoring).status_code == 204
    assert {row.trace_id for row in spans.rows.values()} == {late["trace_id"].replace("-", "")}


async def test_a_score_finds_a_span_of_an_earlier_process(spans: SpansInMemory) -> None:
    first = span()
    async with calling(application(spans)) as client:
        await client.post(f"{PRIVATE}/spans/batch", json={"spans": [first]})
    async with calling(application(spans)) as client:
        score = {"name": "s", "value": 1, "source": "sdk"}
        assert (await client.put(f"{PRIVATE}/spans/{first['id']}/feedback-scores", json=score)).status_code == 204
    assert {row.trace_id for row in spans.rows.values()} == {first["trace_id"].replace("-", "")}


async def test_a_score_of_a_span_that_never_comes_is_kept(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    nobody = str(uuid4())
    answer = await client.put(
        f"{PRIVATE}/spans/feedback-scores", json={"scores": [{"id": nobody, "name": "s", "value": 1, "source": "sdk"}]}
    )
    assert answer.status_code == 204
    (row,) = spans.rows.values()
    assert row.parent_span_id == row.trace_id == nobody.replace("-", "")


async def test_a_measure_that_is_no_number_costs_no_span(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    """The SDK writes a NaN among inputs as it is, which is no JSON, and gives up the whole batch when that is refused."""
    batch = {"spans": [span(input={"lift": float("nan"), "note": "NaN, \u00e9"}, output={"low": float("-inf")}), span()]}
    answer = await client.post(f"{PRIVATE}/spans/batch", content=json.dumps(batch).encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 204
    kept = [row.attributes for row in spans.rows.values() if "output.value" in row.attributes]
    assert len(spans.rows) == 2
    assert {"input.value": '{"lift":"NaN","note":"NaN, \u00e9"}', "output.value": '{"low":"-Infinity"}'}.items() <= kept[0].items()


@pytest.mark.parametrize(
    ("path", "content", "where"),
    [
        ("spans/batch", {"spans": [span(), span(start_time="yesterday")]}, "spans[1].start_time"),
        ("spans/batch", {"spans": [span(trace_id=None)]}, "spans[0].trace_id"),
        ("spans/batch", {"spans": {}}, "spans"),
        ("traces/batch", {"traces": [{"id": "no uuid"}]}, "traces[0].id"),
        ("traces/batch", {"traces": [{"start_time": "1960-01-01T00:00:00Z"}]}, "start_time"),
        ("traces/batch", {}, "traces"),
        ("traces/feedback-scores", {"scores": [{"id": str(uuid4()), "name": "s", "value": "much"}]}, "scores[0].value"),
        ("traces/feedback-scores", {"scores": [{"id": str(uuid4()), "value": 1}]}, "scores[0].name"),
    ],
)
async def test_a_bad_item_is_named_and_nothing_is_stored(
    client: httpx.AsyncClient, spans: SpansInMemory, path: str, content: Any, where: str
) -> None:
    answer = await client.put(f"{PRIVATE}/{path}", json=content)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["where"] == where
    assert not spans.rows


@pytest.mark.parametrize("path", ["projects", "datasets/retrieve", "traces/threads/feedback-scores", "attachment/upload-start"])
async def test_what_opik_has_and_the_receiver_has_not_is_an_honest_404(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.put(f"{PRIVATE}/{path}", json={})
    assert answer.status_code == 404
    assert "not part of the receiver" in answer.json()["detail"]


async def test_the_sign_of_life_fails_with_the_database(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    assert (await client.get("/api/is-alive/ping")).json()["healthy"] is True
    spans.fault = BackendUnavailable("the server is gone.")
    assert (await client.get("/api/is-alive/ping")).status_code == 503


async def test_the_link_that_the_sdk_prints_leads_to_the_trace(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    sent = span()
    await client.post(f"{PRIVATE}/spans/batch", json={"spans": [sent]})
    link = f"/api/v1/session/redirect/projects/?trace_id={sent['trace_id']}&path=aHR0cDovLw=="
    answer = await client.get(link, follow_redirects=True)
    assert [row["name"] for row in answer.json()["spans"]] == ["n"]
