"""Every mistake in a study file is told with its line and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2i.data.sources import LocalFrameSource
from e2i.data.study_file import check_roles, load_study
from e2i.errors import ConfigError, E2IError, SchemaMismatch

STUDIES = Path(__file__).parents[3] / "studies"
GOOD = """\
name: lift
data: {source: panel.csv}
unit: npi
effect:
  treatment: program
  outcome: nrx
  confounders: [specialty, decile]
  negative_controls: [other]
prediction:
  target: converts
  event_time: seen
  features: [specialty, decile]
  protected: [age_group]
"""
COLUMNS = {
    "npi": "text", "program": "integer", "nrx": "number", "specialty": "text", "decile": "integer", "other": "integer",
    "converts": "integer", "seen": "date", "age_group": "text", "week": "date", "note": "text",
}  # fmt: skip


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    return caught.value


def role_refusal(folder: Path, text: str) -> E2IError:
    path = write(folder, text)
    with pytest.raises(E2IError) as caught:
        check_roles(load_study(path), COLUMNS, path=path)
    return caught.value


def test_a_good_study_passes(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    study = load_study(path)
    check_roles(study, COLUMNS, path=path)
    assert study.effect is not None
    assert study.effect.confounders == ("specialty", "decile")


@pytest.mark.parametrize("name", ["speaker_program.yaml", "nhefs.yaml"])
def test_the_shipped_studies_fit_their_data(name: str) -> None:
    path = STUDIES / name
    study = load_study(path)
    check_roles(study, LocalFrameSource().columns(study.data, base=STUDIES), path=path)


BAD_FILES: dict[str, tuple[str | bytes, int, tuple[str, ...]]] = {
    "unknown key": (GOOD + "sucess: {minimum_auc: 0.7}\n", 14, ("sucess", "`success`")),
    "unknown nested key": (GOOD.replace("confounders:", "confunders:"), 7, ("confunders", "`confounders`")),
    "unknown key without a near one": (GOOD + "zzz: 1\n", 14, ("zzz", "The keys are", "prediction")),
    "missing key": (GOOD.replace("  outcome: nrx\n", ""), 4, ("`outcome` is missing in `effect`",)),
    "missing name": (GOOD.replace("name: lift\n", ""), 1, ("`name` is missing",)),
    "repeated key": (GOOD + "unit: other\n", 14, ("given twice", "line 3")),
    "wrong type": (GOOD.replace("[specialty, decile]\n  negative", "specialty\n  negative"), 7, ("`specialty`", "a list")),
    "mapping for text": (GOOD.replace("unit: npi", "unit: {a: 1}"), 3, ("a mapping", "text")),
    "a name that yaml reads as true": (GOOD.replace("unit: npi", "unit: on"), 3, ("`true`", "quotes")),
    "not an option": (GOOD.replace("  outcome: nrx", "  outcome: nrx\n  estimand: ATET"), 7, ("ATET", "`ATT`")),
    "out of range": (GOOD + "success:\n  minimum_auc: 0.3\n", 15, ("minimum_auc", "0.5")),
    "bad study name": (GOOD.replace("name: lift", "name: my lift"), 1, ("my lift", "starts with a letter")),
    "asks nothing": ("name: a\ndata: {source: x.csv}\n", 1, ("effect", "prediction")),
    "table of a file": (GOOD.replace("panel.csv", "panel.csv, table: t"), 2, ("no `table`",)),
    "postgres without table": (GOOD.replace("panel.csv", '"postgresql://localhost/x"'), 2, ("`table` or `query`",)),
    "empty": ("", 1, ("empty",)),
    "comments only": ("# nothing\n\n", 1, ("empty",)),
    "a list": ("- a\n- b\n", 1, ("not a mapping",)),
    "syntax": ("name: a\ndata: {source: x.csv\neffect: 3\n", 3, ("not valid YAML",)),
    "tab": ("name: a\n\tdata: x\n", 2, ("not valid YAML",)),
    "two documents": (GOOD + "---\nname: b\n", 14, ("not valid YAML",)),
    "alias": ("name: &n a\ndata: *n\n", 2, ("alias",)),
    "date that is none": (GOOD.replace("unit: npi", "unit: 2024-02-30"), 3, ("2024-02-30", "quotes")),
    "object tag": (GOOD.replace("unit: npi", "unit: !!python/object:os.system x"), 3, ("cannot be read",)),
    "key that is a list": (GOOD + "? [a, b]\n: 1\n", 14, ("not a plain name",)),
    "not utf-8": (b"name: a\nunit: caf\xe9\n", 2, ("UTF-8",)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    text, line, words = BAD_FILES[name]
    error = refusal(write(tmp_path, text))
    assert error.where == f"{tmp_path / 'study.yaml'}:{line}"
    assert all(word in str(error) for word in words), str(error)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path / "none.yaml"))
    assert "folder" in str(refusal(tmp_path))


def test_all_problems_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("confounders:", "confunders:").replace("unit: npi", "unit: 5") + "unit: x\n"
    error = refusal(write(tmp_path, text))
    assert error.where is not None
    assert error.where.endswith("study.yaml:3")
    told = str(error)
    assert [f"study.yaml:{line}:" in told for line in (3, 7, 14)] == [True, True, True]
    assert "3 problems" in told


BAD_ROLES: dict[str, tuple[tuple[str, str], type[E2IError], int, tuple[str, ...]]] = {
    "missing column": (("[specialty, decile]\n  neg", "[speciality, decile]\n  neg"), SchemaMismatch, 7, ("speciality", "`specialty`")),
    "missing unit": (("unit: npi", "unit: np"), SchemaMismatch, 3, ("`np`", "`npi`")),
    "missing target": (("target: converts", "target: convert"), SchemaMismatch, 10, ("`converts`",)),
    "missing in a block list": (
        ("confounders: [specialty, decile]", "confounders:\n    - specialty\n    - decil"),
        SchemaMismatch,
        9,
        ("`decile`",),
    ),
    "treatment is text": (("treatment: program", "treatment: note"), SchemaMismatch, 5, ("holds text", "0 and 1")),
    "outcome is text": (("outcome: nrx", "outcome: note"), SchemaMismatch, 6, ("holds text",)),
    "outcome is a date": (("outcome: nrx", "outcome: week"), SchemaMismatch, 6, ("holds dates",)),
    "event time is text": (("event_time: seen", "event_time: note"), SchemaMismatch, 11, ("holds text", "2024-12-27")),
    "time is text": (("unit: npi", "unit: npi\ntime: note"), SchemaMismatch, 4, ("holds text", "2024-12-27")),
    "target is text": (("target: converts", "target: note"), SchemaMismatch, 10, ("holds text",)),
    "treatment is the outcome": (("outcome: nrx", "outcome: program"), ConfigError, 6, ("its own outcome",)),
    "treatment as confounder": (("[specialty, decile]\n  neg", "[specialty, program]\n  neg"), ConfigError, 7, ("removes the effect",)),
    "target as confounder": (("[specialty, decile]\n  neg", "[specialty, converts]\n  neg"), ConfigError, 7, ("after the event",)),
    "outcome as negative control": (("negative_controls: [other]", "negative_controls: [nrx]"), ConfigError, 8, ("another outcome",)),
    "target as feature": (("features: [specialty, decile]", "features: [specialty, converts]"), ConfigError, 12, ("predict itself",)),
    "protected as feature": (("features: [specialty, decile]", "features: [age_group, decile]"), ConfigError, 12, ("fairness group",)),
    "unit as feature": (("features: [specialty, decile]", "features: [npi, decile]"), ConfigError, 12, ("identifier",)),
    "later column as feature": (("  protected", "  after_event: [decile]\n  protected"), ConfigError, 12, ("only after the event",)),
    "named twice": (("features: [specialty, decile]", "features: [decile, decile]"), ConfigError, 12, ("twice",)),
    "unit is time": (("unit: npi", "unit: week\ntime: week"), ConfigError, 4, ("who and when",)),
    "panel design without time": (("  outcome: nrx", "  outcome: nrx\n  design: did"), ConfigError, 7, ("`time`",)),
    "iv without instruments": (("  outcome: nrx", "  outcome: nrx\n  design: iv"), ConfigError, 7, ("instruments",)),
    "late without instruments": (("  outcome: nrx", "  outcome: nrx\n  estimand: LATE"), ConfigError, 7, ("instrument",)),
}


@pytest.mark.parametrize("name", BAD_ROLES)
def test_a_wrong_role_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    (old, new), kind, line, words = BAD_ROLES[name]
    assert old in GOOD
    error = role_refusal(tmp_path, GOOD.replace(old, new))
    assert type(error) is kind
    assert error.where == f"{tmp_path / 'study.yaml'}:{line}", str(error)
    assert all(word in str(error) for word in words), str(error)


def test_all_role_problems_come_at_once(tmp_path: Path) -> None:
    error = role_refusal(tmp_path, GOOD.replace("unit: npi", "unit: np").replace("treatment: program", "treatment: note"))
    assert all(word in str(error) for word in ("study.yaml:3:", "study.yaml:5:", "2 problems"))


def test_a_study_is_its_meaning_and_not_its_spelling(tmp_path: Path) -> None:
    plain = load_study(write(tmp_path, GOOD))
    reordered = GOOD.replace("unit: npi\n", "") + "# a comment\nseed: 42\nunit: 'npi'\n"
    assert load_study(write(tmp_path, reordered)) == plain
    assert load_study(write(tmp_path, GOOD + "seed: 43\n")) != plain


@pytest.mark.parametrize("role", ["place", "cluster", "weights", "randomised_within"])
def test_a_column_of_rows_that_belong_together_is_asked_for_with_its_line(tmp_path: Path, role: str) -> None:
    column = "[territory]" if role == "randomised_within" else "territory"
    refused = role_refusal(tmp_path, GOOD.replace("  treatment: program\n", f"  treatment: program\n  {role}: {column}\n"))
    assert f"study.yaml:6: `effect.{role}` names column `territory`, which the data lack" in str(refused)


ALLOCATED = GOOD.replace("  negative_controls: [other]\n", "  modifiers: [decile]\n") + (
    "allocation:\n  resource: calls\n  budget: 10\n  response: {effect_by: specialty}\n"
)


def test_responses_by_a_column_that_divides_no_effect_are_told_before_anything_runs(tmp_path: Path) -> None:
    error = role_refusal(tmp_path, ALLOCATED)
    assert isinstance(error, ConfigError)
    assert "`specialty`, by which no effect is measured" in str(error)
    assert "`effect.modifiers` (now decile)" in str(error)
    assert str(tmp_path / "study.yaml") in str(error)


def test_responses_by_a_modifier_pass(tmp_path: Path) -> None:
    path = write(tmp_path, ALLOCATED.replace("effect_by: specialty", "effect_by: decile"))
    check_roles(load_study(path), COLUMNS, path=path)


def test_a_treatment_in_words_may_name_its_reference(tmp_path: Path) -> None:
    assert "`reference`" in str(role_refusal(tmp_path, GOOD.replace("treatment: program", "treatment: note")))
