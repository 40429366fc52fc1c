"""The pharma world: one story, honest records, and a truth that can be computed from both worlds."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from e2i.data.frames import frame_sha256
from e2i.data.synthetic import TABLE_NAMES, World, generate, generate_tables, study_world
from e2i.data.synthetic.hcps import draw_hcps
from e2i.data.synthetic.panel import Panel, simulate
from e2i.data.synthetic.story import BRANDS, WEEKS
from e2i.domain.vocabulary import ENUMS, TABLES
from e2i.errors import ConfigError, NotFound

SIZE, SEED = 1500, 3
STUDY = "hcp_speaker_study"


@pytest.fixture(scope="module")
def world() -> World:
    return generate(SEED, size=SIZE)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulate(draw_hcps(SIZE, seed=SEED), seed=SEED)


@pytest.fixture(scope="module")
def full_study() -> World:
    return study_world(seed=7)


def table(world: World, name: str) -> pl.DataFrame:
    return world.tables[name]


def test_every_row_keeps_the_identities_of_prescriptions(world: World) -> None:
    weekly = table(world, "hcp_weekly")
    assert (weekly["trx"] == weekly["nrx"] + weekly["refills"]).all()
    assert ((weekly["nbrx"] <= weekly["nrx"]) & (weekly["nrx"] <= weekly["trx"]) & (weekly["nbrx"] >= 0)).all()
    assert weekly["nbrx"].sum() < weekly["nrx"].sum() < weekly["trx"].sum()


def test_weeks_end_on_friday_and_every_hcp_has_all_of_them(world: World) -> None:
    weekly = table(world, "hcp_weekly")
    assert weekly["week_end"].dt.weekday().unique().to_list() == [5]
    counts = weekly.group_by("hcp_id", "brand").agg(pl.col("week_end").n_unique().alias("weeks"), pl.len())
    assert counts.select(pl.col("weeks", "len").unique()).rows() == [(WEEKS, WEEKS)]
    assert set(weekly["brand"].unique()) == set(BRANDS)


def test_deciles_are_ten_groups_of_equal_volume(world: World) -> None:
    profiles = table(world, "hcp_profiles")
    volumes = profiles.group_by("decile").agg(pl.col("prescribing_volume").sum()).sort("decile")
    assert volumes["decile"].to_list() == list(range(1, 11))
    tenth = profiles["prescribing_volume"].sum() / 10
    assert (volumes["prescribing_volume"] - tenth).abs().max() <= 2 * profiles["prescribing_volume"].max()
    ranges = profiles.group_by("decile").agg(
        pl.col("prescribing_volume").min().alias("low"), pl.col("prescribing_volume").max().alias("high")
    )
    ranges = ranges.sort("decile")
    assert (ranges["low"][1:] >= ranges["high"][:-1]).all()


def test_identifiers_are_unique_and_no_npi_can_be_real(world: World) -> None:
    profiles = table(world, "hcp_profiles")
    assert profiles["hcp_id"].is_unique().all()
    assert profiles["npi"].is_unique().all()
    assert profiles["npi"].str.contains(r"^9\d{9}$").all()
    for name, key in (("patient_journeys", "patient_journey_id"), ("treatment_events", "treatment_event_id"), ("triggers", "trigger_id")):
        assert table(world, name)[key].is_unique().all()


def test_tables_refer_to_each_other(world: World) -> None:
    hcps = set(table(world, "hcp_profiles")["hcp_id"])
    for name in ("hcp_weekly", "speaker_programs", "patient_journeys", "treatment_events", "triggers", "conversions", STUDY):
        assert set(table(world, name)["hcp_id"]) <= hcps
    journeys = set(table(world, "patient_journeys")["patient_journey_id"])
    for name in ("treatment_events", "triggers", "conversions"):
        assert set(table(world, name)["patient_journey_id"]) <= journeys
    repeated = table(world, "patient_journeys").group_by("patient_id").len()["len"]
    assert repeated.len() == 6 * SIZE
    assert repeated.max() == 2


def test_the_domain_tables_obey_the_vocabulary(world: World) -> None:
    for name in ("business_metrics", "triggers", "patient_journeys"):
        frame, rules = table(world, name), TABLES[name]
        for column in rules.columns:
            if column.required:
                assert frame[column.name].null_count() == 0
            if column.name not in frame.columns:
                continue
            values = frame[column.name].drop_nulls()
            assert not column.unique or values.is_unique().all()
            assert not column.allowed or set(values) <= set(column.allowed)
            assert column.minimum is None or values.min() >= column.minimum  # type: ignore[operator]
            assert column.maximum is None or values.max() <= column.maximum  # type: ignore[operator]
        for early, late in rules.ordered:
            if {early, late} <= set(frame.columns):
                assert (frame[early] <= frame[late]).drop_nulls().all()
    assert set(table(world, "hcp_profiles")["geographic_region"]) == set(ENUMS["region_type"])


def test_patients_have_three_to_twelve_events_in_order_and_care_follows_from_treatment(world: World) -> None:
    events, journeys = table(world, "treatment_events"), table(world, "patient_journeys")
    counts = events.group_by("patient_journey_id").agg(
        pl.len(), pl.col("event_date").is_sorted(), pl.col("sequence_number").max(), pl.col("event_type").first()
    )
    assert 3 <= counts["len"].min() <= counts["len"].max() <= 12  # type: ignore[operator]
    assert counts["event_date"].all()
    assert (counts["sequence_number"] == counts["len"]).all()
    assert counts["event_type"].unique().to_list() == ["diagnosis"]
    treated = set(journeys.filter(pl.col("treatment_initiated") == 1)["patient_journey_id"])
    assert set(events.filter(pl.col("event_type") == "prescription")["patient_journey_id"]) <= treated
    converted = table(world, "conversions").join(journeys, on="patient_journey_id")
    assert (converted["converted"] == converted["treatment_initiated"]).all()
    assert (converted["conversion_date"] > converted["trigger_date"]).drop_nulls().all()


def test_calls_are_empty_only_where_a_territory_is_vacant(world: World, panel: Panel) -> None:
    weekly = table(world, "hcp_weekly")
    assert 0 < weekly["calls"].null_count() < 0.1 * weekly.height
    assert (weekly["calls"].is_null() == weekly["samples"].is_null()).all()
    vacant = weekly.join(table(world, "hcp_profiles"), on="hcp_id").filter(pl.col("calls").is_null())
    assert vacant.select("territory_id", "week_end").n_unique() == int((~panel.is_active).sum())


def test_the_study_is_cut_out_of_the_weekly_records(world: World) -> None:
    study = table(world, STUDY)
    weekly = table(world, "hcp_weekly").filter(pl.col("brand") == "Kisqali").join(study.select("hcp_id", "index_date"), on="hcp_id")
    after = (pl.col("week_end") - pl.col("index_date")).dt.total_days() // 7
    windows = weekly.with_columns(after=after)
    before, later = pl.col("after").is_between(-12, -1), pl.col("after").is_between(2, 13)
    sums = windows.group_by("hcp_id").agg(
        pl.col("nrx").filter(before).sum().alias("nrx_pre"),
        pl.col("trx").filter(before).sum().alias("trx_pre"),
        pl.col("nbrx").filter(before).sum().alias("nbrx_pre"),
        pl.col("calls").filter(before).sum().alias("calls_pre"),
        pl.col("samples").filter(before).sum().alias("samples_pre"),
        pl.col("nrx").filter(later).sum().alias("nrx"),
        pl.col("trx").filter(later).sum().alias("trx_post"),
        pl.col("calls").filter(later).sum().alias("calls_post"),
        pl.col("speaker_program").filter(pl.col("after") == 1).sum().alias("speaker_program"),
        pl.col("speaker_program").sum().alias("programs"),
    )
    both = study.join(sums, on="hcp_id", suffix="_weekly")
    assert both.height == study.height
    for name in ("nrx_pre", "trx_pre", "nbrx_pre", "calls_pre", "samples_pre", "nrx", "trx_post", "calls_post", "speaker_program"):
        assert (both[name] == both[f"{name}_weekly"]).all(), name
    assert (both["programs"] == both["speaker_program"]).all()


def test_the_recorded_outcome_is_the_potential_outcome_of_the_world_that_happened(world: World) -> None:
    study, units = table(world, STUDY), world.truth.units.filter(pl.col("brand") == "Kisqali")
    both = study.join(units, on="hcp_id", suffix="_truth")
    assert both.height == study.height == units.height
    assert (both["treated"].cast(pl.Int64) == both["speaker_program"]).all()
    happened = pl.when(pl.col("treated")).then(pl.col("nrx_if_treated")).otherwise(pl.col("nrx_if_untreated"))
    assert both.select((happened == pl.col("nrx")).all()).item()
    converted = pl.when(pl.col("treated")).then(pl.col("converts_if_treated")).otherwise(pl.col("converts_if_untreated"))
    assert both.select((converted.cast(pl.Int64) == pl.col("will_convert")).all()).item()


def test_the_true_effects_are_averages_over_both_recorded_worlds(world: World) -> None:
    units = world.truth.units.filter(pl.col("brand") == "Kisqali").join(table(world, STUDY), on="hcp_id")
    gain = (units["nrx_if_treated"] - units["nrx_if_untreated"]).cast(pl.Float64)
    effect = world.truth.effect(table=STUDY, outcome="nrx")
    assert effect.n == units.height
    assert effect.ate == pytest.approx(gain.mean())
    assert effect.att == pytest.approx(gain.filter(units["treated"]).mean())
    assert effect.atu == pytest.approx(gain.filter(~units["treated"]).mean())
    share = effect.n_treated / effect.n
    assert effect.ate == pytest.approx(share * effect.att + (1 - share) * effect.atu)
    for specialty, average in effect.cate["specialty"].items():
        assert average == pytest.approx(gain.filter(units["specialty"] == specialty).mean())
    assert effect.cate["specialty"]["oncology"] > effect.cate["specialty"]["internal_medicine"] + 1
    journeys = world.truth.journeys
    assert journeys is not None
    both = journeys.join(table(world, "conversions"), on="patient_journey_id")
    triggered = world.truth.effect(table="conversions", outcome="converted")
    assert triggered.ate == pytest.approx(
        (both["converted_if_treated"].cast(pl.Int8) - both["converted_if_untreated"].cast(pl.Int8)).mean()
    )
    assert (both["treated"].cast(pl.Int64) == both["trigger_accepted"]).all()


def test_both_worlds_are_one_until_the_program_and_share_the_noise_of_the_records(panel: Panel) -> None:
    never = panel.in_market & (panel.expected_gain == 0)
    assert (panel.outcome[0] == panel.outcome[1])[never].all()
    gain = (panel.outcome[1] - panel.outcome[0])[panel.in_market]
    noise = gain - panel.expected_gain[panel.in_market]
    assert abs(noise.mean()) < 4 * noise.std() / len(noise) ** 0.5
    between_worlds, between_people = gain.std(), panel.outcome[0][panel.in_market].std()
    assert between_worlds < 0.6 * between_people


def test_the_record_of_a_count_is_unbiased_and_whole(full_study: World) -> None:
    units = full_study.truth.units
    gain = (units["nrx_if_treated"] - units["nrx_if_untreated"]).cast(pl.Float64)
    spread = float((gain - units["expected_gain"]).std() / units.height**0.5)  # type: ignore[operator]
    assert abs(float(gain.mean() - units["expected_gain"].mean())) < 3.5 * spread  # type: ignore[operator]
    assert units["nrx_if_treated"].dtype.is_integer()


def test_comparing_groups_is_badly_wrong_and_adjusting_for_the_confounders_is_right(full_study: World) -> None:
    study, effect = full_study.tables[STUDY], full_study.truth.effect(table=STUDY, outcome="nrx")
    treated, outcome = study["speaker_program"].to_numpy(), study["nrx"].to_numpy().astype(float)
    naive = outcome[treated == 1].mean() - outcome[treated == 0].mean()
    assert naive == pytest.approx(effect.naive)
    assert naive > 2 * effect.ate
    assert naive > 2 * effect.att
    fitted = _regress_each_arm(_covariates(study), treated, outcome)
    ate, att = float((fitted[1] - fitted[0]).mean()), float((outcome - fitted[0])[treated == 1].mean())
    assert abs(ate - effect.ate) < 0.25 * effect.ate
    assert abs(att - effect.att) < 0.25 * effect.att


def test_weighting_by_the_true_propensity_recovers_the_effect_on_average() -> None:
    errors = []
    for seed in range(12):
        drawn = study_world(seed=seed, size=2000)
        effect = drawn.truth.effect(table=STUDY, outcome="nrx")
        units = drawn.truth.units.filter(pl.col("brand") == "Kisqali").join(drawn.tables[STUDY], on="hcp_id")
        treated, chance = units["treated"].to_numpy().astype(float), units["propensity"].to_numpy()
        fitted = _regress_each_arm(_covariates(units), treated, units["nrx"].to_numpy().astype(float))
        outcome = units["nrx"].to_numpy()
        scores = fitted[1] - fitted[0] + treated * (outcome - fitted[1]) / chance - (1 - treated) * (outcome - fitted[0]) / (1 - chance)
        errors.append(scores.mean() - effect.ate)
    assert abs(np.mean(errors)) < 3 * np.std(errors, ddof=1) / len(errors) ** 0.5 + 0.02


def test_the_negative_control_is_confounded_but_not_moved(full_study: World) -> None:
    study, effect = full_study.tables[STUDY], full_study.truth.effect(table=STUDY, outcome="nrx_other_product")
    assert (effect.ate, effect.att) == (0.0, 0.0)
    assert effect.naive > 1.0
    treated, outcome = study["speaker_program"].to_numpy(), study["nrx_other_product"].to_numpy().astype(float)
    fitted = _regress_each_arm(_covariates(study), treated, outcome)
    assert abs(float((fitted[1] - fitted[0]).mean())) < 0.35


@pytest.mark.parametrize("seed", [7, 11, 12])
def test_overlap_treated_share_and_base_rate_are_as_designed(seed: int) -> None:
    drawn = study_world(seed=seed)
    units = drawn.truth.units.filter(pl.col("brand") == "Kisqali")
    study = drawn.tables[STUDY]
    outside = units.select(((pl.col("propensity") < 0.01) | (pl.col("propensity") > 0.99)).mean()).item()
    assert outside < 0.02
    assert 0.25 < study["speaker_program"].mean() < 0.40  # type: ignore[operator]
    assert 0.20 < study["will_convert"].mean() < 0.35  # type: ignore[operator]


def test_conversion_is_predictable_from_earlier_columns_but_not_perfectly(full_study: World) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    study = full_study.tables[STUDY].sort("index_date", "hcp_id")
    covariates, target = _covariates(study), study["will_convert"].to_numpy()
    first = int(0.7 * len(target))
    covariates = (covariates - covariates.mean(axis=0)) / np.maximum(covariates.std(axis=0), 1e-9)
    model = LogisticRegression(max_iter=500).fit(covariates[:first], target[:first])
    found = roc_auc_score(target[first:], model.predict_proba(covariates[first:])[:, 1])
    units = study.join(full_study.truth.units.filter(pl.col("brand") == "Kisqali"), on="hcp_id", maintain_order="left")
    chance = units.select(
        pl.when("treated").then("convert_probability_if_treated").otherwise("convert_probability_if_untreated")
    ).to_series()
    best = roc_auc_score(target, chance.to_numpy())
    assert 0.76 < found < best < 0.89


def test_no_earlier_column_gives_the_target_away(full_study: World) -> None:
    from sklearn.metrics import roc_auc_score

    study = full_study.tables[STUDY]
    later = {"speaker_program", "calls_post", "nrx", "trx_post", "nrx_other_product", "will_convert", "conversion_date", "hcp_id"}
    numeric = [name for name, kind in study.schema.items() if name not in later and kind.is_numeric()]
    for name in numeric:
        values = study[name].fill_null(study[name].median()).to_numpy()
        assert roc_auc_score(study["will_convert"].to_numpy(), values) < 0.85, name
    assert (study["conversion_date"].is_not_null().cast(pl.Int64) == study["will_convert"]).all()
    waits = (study["conversion_date"] - study["index_date"]).dt.total_days().drop_nulls()
    assert 0 < waits.min() <= waits.max() <= 30  # type: ignore[operator]


def test_index_dates_spread_over_the_two_years(full_study: World) -> None:
    index = full_study.tables[STUDY]["index_date"]
    assert index.dt.weekday().unique().to_list() == [5]
    assert index.max() - index.min() > timedelta(days=500)  # type: ignore[operator]
    assert index.n_unique() > 70


def test_values_are_missing_here_and_there_and_more_often_where_they_would_be_low(full_study: World) -> None:
    study = full_study.tables[STUDY]
    for name in ("years_experience", "digital_engagement", "access_share"):
        assert 0.01 < study[name].null_count() / study.height < 0.12
    hcps = draw_hcps(5000, seed=7)
    assert hcps.digital[hcps.digital_missing].mean() < hcps.digital[~hcps.digital_missing].mean() - 0.03


def test_metrics_add_up_to_the_weekly_records(world: World) -> None:
    metrics, weekly = table(world, "business_metrics"), table(world, "hcp_weekly")
    for name, column in (("TRx", "trx"), ("NRx", "nrx"), ("NBRx", "nbrx")):
        assert metrics.filter(pl.col("metric_name") == name)["value"].sum() == weekly[column].sum()
    assert metrics["achievement_rate"].drop_nulls().is_between(0.8, 1.15).all()


def test_one_seed_gives_one_world_in_another_process_and_table_by_table(world: World) -> None:
    code = (
        "import json; from e2i.data.synthetic import generate; from e2i.data.frames import frame_sha256\n"
        f"w = generate({SEED}, size={SIZE}); print(json.dumps([{{k: frame_sha256(v) for k, v in w.tables.items()}}, w.truth.to_dict()]))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    hashes, truth = json.loads(out)
    assert hashes == {name: frame_sha256(frame) for name, frame in world.tables.items()}
    assert truth == json.loads(json.dumps(world.truth.to_dict()))
    for name in TABLE_NAMES:
        alone = generate_tables([name], seed=SEED, size=SIZE)[name]
        assert frame_sha256(alone) == hashes[name], name
    other = generate_tables(TABLE_NAMES, seed=SEED + 1, size=SIZE)
    assert all(frame_sha256(frame) != hashes[name] for name, frame in other.items())


def test_a_world_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.seed"):
        generate(-1)
    with pytest.raises(ConfigError, match=r"data\.size"):
        generate(1, size=3)
    with pytest.raises(NotFound, match="triggers"):
        generate_tables(["trigger"], seed=1)


def _covariates(study: pl.DataFrame) -> np.ndarray:
    """The listed confounders, with logs of the counts and a median where a value is missing."""
    numbers = study.select(
        pl.col("decile", "academic", "nrx_trend_pre", "samples_pre"),
        pl.col("years_experience").fill_null(16), pl.col("digital_engagement").fill_null(0.5), pl.col("access_share").fill_null(0.72),
        pl.col("nrx_pre", "calls_pre").log1p().name.suffix("_log"), pl.col("nrx_pre", "calls_pre", "trx_pre"),
    ).to_numpy()  # fmt: skip
    codes = study.select("specialty", "region", "practice_type").to_dummies(drop_first=True).to_numpy()
    return np.column_stack([np.ones(study.height), numbers, codes]).astype(float)


def _regress_each_arm(covariates: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> list[np.ndarray]:
    """Least squares without and with the treatment, predicted for everybody."""
    fitted = []
    for arm in (0, 1):
        coefficients = np.linalg.lstsq(covariates[treated == arm], outcome[treated == arm], rcond=None)[0]
        fitted.append(covariates @ coefficients)
    return fitted
