"""Interrupted time series: the treated against their own past, carried on (Wagner et al. 2002; Bernal, Cummins & Gasparrini 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.serial_errors import Contrast, by_autoregression, by_newey_west
from e2i.domain.evidence import Hazard, PathPoint, Refutation
from e2i.errors import DataError, NotIdentified, NoVariation, TooFewRows

Errors = Literal["ar1", "hac"]
MINIMUM_PRE = 8
_MINIMUM_DEGREES = 5
_SLOPE_FROM = 3
_DUMMIES_UP_TO = 12
_CYCLES = 2
_HARMONICS = 2
_LEVEL, _STRICT = 0.05, 0.01
_YEAR_DAYS = 365.25
_CYCLE_OF_FORM = {"month": 12.0, "quarter": 4.0, "week": _YEAR_DAYS / 7}
_CYCLE_OF_DAYS = ((1.0, 1.0, 7.0), (7.0, 7.0, _YEAR_DAYS / 7), (14.0, 14.0, _YEAR_DAYS / 14), (28.0, 31.0, 12.0), (89.0, 92.0, 4.0))


@dataclass(frozen=True, kw_only=True)
class Series:
    """The average of the treated per period."""

    outcome: FloatArray
    """shape (T,)"""
    step: IntArray
    """shape (T,), whole time steps since the first period; a gap in time is a larger step"""
    start: int
    """first treated period"""
    fit_end: int
    """periods from here to `start` may react in advance and are left out of the fit"""
    controls: FloatArray
    """shape (T, c)"""
    control_names: tuple[str, ...]
    names: tuple[str, ...]
    cycle: float | None
    """steps per season"""


@dataclass(frozen=True, kw_only=True)
class InterruptedFit:
    """The effect with everything needed to judge it."""

    estimate: Estimate
    path: tuple[PathPoint, ...]
    refutations: tuple[Refutation, ...]
    hazards: tuple[Hazard, ...]
    coefficients: dict[str, Contrast]
    """term -> estimate and interval: level and slope change, trend, controls, seasons"""


@dataclass(frozen=True, kw_only=True)
class InterruptedSeries:
    """Level, trend and season before treatment are carried on; a change of level (and of slope) is the effect.

    The effect is the average over the treated periods of what the change of level and slope adds. `ar1`: serially correlated
    errors with the autocorrelation integrated out; `hac`: least squares with Newey-West errors, which cover too rarely in short
    series. Never treated units give a control series (their mean), confounders further ones.
    """

    slope: bool = True
    errors: Errors = "ar1"
    cycle: float | None = None
    """periods per season; default by the calendar: 12 months, 4 quarters, 52.18 weeks, 7 days"""
    lags: int | None = None
    """of Newey-West; default 0.75 T^(1/3)"""
    use_untreated: bool = True

    def fit(self, data: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The effect with its interval; nothing here is random.

        Raises
        ------
        NotIdentified
            Several starts, treatment that ends again, or fewer than 8 periods before treatment.
        TooFewRows
            Fewer than 5 periods more than terms.
        """
        return self.study(data, spec, seed=seed).estimate

    def study(self, data: Panel, spec: Identification, *, seed: int) -> InterruptedFit:
        """The effect, both paths, coefficients, placebo in time, curvature before treatment, hazards."""
        del seed
        series = _series(data, spec, cycle=self.cycle, use_untreated=self.use_untreated)
        design, names = _design(series, slope=self.slope)
        rows = np.r_[0 : series.fit_end, series.start : len(series.outcome)]
        is_effect = np.array([name in ("level change", "slope change") for name in names])
        average = np.where(is_effect, design[series.start :].mean(axis=0), 0.0)
        contrasts = np.vstack([average, np.eye(design.shape[1])])
        found = self._solve(design[rows], series.outcome[rows], series.step[rows], contrasts)
        slopes = np.array([one.estimate for one in found[1:]])
        counterfactual = (design * ~is_effect) @ slopes
        tests = (self._placebo_in_time(series), self._curvature(series))
        n_treated = int(np.sum(data.cohort != NEVER))
        return InterruptedFit(
            estimate=_estimate(found[0], series, spec=spec, n_treated=n_treated, n_untreated=data.n_units - n_treated),
            path=tuple(
                PathPoint(
                    period=name, observed=float(series.outcome[t]), counterfactual=float(counterfactual[t]), is_treated=t >= series.start
                )
                for t, name in enumerate(series.names)
            ),
            refutations=tuple(test for test in tests if test is not None),
            hazards=_hazards(series),
            coefficients=dict(zip(names, found[1:], strict=True)),
        )

    def _solve(self, design: FloatArray, outcome: FloatArray, step: IntArray, contrasts: FloatArray) -> tuple[Contrast, ...]:
        if len(outcome) < design.shape[1] + _MINIMUM_DEGREES:
            raise TooFewRows(
                f"{len(outcome)} periods for {design.shape[1]} terms (level, trend, change, seasons, controls); "
                f"{design.shape[1] + _MINIMUM_DEGREES} are needed.",
                where="time",
                advice="Add periods, or name fewer confounders.",
            )
        if self.errors == "hac":
            return by_newey_west(design, outcome, contrasts, lags=self.lags)
        return by_autoregression(design, outcome, contrasts, step=step)

    def _placebo_in_time(self, series: Series) -> Refutation | None:
        """A break in the middle of the time before treatment must not be found."""
        middle = series.fit_end // 2
        moved = _before(series, middle)
        design, names = _design(moved, slope=self.slope)
        if middle < MINIMUM_PRE // 2 or not _fits(design):
            return None
        contrast = np.where([name in ("level change", "slope change") for name in names], design[middle:].mean(axis=0), 0.0)
        found = self._solve(design, moved.outcome, moved.step, contrast[None])[0]
        passed = found.p_value >= _LEVEL
        return Refutation(
            test="placebo_in_time",
            passed=passed,
            detail=(
                f"With treatment moved back to {series.names[middle]} the effect is {found.estimate:.4g} (p = {found.p_value:.2g}); "
                f"{'no effect before treatment, as it must be' if passed else 'there should be none before treatment'}."
            ),
            p_value=found.p_value,
            estimate=found.estimate,
        )

    def _curvature(self, series: Series) -> Refutation | None:
        """A straight line is carried on, so the time before treatment must be straight."""
        before = _before(series, series.fit_end)
        design, _ = _design(before, slope=False)
        trend = before.step / before.step[-1]
        bent = np.column_stack([design, (trend - 0.5) ** 2])
        if not _fits(bent):
            return None
        contrast = np.eye(bent.shape[1])[-1:]
        found = self._solve(bent, before.outcome, before.step, contrast)[0]
        passed = found.p_value >= _STRICT
        return Refutation(
            test="straight_before",
            passed=passed,
            detail=(
                f"A curve before treatment has p = {found.p_value:.2g}; "
                f"{'a straight line may be carried on' if passed else 'a straight line must not be carried on'}."
            ),
            p_value=found.p_value,
        )


