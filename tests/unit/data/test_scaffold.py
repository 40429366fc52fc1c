"""The file that `e2i init` writes is a study that loads, and says that it guesses."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from e2i.data.scaffold import write_study
from e2i.data.sources import LocalFrameSource
from e2i.data.study_file import check_roles, load_study
from e2i.data.synthetic import generate_tables
from e2i.errors import ConfigError, Conflict, NotFound


def test_the_study_for_the_speaker_table_loads_and_fits_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data" / "hcps.parquet"
    data.parent.mkdir()
    generate_tables(["hcp_speaker_study"], seed=1, size=300)["hcp_speaker_study"].write_parquet(data)
    path = write_study(data, tmp_path / "studies" / "my study.yaml")
    study = load_study(path)
    check_roles(study, LocalFrameSource().columns(study.data, base=path.parent), path=path)
    assert study.effect is not None
    assert study.prediction is not None
    assert (study.unit, study.effect.treatment, study.effect.outcome) == ("hcp_id", "speaker_program", "nrx")
    assert (study.prediction.target, study.prediction.event_time, study.prediction.protected) == (
        "will_convert",
        "index_date",
        ("age_group",),
    )
    assert "nrx_pre" in study.effect.confounders
    assert study.data.source == "../data/hcps.parquet"
    text = path.read_text()
    assert "GUESS" in text
    assert all(f"#   {column}: " in text for column in pl.read_parquet_schema(data))


def test_awkward_column_and_file_names_are_quoted(tmp_path: Path) -> None:
    data = tmp_path / "1 panel: x.csv"
    data.write_text("no,will respond?,treated #1,nrx: total\nA,0,1,2.5\nB,1,0,1.5\nC,1,1,0.5\n")
    study = load_study(write_study(data, tmp_path / "2024.yaml"))
    assert study.effect is not None
    assert study.prediction is not None
    assert (study.effect.treatment, study.effect.outcome, study.prediction.target) == ("treated #1", "nrx: total", "will respond?")
    assert study.name == "study_2024"


def test_without_a_guess_the_questions_are_comments_and_the_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n5,6\n")
    path = write_study(tmp_path / "a.csv", tmp_path / "s.yaml")
    assert "# effect:" in path.read_text()
    with pytest.raises(ConfigError, match="asks something"):
        load_study(path)


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    out = tmp_path / "s.yaml"
    out.write_text("mine")
    with pytest.raises(Conflict, match="--force"):
        write_study(tmp_path / "a.csv", out)
    assert out.read_text() == "mine"
    write_study(tmp_path / "a.csv", out, force=True)
    assert out.read_text() != "mine"


def test_a_missing_data_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        write_study(tmp_path / "none.csv", tmp_path / "s.yaml")
    assert not list(tmp_path.iterdir())
