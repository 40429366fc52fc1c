from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2i.errors import ConfigError
from e2i.observability.ids import trace_number
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.spool import SpanClass

RATES = st.floats(0, 1)
AGENTS = ("causal_impact", "drift_monitor", "observability_connector", "explainer")
RULES = st.builds(
    SamplingRules,
    rate=RATES,
    agent_rates=st.dictionaries(st.sampled_from(AGENTS[1:3]), RATES),
    always_agents=st.frozensets(st.sampled_from(AGENTS[:1])),
    always_errors=st.booleans(),
)
TRACES = st.integers(1, 2**128 - 1)
AGENT = st.one_of(st.none(), st.sampled_from(AGENTS))


def kept(sampler: Sampler, trace: int, agent: str | None = None) -> bool:
    return sampler.classify(trace, agent=agent, is_error=False)[0] is SpanClass.KEPT


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.7])
@pytest.mark.parametrize("make", [trace_number, lambda: __import__("random").getrandbits(128)], ids=["our ids", "ids of others"])
def test_the_share_kept_is_the_rate(rate: float, make: object) -> None:
    sampler, number = Sampler(SamplingRules(rate)), 40_000
    share = sum(kept(sampler, make()) for _ in range(number)) / number
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / number)


def test_a_rate_of_one_keeps_all_and_of_zero_none() -> None:
    edges = [1, 2**56 - 1, 2**56, 2**64 - 1, 2**128 - 1, *(trace_number() for _ in range(1000))]
    assert all(Sampler(SamplingRules(1.0)).classify(trace, agent=None, is_error=False) == (SpanClass.KEPT, False) for trace in edges)
    assert all(Sampler(SamplingRules(0.0)).classify(trace, agent=None, is_error=False) == (SpanClass.MAYBE, False) for trace in edges)


@given(RULES, TRACES, AGENT)
def test_errors_and_listed_agents_are_never_out(rules: SamplingRules, trace: int, agent: str | None) -> None:
    kind, is_noted = Sampler(rules).classify(trace, agent=agent, is_error=True)
    if rules.always_errors or agent in rules.always_agents:
        assert kind is SpanClass.ERROR
        # Not noted only when every span of the trace is kept whatever its agent.
        rates = [rules.rate, *rules.agent_rates.values()]
        assert is_noted or all(kept(Sampler(SamplingRules(rate)), trace) for rate in rates)
    else:
        assert kind is not SpanClass.ERROR


@given(RULES, TRACES, st.lists(st.tuples(AGENT, st.booleans()), min_size=1, max_size=12))
def test_a_trace_is_kept_as_a_whole_or_not_at_all(rules: SamplingRules, trace: int, spans: list[tuple[str | None, bool]]) -> None:
    """A span that is kept while another of its trace only may be has always noted the trace."""
    sampler = Sampler(rules)
    classes = [sampler.classify(trace, agent=agent, is_error=is_error) for agent, is_error in spans]
    if any(kind is SpanClass.MAYBE for kind, _ in classes) and any(kind is not SpanClass.MAYBE for kind, _ in classes):
        assert any(is_noted for _, is_noted in classes)
    assert all(kind is not SpanClass.MAYBE or not is_noted for kind, is_noted in classes)


@given(RULES, TRACES, AGENT, st.lists(st.tuples(AGENT, st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_processes_that_know_the_root_and_those_that_do_not_keep_the_same_traces(
    rules: SamplingRules, trace: int, root: str | None, spans: list[tuple[str | None, bool, bool]]
) -> None:
    """Those that do not know it were entered from another process, and their first span says so."""
    sampler = Sampler(rules)
    classes = [sampler.classify(trace, agent=agent, is_error=is_error, root=root) for agent, is_error, is_here in spans if is_here]
    there = [(agent, is_error) for agent, is_error, is_here in spans if not is_here]
    classes += [
        sampler.classify(trace, agent=agent, is_error=is_error, is_entry=number == 0) for number, (agent, is_error) in enumerate(there)
    ]
    if any(kind is SpanClass.MAYBE for kind, _ in classes) and any(kind is not SpanClass.MAYBE for kind, _ in classes):
        assert any(is_noted for _, is_noted in classes)


def test_a_trace_has_the_rate_of_the_agent_that_began_it() -> None:
    sampler = Sampler(SamplingRules(1.0, {"health_score": 0.0}))
    trace = trace_number()
    assert sampler.classify(trace, agent="health_score", is_error=False) == (SpanClass.KEPT, False)
    assert sampler.classify(trace, agent="health_score", is_error=False, root="health_score") == (SpanClass.MAYBE, False)
    assert sampler.classify(trace, agent=None, is_error=False, root="health_score") == (SpanClass.MAYBE, False)


@given(TRACES, RATES, RATES)
def test_what_a_low_rate_keeps_a_higher_one_keeps_too(trace: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert not kept(Sampler(SamplingRules(low)), trace) or kept(Sampler(SamplingRules(high)), trace)


@given(RULES, st.lists(st.tuples(TRACES, AGENT, st.booleans()), max_size=20))
def test_the_decision_does_not_depend_on_what_came_before(rules: SamplingRules, spans: list[tuple[int, str | None, bool]]) -> None:
    one, other = Sampler(rules), Sampler(rules)
    forwards = [one.classify(trace, agent=agent, is_error=is_error) for trace, agent, is_error in spans]
    backwards = [other.classify(trace, agent=agent, is_error=is_error) for trace, agent, is_error in reversed(spans)]
    assert forwards == backwards[::-1]


def test_every_process_decides_alike() -> None:
    traces = [trace_number() for _ in range(300)]
    code = (
        "import json, sys\n"
        "from e2i.telemetry.sampling import Sampler, SamplingRules\n"
        "sampler = Sampler(SamplingRules(0.3, {'drift_monitor': 0.6, 'health_score': 0.05}, frozenset({'orchestrator'})))\n"
        "agents = [None, 'drift_monitor', 'health_score', 'orchestrator']\n"
        "traces = json.loads(sys.argv[1])\n"
        "print(json.dumps([sampler.classify(t, agent=agents[t % 4], is_error=t % 7 == 0) for t in traces]))"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(traces)], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert {kind for kind, _ in json.loads(answers[0])} == {0, 1, 2}


@pytest.mark.parametrize("rules", [{"rate": 1.1}, {"rate": -0.1}, {"rate": float("nan")}, {"rate": 0.5, "agent_rates": {"a": 2.0}}])
def test_a_rate_outside_its_range_is_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        SamplingRules(**rules)


def test_classifying_costs_less_than_drawing_the_id() -> None:
    """A ratio to other work of the same process: this machine is shared."""
    sampler = Sampler(SamplingRules(0.1, {"drift_monitor": 0.5}, frozenset({"orchestrator"})))
    trace = trace_number()

    def best(work: object) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(2000):
                work()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(lambda: sampler.classify(trace, agent="explainer", is_error=False)) < 3 * best(trace_number)
