"""Categories of many levels (territory, ZIP, account): adjusted for by what their level does on average.

One column per level asks more than small levels can tell: shrunken, it leaves part of their confounding, and levels too rare to have a
column are thrown together. Among rows of one level with the same number of treated, who is treated goes with nothing that the level has of
its own, so the level's share of treated and its means of the other confounders stand for it (Mundlak 1978; Arkhangelsky and Imbens 2024,
"Fixed effects and the generalized Mundlak estimator").
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.encoding import Covariates, numeric
from e2i.causal.hazard_repeats import varies_within

_MANY, _COMMON = 30, 20
_FEWEST_ROWS = 5
_MOST_MEANS = 20
_MANY_POOLED = 0.30
_SAME = 0.999
_CODE = re.compile(
    r"(^|_)(zip|zip3|zip5|zipcode|postal|postcode|territory|terr|region|district|county|fips|state|city|brick|account|hospital|clinic|practice"
    r"|site|centre|center|store|school)(_?(id|code|no|nr|num|number|key))?$",
    re.IGNORECASE,
)
"""places and organisations: whole numbers in such a column are names"""


def prepare_with_level_means(frame: pl.DataFrame, identification: Identification) -> Sample:
    """`prepare`, where every text column of more than 30 levels also has its levels' means, and columns of its 30 most frequent levels.

    So have whole numbers whose column is named as a place or an organisation, beside the number itself. Levels of fewer than five rows,
    or in which treatment does not vary, are taken as one; where more than 30 % of rows are in such, the column stays as it is. Raises as
    `prepare` does.
    """
    wide = [name for name in identification.adjustment if _is_wide(frame[name])]
    if not wide:
        return prepare(frame, identification)
    bare = {name for name in wide if _has_small_levels_only(frame[name])}
    sample = prepare(frame, replace(identification, adjustment=tuple(name for name in identification.adjustment if name not in bare)))
    kept = frame.filter(pl.Series(_used(frame, identification)))
    for name in wide:
        codes = kept[name].cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
        alone = _tell_nothing(codes, sample.treatment)
        if alone.mean() <= _MANY_POOLED:
            sample = _with_means_of(sample, name, codes, alone)
        elif name in bare:  # too fine to be adjusted for
            return prepare(frame, identification)
    return sample


def _is_wide(series: pl.Series) -> bool:
    is_text = series.dtype in (pl.String, pl.Categorical, pl.Enum)
    return (is_text or (series.dtype.is_integer() and _CODE.search(series.name) is not None)) and series.n_unique() > _MANY


def _has_small_levels_only(series: pl.Series) -> bool:
    """Text of which no level has rows enough for a column of its own."""
    return not series.dtype.is_integer() and int(series.value_counts()["count"].max() or 0) < _COMMON  # type: ignore[arg-type]


def _used(frame: pl.DataFrame, identification: Identification) -> BoolArray:
    """Rows with treatment and outcome, as `prepare` keeps them."""
    treatment, outcome = frame[identification.treatment], numeric(frame[identification.outcome])
    used: BoolArray = treatment.is_not_null().to_numpy() & ~np.isnan(outcome)
    if treatment.dtype.is_float():
        used &= ~treatment.is_nan().fill_null(True).to_numpy()
    return used


def _with_means_of(sample: Sample, source: str, codes: IntArray, alone: BoolArray) -> Sample:
    """The sample with the means of one column's levels, the rows `alone` taken as one level."""
    covariates = sample.covariates
    levels = int(codes.max()) + 1
    codes = np.where(alone, levels, codes)
    columns = _means(sample, source, codes)
    own = np.flatnonzero([each == source and level for each, level in zip(covariates.sources, covariates.is_level, strict=True)])
    dropped = set(own[_MANY - 1 :].tolist())
    stays = [place for place in range(len(covariates.names)) if place not in dropped]
    lost = {covariates.names[place] for place in dropped}
    note = f"`{source}`: {levels} levels, adjusted for by the share of treated and the means of other confounders within them"
    return replace(
        sample,
        covariates=Covariates(
            matrix=np.column_stack([covariates.matrix[:, stays], *columns.values()]),
            names=(*(covariates.names[place] for place in stays), *columns),
            sources=(*(covariates.sources[place] for place in stays), *(source for _ in columns)),
            is_level=(*(covariates.is_level[place] for place in stays), *(False for _ in columns)),
            notes=(*(told for told in covariates.notes if not (told.startswith(f"`{source}`") and "rare levels" in told)), note),
            gaps=tuple(gap for gap in covariates.gaps if gap[0] not in lost),
        ),
    )


def _tell_nothing(codes: IntArray, treatment: FloatArray) -> BoolArray:
    """Rows of levels with fewer than five rows, or all of one treatment, shape (n,)."""
    out: BoolArray = (np.bincount(codes)[codes] < _FEWEST_ROWS) | ~varies_within(codes, treatment)
    return out


def _means(sample: Sample, source: str, codes: IntArray) -> dict[str, FloatArray]:
    """Means by level of treatment (of each level of treatment), then of up to 20 other covariates; what repeats a column is left out."""
    size = np.maximum(np.bincount(codes), 1)

    def mean(values: FloatArray) -> FloatArray:
        out: FloatArray = (np.bincount(codes, weights=values) / size)[codes]
        return out

    covariates, treatment = sample.covariates, sample.treatment
    if sample.levels:
        given = {
            f"{source}: share of {level}": (treatment == place).astype(np.float64) for place, level in enumerate(sample.levels) if place
        }
    else:
        given = {f"{source}: {'share treated' if np.isin(treatment, (0, 1)).all() else 'mean treatment'}": treatment}
    found = {name: mean(values) for name, values in given.items()}
    others = [place for place, each in enumerate(covariates.sources) if each != source][:_MOST_MEANS]
    for place in others:
        column = covariates.matrix[:, place]
        average = mean(column)
        if average.std() > (1.0 - _SAME) * column.std() and np.corrcoef(average, column)[0, 1] ** 2 < _SAME:
            found[f"{source}: mean {covariates.names[place]}"] = average
    return {name: values for name, values in found.items() if np.ptp(values) > 0}
