from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pytest

from e2i.agents.causal_analytics.heterogeneous_optimizer import (
    EFFECTS,
    FOLDER,
    NUISANCES,
    SPEC,
    Deps,
    State,
    analyze_segments,
    estimate_cate,
    generate_profiles,
    hierarchical_analysis,
    learn_policy,
)
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.estimators.doubly_robust import Fit, doubly_robust, fit_propensity
from e2i.causal.estimators.features import make_features
from e2i.causal.stored import nuisances_to_bytes
from e2i.data.frame_store import RunFrames
from e2i.domain.data_spec import DataSpec
from e2i.domain.evidence import CausalFinding, Effect, Verdict
from e2i.domain.study import BusinessSpec, EffectSpec, Study
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import NotFound, SchemaMismatch

T = TypeVar("T")
FITTED: dict[tuple[str, str], tuple[Sample, Fit, bytes]] = {}
ASKED = EffectSpec(treatment="t", outcome="y", confounders=("x",), modifiers=("kind", "decile"), estimand="ATE")


class Inline:
    """An Executor that runs where it is asked."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return function(*args, **kwargs)


def drawn(rows: int = 900, *, seed: int = 1) -> pl.DataFrame:
    """Only oncologists gain; nine rows belong to a tiny kind."""
    rng = np.random.default_rng(seed)
    x, decile = rng.normal(size=rows), rng.integers(1, 11, size=rows)
    kind = rng.choice(["onc", "hem"], size=rows).astype("<U4")
    kind[:9] = "tiny"
    t = (rng.random(rows) < 1 / (1 + np.exp(-0.5 * x))).astype(int)
    y = x + t * np.where(kind == "onc", 3.0, 0.0) + rng.normal(size=rows)
    return pl.DataFrame({"unit": np.arange(rows), "x": x, "decile": decile, "kind": kind, "t": t, "y": y})


def asked_of(effect: EffectSpec, **changes: object) -> Identification:
    return Identification(
        design="cross_section",
        estimand=effect.estimand or "ATE",
        treatment="t",
        outcome="y",
        adjustment=("x", "kind", "decile"),
        modifiers=effect.modifiers,
        unit="unit",
        **changes,  # type: ignore[arg-type]
    )


def fitted(table: pl.DataFrame, identification: Identification) -> tuple[Sample, Fit, bytes]:
    sample = prepare(table, identification)
    features = make_features(sample.covariates.matrix)
    propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=1, seed=3)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=identification.average, seed=3)
    return sample, fit, nuisances_to_bytes(propensity, fit)


def begin(folder: Path, *, frame: pl.DataFrame | None = None, effect: EffectSpec = ASKED, verdict: str = "proceed") -> tuple[State, Deps]:
    """What causal_impact leaves."""
    table = drawn() if frame is None else frame
    frames = RunFrames(folder)
    identification = asked_of(effect)
    key = (hashlib.sha256(table.write_csv().encode()).hexdigest(), identification.average)
    if key not in FITTED:
        FITTED[key] = fitted(table, identification)
    sample, fit, content = FITTED[key]
    average = identification.average
    (frames.folder(FOLDER) / NUISANCES).write_bytes(content)
    told = Effect(
        estimand=average,
        design="cross_section",
        estimator="aipw",
        estimate=fit.estimate,
        standard_error=fit.standard_error,
        n_treated=int(sample.treatment.sum()),
        n_untreated=int((1 - sample.treatment).sum()),
        naive_difference=None,
        outcome_mean_untreated=None,
    )
    finding = CausalFinding(effect=told, verdict=Verdict(name=verdict, reasons=("because",)))  # type: ignore[arg-type]
    study = Study(
        name="lift",
        data=DataSpec(source="lift.parquet"),
        unit="unit",
        effect=effect,
        business=BusinessSpec(value_per_unit=100.0, cost_per_treated=100.0),
    )
    state = State(
        study=study,
        table=frames.save("table", table),
        seed=3,
        finding=finding,
        identification=identification,
        nuisances_sha256=hashlib.sha256(content).hexdigest(),
    )
    return state, Deps(frames=frames, compute=Inline())


async def run(state: State, deps: Deps) -> State:
    done = await Engine().run(SPEC, state, deps, run_id="r")
    assert isinstance(done, State)
    return done


async def test_planted_responders_reach_the_report_and_the_policy(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path))
    report = done.report
    assert report is not None
    assert report.refusal is None
    assert [item.segment_id for item in report.high_responders] == ["kind=onc"]
    assert "kind=hem" in [item.segment_id for item in report.low_responders]
    assert report.is_heterogeneity_proven
    assert report.feature_importance["kind"] > 0.9
    assert report.policy is not None
    assert report.policy.is_better_than_current
    assert report.policy.unit == "US dollars"
    assert report.expected_total_lift is not None
    assert report.expected_total_lift.low > 0
    assert any("kind is onc" in leaf.conditions or "kind is not hem" in leaf.conditions for leaf in report.policy.leaves if leaf.treat)
    assert report.hierarchical is not None
    assert report.hierarchical.i2 > 0.5
    assert report.uplift is not None
    assert report.uplift.qini.low > 0
    assert report.suggested_next_agent == "resource_optimizer"
    modest = replace(report, high_responders=(), low_responders=())
    assert modest.summary().startswith("differing from the average: kind="), "the page fills their dots, so the summary cannot deny them"
    alike = {name: tuple(replace(one, differs=False) for one in found) for name, found in report.cate_by_segment.items()}
    assert replace(modest, cate_by_segment=alike).summary() == "no segment stands out from the average effect."


async def test_no_small_cell_leaves_the_agent(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path))
    assert done.report is not None
    tiny, *others = sorted(done.report.cate_by_segment["kind"], key=lambda item: item.status != "suppressed")
    assert tiny.segment_value == "tiny"
    assert tiny.size is None
    assert tiny.estimate is None
    assert sum(item.size is None for item in others) == 1
    told = done.report.to_dict()
    json.dumps(told, allow_nan=False)
    assert "tiny" not in json.dumps(told["policy_recommendations"])
    assert set(done.report.projection) == {"decile", "kind=hem"}, "a level of ten people or fewer has a coefficient of its own"


async def test_every_state_between_steps_survives_a_checkpoint(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    codec = StateCodec(State)
    for step in (estimate_cate, analyze_segments, hierarchical_analysis, learn_policy, generate_profiles):
        state = await step(state, deps)
        assert codec.load(codec.dump(state)) == state
        state = codec.load(codec.dump(state))
    assert state.report is not None


async def test_a_blocked_effect_has_no_segments(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path, verdict="block"))
    assert done.report is not None
    assert done.report.refusal is not None
    assert "blocked" in done.report.refusal
    assert done.report.cate_by_segment == {}
    assert done.segments is None
    assert not (tmp_path / FOLDER / EFFECTS).exists()


async def test_an_effect_under_review_is_divided_and_says_so(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path, verdict="review"))
    assert done.report is not None
    assert done.report.refusal is None
    assert any("under review: because" in text for text in done.report.warnings)


async def test_what_cannot_be_divided_is_a_result_not_an_error(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    assert state.identification is not None
    assert state.finding is not None
    assert state.finding.effect is not None
    cases = {
        "no `modifiers`": replace(state, identification=replace(state.identification, modifiers=())),
        "did design": replace(state, identification=replace(state.identification, design="did")),
        "continuous treatment": replace(state, identification=replace(state.identification, treatment_kind="continuous")),
        "not for ATO": replace(state, identification=replace(state.identification, estimand="ATO")),
        "100 rows": replace(state, finding=replace(state.finding, effect=replace(state.finding.effect, n_treated=40, n_untreated=50))),
        "too few for the cross-fitted scores": replace(state, nuisances_sha256=None),
        "no average effect": replace(state, finding=None),
    }
    for words, case in cases.items():
        done = await run(case, deps)
        assert done.report is not None
        assert done.report.refusal is not None, words
        assert words in done.report.refusal


async def test_modifiers_without_variation_are_left_out_or_refused(tmp_path: Path) -> None:
    frame = drawn().with_columns(kind=pl.lit("onc"))
    done = await run(*begin(tmp_path / "one", frame=frame))
    assert done.report is not None
    assert set(done.report.cate_by_segment) == {"decile"}
    assert any("`kind` does not vary" in text for text in done.report.warnings)
    alone = ASKED.model_copy(update={"confounders": ("x", "decile"), "modifiers": ("kind",)})
    done = await run(*begin(tmp_path / "two", frame=frame, effect=alone))
    assert done.report is not None
    assert done.report.refusal is not None
    assert "no modifier varies" in done.report.refusal


async def test_rows_without_treatment_or_outcome_and_gaps_in_modifiers_are_no_obstacle(tmp_path: Path) -> None:
    frame = drawn().with_columns(
        y=pl.when(pl.col("unit") % 50 == 0).then(None).otherwise(pl.col("y")),
        t=pl.when(pl.col("unit") % 49 == 0).then(None).otherwise(pl.col("t")),
        decile=pl.when(pl.col("unit") % 5 == 0).then(None).otherwise(pl.col("decile")),
    )
    done = await run(*begin(tmp_path, frame=frame))
    assert done.report is not None
    assert done.report.refusal is None
    assert done.report.cate_by_segment["decile"][-1].segment_value == "(missing)"


async def test_the_effect_on_the_treated_is_divided_among_the_treated(tmp_path: Path) -> None:
    done = await run(*begin(tmp_path, effect=ASKED.model_copy(update={"estimand": "ATT"})))
    assert done.report is not None
    assert done.report.estimand == "ATT"
    assert [item.segment_id for item in done.report.high_responders] == ["kind=onc"]
    assert done.report.high_responders[0].effect.low < 3.0 < done.report.high_responders[0].effect.high
    assert any("among the treated" in text for text in done.report.warnings)


async def test_a_budget_bounds_the_policy(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    done = await run(replace(state, budget_share=0.2), deps)
    assert done.policy is not None
    assert next(item for item in done.policy.values if item.policy == "learned").share < 0.25


async def test_files_that_were_changed_or_lost_are_told(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    after = await estimate_cate(state, deps)
    path = deps.frames.folder(FOLDER) / EFFECTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SchemaMismatch, match="not the one"):
        await analyze_segments(after, deps)
    (deps.frames.folder(FOLDER) / NUISANCES).unlink()
    with pytest.raises(NotFound):
        await estimate_cate(state, deps)


@pytest.mark.filterwarnings("ignore")
async def test_unit_effects_of_econmls_forest_agree_with_ours(tmp_path: Path) -> None:
    state, deps = begin(tmp_path)
    own = await estimate_cate(state, deps)
    theirs = await estimate_cate(replace(state, forest="econml"), deps)
    assert own.found is not None
    assert theirs.found is not None
    assert "EconML" in theirs.found.methods["unit_effects"]
    assert np.quantile(own.found.quantiles, [0.3, 0.8]) == pytest.approx(np.quantile(theirs.found.quantiles, [0.3, 0.8]), abs=0.6)
