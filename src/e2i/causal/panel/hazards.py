"""What is wrong with a panel before anything is estimated, measured and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.hazard_checks import EXTREME_TIMES, MIXED_SHARE, SCALE_GAP, extreme_outcome, mixed_units, two_scales
from e2i.causal.hazard_scale import missing_codes
from e2i.causal.late_reports import late_reports, late_reports_of_treated
from e2i.causal.panel.absorb import TwoWay
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.dose_shape import curved_dose
from e2i.causal.panel.few_treated import has_few_treated
from e2i.causal.panel.fixed_confounders import unseen_among_untreated
from e2i.causal.panel.hazard_rows import alike, gone_at_the_start, lost_after_treatment, rhythms, running_totals, single_row, stray_zeros
from e2i.causal.panel.on_off import fixed_effects
from e2i.causal.panel.partial_start import partial_start
from e2i.domain.disclosure import counted, visible
from e2i.domain.evidence import Hazard
from e2i.errors import NoVariation, TooFewRows

_FEW_CLUSTERS, _FEW_TREATED = 10, 5
_MISSING_REVIEW, _MISSING_GAP, _MISSING_Z = 0.20, 0.05, 2.5
ALWAYS_REVIEW = 0.20
"""share of the ever treated above which leaving out the always treated changes whose effect is told"""
_LONG_STEP = 1.75
"""of the usual distance of periods; months and quarters differ by less"""
_MOVES_WITH_TREATMENT = 4.0
_COPY, _NEAR_COPY = 0.999, 0.98
_ROWS_FOR_MEDIAN = 4
_LASTING = ("did", "matched", "synthetic_control", "synthetic_did")
_COMPARED = ("did", "matched")
"""designs whose intervals come from many treated and untreated units"""


def panel_hazards(panel: Panel, spec: Identification) -> tuple[Hazard, ...]:
    """Checks of a prepared panel, worst first. `refuse` ends the analysis.

    Refused in `make_panel` already: duplicates, missing keys, codes other than 0/1, nobody treated, nobody as control.
    """
    found = [hazard for check in _FIRST for hazard in check(panel, spec)]
    if not any(hazard.action == "refuse" for hazard in found):
        found += [hazard for check in _CHECKS for hazard in check(panel, spec)]
    order = ("refuse", "override", "block", "review", "warn")
    return tuple(sorted(found, key=lambda hazard: order.index(hazard.action)))


def _outcome(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    del spec
    if np.ptp(panel.outcome) == 0:
        text = f"the outcome is {panel.outcome[0]:g} in every row."
        yield Hazard(code="outcome_constant", action="refuse", text=text, remedy="Check how it was built.", measured=0.0)
        return
    times = extreme_outcome(panel.outcome)
    if times is not None:
        text = f"an outcome lies {times:.2g} times the usual distance from the median."
        yield Hazard(code="extreme_outcome", action="refuse", text=text, remedy="Correct it or set it to missing.", measured=times)


def _measures(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Outcome, dose, confounders and negative controls in one unit of measure each, without codes for "missing" among them.

    A few units that are far larger than the others all along may be meant; so outcome and dose are refused where rows lie far from
    the others of their own unit, and else shown to a person.
    """
    dose = {spec.treatment: panel.treatment} if spec.treatment_kind == "continuous" else {}
    decisive = {spec.outcome: panel.outcome, **dose}
    others = dict(zip(panel.covariate_names, panel.covariates.T, strict=True)) | panel.negative_controls
    for name, values in {**others, **decisive}.items():
        known = np.isfinite(values)
        if not known.any() or np.ptp(values[known]) == 0:
            continue
        if name != spec.outcome and (times := extreme_outcome(values[known])) is not None:
            text = f"a value of `{name}` lies more than 10¹² times the usual distance from the median."
            remedy = "Correct it, or set it to missing."
            yield Hazard(code="extreme_value", action="refuse", text=text, remedy=remedy, measured=times, threshold=EXTREME_TIMES)
            continue
        stands_for = missing_codes(values[known])
        if len(stands_for):
            yield _about_codes(name, values[known], stands_for, decides=name in decisive)
            continue
        yield from _about_units_of_measure(name, values, panel, decides=name in decisive)


