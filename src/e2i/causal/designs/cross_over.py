"""A randomised cross-over: units change arms in an order that chance drew."""

from __future__ import annotations

import numpy as np

from e2i.causal.design import Identification, MissingOutcomes
from e2i.causal.designs.over_time import negative_controls, raw_difference, require_chance
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, certificate_of_panel, told_reasons
from e2i.causal.hazards import selective_loss
from e2i.causal.panel import cross_over
from e2i.causal.panel.data import Panel
from e2i.causal.panel.fixed_confounders import by_period
from e2i.causal.panel.jackknife import with_jackknife
from e2i.causal.panel.spill_over import spill_over
from e2i.domain.evidence import Effect, Hazard, Refutation

_FEWEST_UNITS = 10
_NOT_ASKED = frozenset(
    ("no_pre_period", "short_pre_period", "always_treated", "treated_before_entry", "few_controls", "differential_attrition")
)
"""checks of what came before treatment, of who stays without it, and of rows lost since it began: each unit has both arms"""
_HARDLY_SEEN = 1.4
"""times the standard error of the estimate, from which an estimate free of carry-over says too little of it"""
_WHY = "chance drew in which order each unit has both arms: they are compared within units, and what periods have in common is taken off."
_ASSUMED = "Assumed, and only partly tested: no arm works on into the next period (keep a wash-out between them)."


def estimate(panel: Panel, identification: Identification, hazards: tuple[Hazard, ...]) -> Estimation:
    """Effect within units, with the first period alone beside it. Raises CausalError."""
    main = _fit(panel)
    require_chance(main, panel)
    others, missed = beside({"an estimate free of carry-over": lambda: cross_over.free_of_carry_over(by_period(panel))}, identification)
    naive, untreated = raw_difference(panel, identification)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_panel(main, panel),
        ),
        reasons=(*told_reasons(identification), f"Cross-over: {_WHY}", _ASSUMED),
        hazards=(
            *(hazard for hazard in hazards if hazard.code not in _NOT_ASKED),
            *_about_carry_over(main, others),
            *as_warnings((*main.notes, *missed)),
        ),
        alternatives=others,
        concerns=tuple(selective_loss(_lost(panel))),
    )


def refute(panel: Panel, identification: Identification) -> tuple[Refutation, ...]:
    """Carry-over, spill-over, and outcomes that treatment cannot move."""
    fewest = min(_FEWEST_UNITS, panel.n_units)
    carried = cross_over.carry_over(by_period(panel))
    controls = negative_controls(panel, _fit, is_enough=lambda known: len(set(panel.unit[known].tolist())) >= fewest)
    return (*(() if carried is None else (carried,)), spill_over(panel, identification), *controls)


def _about_carry_over(main: Estimate, others: tuple[Effect, ...]) -> tuple[Hazard, ...]:
    """AB and BA over two periods compare within units only if nothing is carried over, and can hardly show that nothing is."""
    free = others[0].standard_error if others else float("inf")
    if free <= _HARDLY_SEEN * main.standard_error:
        return ()
    text = "with these orders of the arms, what one arm leaves behind in the next period can hardly be told from its effect"
    told = (
        f" (free of it: {others[0].estimate:.3g} with a standard error of {free:.3g}, {free / main.standard_error:.1f} times as large)"
        if others
        else ""
    )
    remedy = "Make sure that the wash-out was long enough; a further period (ABB and BAA) would show it."
    measured = free / main.standard_error if others else None
    return (
        Hazard(code="carry_over_unseen", action="review", text=f"{text}{told}.", remedy=remedy, measured=measured, threshold=_HARDLY_SEEN),
    )


def _lost(panel: Panel) -> list[MissingOutcomes]:
    """Units without some period, by the arm that they began with."""
    first = panel.time == 0
    whole = np.bincount(panel.unit, minlength=panel.n_units) == panel.n_periods
    found = []
    for arm, on in (("units that began treated", True), ("units that began untreated", False)):
        units = panel.unit[first & ((panel.treatment > 0) == on)]
        if len(units):
            found.append(MissingOutcomes(arm=arm, rows=len(units), missing=int((~whole[units]).sum())))
    return found


def _fit(panel: Panel) -> Estimate:
    return with_jackknife(cross_over.within_units(by_period(panel)), panel, lambda part: cross_over.within_units(by_period(part)))
