"""Few clusters: the interval from estimates that leave one cluster out each (CV3; MacKinnon, Nielsen & Webb 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.data import Panel
from e2i.errors import CausalError, DataError

FEW = 30


def with_jackknife(found: Estimate, panel: Panel, fit: Callable[[Panel], Estimate]) -> Estimate:
    """The estimate with the jackknife's standard error and t(G - 1), where clusters are fewer than 30.

    The usual clustered error takes residuals for errors; with few or unequal clusters the estimate has bent towards the largest of
    them, and the interval is too narrow.

    Parameters
    ----------
    fit : the estimator that gave `found`

    Returns
    -------
    `found` itself with 30 clusters or more, and where the effect cannot be estimated without one of them.
    """
    from scipy.stats import t

    number = panel.cluster_of_rows
    groups = int(number.max()) + 1
    if groups >= FEW:
        return found
    try:
        estimates = np.array([fit(_without(panel, group)).estimate for group in range(groups)])
    except (CausalError, DataError):  # one cluster carries an arm or a period alone
        note = "the jackknife over clusters is not to be had; with so few of them the interval may be too narrow"
        return replace(found, notes=(*found.notes, note))
    error = float(np.sqrt((groups - 1) / groups * np.sum((estimates - found.estimate) ** 2)))
    if error <= found.standard_error:
        return found
    half = float(t.ppf(0.5 + LEVEL / 2, groups - 1)) * error
    return replace(
        found,
        standard_error=error,
        interval=(found.estimate - half, found.estimate + half),
        interval_method=f"{found.interval_method}, jackknife (CV3)",
        p_value=float(2.0 * t.sf(abs(found.estimate) / error, groups - 1)),
    )


def _without(panel: Panel, group: int) -> Panel:
    """The panel without one cluster."""
    if panel.row_cluster is not None:
        return panel.of_rows(panel.row_cluster != group)
    return panel.of_units(panel.cluster != group)
