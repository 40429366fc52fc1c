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
    path = write_study(data, tmp_path / "studies" / "my study.yaml").path
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
    assert "  # guess: a number measured after the treatment" in text
    assert all(f"#   {column}: " in text for column in pl.read_parquet_schema(data))


def test_awkward_column_and_file_names_are_quoted(tmp_path: Path) -> None:
    data = tmp_path / "1 panel: x.csv"
    data.write_text("no,will respond?,treated #1,nrx: total\nA,0,1,2.5\nB,1,0,1.5\nC,1,1,0.5\n")
    study = load_study(write_study(data, tmp_path / "2024.yaml").path)
    assert study.effect is not None
    assert study.prediction is not None
    assert (study.effect.treatment, study.effect.outcome, study.prediction.target) == ("treated #1", "nrx: total", "will respond?")
    assert study.name == "study_2024"


def test_without_a_guess_the_questions_are_comments_and_the_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n5,6\n")
    path = write_study(tmp_path / "a.csv", tmp_path / "s.yaml").path
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


NUMBERS = list(range(20))
HALF = [0, 1] * 10
TABLES: dict[str, dict[str, list[int] | list[str]]] = {
    "calls": {"NPI": NUMBERS, "Specialty": ["ONC", "HEM"] * 10, "Detailed_Flag": HALF, "TRx_Pre_13w": NUMBERS, "TRx_Post_13w": NUMBERS},
    "support": {"patient_id": NUMBERS, "age": NUMBERS, "enrolledInPSP": ["Yes", "No"] * 10, "PDC": NUMBERS, "discontinued": HALF},
    "arms": {"hcp_id": NUMBERS, "arm": ["control", "email", "rep", "rep"] * 5, "baseline_nbrx": NUMBERS, "nbrx": NUMBERS},
    "panel": {"territory": ["A"] * 10 + ["B"] * 10, "week": [*range(10), *range(10)], "live": [0] * 15 + [1] * 5, "sales": NUMBERS},
    "letters": {"account": [f"A{n}" for n in NUMBERS], "w": HALF, "d89": HALF, "x1": NUMBERS, "y": NUMBERS},
    "event": {"claim_key": NUMBERS, "copay_card": HALF, "abandoned": [0, 0, 1, 1] * 5, "days_supply": NUMBERS},
    "nothing": {"a": NUMBERS, "b": NUMBERS[::-1]},
}
ROLES = {
    "calls": ("NPI", None, "Detailed_Flag", None, "TRx_Post_13w", None, ("Specialty", "TRx_Pre_13w")),
    "support": ("patient_id", None, "enrolledInPSP", "No", "PDC", "discontinued", ("age",)),
    "arms": ("hcp_id", None, "arm", "control", "nbrx", None, ("baseline_nbrx",)),
    "panel": ("territory", "week", "live", None, "sales", None, ()),
    "letters": ("account", None, "w", None, "y", None, ()),
    "event": ("claim_key", None, "copay_card", None, "abandoned", None, ()),
    "nothing": (None, None, None, None, None, None, ()),
}


@pytest.mark.parametrize("name", TABLES)
def test_roles_are_guessed_by_the_words_types_and_levels_of_columns_and_the_file_loads(name: str, tmp_path: Path) -> None:
    pl.DataFrame(TABLES[name]).write_csv(tmp_path / "a.csv")
    written = write_study(tmp_path / "a.csv", tmp_path / "s.yaml")
    guess = written.guess
    found = (guess.unit, guess.time, guess.treatment, guess.reference, guess.outcome, guess.target, guess.confounders)
    assert found == ROLES[name]
    if guess.treatment is not None:
        study = load_study(written.path)
        check_roles(study, LocalFrameSource().columns(study.data, base=tmp_path), path=written.path)


def test_a_marker_of_groups_is_no_treatment_of_a_panel_and_is_offered_instead(tmp_path: Path) -> None:
    table = {"store_id": ["A"] * 10 + ["B"] * 10, "month": [*range(10), *range(10)], "treat": [0] * 10 + [1] * 10, "sales": NUMBERS}
    pl.DataFrame(table).write_csv(tmp_path / "a.csv")
    written = write_study(tmp_path / "a.csv", tmp_path / "s.yaml")
    assert written.guess.treatment is None
    text = written.path.read_text()
    assert "# No column looks like the treatment." in text
    assert "# two levels, so perhaps a treatment: [treat]" in text
    assert "#   treatment: FILL_IN" in text
    assert "#   outcome: sales  # guess" in text
