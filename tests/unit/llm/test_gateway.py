"""The chain: who is asked, when, how often, and what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from e2i.engine.usage import counting
from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen, ConfigError
from e2i.llm.gateway import LanguageModelGateway, Limits, Link, Pacing
from e2i.llm.prices import PriceTable
from e2i.llm.provider import Piece
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker, State
from e2i.observability import attributes as names
from e2i.ports.language import Message
from e2i.settings.sections import PriceSection
from language_doubles import only, read, spans_seen, until
from unit.llm.scripted_provider import HANG, ScriptedProvider, answer, busy

PRICES = PriceTable({"large": PriceSection(input=10, output=20), "small": PriceSection(input=1, output=2)})


class Time:
    """A clock that only pauses move; chance as told."""

    def __init__(self, chance: float = 0.0) -> None:
        self.now, self.pauses, self.chance = 0.0, list[float](), chance

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def pacing(self) -> Pacing:
        return Pacing(clock=lambda: self.now, pause=self.pause, chance=lambda: self.chance)


def make(*providers: ScriptedProvider, time: Time | None = None, threshold: int = 50, **limits: float) -> LanguageModelGateway:
    rules = BreakerSettings(failure_threshold=threshold, minimum_calls=50)
    chosen = {"timeout_s": 60.0, "max_retries": 2, "temperature": 0.3} | limits
    return LanguageModelGateway(
        [Link(provider=one, breaker=CircuitBreaker(one.model, rules)) for one in providers],
        prices=PRICES,
        limits=Limits(**chosen),  # type: ignore[arg-type]
        pacing=(time or Time()).pacing,
    )


@pytest.fixture
def seen() -> Iterator[InMemorySpanExporter]:
    with spans_seen() as exporter:
        yield exporter


async def test_the_first_model_that_answers_ends_the_chain(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large"), ScriptedProvider("small")
    done = await make(large, small).complete("Why?", max_tokens=5)
    assert (done.text, done.model, done.provider, done.fallback_chain) == ("yes", "large", "test", ("large",))
    assert (done.input_tokens, done.output_tokens, done.finish_reason) == (10, 10, "stop")
    assert done.cost_usd == pytest.approx(300e-6)
    assert not small.requests
    span = only(seen)
    assert (span.name, span.kind) == ("chat large", SpanKind.CLIENT)
    assert span.attributes == {
        names.OPERATION: "llm",
        names.GEN_AI_OPERATION: "chat",
        names.GEN_AI_PROVIDER: "test",
        names.GEN_AI_REQUEST_MODEL: "large",
        names.GEN_AI_MAX_TOKENS: 5,
        names.GEN_AI_TEMPERATURE: 0.3,
        names.GEN_AI_INPUT_TOKENS: 10,
        names.GEN_AI_OUTPUT_TOKENS: 10,
        names.GEN_AI_FINISH_REASONS: ("stop",),
        names.COST_USD: pytest.approx(300e-6),
        names.FALLBACK_CHAIN: ("large",),
        names.INPUT: "Why?",
        names.OUTPUT: "yes",
    }


async def test_a_model_that_stays_down_is_tried_again_and_then_the_next_is_asked_and_all_of_it_is_recorded(
    seen: InMemorySpanExporter,
) -> None:
    large, small = ScriptedProvider("large", [busy()]), ScriptedProvider("small")
    time = Time()
    done = await make(large, small, time=time).complete("Why?", max_tokens=5)
    assert done.fallback_chain == ("large", "small")
    assert (done.model, len(large.requests), len(small.requests)) == ("small", 3, 1)
    assert done.cost_usd == pytest.approx(30e-6)
    span = only(seen)
    assert span.status.status_code is not StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes[names.FALLBACK_CHAIN] == ("large", "small")
    assert span.attributes[names.GEN_AI_REQUEST_MODEL] == "small"
    failed = [event.attributes or {} for event in span.events if event.name == names.LLM_TRY_FAILED]
    assert [(event[names.GEN_AI_REQUEST_MODEL], event[names.LLM_TRY]) for event in failed] == [("large", 1), ("large", 2), ("large", 3)]
    assert failed[0][names.EXCEPTION_MESSAGE] == "529 overloaded"


async def test_both_down_names_both_and_why(seen: InMemorySpanExporter) -> None:
    gateway = make(ScriptedProvider("large", [busy()]), ScriptedProvider("small", [BackendUnavailable("the connection failed: refused.")]))
    with pytest.raises(BackendUnavailable) as raised:
        await gateway.complete("Why?", max_tokens=5)
    assert not isinstance(raised.value, CircuitOpen)
    for told in ("large", "529 overloaded", "small", "refused", "llm.chain"):
        assert told in str(raised.value)
    span = only(seen)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes[names.FALLBACK_CHAIN] == ("large", "small")
    assert span.attributes[names.ERROR_CATEGORY] == "dependency"
    assert names.COST_USD not in span.attributes


async def test_a_refused_request_is_raised_at_once_and_nobody_else_is_asked(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [BackendRejected("401 no", where="x")]), ScriptedProvider("small")
    with pytest.raises(BackendRejected, match="401 no"):
        await make(large, small).complete("Why?", max_tokens=5)
    assert (len(large.requests), len(small.requests)) == (1, 0)
    assert only(seen).status.status_code is StatusCode.ERROR


async def test_pauses_double_and_chance_shortens_them_by_half_at_most() -> None:
    for chance, expected in ((0.0, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), (1.0, [0.25, 0.5, 1.0, 2.0, 4.0, 4.0])):
        time = Time(chance)
        with pytest.raises(BackendUnavailable):
            await make(ScriptedProvider("large", [busy()]), time=time, timeout_s=80, max_retries=6).complete("Why?", max_tokens=5)
        assert time.pauses == expected


async def test_retry_after_is_waited_for() -> None:
    time = Time()
    done = await make(ScriptedProvider("large", [busy(retry_after_s=17.0), answer()]), time=time).complete("Why?", max_tokens=5)
    assert (done.fallback_chain, time.pauses) == (("large",), [17.0])


async def test_a_retry_after_beyond_the_time_for_the_model_is_not_waited_for_and_the_next_is_asked() -> None:
    time = Time()
    large, small = ScriptedProvider("large", [busy(retry_after_s=3600.0)]), ScriptedProvider("small")
    done = await make(large, small, time=time).complete("Why?", max_tokens=5)
    assert (done.fallback_chain, time.pauses, len(large.requests)) == (("large", "small"), [], 1)


async def test_a_fault_that_waiting_does_not_cure_is_not_tried_again() -> None:
    large, small = ScriptedProvider("large", [busy(may_retry=False)]), ScriptedProvider("small")
    done = await make(large, small).complete("Why?", max_tokens=5)
    assert (done.fallback_chain, len(large.requests)) == (("large", "small"), 1)


async def test_no_retries_means_one_try() -> None:
    large = ScriptedProvider("large", [busy()])
    with pytest.raises(BackendUnavailable):
        await make(large, max_retries=0).complete("Why?", max_tokens=5)
    assert len(large.requests) == 1


async def test_a_model_that_hangs_is_cut_off_and_the_whole_takes_no_longer_than_time_limit_times_tries() -> None:
    large, small = ScriptedProvider("large", [HANG]), ScriptedProvider("small")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    done = await make(large, small, time=None, timeout_s=0.1, max_retries=1).complete("Why?", max_tokens=5)
    assert done.fallback_chain == ("large", "small")
    assert 0.2 <= loop.time() - begun < 1.0
    assert large.cancelled == len(large.requests) == 2


async def test_an_open_circuit_is_passed_over_without_a_call_and_recorded(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [busy()]), ScriptedProvider("small")
    gateway = make(large, small, threshold=3)
    await gateway.complete("Why?", max_tokens=5)
    asked = len(large.requests)
    seen.clear()
    done = await gateway.complete("Why?", max_tokens=5)
    assert (done.fallback_chain, len(large.requests)) == (("large", "small"), asked)
    (event,) = only(seen).events
    assert (event.attributes or {})[names.ERROR_TYPE] == "CircuitOpen"


async def test_every_circuit_open_is_said_as_such() -> None:
    gateway = make(ScriptedProvider("large", [busy()]), threshold=1, max_retries=0)
    with pytest.raises(BackendUnavailable):
        await gateway.complete("Why?", max_tokens=5)
    with pytest.raises(CircuitOpen, match="large"):
        await gateway.complete("Why?", max_tokens=5)


async def test_a_refusal_says_nothing_against_the_model() -> None:
    rules = BreakerSettings(failure_threshold=1)
    breaker = CircuitBreaker("large", rules)
    link = Link(provider=ScriptedProvider("large", [BackendRejected("400 no")]), breaker=breaker)
    gateway = LanguageModelGateway([link], prices=PRICES, limits=Limits(timeout_s=1, max_retries=0, temperature=0))
    with pytest.raises(BackendRejected):
        await gateway.complete("Why?", max_tokens=5)
    assert breaker.state is State.CLOSED


async def test_cancellation_stops_the_call_and_ends_the_span(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [HANG]), ScriptedProvider("small")
    task = asyncio.create_task(make(large, small).complete("Why?", max_tokens=5))
    await until(lambda: large.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (large.cancelled, len(small.requests)) == (1, 0)
    assert only(seen).end_time is not None


async def test_unknown_tokens_and_prices_stay_unknown(seen: InMemorySpanExporter) -> None:
    done = await make(ScriptedProvider("other")).complete("Why?", max_tokens=5)
    assert (done.input_tokens, done.cost_usd) == (10, None)
    silent = await make(ScriptedProvider("large", [answer(tokens=None)])).complete("Why?", max_tokens=5)
    assert (silent.input_tokens, silent.output_tokens, silent.cost_usd) == (None, None, None)
    for span in seen.get_finished_spans():
        assert names.COST_USD not in (span.attributes or {})


async def test_the_model_that_the_vendor_names_is_the_one_reported(seen: InMemorySpanExporter) -> None:
    done = await make(ScriptedProvider("large", [answer(model="large-20260101")])).complete("Why?", max_tokens=5)
    assert (done.model, done.fallback_chain) == ("large-20260101", ("large",))
    attributes = only(seen).attributes or {}
    assert (attributes[names.GEN_AI_REQUEST_MODEL], attributes[names.GEN_AI_RESPONSE_MODEL]) == ("large", "large-20260101")


async def test_a_conversation_reaches_the_model_turn_by_turn_and_the_span_as_json(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large")
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="Größe?")]
    await make(large).complete(turns, max_tokens=5, temperature=0.0)
    assert large.requests[0].messages == tuple(turns)
    assert large.requests[0].temperature == 0.0
    attributes = only(seen).attributes or {}
    assert attributes[names.INPUT] == '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Größe?"}]'
    assert attributes[names.GEN_AI_TEMPERATURE] == 0.0


async def test_a_parameter_that_was_not_sent_is_not_claimed(seen: InMemorySpanExporter) -> None:
    await make(ScriptedProvider("large", left_out=frozenset({"temperature"}))).complete("Why?", max_tokens=5, temperature=0.9)
    attributes = only(seen).attributes or {}
    assert names.GEN_AI_TEMPERATURE not in attributes
    assert attributes[names.LLM_LEFT_OUT] == ("temperature",)


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        ("", {}),
        ("  \n", {}),
        ([], {}),
        ([Message(role="system", content="x")], {}),
        ([Message(role="tool", content="x"), Message(role="user", content="x")], {}),  # type: ignore[arg-type]
        ("x", {"max_tokens": 0}),
        ("x", {"temperature": 3.0}),
        ("x", {"schema": {"type": "objekt"}}),
    ],
)
async def test_a_wrong_question_costs_nothing(prompt: str | list[Message], changes: dict[str, object]) -> None:
    large = ScriptedProvider("large")
    with pytest.raises(ConfigError) as raised:
        await make(large).complete(prompt, **({"max_tokens": 5} | changes))  # type: ignore[arg-type]
    assert raised.value.advice
    assert not large.requests


async def test_an_empty_chain_is_no_gateway() -> None:
    with pytest.raises(ConfigError, match="no language model"):
        make()


async def test_close_closes_every_model() -> None:
    large, small = ScriptedProvider("large"), ScriptedProvider("small")
    await make(large, small).close()
    assert (large.closed, small.closed) == (1, 1)


SHAPE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


async def test_an_answer_that_fits_the_schema_comes_back_as_bare_json() -> None:
    large = ScriptedProvider("large", [answer('```json\n{"a": 1}\n```')])
    done = await make(large).complete("Why?", max_tokens=5, schema=SHAPE)
    assert (done.text, len(large.requests)) == ('{"a": 1}', 1)
    assert large.requests[0].schema == SHAPE


async def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_both_are_paid(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large", [answer("sure!"), answer('{"a": 1}')])
    done = await make(large).complete("Why?", max_tokens=5, schema=SHAPE)
    assert (done.text, done.input_tokens, done.output_tokens) == ('{"a": 1}', 20, 20)
    assert done.cost_usd == pytest.approx(600e-6)
    assert [turn.role for turn in large.requests[1].messages] == ["user", "assistant", "user"]
    assert "not JSON" in large.requests[1].messages[2].content
    (event,) = only(seen).events
    assert event.name == names.LLM_ASKED_AGAIN


async def test_a_second_answer_that_does_not_fit_is_refused_and_no_other_model_is_asked(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [answer('{"a": "x"}')]), ScriptedProvider("small")
    with pytest.raises(BackendRejected, match=r"\$\.a") as raised:
        await make(large, small).complete("Why?", max_tokens=5, schema=SHAPE)
    assert raised.value.advice
    assert (len(large.requests), len(small.requests)) == (2, 0)
    attributes = only(seen).attributes or {}
    assert attributes[names.GEN_AI_OUTPUT_TOKENS] == 20
    assert attributes[names.OUTPUT] == '{"a": "x"}'


@pytest.mark.parametrize(("finish", "told"), [("length", "max_tokens"), ("max_tokens", "max_tokens"), ("refusal", "schema")])
async def test_a_cut_or_refused_answer_is_not_asked_for_again(finish: str, told: str) -> None:
    large = ScriptedProvider("large", [answer('{"a": ', finish=finish)])
    with pytest.raises(BackendRejected, match=told):
        await make(large).complete("Why?", max_tokens=5, schema=SHAPE)
    assert len(large.requests) == 1


async def test_a_model_that_goes_down_between_answer_and_repair_is_followed_by_the_next() -> None:
    large = ScriptedProvider("large", [answer("sure!"), busy()])
    small = ScriptedProvider("small", [answer('{"a": 2}')])
    done = await make(large, small).complete("Why?", max_tokens=5, schema=SHAPE)
    assert (done.text, done.fallback_chain, len(large.requests)) == ('{"a": 2}', ("large", "small"), 4)
    assert [turn.role for turn in small.requests[0].messages] == ["user"]


END = Piece(finish_reason="stop", input_tokens=4, output_tokens=6)


async def test_a_stream_gives_pieces_as_they_come_and_the_span_all_of_it(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large", [["a", "b", END]])
    assert [piece async for piece in make(large).stream("Why?", max_tokens=5)] == ["a", "b"]
    attributes = only(seen).attributes or {}
    assert (attributes[names.OUTPUT], attributes[names.GEN_AI_INPUT_TOKENS], attributes[names.GEN_AI_OUTPUT_TOKENS]) == ("ab", 4, 6)
    assert attributes[names.COST_USD] == pytest.approx(160e-6)
    assert attributes[names.GEN_AI_FINISH_REASONS] == ("stop",)


async def test_a_stream_that_fails_before_its_first_piece_is_tried_again_and_then_the_next_is_asked(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [[busy()]]), ScriptedProvider("small", [["x", END]])
    assert [piece async for piece in make(large, small).stream("Why?", max_tokens=5)] == ["x"]
    assert len(large.requests) == 3
    assert (only(seen).attributes or {})[names.FALLBACK_CHAIN] == ("large", "small")


async def test_a_stream_that_breaks_after_its_first_piece_is_an_error_and_nobody_else_is_asked(seen: InMemorySpanExporter) -> None:
    large, small = ScriptedProvider("large", [["a", busy()]]), ScriptedProvider("small", [["x", END]])
    got: list[str] = []
    with pytest.raises(BackendUnavailable, match="broke off"):
        await read(make(large, small).stream("Why?", max_tokens=5), got)
    assert (got, len(large.requests), len(small.requests)) == (["a"], 1, 0)
    span = only(seen)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[names.OUTPUT] == "a"
    assert names.GEN_AI_OUTPUT_TOKENS not in (span.attributes or {})


async def test_a_refused_stream_is_raised() -> None:
    with pytest.raises(BackendRejected, match="401"):
        await anext(make(ScriptedProvider("large", [[BackendRejected("401 no")]])).stream("Why?", max_tokens=5))


async def test_a_reader_who_has_enough_ends_the_call_and_makes_no_error(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large", [[Piece(input_tokens=4), "a", HANG]])
    breaker = CircuitBreaker("large", BreakerSettings(failure_threshold=1, slow_call_s=0.0))
    gateway = LanguageModelGateway(
        [Link(provider=large, breaker=breaker)], prices=PRICES, limits=Limits(timeout_s=9, max_retries=0, temperature=0)
    )
    stream = gateway.stream("Why?", max_tokens=5)
    assert await anext(stream) == "a"
    await asyncio.sleep(0.01)
    await stream.aclose()
    assert large.cancelled == 1
    span = only(seen)
    assert span.status.status_code is not StatusCode.ERROR
    attributes = span.attributes or {}
    assert (attributes[names.OUTPUT], attributes[names.GEN_AI_INPUT_TOKENS]) == ("a", 4)
    assert names.GEN_AI_OUTPUT_TOKENS not in attributes
    assert names.COST_USD not in attributes
    assert breaker.state is State.CLOSED


async def test_leaving_the_loop_is_enough_to_end_the_call(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large", [["a", HANG]])
    async for _ in make(large).stream("Why?", max_tokens=5):
        break
    for _ in range(50):
        await asyncio.sleep(0)
    assert large.cancelled == 1
    assert only(seen).status.status_code is not StatusCode.ERROR


async def test_a_cancelled_reader_ends_the_call(seen: InMemorySpanExporter) -> None:
    large = ScriptedProvider("large", [["a", HANG]])

    async def read() -> list[str]:
        return [piece async for piece in make(large).stream("Why?", max_tokens=5)]

    task = asyncio.create_task(read())
    await until(lambda: large.requests)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert large.cancelled == 1
    assert only(seen).end_time is not None


async def test_a_stream_that_is_never_read_asks_nobody() -> None:
    large = ScriptedProvider("large", [["a", END]])
    stream = make(large).stream("Why?", max_tokens=5)
    await stream.aclose()
    assert not large.requests


async def test_a_stream_that_hangs_half_way_is_cut_off() -> None:
    large = ScriptedProvider("large", [["a", HANG]])
    with pytest.raises(BackendUnavailable, match="no answer within"):
        await read(make(large, timeout_s=0.1).stream("Why?", max_tokens=5), [])
    assert large.cancelled == 1


async def test_the_time_that_the_reader_takes_is_not_the_models() -> None:
    large = ScriptedProvider("large", [["a", "b", END]])
    got = []
    async for piece in make(large, timeout_s=0.1).stream("Why?", max_tokens=5):
        await asyncio.sleep(0.15)
        got.append(piece)
    assert got == ["a", "b"]


async def test_spans_of_the_reader_do_not_become_children_of_the_call(seen: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        async for _ in make(ScriptedProvider("large", [["a", "b", END]])).stream("Why?", max_tokens=5):
            with tracer.start_as_current_span("reader"):
                pass
    spans = {span.name: span for span in seen.get_finished_spans()}
    wanted = outer.get_span_context().span_id
    assert {name: span.parent.span_id for name, span in spans.items() if span.parent} == {"reader": wanted, "chat large": wanted}


async def test_fifty_calls_at_once_keep_their_answers_and_spans_apart(seen: InMemorySpanExporter) -> None:
    class Echo(ScriptedProvider):
        async def stream(self, request) -> AsyncIterator[Piece]:  # type: ignore[override]
            await asyncio.sleep(0)
            yield Piece(text=request.messages[0].content)
            yield END

    gateway = make(Echo("large"))

    async def one(number: int) -> str:
        return "".join([piece async for piece in gateway.stream(f"n{number}", max_tokens=5)])

    assert await asyncio.gather(*(one(number) for number in range(50))) == [f"n{number}" for number in range(50)]
    assert all((span.attributes or {})[names.INPUT] == (span.attributes or {})[names.OUTPUT] for span in seen.get_finished_spans())
    assert len(seen.get_finished_spans()) == 50


async def test_what_the_models_of_a_step_used_is_told_to_the_step_that_asked_also_when_it_fails_afterwards() -> None:
    model = make(ScriptedProvider("large", [answer(tokens=10), busy(), answer(tokens=7), answer(tokens=None)]))
    with counting() as asked:
        assert (asked.input_tokens, asked.output_tokens) == (None, None)
        await model.complete("Why?", max_tokens=5)
        with counting() as inner:
            await asyncio.create_task(model.complete("Why?", max_tokens=5))
        assert (inner.input_tokens, inner.output_tokens) == (7, 7)
        assert (asked.input_tokens, asked.output_tokens) == (10, 10)
        await model.complete("Why?", max_tokens=5)
    assert (asked.input_tokens, asked.output_tokens) == (None, None)


async def test_a_stream_is_counted_once_though_its_pieces_repeat_the_total() -> None:
    pieces = ["Be", Piece(input_tokens=3), Piece(output_tokens=1), "cause", Piece(output_tokens=2, finish_reason="stop")]
    with counting() as asked:
        assert [text async for text in make(ScriptedProvider("large", [pieces])).stream("Why?", max_tokens=5)] == ["Be", "cause"]
    assert (asked.input_tokens, asked.output_tokens) == (3, 2)
