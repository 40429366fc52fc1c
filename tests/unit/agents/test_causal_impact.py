from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl
import pytest

from e2i.agents.causal_analytics.causal_impact import FOLDER, NUISANCES, SPEC, Deps, State, estimate, frame_question, judge, refute
from e2i.causal.analysis import analyse
from e2i.causal.worlds import WORLDS
from e2i.data.frame_store import RunFrames
from e2i.domain.study import DataSpec, EffectSpec, PredictionSpec, Study
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import ConfigError, NotFound, SchemaMismatch, TooFewRows

T = TypeVar("T")
WORLD = WORLDS["linear"]
FRAME = WORLD.draw(600, seed=4).with_row_index("unit")


class Inline:
    """An Executor that runs where it is asked."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return function(*args, **kwargs)


def study(effect: EffectSpec | None) -> Study:
    prediction = None if effect is not None else PredictionSpec(target="outcome")
    return Study(name="lift", data=DataSpec(source="lift.parquet"), unit="unit", effect=effect, prediction=prediction)


def begin(folder: Path, frame: pl.DataFrame = FRAME, effect: EffectSpec | None = None) -> tuple[State, Deps]:
    frames = RunFrames(folder)
    asked = WORLD.effect() if effect is None else effect
    return State(study=study(asked), table=frames.save("table", frame), seed=9), Deps(frames=frames, compute=Inline())


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
    assert {r.test for r in done.finding.refutations} == {
        "placebo_treatment",
        "subset_stability",
        "random_common_cause",
        "negative_control:negative_control",
        "hidden_confounder_bound",
    }


async def test_every_state_between_steps_survives_a_checkpoint(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    codec = StateCodec(State)
    for step in (frame_question, estimate, refute, judge):
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
    assert "cross-section" in done.finding.refusal
    assert done.identification is None


async def test_data_without_an_answer_end_in_a_refusal_not_an_error(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, FRAME.with_columns(treatment=pl.lit(1)))
    done = await run(state, deps)
    assert done.finding is not None
    assert done.finding.effect is None
    assert done.finding.verdict.name == "block"
    assert done.refutations == ()


async def test_an_unfit_table_is_an_error(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, FRAME.head(40))
    with pytest.raises(TooFewRows):
        await run(state, deps)


async def test_a_study_without_an_effect_is_not_for_this_agent(tmp_path: Path) -> None:
    frames = RunFrames(tmp_path)
    state = State(study=study(None), table=frames.save("table", FRAME), seed=9)
    with pytest.raises(ConfigError, match="no `effect`"):
        await run(state, Deps(frames=frames, compute=Inline()))


async def test_nuisances_that_were_changed_or_lost_are_not_refuted(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    state = await estimate(await frame_question(state, deps), deps)
    path = deps.frames.folder(FOLDER) / NUISANCES
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(SchemaMismatch, match="not those of this run"):
        await refute(state, deps)
    path.unlink()
    with pytest.raises(NotFound):
        await refute(state, deps)
