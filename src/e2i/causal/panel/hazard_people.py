"""What is wrong with the people behind groups and periods: rows given twice, and rows that go missing where treatment is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from e2i.causal.hazard_table import Action
from e2i.causal.hazards import COPIES_BLOCK, COPIES_REVIEW, surplus_copies
from e2i.causal.panel.data import Panel
from e2i.causal.panel.on_off import fixed_effects
from e2i.causal.panel.repeated import MANY_GROUPS, cell_means
from e2i.domain.evidence import Hazard
from e2i.errors import CausalError, TooFewRows

_GAP, _Z = 0.05, 3.5


def about_people(panel: Panel) -> Iterator[Hazard]:
    """Hazards of repeated cross-sections that a panel of units does not have."""
    share = _copied(panel)
    if share > COPIES_REVIEW:
        text = f"{share:.0%} of rows are exact copies of other rows: the interval counts them as new evidence."
        action: Action = "block" if share > COPIES_BLOCK else "review"
        remedy = "Remove duplicates; people who are alike differ in their outcome's decimals."
        yield Hazard(code="copied_rows", action=action, text=text, remedy=remedy, measured=share, threshold=COPIES_REVIEW)
    change = _change_in_rows(panel)
    if change is not None:
        text = (
            f"groups under treatment have {abs(change):.0%} {'fewer' if change < 0 else 'more'} rows than the others' periods let expect."
        )
        remedy = "Find out why people enter or leave; if treatment or its result decides it, the effect is not identified."
        yield Hazard(code="differential_attrition", action="review", text=text, remedy=remedy, measured=abs(change), threshold=_GAP)


def _copied(panel: Panel) -> float:
    """Share of rows that repeat another of their group and period in all columns, in 0-1.

    Without covariates two people of one group may well have the same outcome; then only a whole table given twice is believed.
    """
    others = np.column_stack([panel.treatment, panel.unit, panel.time, panel.covariates])
    groups = np.unique(np.column_stack([panel.outcome, others]), axis=0, return_inverse=True)[1]
    is_told_apart = panel.covariates.shape[1] > 0
    outcome = panel.outcome if is_told_apart else np.unique(panel.outcome, return_inverse=True)[1].astype(np.float64)
    return surplus_copies(outcome, others, groups=groups.ravel().astype(np.int64))


def _change_in_rows(panel: Panel) -> float | None:
    """Double difference of the logarithm of rows per group and period, as a share; None where chance explains it, or groups are few."""
    if panel.n_units < MANY_GROUPS:
        return None
    cells = cell_means(replace(panel, weights=None, covariates=np.zeros((len(panel.unit), 0)), covariate_names=()))
    assert cells.weights is not None, "without weights the mass of a cell is its rows"
    if np.ptp(cells.weights) == 0:
        return None
    counts = replace(cells, outcome=np.log(cells.weights), weights=None)
    try:
        found = fixed_effects(counts, counts.treatment[:, None], ("treatment",))
    except (CausalError, TooFewRows):  # nothing to compare; the estimator itself says so
        return None
    error, change = float(np.sqrt(found.covariance[0, 0])), float(np.expm1(found.coefficients[0]))
    return change if abs(change) > _GAP and abs(found.coefficients[0]) > _Z * error else None
