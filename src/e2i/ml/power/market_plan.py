"""A geo test as a draft: markets chosen from the panel, power from their placebo windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.trials import PowerAnalysis, RedesignStep
from e2i.errors import ConfigError, SchemaMismatch
from e2i.ml.columns import FloatArray, require_columns
from e2i.ml.power.facts import measure
from e2i.ml.power.formulas import t_power
from e2i.ml.power.geo import Markets, Weights, placebo_windows, select_markets
from e2i.ml.power.planning import Draft, step
from e2i.ml.power.sample import WHERE, numbers, read_sample, wide_panel

if TYPE_CHECKING:
    from e2i.domain.trials import ExperimentSpec, MarketSelection


def read_markets(frame: pl.DataFrame, spec: ExperimentSpec) -> Markets:
    """Regions x periods, excluded regions with gaps left out. Raises SchemaMismatch, TooFewRows, ConfigError."""
    if spec.unit is None or spec.time is None:
        raise ConfigError("a test of markets needs a panel.", where=WHERE, advice="Name `unit` (the region) and `time`.")
    column = spec.geo.cost_column
    require_columns(frame, [spec.outcome, spec.unit, spec.time, *([column] if column else [])], where=WHERE)
    frame = frame.with_columns(pl.col(spec.unit).cast(pl.String))
    wide, rows, _ = wide_panel(frame, unit=spec.unit, time=spec.time, values=numbers(frame, spec.outcome))
    names = tuple(frame[spec.unit][rows.max(axis=1).tolist()].to_list())
    cost = None if column is None else _costs(frame, spec.unit, column, names)
    gone = np.array([name in spec.geo.excluded and not np.isfinite(row).all() for name, row in zip(names, wide, strict=True)])
    wide = np.where(gone[:, None], 0.0, wide)
    return Markets(names=names, volume=wide, cost=cost)


def draft_markets(spec: ExperimentSpec, frame: pl.DataFrame, *, rationale: str, weights: Weights, seed: int) -> Draft:
    """The recommended markets with their power.

    Parameters
    ----------
    weights : the synthetic control's weights over the simplex, `(matrix, target, intercept=True) -> weights`
    """
    spec = spec.model_copy(update={"design": "geo", "follow_up": spec.geo.weeks})
    markets = select_markets(read_markets(frame, spec), spec.geo, weights=weights, alpha=spec.alpha, power=spec.power, seed=seed)
    facts = measure(read_sample(frame, spec), spec, analysis="geo_gap")
    power = _power(spec, markets)
    return Draft(spec=spec, design="geo", analysis="geo_gap", rationale=rationale, facts=facts, power=power, markets=markets)


def redesign_markets(current: Draft, frame: pl.DataFrame, *, weights: Weights, seed: int) -> tuple[Draft, RedesignStep] | None:
    """A longer test; None where power suffices, has no target, or more weeks do not help or do not fit the history."""
    before, geo = current.power, current.spec.geo
    longest = current.spec.maximum_follow_up
    if before.achieved_power is None or before.achieved_power >= before.target_power or longest is None or longest <= geo.weeks:
        return None
    longer = min(longest, 2 * geo.weeks)
    if placebo_windows(frame[str(current.spec.time)].n_unique(), longer) is None:
        return None
    spec = current.spec.model_copy(update={"geo": geo.model_copy(update={"weeks": longer})})
    tried = draft_markets(spec, frame, rationale=current.rationale, weights=weights, seed=seed)
    if (tried.power.achieved_power or 0.0) <= before.achieved_power:
        return None
    return tried, step(f"let the test last {longer} instead of {geo.weeks} periods", before, tried.power)


def _power(spec: ExperimentSpec, markets: MarketSelection) -> PowerAnalysis:
    from scipy import special

    best, df = markets.recommended, markets.windows
    multiplier = float(special.stdtrit(df, 1.0 - spec.alpha / 2.0) + special.stdtrit(df, spec.power))
    # the best of many sets looks better than it is: the larger of its own and the confirmed effect is planned with
    mde = max(best.mde, markets.mde_confirmed)
    error = mde / multiplier
    target = spec.target
    achieved = None if target is None else 1.0 if error == 0 else t_power(target / error, df, alpha=spec.alpha)
    reached = target is not None and achieved is not None and achieved >= spec.power
    return replace(
        _EMPTY,
        alpha=spec.alpha,
        target_power=spec.power,
        target_effect=target,
        required_n=len(best.test) if reached else None,
        planned_n=len(best.test),
        analysed_n=len(best.test),
        achieved_power=achieved,
        mde=mde,
        mde_share_of_baseline=best.mde_share * mde / best.mde if best.mde else 0.0,
        inputs={"placebo_error": error, "placebo_windows": float(df), "pre_fit_r2": best.pre_fit_r2, "placebo_bias": best.placebo_bias},
        sensitivity={}
        if target is None or error == 0
        else {f"effect {change:+.0%}": t_power(target * (1 + change) / error, df, alpha=spec.alpha) for change in (-0.2, -0.1, 0.1, 0.2)},
    )


def _costs(frame: pl.DataFrame, unit: str, column: str, names: tuple[str, ...]) -> FloatArray:
    costs = frame.group_by(unit).agg(low=pl.col(column).min(), high=pl.col(column).max())
    if costs.filter((pl.col("low") != pl.col("high")) | pl.col("low").is_null()).height:
        raise SchemaMismatch("a region has no cost, or several.", where=f"{WHERE}, `{column}`", advice="Write one cost per region.")
    found = dict(costs.select(unit, "low").iter_rows())
    return np.array([float(found[name]) for name in names])


_EMPTY = PowerAnalysis(
    outcome_type="continuous",
    analysis="geo_gap",
    method="spread of placebo effects in past windows, t with as many degrees of freedom as windows",
    alpha=0.05,
    target_power=0.8,
    target_effect=None,
    effect_scale="difference",
    required_n=None,
    planned_n=0,
    analysed_n=0,
    planned_clusters=None,
    achieved_power=None,
    mde=None,
    mde_share_of_baseline=None,
    design_effect=1.0,
    variance_kept=1.0,
    interim_inflation=1.0,
    inputs={},
    curve=(),
    sensitivity={},
)
