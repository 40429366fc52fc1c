"""Placebo groups have fewer donors than the treated: the width for the treated is taken from a fit with as few."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.design import Identification
from e2i.causal.panel.block import block_of
from e2i.causal.panel.donor_weights import ByOutcomes
from e2i.causal.panel.placebos import in_space
from e2i.causal.panel.prepare import make_panel

SPEC = Identification(design="synthetic_control", estimand="ATT", treatment="d", outcome="y", unit="u", time="t")


def handicap(treated: int) -> float:
    rng = np.random.default_rng(4)
    units, periods = 16, 20
    path = rng.normal(size=(units, 2)) @ rng.normal(size=(2, periods)).cumsum(axis=1) + 0.5 * rng.normal(size=(units, periods))
    on = (np.arange(units) < treated)[:, None] & (np.arange(periods) >= 14)
    keys = {"u": np.repeat(np.arange(units), periods), "t": np.tile(np.arange(periods), units)}
    block = block_of(make_panel(pl.DataFrame(keys | {"d": on.ravel().astype(int), "y": path.ravel()}), SPEC), SPEC)
    mixing = block.pooled()
    own = ((mixing - ByOutcomes()(block, mixing)).T @ block.outcome).mean(axis=0)
    return in_space(block, own, ByOutcomes(), seed=1).handicap


def test_several_treated_are_fitted_worse_with_as_few_donors_as_their_placebos_have() -> None:
    assert handicap(1) == 1.0, "the placebos of one unit lack one donor, which is nearly none"
    assert 1.0 < handicap(4) < 3.0
