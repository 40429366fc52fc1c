from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from doubles import Inline, ScriptedLanguage
from e2i.agents.monitoring.experiment_designer import SPEC, Deps, State
from e2i.causal.analysis import analyse
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.data_spec import DataSpec
from e2i.domain.evidence import CausalFinding
from e2i.domain.sample_ratio import sample_ratio
from e2i.domain.study import Study
from e2i.domain.trials import Assignment, ExperimentPlan, ExperimentSpec
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import ConfigError, E2IError, SchemaMismatch, TooFewRows
from e2i.ml.power.assignment import assign
from e2i.ml.power.sample import read_sample


def panel(units: int = 240, periods: int = 30, seed: int = 0) -> pl.DataFrame:
    """HCPs in practices of six, weekly NRx with a stable level per HCP; rows in no order."""
    rng = np.random.default_rng(seed)
    level = 10 + 2 * rng.normal(size=(units, 1)) + np.repeat(0.5 * rng.normal(size=units // 6), 6)[:, None]
    nrx = level + 2 * rng.normal(size=(units, periods))
    week = [date(2024, 1, 5) + timedelta(weeks=t) for t in range(periods)]
    frame = pl.DataFrame(
        {
            "npi": np.repeat(np.arange(units), periods),
            "week_end": week * units,
            "practice": np.repeat(np.arange(units) // 6, periods),
            "specialty": np.repeat(np.arange(units) % 3, periods),
            "decile": np.repeat(level.ravel(), periods),
            "nrx": nrx.ravel(),
        }
    )
    return frame.sample(fraction=1.0, shuffle=True, seed=1)


def regions(periods: int = 70, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    factor = np.cumsum(rng.normal(size=(2, periods)), axis=1)
    volume = 200 + rng.uniform(0.5, 1.5, size=(14, 2)) @ factor + rng.normal(size=(14, periods))
    names = [f"r{place:02d}" for place in range(14)]
    return pl.DataFrame(
        {
            "region": np.repeat(names, periods),
            "week": np.tile(np.arange(periods), 14),
            "trx": volume.ravel(),
            "cost": np.repeat(1000.0, 14 * periods),
        }
    )


PANEL = {"question": "Does the program lift NRx?", "treatment": "program", "outcome": "nrx", "unit": "npi", "time": "week_end"}
GEO = {"question": "Does the campaign lift TRx?", "treatment": "campaign", "outcome": "trx", "unit": "region", "time": "week"}


def begin(folder: Path, frame: pl.DataFrame | None, language: ScriptedLanguage | None = None, **asked: object) -> tuple[State, Deps]:
    frames = RunFrames(folder)
    table = None if frame is None else frames.save("table", frame)
    state = State(spec=ExperimentSpec.model_validate(asked), name="lift", seed=7, table=table)
    return state, Deps(source=LocalFrameSource(), frames=frames, compute=Inline(), language=language)


async def planned(folder: Path, frame: pl.DataFrame | None, **asked: object) -> ExperimentPlan:
    state, deps = begin(folder, frame, **asked)
    done = await Engine().run(SPEC, state, deps, run_id="r")
    assert done.plan is not None
    return done.plan


async def test_a_panel_becomes_a_powered_plan_and_every_state_survives_a_checkpoint(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, panel(), **PANEL, minimum_detectable=0.6, strata=("specialty",), interim_looks=2, formality="heavy")
    first, codec = state, StateCodec(State)
    for step in SPEC.steps:
        state = await step(state, deps)
        assert codec.load(codec.dump(state)) == state
    plan = state.plan
    assert plan is not None
    assert plan == (await Engine().run(SPEC, first, deps, run_id="r")).plan
    assert plan.design_type == "stratified"
    assert plan.power is not None
    assert plan.power >= 0.8
    assert plan.required_sample_size is not None
    assert plan.required_sample_size < 150
    assert plan.achievable_mde == pytest.approx(0.6, rel=0.03)
    assert plan.estimated_duration_weeks == 12
    assert plan.proceed_recommendation == "proceed"
    assert [look.information for look in plan.monitoring.looks] == pytest.approx([1 / 3, 2 / 3, 1])
    told = plan.power_analysis_details.simulated
    assert told is not None
    assert told.agrees


async def test_the_plan_is_plain_data_without_small_counts(tmp_path: Path) -> None:
    plan = await planned(tmp_path, panel(units=18), **PANEL, expected_effect=1.5, design="rct")
    plain = plan.to_dict()
    assert json.loads(json.dumps(plain))["redesign_iterations"] == plan.redesign_iterations
    assert isinstance(plan.assignment, Assignment)
    assert plain["assignment"]["counts"] == {"treatment": None, "control": None}


async def test_units_that_share_a_practice_are_assigned_whole(tmp_path: Path) -> None:
    state, deps = begin(tmp_path, panel(), **PANEL, minimum_detectable=0.6, shared=("practice",))
    done = await Engine().run(SPEC, state, deps, run_id="r")
    plan = done.plan
    assert plan is not None
    assert done.assigned is not None
    assert plan.design_type == "cluster_rct"
    arms = deps.frames.load(done.assigned).group_by("cluster").agg(pl.col("arm").n_unique())
    assert arms["arm"].to_list() == [1] * arms.height
    assert next(t for t in plan.threats if t.threat_type == "contamination").mitigated


async def test_singly_assigned_units_that_share_a_practice_are_a_likely_and_severe_threat(tmp_path: Path) -> None:
    plan = await planned(tmp_path, panel(), **PANEL, minimum_detectable=0.6, shared=("practice",), design="rct")
    threat = next(t for t in plan.threats if t.threat_type == "contamination")
    assert (threat.likelihood, threat.severity, threat.measured) == ("high", "high", 1.0)
    assert plan.validity_score == "weak"
    assert plan.proceed_recommendation == "redesign_needed"


async def test_redesign_gains_power_and_stops_at_its_limit(tmp_path: Path) -> None:
    asked = {**PANEL, "analysis": "difference", "minimum_detectable": 0.55, "units_available": 150, "follow_up": 2, "maximum_follow_up": 12}
    plan = await planned(tmp_path, panel(), **asked)
    assert 1 <= plan.redesign_iterations <= 2
    powers = [plan.redesigns[0].power_before, *(step.power_after for step in plan.redesigns)]
    assert all(b > a + 0.005 for a, b in pairwise(powers))
    assert plan.power == powers[-1]
    assert plan.power_analysis_details.analysis == "ancova"
    none = await planned(tmp_path / "none", panel(), **asked, max_redesign_iterations=0)
    assert none.redesigns == ()
    assert none.power == powers[0]
    assert none.proceed_recommendation == "redesign_needed"


async def test_a_candidate_covariate_is_taken_only_when_power_is_short(tmp_path: Path) -> None:
    frame = panel().group_by("npi", maintain_order=True).agg(pl.col("nrx").mean(), pl.col("decile").first())
    asked = {"question": "Does it lift NRx?", "outcome": "nrx", "unit": "npi", "candidate_covariates": ("decile",), "units_available": 100}
    short = await planned(tmp_path / "a", frame, **asked, minimum_detectable=0.5)
    assert short.anticipated_confounders == ("decile",)
    assert short.redesigns[0].action == "adjust for decile"
    ample = await planned(tmp_path / "b", frame, **asked, minimum_detectable=3.0)
    assert ample.anticipated_confounders == ()


async def test_taking_fewer_units_from_more_clusters_gains_power(tmp_path: Path) -> None:
    baseline = {"sd": 1.0, "icc": 0.2, "cluster_size": 30}
    asked = {"question": "Does it lift NRx?", "outcome": "nrx", "units_available": 300, "clusters_available": 60, "baseline": baseline}
    plan = await planned(tmp_path, None, **asked, minimum_detectable=0.45)
    assert plan.redesigns[0].action == "take 5 units from each of 60 clusters instead of whole clusters"
    assert 40 <= (plan.power_analysis_details.planned_clusters or 0) <= 60
    assert plan.redesigns[0].power_after > plan.redesigns[0].power_before + 0.2


async def test_without_a_table_the_plan_says_so_and_never_recommends_without_caution(tmp_path: Path) -> None:
    plan = await planned(tmp_path, None, question="Does it lift NRx?", outcome="nrx", minimum_detectable=0.25, baseline={"sd": 1.0})
    assert plan.required_sample_size == 505  # statsmodels: 2 x 252.1
    assert plan.proceed_recommendation == "proceed_with_caution"
    assert plan.power_analysis_details.simulated is None
    assert any("No table" in text for text in plan.warnings)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"minimum_detectable": 0.2}, "`sd` is not known"),
        ({"baseline": {"sd": 1.0}}, "nothing says how many units"),
        ({"minimum_detectable": 0.2, "baseline": {"sd": 1.0, "cluster_size": 20}}, "`icc` is not known"),
        ({"minimum_detectable": 1.2, "outcome_type": "count", "baseline": {"mean": 3.0}}, "`dispersion` is not known"),
        ({"minimum_detectable": 0.2, "design": "geo", "unit": "u", "time": "t"}, "there is none"),
        ({"minimum_detectable": 0.2, "outcome_type": "binary", "baseline": {"mean": 0.9}}, "nothing says how many units"),
    ],
)
async def test_a_number_that_nobody_gave_is_asked_for_and_never_assumed(tmp_path: Path, asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await planned(tmp_path, None, question="Does it lift NRx?", outcome="nrx", **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"design": "cluster_rct"},
        {"design": "geo"},
        {"outcome_type": "time_to_event"},
        {"minimum_detectable": 0},
        {"outcome_type": "count", "expected_effect": -0.2},
        {"treatment": "nrx"},
        {"covariates": ("nrx",)},
        {"follow_up": 12, "maximum_follow_up": 4},
        {"alpha": 0.0},
    ],
)
def test_a_section_that_contradicts_itself_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ExperimentSpec.model_validate({"question": "Does it lift NRx?", "outcome": "nrx", **asked})


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda f: pl.concat([f, f.head(1)]), SchemaMismatch, "two rows in one period"),
        (lambda f: f.drop("nrx"), SchemaMismatch, "'nrx' is missing"),
        (lambda f: f.with_columns(nrx=pl.lit(4.0)), ConfigError, "does not vary"),
        (lambda f: f.with_columns(nrx=pl.col("nrx").cast(pl.String)), SchemaMismatch, "not numbers"),
        (lambda f: f.with_columns(nrx=pl.when(pl.col("npi") == 3).then(float("inf")).otherwise("nrx")), SchemaMismatch, "infinite"),
        (lambda f: f.filter(pl.col("npi") < 3), TooFewRows, "3 units"),
        (lambda f: f.filter(pl.col("week_end") == date(2024, 1, 5)), TooFewRows, "1 period"),
        (
            lambda f: f.with_columns(week_end=pl.when(pl.col("npi") == 3).then(None).otherwise("week_end")),
            SchemaMismatch,
            "lack `week_end`",
        ),
    ],
)
async def test_a_table_that_cannot_carry_a_plan_is_refused_with_the_reason(
    tmp_path: Path, change, kind: type[E2IError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await planned(tmp_path, change(panel()), **PANEL, minimum_detectable=0.5)


async def test_gaps_lost_units_and_a_jump_become_threats(tmp_path: Path) -> None:
    frame = (
        panel()
        .with_columns(
            nrx=pl.when((pl.col("npi") % 4 == 0) & (pl.col("week_end") > date(2024, 5, 20))).then(None).otherwise(pl.col("nrx") + 0.0)
        )
        .filter(pl.col("nrx").is_not_null())
    )
    frame = frame.with_columns(nrx=pl.col("nrx") + pl.when(pl.col("week_end") > date(2024, 6, 14)).then(5.0).otherwise(0.0))
    plan = await planned(tmp_path, frame, **PANEL, minimum_detectable=0.6, follow_up=6)
    found = {threat.threat_type: threat for threat in plan.threats}
    assert found["attrition"].measured == pytest.approx(0.25)
    assert found["attrition"].likelihood == "high"
    assert found["measurement"].measured == pytest.approx(0.25)
    assert found["temporal"].likelihood == "high"
    assert plan.validity_score == "weak"
    assert {threat.threat_type for threat in plan.threats} == {
        "selection_bias", "confounding", "measurement", "contamination", "temporal", "attrition",
    }  # fmt: skip


async def test_expected_attrition_and_looks_are_paid_for_in_units(tmp_path: Path) -> None:
    asked = {"question": "Does it lift NRx?", "outcome": "nrx", "minimum_detectable": 0.25, "baseline": {"sd": 1.0}}
    lost = await planned(tmp_path / "a", None, **asked, expected_attrition=0.2)
    assert lost.required_sample_size == pytest.approx(505 / 0.8, abs=1.5)
    looks = await planned(tmp_path / "b", None, **asked, interim_looks=4, spending="pocock", accrual_per_week=50)
    assert looks.required_sample_size == pytest.approx(505 * looks.power_analysis_details.interim_inflation, abs=1.5)
    assert looks.monitoring.looks[-1].z_boundary == pytest.approx(2.386, abs=1e-3)
    assert looks.estimated_duration_weeks == -(-looks.power_analysis_details.planned_n // 50) + 12
    assert "(|z| of 2.3860 or more) at look 5" in looks.preregistration_doc
    assert "p is at most 0.01703 (|z| of 2.3860 or more) at look 5" in looks.analysis_study
    assert "p is at most 0.05 (|z| of 1.9600 or more). No other" in lost.preregistration_doc
    assert "does not decide" in looks.analysis_study
    assert "does not decide" not in lost.analysis_study
    rules = {rule.name: rule.threshold for rule in looks.monitoring.rules}
    assert "50%" in rules["enrolment"]
    assert "15%" in rules["attrition"]
    assert "5%" in rules["contamination"]
    assert "0.001" in rules["sample_ratio"]


async def test_few_regions_become_a_test_of_markets_under_constraints(tmp_path: Path) -> None:
    geo = {
        "treated": (1, 2),
        "weeks": 6,
        "excluded": ("r00",),
        "candidates": ("r01", "r02", "r03", "r04"),
        "cost_column": "cost",
        "budget": 1500,
    }
    plan = await planned(tmp_path, regions(), **GEO, geo=geo)
    assert plan.design_type == "geo"
    assert plan.markets is not None
    best = plan.markets.recommended
    assert len(best.test) == 1
    assert best.test[0] in {"r01", "r02", "r03", "r04"}
    assert "r00" not in best.controls
    assert sum(best.controls.values()) == pytest.approx(1.0, abs=0.02)
    assert plan.markets.skipped == {"above the budget": 6}
    assert plan.achievable_mde == max(best.mde, plan.markets.mde_confirmed)
    assert "randomised" not in plan.analysis_study
    assert plan.proceed_recommendation == "proceed_with_caution"
    again = await planned(tmp_path / "again", regions().sample(fraction=1.0, shuffle=True, seed=5), **GEO, geo=geo)
    assert again.markets == plan.markets


@pytest.mark.parametrize(
    ("geo", "frame", "kind", "message"),
    [
        ({"candidates": ("nowhere",)}, regions(), ConfigError, "no region is called nowhere"),
        ({"budget": 10.0}, regions(), ConfigError, "what a region costs"),
        ({"budget": 10.0, "cost_per_region": 50.0}, regions(), ConfigError, "above the budget"),
        ({"weeks": 30}, regions(), TooFewRows, "needs 120"),
        ({}, regions().filter((pl.col("region") != "r04") | (pl.col("week") != 9)), TooFewRows, "r04"),
    ],
)
async def test_markets_that_cannot_be_chosen_are_refused(tmp_path: Path, geo, frame: pl.DataFrame, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        await planned(tmp_path, frame, **GEO, design="geo", geo=geo)


async def test_a_language_model_may_word_the_hypothesis_but_not_change_its_numbers(tmp_path: Path) -> None:
    language = ScriptedLanguage("The program adds 0.6 NRx within 12 periods. It pays back 300 %.")
    state, deps = begin(tmp_path, panel(), language, **PANEL, minimum_detectable=0.6)
    done = await Engine().run(SPEC, state, deps, run_id="r")
    assert done.plan is not None
    assert done.plan.refined_hypothesis == "The program adds 0.6 NRx within 12 periods."
    assert any("1 sentences" in text for text in done.plan.warnings)
    worse = replace(deps, language=ScriptedLanguage("Sales rise by 40 %."))
    kept = (await Engine().run(SPEC, state, worse, run_id="r")).plan
    assert kept is not None
    assert kept.refined_hypothesis.startswith("Compared with no `program`")


async def test_a_heavier_pre_registration_holds_all_of_a_lighter_one(tmp_path: Path) -> None:
    heads = []
    for formality in ("light", "medium", "heavy"):
        plan = await planned(tmp_path / formality, panel(), **PANEL, minimum_detectable=0.6, formality=formality)
        heads.append({line for line in plan.preregistration_doc.splitlines() if line.startswith("## ")})
    assert heads[0] < heads[1] < heads[2]
    assert {"## Hypothesis", "## Sample size", "## Analysis"} <= heads[0]
    assert {"## Threats to validity", "## Monitoring"} <= heads[1]
    assert "## Analysis study" in heads[2]


async def test_a_time_to_event_outcome_is_sized_by_events(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"id": np.arange(400), "months": rng.exponential(20, size=400), "seen": rng.random(400) < 0.5})
    plan = await planned(
        tmp_path, frame, question="Does support delay stopping?", outcome="months", unit="id", event="seen", outcome_type="time_to_event",
        minimum_detectable=0.7, units_available=900,
    )  # fmt: skip
    share = frame["seen"].mean()
    assert plan.required_sample_size == pytest.approx(4 * 7.849 / np.log(0.7) ** 2 / share, abs=2)
    assert plan.power_analysis_details.effect_scale == "hazard_ratio"


def results(assigned: pl.DataFrame, effect: float) -> pl.DataFrame:
    """What the plan's results table would hold, one row per unit, with a planted effect."""
    rng = np.random.default_rng(2)
    arm = (assigned["arm"] == "treatment").cast(pl.Int64).to_numpy()
    before = 10 + 2 * rng.normal(size=len(arm))
    return pl.DataFrame(
        {
            "npi": assigned["unit"],
            "practice": assigned["cluster"] if "cluster" in assigned.columns else assigned["unit"],
            "specialty": rng.integers(0, 3, size=len(arm)),
            "program": arm,
            "nrx_pre": before,
            "nrx": before + effect * arm + rng.normal(size=len(arm)),
        }
    )


@pytest.mark.parametrize("asked", [{}, {"strata": ("specialty",)}, {"cluster": "practice"}])
async def test_the_analysis_study_finds_the_effect_in_the_results(tmp_path: Path, asked: dict[str, object]) -> None:
    state, deps = begin(tmp_path, panel(), **PANEL, expected_effect=0.4, units_available=240, **asked)
    done = await Engine().run(SPEC, state, deps, run_id="r")
    plan = done.plan
    assert plan is not None
    assert done.assigned is not None
    study = Study.model_validate(yaml.safe_load(plan.analysis_study))
    assert study.effect is not None
    assert study.effect.randomised
    finding = analyse(results(deps.frames.load(done.assigned), 1.5), effect=study.effect, unit=study.unit, seed=1)
    assert isinstance(finding, CausalFinding)
    assert finding.verdict.name != "block", finding.reasons
    assert finding.effect is not None, finding.refusal
    low, high = finding.effect.interval()
    assert low < 1.5 < high
    assert low > 0


async def test_the_analysis_study_of_a_market_test_finds_the_lift(tmp_path: Path) -> None:
    plan = await planned(tmp_path, regions(), **GEO, geo={"treated": 2, "weeks": 6})
    assert plan.markets is not None
    treated = pl.col("region").is_in(plan.markets.recommended.test) & (pl.col("week") >= 64)
    after = regions().with_columns(campaign=treated.cast(pl.Int64), trx=pl.col("trx") + 20.0 * treated.cast(pl.Float64))
    study = Study.model_validate(yaml.safe_load(plan.analysis_study))
    assert study.effect is not None
    finding = analyse(after, effect=study.effect, unit=study.unit, time=study.time, seed=1)
    assert finding.effect is not None, finding.refusal
    assert finding.effect.estimate == pytest.approx(20.0, abs=4 * (plan.achievable_mde or 0))


async def test_a_section_may_name_its_own_table(tmp_path: Path) -> None:
    panel().write_parquet(tmp_path / "own.parquet")
    state, deps = begin(tmp_path / "run", None, **PANEL, minimum_detectable=0.6, data=DataSpec(source="own.parquet"))
    done = await Engine().run(SPEC, replace(state, base=str(tmp_path)), deps, run_id="r")
    assert done.plan is not None
    assert done.plan.design_type == "rct"


@pytest.mark.parametrize("design", ["rct", "stratified", "matched_pairs", "cluster_rct"])
def test_assignment_is_balanced_within_blocks_and_repeats_with_its_seed(design) -> None:
    spec = ExperimentSpec.model_validate(PANEL | {"strata": ("specialty",), "cluster": "practice"})
    sample = read_sample(panel(), spec)
    one, again, other = (assign(sample, design, treated=0.5, seed=seed) for seed in (1, 1, 2))
    assert one[0] == again[0]
    assert one[1].equals(again[1])
    assert not one[1].equals(other[1])
    treated = (pl.col("arm") == "treatment").cast(pl.Int64).sum()
    blocks = (
        one[1]
        .group_by("block")
        .agg(size=pl.len(), treated=treated)
        .with_columns(gap=(2 * pl.col("treated") - pl.col("size").cast(pl.Int64)).abs())
    )
    assert blocks["gap"].max() <= (6 if design == "cluster_rct" else 1)
    if design == "matched_pairs":
        assert set(blocks["size"]) == {2}
        assert max(abs(row.smd) for row in one[0].balance) < 0.1


def test_a_broken_sample_ratio_is_seen_and_a_fair_one_is_not() -> None:
    planned_shares = {"treatment": 0.5, "control": 0.5}
    assert sample_ratio({"treatment": 5300, "control": 4700}, planned_shares) < 0.001
    assert sample_ratio({"treatment": 5050, "control": 4950}, planned_shares) > 0.001
    with pytest.raises(ConfigError, match="do not match"):
        sample_ratio({"treatment": 10}, planned_shares)


async def test_a_plan_of_fewer_than_ten_clusters_asks_for_caution(tmp_path: Path) -> None:
    asked = {**PANEL, "cluster": "practice"}
    few = await planned(tmp_path / "few", panel(units=48), **asked, minimum_detectable=3.0)
    assert (few.power_analysis_details.planned_clusters or 99) < 10
    assert few.power is not None
    assert few.power >= 0.8
    assert few.proceed_recommendation == "proceed_with_caution"
    many = await planned(tmp_path / "many", panel(units=240), **asked, minimum_detectable=0.8)
    assert (many.power_analysis_details.planned_clusters or 0) >= 10
    assert many.proceed_recommendation == "proceed"
