"""Prescriptions and promotion by HCP, brand and week; speaker programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.data.synthetic.story import BRANDS, WEEKS, dates, labels, numbered, stream

if TYPE_CHECKING:
    from e2i.data.synthetic.hcps import Hcps
    from e2i.data.synthetic.panel import Panel


def hcp_weekly(hcps: Hcps, panel: Panel) -> pl.DataFrame:
    """One row per HCP, brand of its market, and week. Calls and samples are empty while nobody covers the territory.

    trx = nrx + refills and nbrx <= nrx <= trx hold in every row; `week_end` is a Friday.
    """
    hcp, brand = np.nonzero(panel.in_market)
    nbrx, other, refills = (panel.scripts[part, hcp, brand].ravel() for part in range(3))
    week = np.tile(np.arange(WEEKS), len(hcp))
    vacant = pl.Series(~panel.is_active[hcps.territory[hcp]].ravel())
    program = (week.reshape(-1, WEEKS) == panel.index_week[hcp, brand][:, None] + 1) & panel.attended[hcp, brand][:, None]
    return pl.DataFrame(
        {
            "hcp_id": labels(hcps.ids, np.repeat(hcp, WEEKS)),
            "brand": labels(BRANDS, np.repeat(brand, WEEKS)),
            "week_end": dates(7 * week),
            "trx": nbrx + other + refills,
            "nrx": nbrx + other,
            "nbrx": nbrx,
            "refills": refills,
            "calls": pl.Series(panel.calls[hcp, brand].ravel().astype(np.int32)).set(vacant, None),
            "samples": pl.Series(panel.samples[hcp, brand].ravel().astype(np.int32)).set(vacant, None),
            "digital_touches": panel.touches[hcp, brand].ravel().astype(np.int32),
            "speaker_program": program.ravel().astype(np.int32),
        }
    )


def speaker_programs(hcps: Hcps, panel: Panel, *, seed: int) -> pl.DataFrame:
    """One row per invitation; the program is in the week after the index date. HCPs of a territory share one event a week."""
    rng = stream(seed, "speaker_programs")
    hcp, brand = np.nonzero(panel.invited)
    week = panel.index_week[hcp, brand] + 1
    event = (hcps.territory[hcp] * len(BRANDS) + brand) * WEEKS + week
    names, place = np.unique(event, return_inverse=True)
    is_virtual = rng.random(len(names)) < 0.35
    weekday = rng.integers(2, 5, len(names))
    return pl.DataFrame(
        {
            "program_id": labels(numbered("PRG", len(names), digits=5), place),
            "hcp_id": labels(hcps.ids, hcp),
            "brand": labels(BRANDS, brand),
            "program_date": dates(7 * week - weekday[place]),
            "week_end": dates(7 * week),
            "format": labels(("in_person", "virtual"), is_virtual[place].astype(np.int64)),
            "attended": panel.attended[hcp, brand].astype(np.int32),
        }
    ).sort("program_date", "program_id", "hcp_id")