def _about_codes(name: str, known: FloatArray, stands_for: FloatArray, *, decides: bool) -> Hazard:
    share = float(np.isin(known, stands_for).mean())
    shown = ", ".join(f"{code:g}" for code in stands_for)
    text = f"{share:.1%} of the values of `{name}` are {shown}, far from all others: do they stand for missing?"
    remedy = "Set them to missing in the source."
    return _found("missing_code", "override" if decides else "review", text, remedy, (share, MIXED_SHARE))


def _about_units_of_measure(name: str, values: FloatArray, panel: Panel, *, decides: bool) -> Iterator[Hazard]:
    known = np.isfinite(values)
    own = values[known] - _unit_medians(values[known], panel.unit[known])
    # Of two or three rows the median says nothing about what is usual.
    is_long = len(own) >= _ROWS_FOR_MEDIAN * len(np.unique(panel.unit[known])) and np.ptp(own) > 0
    remedy = "Bring all rows to one unit of measure, and set codes such as -999 to missing."
    within = mixed_units(own) if is_long else None
    if within is not None and decides:
        text = f"{within:.1%} of `{name}` lie 100 times the usual distance or more from their unit's median, with a gap before them."
        yield _found("units_mixed", "refuse", text, remedy, (within, MIXED_SHARE))
        return
    share = mixed_units(values[known])
    if share is not None:
        text = f"{share:.1%} of the values of `{name}` lie 100 times the usual distance or more from the median, with a gap before them."
        yield _found("units_mixed", "review", text, remedy, (share, MIXED_SHARE))
    elif (factor := two_scales(values[known])) is not None:
        text = f"the values of `{name}` fall into two groups about {factor:.0f} times apart, with nothing between: are two units mixed?"
        yield _found("two_scales", "review", text, remedy, (factor, SCALE_GAP))


