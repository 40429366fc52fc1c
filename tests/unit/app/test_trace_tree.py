"""The tree of a trace, own time, the critical path, and how a large trace is folded."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2i.app.trace_folding import LARGEST_FAMILY, rows_of
from e2i.app.traces import Trace, build_trace
from e2i.errors import NotFound
from growth import growth
from span_doubles import MS, failed, large_trace, stored, study_trace


def names(trace: Trace, indices) -> list[str]:
    return [trace.nodes[index].stored.span.name for index in indices]


def by_name(trace: Trace, name: str):
    return next(node for node in trace.nodes if node.stored.span.name == name)


def test_spans_in_any_order_make_the_same_tree():
    spans = study_trace()
    expected = build_trace(spans)
    for seed in range(5):
        shuffled = spans[:]
        random.Random(seed).shuffle(shuffled)
        assert build_trace(shuffled) == expected


def test_children_stand_below_their_parent_by_start():
    trace = build_trace(study_trace())
    assert trace.title == "run speaker_program"
    assert names(trace, by_name(trace, "invoke_agent causal_impact").children) == [
        "causal_impact.estimate",
        "chat claude-sonnet-5",
        "chat claude-sonnet-5",
    ]
    assert [node.depth for node in trace.nodes][:3] == [0, 1, 1]
    assert (trace.errors, trace.tokens, round(trace.cost_usd or 0, 6)) == (1, (1624, 354), 0.010182)
    assert trace.agents == ("causal_impact", "data_preparer", "model_selector", "scope_definer")


def test_spans_below_a_missing_parent_are_orphans_and_the_root_stays_the_root():
    trace = build_trace(
        [stored("root", number=1, ms=10), stored("lost", number=2, parent=99, at_ms=1), stored("under", number=3, parent=2, at_ms=1)]
    )
    assert names(trace, trace.orphans) == ["lost"]
    assert trace.title == "root"
    assert by_name(trace, "under").depth == 1


def test_a_single_span_at_the_top_is_the_root_although_its_parent_is_elsewhere():
    trace = build_trace([stored("run", number=1, parent=99), stored("step", number=2, parent=1)])
    assert trace.orphans == ()
    assert trace.title == "run"


def test_a_trace_whose_root_has_not_arrived_has_no_title():
    trace = build_trace([stored("a", number=2, parent=1), stored("b", number=3, parent=1)])
    assert trace.title is None
    assert len(trace.orphans) == 2


def test_a_circle_of_parents_ends_and_keeps_every_span():
    trace = build_trace(
        [
            stored("root", number=1, ms=9),
            stored("a", number=2, parent=4, at_ms=1),
            stored("b", number=3, parent=2, at_ms=2),
            stored("c", number=4, parent=3, at_ms=3),
            stored("self", number=5, parent=5, at_ms=4),
        ]
    )
    assert {node.stored.span.name for node in trace.nodes} == {"root", "a", "b", "c", "self"}
    assert names(trace, trace.orphans) == ["a", "self"]


def test_own_time_leaves_out_what_children_cover_once():
    spans = [
        stored("root", number=1, ms=100),
        stored("a", number=2, parent=1, at_ms=10, ms=30),
        stored("b", number=3, parent=1, at_ms=30, ms=30),
        stored("late", number=4, parent=1, at_ms=90, ms=50),
    ]
    trace = build_trace(spans)
    assert by_name(trace, "root").self_ns == (10 + 30) * MS
    assert by_name(trace, "late").self_ns == 50 * MS


def test_the_critical_path_goes_through_what_was_waited_for():
    trace = build_trace(
        [
            stored("root", number=1, ms=100),
            stored("first", number=2, parent=1, at_ms=0, ms=40),
            stored("beside", number=3, parent=1, at_ms=5, ms=20),
            stored("second", number=4, parent=1, at_ms=45, ms=50),
            stored("inner", number=5, parent=4, at_ms=50, ms=10),
        ]
    )
    assert {node.stored.span.name: node.critical_ns // MS for node in trace.nodes} == {
        "root": 10,
        "first": 40,
        "beside": 0,
        "second": 40,
        "inner": 10,
    }


def test_a_span_that_has_not_ended_reaches_to_the_end_of_what_is_known():
    trace = build_trace([stored("root", number=1, ms=None), stored("step", number=2, parent=1, at_ms=5, ms=20)])
    assert trace.duration_ms == 25
    assert by_name(trace, "root").self_ns == 5 * MS


def test_a_span_that_ends_before_it_began_has_no_length():
    trace = build_trace([stored("odd", number=1, ms=-5), stored("other", number=2, at_ms=1)])
    assert by_name(trace, "odd").self_ns == 0
    assert trace.duration_ms == 2


def test_no_spans_are_not_a_trace():
    with pytest.raises(NotFound):
        build_trace([])


spans_strategy = st.lists(
    st.tuples(st.integers(0, 100), st.none() | st.integers(0, 60), st.none() | st.integers(1, 25), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=300)
@given(spans_strategy)
def test_every_span_has_one_place_and_times_add_up(drawn):
    spans = [
        (failed if bad else stored)(f"n{number % 3}", number=number, parent=parent, at_ms=at, ms=length)
        for number, (at, length, parent, bad) in enumerate(drawn, start=1)
    ]
    trace = build_trace(spans)
    assert sorted(node.stored.span.span_id for node in trace.nodes) == sorted(each.span.span_id for each in spans)
    for index, node in enumerate(trace.nodes):
        assert all(trace.nodes[child].parent == index and trace.nodes[child].depth == node.depth + 1 for child in node.children)
        below = trace.nodes[index + 1 : index + 1 + node.descendants]
        assert all(each.depth > node.depth for each in below)
        assert node.errors == sum(each.stored.columns.status == "error" for each in (node, *below))
        assert 0 <= node.self_ns <= trace.ended_ns - trace.started_ns
    assert sum(node.critical_ns for node in trace.nodes) <= trace.ended_ns - trace.started_ns
    root = trace.nodes[trace.roots[0]].stored.span
    if len(trace.roots) == 1 and root.started_ns == trace.started_ns and root.ended_ns in (None, trace.ended_ns):
        assert sum(node.critical_ns for node in trace.nodes) == trace.ended_ns - trace.started_ns
    assert_every_span_is_accounted_for(trace, rows_of(trace, alike=1, limit=6))
    assert {row.node for row in rows_of(trace, alike=None)} - {None} == set(range(len(trace.nodes)))


def assert_every_span_is_accounted_for(trace: Trace, rows) -> None:
    shown = sum(row.node is not None for row in rows)
    folded = sum(row.fold.spans for row in rows if row.fold is not None)
    assert shown + folded + sum(row.hidden for row in rows) == len(trace.nodes)


def test_a_chain_of_30000_levels_is_no_problem():
    trace = build_trace(
        [stored("level", number=i, parent=i - 1 if i > 1 else None, at_ms=i * 0.001, ms=100 - i * 0.002) for i in range(1, 30_001)]
    )
    assert trace.nodes[-1].depth == 29_999
    rows = rows_of(trace)
    assert len(rows) <= 300
    assert_every_span_is_accounted_for(trace, rows)


def test_alike_siblings_become_one_line_and_errors_keep_theirs():
    children = [stored("call", number=i, parent=1, at_ms=i, ms=i) for i in range(2, 1002)]
    children[500] = failed("call", number=502, parent=1, at_ms=502, ms=0.5)
    trace = build_trace([stored("root", number=1, ms=3000), *children])
    rows = rows_of(trace)
    assert len(rows) == 1 + 5 + 1
    fold = rows[-1].fold
    assert fold is not None
    assert (fold.name, fold.siblings, fold.errors, fold.shortest_ms, fold.longest_ms) == ("call", 995, 0, 2.0, 997.0)
    assert "0000000000001f6" in [trace.nodes[row.node].stored.span.span_id[1:] for row in rows if row.node is not None]


def test_many_siblings_of_different_names_do_not_flood_either():
    trace = build_trace([stored("root", number=1, ms=9000), *(stored(f"name {i}", number=i, parent=1, at_ms=i) for i in range(2, 5000))])
    rows = rows_of(trace)
    assert len(rows) <= LARGEST_FAMILY + 2
    assert_every_span_is_accounted_for(trace, rows)


@pytest.mark.parametrize("width", [3, 100, 5000])
def test_the_time_to_fold_a_trace_grows_with_its_spans_and_no_faster(width):
    traces = {size: large_trace(size, width=width) for size in (3_000, 30_000)}
    assert growth(lambda size: rows_of(build_trace(traces[size])), 3_000) < 30


@pytest.mark.parametrize("width", [3, 100, 5000])
def test_a_trace_of_30000_spans_is_folded_to_few_rows(width):
    trace = build_trace(large_trace(width=width))
    rows = rows_of(trace)
    assert len(rows) <= 300
    assert_every_span_is_accounted_for(trace, rows)


@pytest.mark.parametrize("parent", [None, "f" * 16])
def test_a_trace_with_thousands_of_spans_at_the_top_is_named_at_once(parent: str | None) -> None:
    """A process whose root was never sent, or that reuses one trace id: each span is a root or an orphan."""
    trace = build_trace([stored("a", number=number + 1, parent=parent) for number in range(20_000)])
    begun = time.thread_time()
    assert trace.title == (None if parent else "a")
    assert time.thread_time() - begun < 2.0, "it took 30 s when it looked through all of them for each"