def season_of(panel: Panel) -> float | None:
    """Periods per season by the calendar of the period names; None where it is not known (plain numbers, years)."""
    import polars as pl

    from e2i.causal.panel.periods import DAY_ORDERS, read_moments

    form = read_moments(pl.Series("time", panel.period_names)).form
    if form in _CYCLE_OF_FORM:
        return _CYCLE_OF_FORM[form]
    if form != "date" and form not in DAY_ORDERS:
        return None
    gap = float(np.median(np.diff(panel.period_values)))
    return next((cycle for low, high, cycle in _CYCLE_OF_DAYS if low <= gap <= high), None)


def _series(panel: Panel, spec: Identification, *, cycle: float | None, use_untreated: bool) -> Series:
    if not panel.is_absorbing:
        raise NotIdentified(
            "treatment ends again; an interrupted time series needs one lasting change.",
            where="treatment",
            advice="Cut the series before treatment ends.",
        )
    starts = np.unique(panel.cohort[panel.cohort != NEVER])
    if len(starts) != 1:
        raise NotIdentified(
            f"treatment starts at {len(starts)} dates; an interrupted time series has one.",
            where="treatment",
            advice="Keep the units of one start, or use `did` or `synthetic_did` with untreated units.",
        )
    start = int(starts[0])
    fit_end = start - spec.anticipation
    if fit_end < MINIMUM_PRE:
        raise NotIdentified(
            f"{max(fit_end, 0)} periods before treatment; {MINIMUM_PRE} are needed to see a trend.",
            where="time",
            advice="Add history before treatment.",
        )
    treated = panel.cohort != NEVER
    outcome = _mean_by_period(panel, panel.outcome, treated=True)
    if np.ptp(outcome[:fit_end]) == 0.0:
        raise NoVariation("the outcome before treatment never changes.", where="outcome", advice="Check how it was built.")
    columns = [_mean_by_period(panel, panel.covariates[:, k], treated=True) for k in range(panel.covariates.shape[1])]
    names = list(panel.covariate_names)
    if use_untreated and not treated.all():
        columns.append(_mean_by_period(panel, panel.outcome, treated=False))
        names.append("untreated units")
    varying = [k for k, column in enumerate(columns) if np.ptp(column) > 0]
    gaps = np.diff(panel.period_values)
    return Series(
        outcome=outcome,
        step=np.concatenate([[0], np.cumsum(np.maximum(np.round(gaps / np.median(gaps)), 1))]).astype(np.int64),
        start=start,
        fit_end=fit_end,
        controls=np.column_stack([columns[k] for k in varying]) if varying else np.zeros((len(outcome), 0)),
        control_names=tuple(names[k] for k in varying),
        names=panel.period_names,
        cycle=cycle if cycle is not None else season_of(panel),
    )