def _unit_medians(values: FloatArray, unit: IntArray) -> FloatArray:
    """Of the row's unit, shape (n,)."""
    order = np.lexsort((values, unit))
    _, place, count = np.unique(unit, return_inverse=True, return_counts=True)
    start = np.cumsum(count) - count
    medians: FloatArray = values[order][start + count // 2]
    return medians[place]


def _clusters(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.design not in _COMPARED:
        return
    count = int(panel.cluster.max()) + 1
    name = f"`{spec.cluster or spec.unit}`"
    if count < 2:
        text = f"{name} makes one cluster: nothing shows how clusters vary."
        yield Hazard(code="one_cluster", action="refuse", text=text, remedy="Name a finer cluster.", measured=1.0, threshold=2.0)
    elif count < _FEW_CLUSTERS:
        text = f"{count} clusters of {name}: intervals from so few are rough."
        remedy = "Look at the wild-bootstrap interval beside it, or name finer clusters."
        yield Hazard(code="few_clusters", action="review", text=text, remedy=remedy, measured=float(count), threshold=float(_FEW_CLUSTERS))


def _switched_off(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.design not in _LASTING or spec.treatment_kind in ("on_off", "continuous") or panel.is_absorbing:
        return
    begun = panel.cohort[panel.unit]
    off = (begun != NEVER) & (panel.time >= begun) & (panel.treatment == 0)
    count = len(np.unique(panel.unit[off]))
    text = f"treatment ends again in {counted(count, 'units')}, and this design takes it as lasting."
    remedy = "Use a design for treatments that go on and off, or end a unit's rows with its treatment."
    yield Hazard(code="treatment_switched_off", action="refuse", text=text, remedy=remedy, measured=_measured(count), threshold=0.0)


def _measured(count: int) -> float | None:
    """A count of units, unless it is a small cell."""
    shown = visible(count)
    return None if shown is None else float(shown)


def _share(share: float, count: int) -> float | None:
    """A share of rows, unless the count behind it is a small cell."""
    return None if visible(count) is None else share


def _start(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.treatment_kind == "continuous":
        return
    always = panel.is_treated_from_start
    first = panel.observed.argmax(axis=1)
    entered_late = always & (first > 0) & (panel.cohort != NEVER)
    if entered_late.any():
        count = int(entered_late.sum())
        text = f"{counted(count, 'units')} enter the data after their treatment began."
        yield Hazard(code="treated_before_entry", action="warn", text=text, remedy="They are left out.", measured=_measured(count))
    if (always & ~entered_late).any() and spec.treatment_kind != "on_off":
        count, begun = int((always & ~entered_late).sum()), int((panel.cohort != NEVER).sum())
        action, rest = ("review", ": the effect is that of the others") if count > ALWAYS_REVIEW * begun else ("warn", "")
        text = f"{counted(count, 'units')} of {panel.n_units} are treated from their first period on and left out{rest}."
        remedy = "Nothing shows them before treatment; add earlier periods to keep them."
        yield _found("always_treated", action, text, remedy, (_measured(count), ALWAYS_REVIEW))


def _arms(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.design not in _COMPARED or spec.treatment_kind == "continuous":
        return
    treated = (panel.cohort != NEVER) & ~panel.is_treated_from_start
    never = panel.cohort == NEVER
    if spec.treatment_kind != "on_off" and not spec.is_repeated_cross_section and len(np.unique(panel.cluster[treated | never])) == 2:
        text = "one treated and one untreated cluster: nothing shows how far two such clusters drift apart by chance."
        remedy = "Add untreated clusters; or take the difference of the two as one series, without `unit`: its own past is its control."
        yield Hazard(code="one_cluster", action="refuse", text=text, remedy=remedy, measured=2.0, threshold=3.0)
        return
    for code, members, who in (("few_treated", treated, "treated"), ("few_controls", never, "never-treated")):
        count = len(np.unique(panel.cluster[members]))
        if code == "few_controls" and spec.treatment_kind == "on_off":  # units that do not switch just then are the controls
            continue
        if code == "few_controls" and count == 0:
            text = "every unit is treated in the end; late cohorts are the only controls, and the last has none."
            yield Hazard(code="all_treated_in_the_end", action="warn", text=text, remedy="Add units that are never treated.", measured=0.0)
        elif count < _FEW_TREATED:
            ending = "its width comes from changes of whole clusters." if has_few_treated(panel) else "it is too narrow."
            text = f"fewer than {_FEW_TREATED} {who} clusters: the interval cannot learn from so few how they vary; {ending}"
            remedy = "Read it beside a synthetic control with placebos in space."
            yield Hazard(code=code, action="review", text=text, remedy=remedy, measured=_measured(count), threshold=float(_FEW_TREATED))


def _before(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.treatment_kind == "continuous":
        return
    treated = (panel.cohort != NEVER) & ~panel.is_treated_from_start
    if not treated.any():
        return
    seen = panel.observed & (np.arange(panel.n_periods) < (panel.cohort - spec.anticipation)[:, None])
    longest = int(seen[treated].sum(axis=1).max())
    if longest == 0:
        text = f"no treated unit is seen before treatment less {spec.anticipation} periods of anticipation."
        yield Hazard(code="no_pre_period", action="refuse", text=text, remedy="Add earlier periods.", measured=0.0, threshold=1.0)
    elif longest == 1 and spec.design != "interrupted_time_series":
        text = "one period before treatment: parallel trends cannot be tested."
        remedy = "Add earlier periods, or name a negative control outcome."
        yield Hazard(code="short_pre_period", action="review", text=text, remedy=remedy, measured=1.0, threshold=2.0)


def _missing_cells(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    del spec
    observed = panel.observed
    share = 1.0 - float(observed.mean())
    if share > 0:
        action, remedy = "review" if share > _MISSING_REVIEW else "warn", "Fill rows that exist elsewhere; a missing row is not a zero."
        lacking = int((~observed).sum())
        how_many = f"{share:.1%} of the unit-periods" if visible(lacking) is not None else counted(lacking, "unit-periods")
        text = f"{how_many} have no row with outcome and treatment."
        yield _found("unbalanced_panel", action, text, remedy, (_share(share, lacking), _MISSING_REVIEW))
    treated = panel.cohort != NEVER
    if share > 0 and treated.any() and not treated.all():
        late = np.arange(panel.n_periods) >= panel.cohort[treated].min()
        # Who leaves before treatment begins is never seen treated, so the arms are compared among those that are there once it has.
        seen = observed[:, late].any(axis=1) if panel.cohort_given is None else np.ones(panel.n_units, dtype=np.bool_)
        arms = (treated & seen, ~treated & seen)
        if not arms[1].any():
            return
        lost = 1.0 - observed[:, late].mean(axis=1)
        more = lost - (1.0 - observed[:, ~late].mean(axis=1) if (~late).any() else 0.0)
        gap, error = _difference(more, arms, panel.cluster)
        if abs(gap) > max(_MISSING_GAP, _MISSING_Z * error):
            shares = [float(lost[arm].mean()) for arm in arms]
            text = f"once treatment has begun, {shares[0]:.0%} of rows are missing among the treated and {shares[1]:.0%} among the others."
            remedy = "Find out why units leave; if treatment makes them leave, the effect is not identified."
            yield _found("differential_attrition", "review", text, remedy, (abs(gap), _MISSING_GAP))


def _difference(values: FloatArray, arms: tuple[BoolArray, BoolArray], cluster: IntArray) -> tuple[float, float]:
    """Of the arms' means, `values` of shape (N,), with its clustered standard error."""
    means = [float(values[arm].mean()) for arm in arms]
    scores = sum((arm / arm.sum() * (values - mean) * sign for arm, mean, sign in zip(arms, means, (1.0, -1.0), strict=True)), np.zeros(1))
    return means[0] - means[1], float(np.sqrt(np.sum(np.bincount(cluster, weights=scores) ** 2)))


def _gaps(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    steps = np.diff(panel.period_values)
    long = steps > _LONG_STEP * float(np.median(steps))
    if long.any():
        where = panel.period_names[int(np.flatnonzero(long)[0])]
        text = f"{int(long.sum())} steps between periods are longer than usual, the first after {where}."
        remedy = "Periods without any row are skipped when time since treatment is counted; add them or use coarser periods."
        yield _found("gaps", "warn", text, remedy, (float(long.mean()), 0.0))
    observed = panel.observed
    last = panel.n_periods - observed[:, ::-1].argmax(axis=1)
    inner = (last - observed.argmax(axis=1)) - observed.sum(axis=1)
    if (inner > 0).any():
        share, units = float((inner > 0).mean()), int((inner > 0).sum())
        how_many = f"{share:.1%} of the units" if visible(units) is not None else counted(units, "units")
        text = f"{how_many} of `{spec.unit}` have a gap between their first and last row."
        yield _found("gaps_in_units", "warn", text, "Check the join or the reporting of these periods.", (_share(share, units), 0.0))


def _confounders(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Confounders that repeat treatment or outcome, or that move when treatment begins."""
    if panel.covariates.shape[1] == 0:
        return
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    project = TwoWay(unit=panel.unit, time=panel.time, weights=weights)
    inside, roles = project.residual(panel.covariates), project.residual(np.column_stack([panel.treatment, panel.outcome]))
    scale = np.abs(panel.covariates).max(axis=0)
    bare = replace(panel, covariates=np.zeros((len(panel.unit), 0)), covariate_names=())
    for number, name in enumerate(panel.covariate_names):
        own = inside[:, number]
        if np.abs(own).max() <= 1e-9 * scale[number]:
            continue
        fit = [float((own @ role) ** 2 / max((own @ own) * (role @ role), 1e-300)) for role in roles.T]
        for code, value, what in (("copies_treatment", fit[0], "treatment"), ("copies_outcome", fit[1], "the outcome")):
            if value > _COPY:
                text = f"`{name}` repeats {what} within units."
                yield _found(code, "refuse", text, "Take it out of `confounders`.", (value, _COPY))
        if _NEAR_COPY < fit[1] <= _COPY:
            text = f"`{name}` explains {fit[1]:.1%} of the outcome within units: is it measured after treatment?"
            yield _found("leak", "review", text, "Adjust only for what was known before treatment.", (fit[1], _NEAR_COPY))
        if max(fit) > _COPY or spec.treatment_kind == "continuous":
            continue
        try:
            found = fixed_effects(replace(bare, outcome=panel.covariates[:, number]), panel.treatment[:, None], ("treatment",))
        except (NoVariation, TooFewRows):  # too little to test; the estimator itself, or another check, says so
            return
        error = float(np.sqrt(found.covariance[0, 0]))
        if error > 0 and abs(found.coefficients[0]) / error > _MOVES_WITH_TREATMENT:
            text = f"`{name}` moves when treatment begins ({found.coefficients[0]:+.3g}): it may be a consequence."
            remedy = "If treatment can change it, take it out of `confounders`, or use its value before treatment."
            yield _found("confounder_after_treatment", "review", text, remedy, (abs(found.coefficients[0]) / error, _MOVES_WITH_TREATMENT))


def _unseen(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    if spec.design != "did" or spec.is_repeated_cross_section or spec.treatment_kind in ("on_off", "continuous"):
        return
    names = unseen_among_untreated(panel)
    if names:
        text = f"{', '.join(f'`{name}`' for name in names)} does not differ among never-treated units: nothing shows how trends go with it."
        remedy = "Leave out the treated units that have no untreated unit like them, or take it out of `confounders`."
        yield Hazard(code="confounder_without_controls", action="review", text=text, remedy=remedy)


def _late(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Judged by units that treatment cannot have lowered, then by the treated; by all where treatment comes and goes, or is a dose."""
    del spec
    if panel.outcome.min() < 0:  # a volume that is not fully reported is too small; a change or a logarithm has no such mark
        return
    rows = panel.cohort[panel.unit] == NEVER
    if not rows.any():
        if panel.is_absorbing:
            return
        rows = np.ones(len(panel.unit), dtype=np.bool_)
    found = late_reports(panel.time[rows], panel.outcome[rows])
    if found is None and panel.is_absorbing and (panel.cohort == NEVER).any():
        found = late_reports_of_treated(panel.time, panel.outcome, panel.cohort[panel.unit])
    if found is not None:
        yield found


def _left_out(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    lost = panel.rows_given - len(panel.unit)
    share = lost / panel.rows_given if panel.rows_given else 0.0
    if lost > 0:
        how_many = f"{share:.1%} of rows" if visible(lost) is not None else counted(lost, "rows")
        text = f"{how_many} have no `{spec.outcome}` or no treatment and were left out."
        action = "review" if share > _MISSING_REVIEW else "warn"
        yield _found("missing_outcome", action, text, "Complete them at the source.", (_share(share, lost), _MISSING_REVIEW))


def _found(code: str, action: str, text: str, remedy: str, measure: tuple[float | None, float]) -> Hazard:
    return Hazard(code=code, action=action, text=text, remedy=remedy, measured=measure[0], threshold=measure[1])  # type: ignore[arg-type]


_FIRST: tuple[Callable[[Panel, Identification], Iterator[Hazard]], ...] = (_outcome, _measures, rhythms)
"""what refuses here leaves nothing to be measured further"""
_CHECKS: tuple[Callable[[Panel, Identification], Iterator[Hazard]], ...] = (
    alike,
    stray_zeros,
    running_totals,
    single_row,
    lost_after_treatment,
    gone_at_the_start,
    _clusters,
    _switched_off,
    _start,
    _arms,
    _before,
    partial_start,
    _missing_cells,
    _gaps,
    _confounders,
    curved_dose,
    _unseen,
    _late,
    _left_out,
)
