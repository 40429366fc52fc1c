"""The pharma world: all its tables from one seed, and its truth apart from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from e2i.data.files import ROLE_KEY
from e2i.data.synthetic import care, hcps, metrics, panel, patients, speaker_study, weekly
from e2i.data.synthetic.story import DEFAULT_SIZE
from e2i.data.synthetic.truth import Truth
from e2i.domain.nearest import suggestion
from e2i.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import polars as pl

SMALLEST, LARGEST = 50, 1_000_000


@dataclass(frozen=True, kw_only=True)
class World:
    """`tables` by name; `truth` holds what no table shows."""

    tables: dict[str, pl.DataFrame]
    truth: Truth


@dataclass(frozen=True, kw_only=True)
class _Story:
    """The parts of one world; each is drawn when it is first needed, from its own random stream."""

    seed: int
    size: int

    @cached_property
    def hcps(self) -> hcps.Hcps:
        return hcps.draw_hcps(self.size, seed=self.seed)

    @cached_property
    def panel(self) -> panel.Panel:
        return panel.simulate(self.hcps, seed=self.seed)

    @cached_property
    def journeys(self) -> patients.Journeys:
        return patients.draw_journeys(self.hcps, self.panel, seed=self.seed)

    @cached_property
    def profiles(self) -> pl.DataFrame:
        return hcps.hcp_profiles(self.hcps, seed=self.seed)

    @cached_property
    def weekly(self) -> pl.DataFrame:
        return weekly.hcp_weekly(self.hcps, self.panel)

    @cached_property
    def conversions(self) -> pl.DataFrame:
        return patients.conversions(self.hcps, self.journeys)

    @cached_property
    def study(self) -> pl.DataFrame:
        return speaker_study.hcp_speaker_study(self.hcps, self.panel, seed=self.seed)


_TABLES: dict[str, Callable[[_Story], pl.DataFrame]] = {
    "hcp_speaker_study": lambda story: story.study,
    "hcp_profiles": lambda story: story.profiles,
    "territories": lambda story: hcps.territories(story.hcps),
    "hcp_weekly": lambda story: story.weekly,
    "speaker_programs": lambda story: weekly.speaker_programs(story.hcps, story.panel, seed=story.seed),
    "patient_journeys": lambda story: patients.patient_journeys(story.hcps, story.journeys, seed=story.seed),
    "treatment_events": lambda story: care.treatment_events(story.hcps, story.journeys, seed=story.seed),
    "triggers": lambda story: care.triggers(story.hcps, story.journeys, seed=story.seed),
    "conversions": lambda story: story.conversions,
    "business_metrics": lambda story: metrics.business_metrics(story.weekly, story.profiles, story.conversions, seed=story.seed),
}
TABLE_NAMES = tuple(_TABLES)
DEFAULT_TABLE = TABLE_NAMES[0]


def generate(seed: int, *, size: int = DEFAULT_SIZE) -> World:
    """The whole world.

    Parameters
    ----------
    seed : 0 or more; the same seed and size give the same world on every machine with the same numpy
    size : number of HCPs, 50 to 1,000,000; there are six patients per HCP

    Raises
    ------
    ConfigError
        Seed or size outside their range.
    """
    story = _story(seed, size)
    return World(tables={name: build(story) for name, build in _TABLES.items()}, truth=_truth(story, with_patients=True))


def generate_tables(names: Iterable[str], *, seed: int, size: int = DEFAULT_SIZE) -> dict[str, pl.DataFrame]:
    """Some tables, equal to those of the whole world, without drawing the rest. Raises NotFound and ConfigError."""
    story = _story(seed, size)
    tables = {}
    for name in names:
        if name not in _TABLES:
            advice = suggestion(name, TABLE_NAMES, otherwise="The tables are")
            raise NotFound(f"the synthetic world has no table `{name}`.", where="data.table", advice=advice)
        tables[name] = _TABLES[name](story)
    return tables


def study_world(*, seed: int, size: int = DEFAULT_SIZE) -> World:
    """The bundled study's table and its truth alone: what tests of estimators need, in about a second."""
    story = _story(seed, size)
    return World(tables={DEFAULT_TABLE: story.study}, truth=_truth(story, with_patients=False))


def write_world(folder: Path, *, seed: int, size: int = DEFAULT_SIZE) -> dict[str, int]:
    """Write every table as `folder/NAME.parquet` and the truth under `folder/truth/`; gives the rows by table.

    The tables are marked as synthetic and the truth as truth in the files' metadata: no FrameSource serves the latter.
    """
    world = generate(seed, size=size)
    truth = folder / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    for name, table in world.tables.items():
        table.write_parquet(folder / f"{name}.parquet", metadata={ROLE_KEY: "synthetic"})
    for name, frame in (("units", world.truth.units), ("journeys", world.truth.journeys)):
        if frame is not None:
            frame.write_parquet(truth / f"{name}.parquet", metadata={ROLE_KEY: "truth"})
    (truth / "truth.json").write_text(json.dumps(world.truth.to_dict(), indent=2) + "\n", encoding="utf-8")
    return {name: table.height for name, table in world.tables.items()}


def _story(seed: int, size: int) -> _Story:
    if seed < 0:
        raise ConfigError(f"the seed is {seed}.", where="data.seed", advice="Give 0 or more.")
    if not SMALLEST <= size <= LARGEST:
        advice = f"Give {SMALLEST} to {LARGEST:,} HCPs."
        raise ConfigError(f"the world cannot have {size:,} HCPs.", where="data.size", advice=advice)
    return _Story(seed=seed, size=size)


def _truth(story: _Story, *, with_patients: bool) -> Truth:
    effects = speaker_study.study_effects(story.hcps, story.panel, story.study)
    journeys = None
    if with_patients:
        journeys, effect = patients.journey_truth(story.journeys)
        effects = (*effects, effect)
    units = speaker_study.unit_truth(story.hcps, story.panel)
    return Truth(seed=story.seed, size=story.size, effects=effects, units=units, journeys=journeys)
