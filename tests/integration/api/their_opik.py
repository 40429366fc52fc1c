"""Another team's program: traces with Opik's real SDK. Run as a process, with OPIK_URL_OVERRIDE naming the receiver."""

from __future__ import annotations

import contextlib
import json

import opik
from opik import opik_context, track


@track(type="llm")
def ask(question: str) -> str:
    opik_context.update_current_span(
        model="gpt-4o",
        provider="openai",
        usage={"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        total_cost=0.01,
        metadata={"attempt": 1},
        feedback_scores=[{"name": "accuracy", "value": 0.5, "reason": "half right"}],
    )
    return f"answer to {question}"


@track(type="tool")
def broken() -> None:
    raise ValueError("boom")


@track(name="root", tags=["x", "y"])
def root(question: str) -> str:
    opik_context.update_current_trace(thread_id="thread-1", feedback_scores=[{"name": "helpful", "value": 1.0}], metadata={"user": 2})
    answer = ask(question)
    with contextlib.suppress(ValueError):
        broken()
    return answer


root("why?")
client = opik.Opik()
client.auth_check()
trace = client.trace(name="by hand", input={"q": 1})
span = trace.span(name="piece", type="llm")
client.flush()  # the trace and the span are created now, and changed below
span.end(output={"x": 1}, usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, model="m")
trace.end(output={"y": 2})
early = client.trace(name="ended at once")
early.end(output={"z": 3})  # its change is sent before the trace itself
span.log_feedback_score("fluency", 0.2, category_name="good")
span.log_feedback_score("fluency", 0.7)
client.flush()
opik.flush_tracker()
print(json.dumps({"by hand": trace.id, "piece": span.id, "early": early.id}))  # noqa: T201