def _mean_by_period(panel: Panel, values: FloatArray, *, treated: bool) -> FloatArray:
    """Average over the treated, or the untreated, per period, shape (T,); weighted where the study has weights."""
    rows = (panel.cohort[panel.unit] != NEVER) == treated
    units = len(np.unique(panel.unit[rows]))
    counts = np.bincount(panel.time[rows], minlength=panel.n_periods)
    if (counts == 0).any() or (units > 1 and counts.min() != counts.max()):
        raise DataError(
            f"{int((counts < units).sum())} periods lack some of the {units} {'treated' if treated else 'untreated'} units; "
            "their average would jump with who is in it.",
            where="panel",
            advice="Keep units and periods that are complete.",
        )
    weight = np.ones(int(rows.sum())) if panel.weights is None else panel.weights[rows]
    sums = np.bincount(panel.time[rows], weights=weight * values[rows], minlength=panel.n_periods)
    return np.asarray(sums / np.bincount(panel.time[rows], weights=weight, minlength=panel.n_periods), dtype=np.float64)


def _design(series: Series, *, slope: bool) -> tuple[FloatArray, list[str]]:
    """Columns of the regression for all periods, and their names."""
    periods = len(series.outcome)
    after = (np.arange(periods) >= series.start).astype(np.float64)
    columns, names = [np.ones(periods), series.step.astype(np.float64)], ["level", "trend"]
    if after.any():
        columns.append(after)
        names.append("level change")
        if slope and after.sum() >= _SLOPE_FROM:
            columns.append(after * (series.step - series.step[series.start]))
            names.append("slope change")
    seasons = _seasons(series)
    columns.extend(seasons.T)
    names.extend(f"season {k + 1}" for k in range(seasons.shape[1]))
    columns.extend(series.controls.T)
    names.extend(series.control_names)
    return np.column_stack(columns), names


def _seasons(series: Series) -> FloatArray:
    """One dummy per season that is seen but one, or two harmonics of a long season; none with fewer than two cycles before treatment."""
    cycle, step = series.cycle, series.step
    if cycle is None or step[min(series.fit_end, len(step)) - 1] + 1 < _CYCLES * cycle:
        return np.zeros((len(step), 0))
    if cycle == round(cycle) and cycle <= _DUMMIES_UP_TO and len(step) >= 2 * _CYCLES * cycle:
        place = step % int(cycle)
        shown = np.unique(place[: series.fit_end])  # a week of five working days shows five places
        return np.asarray(place[:, None] == shown[1:], dtype=np.float64)
    angle = 2.0 * np.pi * step[:, None] * np.arange(1, min(_HARMONICS, int((cycle - 1) // 2)) + 1) / cycle
    return np.hstack([np.sin(angle), np.cos(angle)])


def _before(series: Series, start: int) -> Series:
    """The time before treatment alone, as if treatment had begun in `start`."""
    end = series.fit_end
    return Series(
        outcome=series.outcome[:end],
        step=series.step[:end],
        start=start,
        fit_end=start,
        controls=series.controls[:end],
        control_names=series.control_names,
        names=series.names[:end],
        cycle=series.cycle,
    )


def _fits(design: FloatArray) -> bool:
    """Enough periods, and no term that copies others within them."""
    width = design.shape[1]
    return bool(len(design) >= width + _MINIMUM_DEGREES and np.linalg.matrix_rank(design) == width)


def _estimate(found: Contrast, series: Series, *, spec: Identification, n_treated: int, n_untreated: int) -> Estimate:
    return Estimate(
        estimator="interrupted time series" + (", with control series" if series.control_names else ""),
        estimand="ATT",
        estimate=found.estimate,
        standard_error=found.standard_error,
        interval=(found.low, found.high),
        interval_method=found.method,
        p_value=found.p_value,
        n_treated=n_treated,
        n_untreated=n_untreated,
        diagnostics={
            "pre_periods": float(series.fit_end),
            "post_periods": float(len(series.outcome) - series.start),
            **found.diagnostics,
        },
        notes=() if series.cycle is not None else (f"no seasons: the calendar of `{spec.time}` does not show one",),
    )


def _hazards(series: Series) -> tuple[Hazard, ...]:
    if "untreated units" in series.control_names:
        return ()
    return (
        Hazard(
            code="no_control_series",
            action="review",
            text="no untreated unit is compared: whatever else changed when treatment began is counted as its effect.",
            remedy="Add units that were not treated.",
        ),
    )
