"""The real SDKs against servers that speak the vendors' protocols, well and badly."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.observability import attributes as names
from e2i.ports.language import Message
from language_doubles import Breakers, Patience, entry, gateway, only, read, spans_seen, until
from vendor_servers import KEY, VENDORS, AnthropicServer, Fails, OpenAIServer, Reply, Says, Sends, Vendor, drops, hangs

SHAPE = {
    "type": "object",
    "properties": {"share": {"type": "number", "minimum": 0, "maximum": 1}},
    "required": ["share"],
    "additionalProperties": False,
}
both = pytest.mark.parametrize("vendor", VENDORS)


@pytest.fixture
def seen() -> Iterator[InMemorySpanExporter]:
    with spans_seen() as exporter:
        yield exporter


@both
async def test_a_completion_brings_text_tokens_and_cost_and_its_span_the_same(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    async with vendor(Says()).running() as server:
        model = gateway(server)
        done = await model.complete("Hello?", max_tokens=20)
        await model.close()
    price = {"anthropic": 11 * 3 + 7 * 15, "openai_compatible": 11 * 2 + 7 * 8}[server.provider]
    assert (done.text, done.model, done.provider) == ("Hello there", server.model, server.provider)
    assert (done.input_tokens, done.output_tokens, done.fallback_chain) == (11, 7, (server.model,))
    assert done.cost_usd == pytest.approx(price / 1e6)
    span = only(seen)
    found = span.attributes or {}
    assert (found[names.GEN_AI_INPUT_TOKENS], found[names.GEN_AI_OUTPUT_TOKENS], found[names.COST_USD]) == (11, 7, done.cost_usd)
    assert (found[names.GEN_AI_PROVIDER], found[names.GEN_AI_RESPONSE_MODEL]) == (server.provider, server.model)
    assert span.end_time is not None
    assert span.start_time is not None
    assert (span.end_time - span.start_time) / 1e6 == pytest.approx(done.latency_ms, abs=20)


@both
async def test_a_stream_brings_pieces_and_its_span_tokens_and_cost(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    async with vendor(Says(pieces=("Grü", "ße", " 👋"))).running() as server:
        model = gateway(server)
        assert [piece async for piece in model.stream("Hello?", max_tokens=20)] == ["Grü", "ße", " 👋"]
        await model.close()
    found = only(seen).attributes or {}
    assert found[names.OUTPUT] == "Grüße 👋"
    assert (found[names.GEN_AI_INPUT_TOKENS], found[names.GEN_AI_OUTPUT_TOKENS]) == (11, 7)
    assert names.COST_USD in found
    assert found[names.GEN_AI_FINISH_REASONS] in (("end_turn",), ("stop",))


@both
async def test_a_conversation_keeps_its_turns_and_the_system_text_goes_where_the_vendor_wants_it(vendor: type[Vendor]) -> None:
    turns = [Message(role="system", content="Brief."), Message(role="user", content="A"), Message(role="assistant", content="B")]
    async with vendor(Says()).running() as server:
        model = gateway(server)
        await model.complete([*turns, Message(role="user", content="C")], max_tokens=20, temperature=0.7)
        await model.close()
    body = server.asked[0].body
    said = [turn["content"] for turn in body["messages"]]
    if server.provider == "anthropic":
        assert (body["system"], said) == ("Brief.", ["A", "B", "C"])
        assert "temperature" not in body  # its API knows none since 2026-10-21
    else:
        assert (body["messages"][0]["role"], said, body["temperature"]) == ("system", ["Brief.", "A", "B", "C"], 0.7)


@both
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_a_passing_fault_is_tried_again_once_for_each_try(vendor: type[Vendor], status: int) -> None:
    patience = Patience()
    async with vendor(Fails(status), Fails(status), Says()).running() as server:
        model = gateway(server, patience=patience)
        done = await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert (done.text, len(server.asked)) == ("Hello there", 3)
    assert patience.pauses == [0.375, 0.75]


@both
async def test_retry_after_is_waited_for(vendor: type[Vendor]) -> None:
    patience = Patience()
    async with vendor(Fails(429, headers={"retry_after": "3"}), Fails(429, headers={"retry_after_ms": "1500"}), Says()).running() as server:
        model = gateway(server, patience=patience)
        await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert patience.pauses == [3.0, 1.5]


@both
@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "text"), (401, "API key"), (402, "billing"), (403, "API key"), (404, "base_url"), (413, "Shorten"), (422, "text")],
)
async def test_a_refusal_is_raised_at_once_with_the_vendors_words_and_what_to_do(vendor: type[Vendor], status: int, advice: str) -> None:
    async with vendor(Fails(status, "prompt is odd")).running() as server, vendor().running() as other:
        model = gateway(server, other)
        with pytest.raises(BackendRejected, match="prompt is odd") as raised:
            await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert (len(server.asked), len(other.asked)) == (1, 0)
    assert advice in str(raised.value.advice)
    assert server.model in str(raised.value)
    assert raised.value.__cause__ is not None


@both
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_key_is_in_no_error_and_no_span(vendor: type[Vendor], is_streamed: bool, seen: InMemorySpanExporter) -> None:
    echo = f"Incorrect API key provided: {KEY}. Find yours at the console."
    for reply in (Fails(401, echo), Fails(529, echo)):
        async with vendor(reply).running() as server:
            model = gateway(server)
            ask = anext(model.stream("Hello?", max_tokens=20)) if is_streamed else model.complete("Hello?", max_tokens=20)
            with pytest.raises((BackendRejected, BackendUnavailable)) as raised:
                await ask
            await model.close()
        error: BaseException | None = raised.value
        assert "[api key]" in str(error)
        while error is not None:
            assert KEY not in f"{error!s} {error!r}"
            error = error.__cause__
    for span in seen.get_finished_spans():
        assert KEY not in span.to_json()


@both
async def test_the_key_is_in_no_log_at_any_level(vendor: type[Vendor], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with vendor(Fails(429), Says()).running() as server:
        model = gateway(server)
        await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert caplog.records
    assert KEY not in caplog.text


@both
@pytest.mark.parametrize(
    "reply",
    [hangs, drops, Sends(b"{not json"), Sends(b"<html>down</html>", "text/html"), Sends(b'{"hello": 1}'), Sends(b""), Sends(b"[1, 2]")],
)
async def test_no_answer_or_one_that_is_none_is_followed_by_the_next_model(vendor: type[Vendor], reply: Reply) -> None:
    async with vendor(reply).running() as server, vendor().running() as other:
        model = gateway(server, entries=[entry(server), entry(other, model=f"{other.model}-b")], timeout_seconds=1.0, max_retries=0)
        done = await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert (done.text, done.fallback_chain) == ("Hello there", (server.model, f"{server.model}-b"))


@both
@pytest.mark.parametrize(
    "reply", [hangs, drops, Sends(b"{not json"), Sends(b"<html>down</html>", "text/html"), Fails(503), Sends(b"data: {x\n\n")]
)
async def test_a_stream_that_gives_nothing_is_followed_by_the_next_model(vendor: type[Vendor], reply: Reply) -> None:
    async with vendor(reply).running() as server, vendor().running() as other:
        model = gateway(server, entries=[entry(server), entry(other)], timeout_seconds=1.0, max_retries=0)
        assert "".join([piece async for piece in model.stream("Hello?", max_tokens=20)]) == "Hello there"
        await model.close()


@both
async def test_a_model_that_nobody_serves_is_unavailable_and_says_where(vendor: type[Vendor]) -> None:
    async with vendor().running() as server:
        pass
    model = gateway(server, max_retries=0)
    with pytest.raises(BackendUnavailable, match="connection failed"):
        await model.complete("Hello?", max_tokens=20)
    await model.close()


@both
async def test_time_outs_stop_the_call_at_the_vendor_and_are_bounded(vendor: type[Vendor]) -> None:
    async with vendor(hangs).running() as server:
        model = gateway(server, timeout_seconds=0.2, max_retries=1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(BackendUnavailable, match="no answer within"):
            await model.complete("Hello?", max_tokens=20)
        taken = loop.time() - begun
        await asyncio.wait_for(server.gone.wait(), 2)
        await model.close()
    assert len(server.asked) == 2
    assert taken < 5  # imports of the SDK included


@both
async def test_cancellation_stops_the_call_at_the_vendor(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    async with vendor(hangs).running() as server:
        model = gateway(server)
        task = asyncio.create_task(model.complete("Hello?", max_tokens=20))
        await until(lambda: server.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 2)
        await model.close()
    assert only(seen).end_time is not None


@both
@pytest.mark.parametrize("ending", ["torn", "early", "error", "hang"])
async def test_a_stream_that_breaks_half_way_is_an_error_and_nobody_else_is_asked(
    vendor: type[Vendor], ending: str, seen: InMemorySpanExporter
) -> None:
    async with vendor(Says(ending=ending)).running() as server, vendor().running() as other:
        model = gateway(server, other, timeout_seconds=0.5)
        got: list[str] = []
        with pytest.raises(BackendUnavailable, match="broke off"):
            await read(model.stream("Hello?", max_tokens=20), got)
        await model.close()
    assert ("".join(got), len(server.asked), len(other.asked)) == ("Hello there", 1, 0)
    span = only(seen)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[names.OUTPUT] == "Hello there"


@both
async def test_a_stream_that_drips_is_cut_when_its_time_is_over(vendor: type[Vendor]) -> None:
    async with vendor(Says(pieces=["x"] * 100, delay_s=0.05)).running() as server:
        model = gateway(server, timeout_seconds=0.3)
        got: list[str] = []
        with pytest.raises(BackendUnavailable, match="no answer within"):
            await read(model.stream("Hello?", max_tokens=20), got)
        await model.close()
    assert 0 < len(got) < 10


@both
async def test_leaving_a_stream_stops_it_at_the_vendor(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    async with vendor(Says(ending="hang"), Says()).running() as server:
        model = gateway(server)
        async for _ in model.stream("Hello?", max_tokens=20):
            break
        await asyncio.wait_for(server.gone.wait(), 2)
        assert (await model.complete("Hello?", max_tokens=20)).text == "Hello there"
        await model.close()
    first = seen.get_finished_spans()[0]
    assert first.status.status_code is not StatusCode.ERROR
    assert str((first.attributes or {})[names.OUTPUT]).startswith("Hel")
    assert names.GEN_AI_OUTPUT_TOKENS not in (first.attributes or {})


async def test_a_chain_may_cross_vendors_and_both_down_names_both(seen: InMemorySpanExporter) -> None:
    async with AsyncExitStack() as stack:
        claude = await stack.enter_async_context(AnthropicServer(Fails(529, "Overloaded", kind="overloaded_error")).running())
        other = await stack.enter_async_context(OpenAIServer(Says(), Fails(503, "maintenance")).running())
        model = gateway(claude, other)
        done = await model.complete("Hello?", max_tokens=20)
        assert (done.provider, done.fallback_chain) == ("openai_compatible", (claude.model, other.model))
        with pytest.raises(BackendUnavailable) as raised:
            await model.complete("Hello?", max_tokens=20)
        await model.close()
    for told in (claude.model, "529 Overloaded", other.model, "503 maintenance"):
        assert told in str(raised.value)
    assert [list((span.attributes or {})[names.FALLBACK_CHAIN]) for span in seen.get_finished_spans()] == [[claude.model, other.model]] * 2


async def test_each_entry_has_a_breaker_of_its_own() -> None:
    breakers = Breakers()
    async with AnthropicServer(Fails(529)).running() as server, AnthropicServer().running() as other:
        model = gateway(server, other, breakers=breakers)
        await model.complete("Hello?", max_tokens=20)
        await model.close()
    assert list(breakers.made) == [f"llm anthropic {server.model}", f"llm anthropic {server.model} 2"]


@both
async def test_a_schema_is_sent_in_the_vendors_form_and_the_answer_checked(vendor: type[Vendor]) -> None:
    async with vendor(Says(pieces=['{"share": 7}']), Says(pieces=['{"share": 0.7}'])).running() as server:
        model = gateway(server)
        done = await model.complete("Which share?", max_tokens=20, schema=SHAPE)
        await model.close()
    assert json.loads(done.text) == {"share": 0.7}
    assert (done.input_tokens, done.output_tokens, len(server.asked)) == (22, 14, 2)
    body = server.asked[0].body
    if server.provider == "anthropic":
        sent = body["output_config"]["format"]
        assert sent["type"] == "json_schema"
        assert "minimum" not in sent["schema"]["properties"]["share"]  # a bound the API does not take; it stands in the description
        assert "maximum: 1" in sent["schema"]["properties"]["share"]["description"]
    else:
        assert body["response_format"]["json_schema"] == {"name": "answer", "schema": SHAPE, "strict": True}


@both
async def test_a_model_without_structured_output_is_told_the_schema_in_words(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    word = {"anthropic": "output_config.format: not supported by this model", "openai_compatible": "response_format is not supported"}
    script = [Fails(400, word[vendor.provider]), Says(pieces=['```json\n{"share": 0.5}\n```'])]
    async with vendor(*script).running() as server:
        model = gateway(server)
        for _ in range(2):
            assert json.loads((await model.complete("Which share?", max_tokens=20, schema=SHAPE)).text) == {"share": 0.5}
        await model.close()
    assert len(server.asked) == 3
    assert "JSON Schema" in json.dumps(server.asked[1].body)
    assert not {"output_config", "response_format"} & set(server.asked[2].body)
    assert "schema" in (seen.get_finished_spans()[0].attributes or {})[names.LLM_LEFT_OUT]  # type: ignore[operator]


async def test_parameters_that_a_model_does_not_take_are_left_out_after_its_refusal(seen: InMemorySpanExporter) -> None:
    script = [
        Fails(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        Fails(400, "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported."),
        Says(),
    ]
    async with OpenAIServer(*script).running() as server:
        model = gateway(server)
        assert (await model.complete("Hello?", max_tokens=20)).text == "Hello there"
        assert (await model.complete("Hello?", max_tokens=20)).text == "Hello there"
        await model.close()
    assert len(server.asked) == 4
    assert server.asked[-1].body["max_completion_tokens"] == 20
    assert not {"max_tokens", "temperature"} & set(server.asked[-1].body)
    found = seen.get_finished_spans()[-1].attributes or {}
    assert found[names.LLM_LEFT_OUT] == ("max_tokens", "temperature")
    assert names.GEN_AI_TEMPERATURE not in found


async def test_a_server_that_counts_no_tokens_leaves_them_unknown() -> None:
    async with OpenAIServer(Says(input_tokens=None)).running() as server:
        model = gateway(server)
        done = await model.complete("Hello?", max_tokens=20)
        assert (done.input_tokens, done.output_tokens, done.cost_usd) == (None, None, None)
        assert "".join([piece async for piece in model.stream("Hello?", max_tokens=20)]) == "Hello there"
        await model.close()


@both
async def test_an_answer_cut_at_max_tokens_says_so(vendor: type[Vendor]) -> None:
    async with vendor(Says(is_cut=True)).running() as server:
        model = gateway(server)
        assert (await model.complete("Hello?", max_tokens=20)).finish_reason in ("length", "max_tokens")
        await model.close()


@both
async def test_twenty_calls_at_once_share_one_client(vendor: type[Vendor], seen: InMemorySpanExporter) -> None:
    async with vendor(Says()).running() as server:
        model = gateway(server)
        done = await asyncio.gather(*(model.complete(f"n{number}", max_tokens=20) for number in range(20)))
        await model.close()
    assert {one.text for one in done} == {"Hello there"}
    assert len({(span.attributes or {})[names.INPUT] for span in seen.get_finished_spans()}) == 20


async def test_content_that_is_no_text_is_no_answer() -> None:
    odd = {"model": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": [{"type": "text", "text": "a"}]}}]}
    async with OpenAIServer(Sends(json.dumps(odd).encode())).running() as server:
        model = gateway(server, max_retries=0)
        with pytest.raises(BackendUnavailable, match="cannot be read"):
            await model.complete("Hello?", max_tokens=20)
        await model.close()


@both
def test_a_gateway_outlives_an_event_loop(vendor: type[Vendor]) -> None:
    """As in a script that calls asyncio.run twice."""
    server = vendor(Says())
    model = None

    async def ask() -> str:
        nonlocal model
        async with server.running():
            model = model or gateway(server)
            done = await model.complete("Hello?", max_tokens=20)
            await model.close()
        return done.text

    assert [asyncio.run(ask()), asyncio.run(ask())] == ["Hello there"] * 2


@both
async def test_every_second_call_of_a_vendor_that_flaps_succeeds_on_its_second_try(vendor: type[Vendor]) -> None:
    script: list[Reply] = [reply for _ in range(10) for reply in (drops, Says())]
    async with vendor(*script).running() as server:
        model = gateway(server)
        texts = [(await model.complete("Hello?", max_tokens=20)).text for _ in range(10)]
        await model.close()
    assert (texts, len(server.asked)) == (["Hello there"] * 10, 20)
