"""One row per HCP of one brand: the bundled study's table, cut out of the weekly records around each HCP's index date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.data.synthetic.hcps import AGE_GROUPS
from e2i.data.synthetic.story import (
    BRANDS,
    POST_WEEKS,
    PRACTICES,
    PRE_WEEKS,
    REGIONS,
    SPECIALTIES,
    STORY,
    STUDY_BRAND,
    dates,
    labels,
    stream,
    with_gaps,
)
from e2i.data.synthetic.truth import TrueEffect, true_effect

if TYPE_CHECKING:
    import numpy.typing as npt

    from e2i.data.synthetic.hcps import Hcps
    from e2i.data.synthetic.panel import Panel
    from e2i.data.synthetic.story import Flags, Ints

TABLE = "hcp_speaker_study"
BRAND = BRANDS.index(STUDY_BRAND)
OUTCOME_START = 2
"""weeks from the index week to the first week of outcome; the program is in between"""


def hcp_speaker_study(hcps: Hcps, panel: Panel, *, seed: int) -> pl.DataFrame:
    """Covariates of the 12 weeks before `index_date`, the program in the week after it, the 12 weeks of outcome after that."""
    nbrx, other, refills = (_before(panel, panel.scripts[part]) for part in range(3))
    nrx = nbrx + other
    half = PRE_WEEKS // 2
    other_pre, other_post = _other_product(hcps, seed=seed)
    converted = converted_in_fact(panel)
    index_days = 7 * panel.index_week[:, BRAND]
    frame = pl.DataFrame(
        {
            "hcp_id": hcps.ids,
            "index_date": dates(index_days),
            "specialty": labels(SPECIALTIES, hcps.specialty),
            "region": labels(REGIONS, hcps.region),
            "decile": hcps.decile,
            "practice_type": labels(PRACTICES, hcps.practice_type),
            "academic": hcps.academic,
            "years_experience": pl.Series(hcps.years).set(pl.Series(hcps.years_missing), None),
            "age_group": labels(AGE_GROUPS, hcps.age_group),
            "digital_engagement": with_gaps(hcps.digital, hcps.digital_missing),
            "peer_influence": hcps.peer_influence,
            "access_share": with_gaps(hcps.access[:, BRAND], hcps.access_missing),
            "calls_pre": _before(panel, panel.calls).sum(axis=1),
            "samples_pre": _before(panel, panel.samples).sum(axis=1),
            "digital_touches_pre": _before(panel, panel.touches).sum(axis=1),
            "nbrx_pre": nbrx.sum(axis=1),
            "nrx_pre": nrx.sum(axis=1),
            "trx_pre": nrx.sum(axis=1) + refills.sum(axis=1),
            "nrx_trend_pre": nrx[:, half:].sum(axis=1) - nrx[:, :half].sum(axis=1),
            "nrx_other_product_pre": other_pre,
            "speaker_program": panel.attended[:, BRAND].astype(np.int64),
            "calls_post": panel.window(panel.calls, BRAND, start=OUTCOME_START, weeks=POST_WEEKS).sum(axis=1),
            "nrx": _post(panel, parts=2),
            "trx_post": _post(panel, parts=3),
            "nrx_other_product": other_post,
            "will_convert": converted.astype(np.int64),
            "conversion_date": dates(index_days + panel.conversion_day[:, BRAND]).set(pl.Series(~converted), None),
        }
    )
    return frame.filter(pl.Series(panel.in_market[:, BRAND])).sort("index_date", "hcp_id")


def _before(panel: Panel, values: npt.NDArray[np.signedinteger]) -> Ints:
    return panel.window(values, BRAND, start=-PRE_WEEKS, weeks=PRE_WEEKS)


def converted_in_fact(panel: Panel) -> Flags:
    """Shape (n,): who converted in the world that happened."""
    return np.asarray(np.where(panel.attended[:, BRAND], panel.converts[1, :, BRAND], panel.converts[0, :, BRAND]))


def _post(panel: Panel, *, parts: int) -> Ints:
    scripts = panel.scripts[:parts].sum(axis=0)
    return np.asarray(panel.window(scripts, BRAND, start=OUTCOME_START, weeks=POST_WEEKS).sum(axis=1))


def _other_product(hcps: Hcps, *, seed: int) -> tuple[Ints, Ints]:
    """Recorded NRx of a product that the program does not touch, before and after; it shares the HCP's volume and practice."""
    rng = stream(seed, "other_product")
    affinity = np.array(STORY[BRAND].affinity)[hcps.specialty]
    busy = (hcps.volume / 320.0) ** 0.75 * np.exp(rng.normal(0, 0.25, len(hcps.ids)) + 0.5 * hcps.taste[:, BRAND])
    rate = 0.45 * PRE_WEEKS * affinity * busy * np.where(hcps.academic == 1, 1.15, 1.0)
    return rng.poisson(rate), rng.poisson(rate)


def unit_truth(hcps: Hcps, panel: Panel) -> pl.DataFrame:
    """Both recorded outcomes of every HCP and brand."""
    hcp, brand = np.nonzero(panel.in_market)
    return pl.DataFrame(
        {
            "hcp_id": labels(hcps.ids, hcp),
            "brand": labels(list(BRANDS), brand),
            "index_date": dates(7 * panel.index_week[hcp, brand]),
            "propensity": panel.propensity[hcp, brand],
            "treated": panel.attended[hcp, brand],
            "nrx_if_untreated": panel.outcome[0, hcp, brand],
            "nrx_if_treated": panel.outcome[1, hcp, brand],
            "expected_gain": panel.expected_gain[hcp, brand],
            "convert_probability_if_untreated": panel.convert_probability[0, hcp, brand],
            "convert_probability_if_treated": panel.convert_probability[1, hcp, brand],
            "converts_if_untreated": panel.converts[0, hcp, brand],
            "converts_if_treated": panel.converts[1, hcp, brand],
        }
    )


def study_effects(hcps: Hcps, panel: Panel, study: pl.DataFrame) -> tuple[TrueEffect, ...]:
    """True effects of the program on the study's three outcomes, over the study's rows."""
    rows = panel.in_market[:, BRAND]
    treated = panel.attended[rows, BRAND]
    modifiers = {
        "specialty": labels(SPECIALTIES, hcps.specialty[rows]),
        "decile": pl.Series(hcps.decile[rows]),
        "academic": pl.Series(hcps.academic[rows]),
    }
    other = study.join(pl.DataFrame({"hcp_id": labels(hcps.ids, np.flatnonzero(rows))}), on="hcp_id", maintain_order="right")
    unmoved = other["nrx_other_product"].to_numpy().astype(np.float64)
    worlds = {
        "nrx": panel.outcome[:, rows, BRAND].astype(np.float64),
        "will_convert": panel.converts[:, rows, BRAND].astype(np.float64),
        "nrx_other_product": np.stack([unmoved, unmoved]),
    }
    return tuple(
        true_effect((TABLE, "speaker_program", outcome), treated=treated, if_treated=with_, if_untreated=without, modifiers=modifiers)
        for outcome, (without, with_) in worlds.items()
    )
