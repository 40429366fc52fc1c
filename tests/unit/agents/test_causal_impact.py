from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest

from e2i.agents.causal_analytics.causal_impact import (
    FOLDER,
    NUISANCES,
    SPEC,
    Deps,
    State,
    build_graph,
    estimate,
    interpret,
    judge,
    refute,
    store,
)
from e2i.causal.analysis import analyse
from e2i.causal.worlds import WORLDS
from e2i.data.frame_store import RunFrames
from e2i.domain.data_spec import DataSpec
from e2i.domain.evidence import CausalFinding, ProvenEffect
from e2i.domain.study import EffectSpec, PredictionSpec, Study
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import ConfigError, NotFound, SchemaMismatch
from e2i.ports.language import Completion, Message

T = TypeVar("T")
WORLD = WORLDS["linear"]
FRAME = WORLD.draw(600, seed=4).with_row_index("unit")


class Inline:
    """An Executor that runs where it is asked."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return function(*args, **kwargs)


class Kept:
    """EvidenceRecords that remember in memory."""

    def __init__(self) -> None:
        self.findings: list[CausalFinding] = []

    async def save(self, finding: CausalFinding, *, study: Study, run_id: str, data_sha256: str, trace_id: str | None) -> str:
        assert (study.name, data_sha256) == ("lift", "0" * 64)
        assert trace_id is None or len(trace_id) == 32
        self.findings.append(finding)
        return f"{run_id}_effect"

    async def proven(self, outcome: str, *, brand: str | None) -> list[ProvenEffect]:
        raise NotImplementedError(outcome, brand)


class Speaker:
    """A LanguageModel with one answer."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Completion:
        assert "Use only these facts" in str(prompt)
        assert (max_tokens, temperature, schema) == (300, None, None)
        return Completion(
            text=self.text,
            model="m",
            provider="p",
            input_tokens=1,
            output_tokens=1,
            cost_usd=None,
            latency_ms=1.0,
            finish_reason=None,
            fallback_chain=("m",),
        )

    def stream(self, prompt: str | Sequence[Message], *, max_tokens: int, temperature: float | None = None) -> AsyncIterator[str]:
        raise NotImplementedError(prompt, max_tokens, temperature)


def study(effect: EffectSpec | None) -> Study:
    prediction = None if effect is not None else PredictionSpec(target="outcome")
    return Study(name="lift", data=DataSpec(source="lift.parquet"), unit="unit", effect=effect, prediction=prediction)


def begin(
    folder: Path, frame: pl.DataFrame = FRAME, effect: EffectSpec | None = None, *, language: Speaker | None = None
) -> tuple[State, Deps]:
    frames = RunFrames(folder)
    asked = WORLD.effect() if effect is None else effect
    state = State(study=study(asked), run_id="r", table=frames.save("table", frame), data_sha256="0" * 64, seed=9)
    return state, Deps(frames=frames, compute=Inline(), evidence=Kept(), language=language)


def kept(deps: Deps) -> list[CausalFinding]:
    assert isinstance(deps.evidence, Kept)
    return deps.evidence.findings


async def run(state: State, deps: Deps) -> State:
    done = await Engine().run(SPEC, state, deps, run_id="r")
    assert isinstance(done, State)
    return done


async def test_the_agent_finds_what_the_numerics_find(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    done = await run(state, deps)
    assert done.finding == analyse(FRAME, effect=WORLD.effect(), unit="unit", seed=9)
    assert done.finding is not None
    assert done.finding.effect is not None
    tests = {r.test for r in done.finding.refutations}
    assert {"placebo_treatment", "subset_stability", "random_common_cause", "negative_control:negative_control"} <= tests
    assert kept(deps) == [done.finding]
    assert done.path_id == "r_effect"


async def test_an_effect_that_passed_is_put_into_words_from_its_own_numbers(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path))
    assert done.finding is not None
    assert done.finding.effect is not None
    assert done.finding.verdict.name == "proceed"
    assert done.narrative is not None
    assert f"{done.finding.effect.estimate:.3g}" in done.narrative


async def test_a_language_model_s_sentences_with_other_numbers_are_taken_out(tmp_path: Path) -> None:
    speaker = Speaker("The treatment raised the outcome. It will raise it by 77 % next year.")
    done = await run(*begin(tmp_path, language=speaker))
    assert (done.narrative, done.removed_sentences) == ("The treatment raised the outcome.", 1)


async def test_an_effect_under_review_or_blocked_is_stored_and_never_put_into_words(tmp_path: Path) -> None:
    silent = Speaker("It works.")
    for place, world, control in ((tmp_path / "a", "linear", False), (tmp_path / "b", "hidden_confounder", True)):
        frame = WORLDS[world].draw(1_500, seed=1).with_row_index("unit")
        state, deps = begin(place, frame, WORLDS[world].effect(negative_control=control), language=silent)
        done = await run(state, deps)
        assert done.finding is not None
        assert done.finding.effect is not None
        assert done.finding.verdict.name == ("block" if control else "review")
        assert done.narrative is None
        assert kept(deps) == [done.finding]


async def test_every_state_between_steps_survives_a_checkpoint(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    codec = StateCodec(State)
    for step in (build_graph, estimate, refute, judge, interpret, store):
        state = await step(state, deps)
        assert codec.load(codec.dump(state)) == state
        state = codec.load(codec.dump(state))
    assert state.finding is not None


async def test_a_question_for_another_design_ends_after_the_first_step(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, effect=WORLD.effect().model_copy(update={"design": "did"}))
    done = await run(state, deps)
    assert done.finding is not None
    assert done.finding.verdict.name == "block"
    assert done.finding.refusal is not None
    assert "it needs units seen over time" in done.finding.refusal
    assert kept(deps) == [done.finding]
    assert done.identification is None


async def test_data_without_an_answer_end_in_a_refusal_not_an_error(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, FRAME.with_columns(treatment=pl.lit(1)))
    done = await run(state, deps)
    assert done.finding is not None
    assert done.finding.effect is None
    assert done.finding.verdict.name == "block"
    assert done.refutations == ()


async def test_an_unfit_table_is_an_error(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, FRAME.with_columns(pl.col("outcome").cast(pl.String)))
    with pytest.raises(SchemaMismatch, match="not numbers"):
        await run(state, deps)


async def test_a_study_without_an_effect_is_not_for_this_agent(tmp_path: Path) -> None:
    frames = RunFrames(tmp_path)
    state = State(study=study(None), run_id="r", table=frames.save("table", FRAME), data_sha256="0" * 64, seed=9)
    with pytest.raises(ConfigError, match="no `effect`"):
        await run(state, Deps(frames=frames, compute=Inline(), evidence=Kept(), language=None))


async def test_nuisances_that_were_changed_or_lost_are_not_refuted(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    state = await estimate(await build_graph(state, deps), deps)
    path = deps.frames.folder(FOLDER) / NUISANCES
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(SchemaMismatch, match="not the one that this run wrote"):
        await refute(state, deps)
    path.unlink()
    with pytest.raises(NotFound):
        await refute(state, deps)
