"""Settings: four layers, each value with its origin, and errors that say where to look."""

from __future__ import annotations

import json
import os
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import CLEAN
from e2i import config
from e2i.errors import ConfigError
from e2i.settings.sections import parse_headers


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and no variable that a setting reads."""
    for name in os.environ:
        if name.startswith((*CLEAN, "ENVIRONMENT")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def toml(text: str, name: str = "e2i.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def origin(key: str, **arguments: Any) -> str:
    return config.origins(config.load(**arguments), **arguments)[key][1]


def value(key: str, **arguments: Any) -> Any:
    return config.origins(config.load(**arguments), **arguments)[key][0]


def test_argument_before_environment_before_toml_before_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(**arguments: Any) -> None:
        seen.append((value("log_level", **arguments), origin("log_level", **arguments)))

    look()
    toml('log_level = "info"')
    look()
    monkeypatch.setenv("E2I_LOG_LEVEL", "error")
    look()
    look(log_level="debug")
    assert seen == [
        ("warning", "settings/e2i.yaml"),
        ("info", "e2i.toml"),
        ("error", "environment E2I_LOG_LEVEL"),
        ("debug", "argument"),
    ]


def test_layers_are_merged_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    toml("[mlflow.tracking.retry]\nmax_attempts = 7\n[database]\nport = 6000\n")
    monkeypatch.setenv("E2I_MLFLOW__TRACKING__RETRY__BACKOFF_FACTOR", "0.25")
    settings = config.load(database={"url": "postgresql://h/d"})
    retry = settings.mlflow.tracking.retry
    assert (retry.max_attempts, retry.backoff_factor, retry.max_backoff) == (7, 0.25, 10)
    assert (settings.database.port, settings.database.url.get_secret_value()) == (6000, "postgresql://h/d")
    shown = config.origins(settings, database={"url": "postgresql://h/d"})
    assert {key: shown[key][1] for key in shown if key.startswith(("mlflow.tracking.retry", "database"))} == {
        "mlflow.tracking.retry.max_attempts": "e2i.toml",
        "mlflow.tracking.retry.backoff_factor": "environment E2I_MLFLOW__TRACKING__RETRY__BACKOFF_FACTOR",
        "mlflow.tracking.retry.max_backoff": "settings/mlflow.yaml",
        "database.url": "argument",
        "database.port": "e2i.toml",
    }


def test_every_key_of_the_shipped_files_has_its_file_as_origin() -> None:
    shown = config.origins(config.load())
    files = {found for _, found in shown.values()}
    assert files == {f"settings/{name}" for name in config.FILES.values()}
    assert shown["optuna.search_space_presets.lightgbm_classifier"][1] == "settings/optuna_config.yaml"
    assert shown["data_quality.alerting.minimum_severity"] == ("warning", "settings/data_quality.yaml")


@pytest.mark.parametrize(
    ("variable", "key"),
    [("DATABASE_URL", "database.url"), ("MLFLOW_TRACKING_URI", "mlflow.tracking.uri"), ("OPTUNA_STORAGE_URL", "optuna.storage.url")],
)
def test_standard_variables_are_honoured_under_their_own_names(monkeypatch: pytest.MonkeyPatch, variable: str, key: str) -> None:
    toml(f'{key} = "postgresql://weaker/x"')
    monkeypatch.setenv(variable, "postgresql://user:secret@host/db")
    assert attrgetter(key)(config.load()).get_secret_value() == "postgresql://user:secret@host/db"
    assert origin(key) == f"environment {variable}"
    monkeypatch.setenv(f"E2I_{key.upper().replace('.', '__')}", "postgresql://mine/x")
    assert origin(key) == f"environment E2I_{key.upper().replace('.', '__')}"
    assert attrgetter(key)(config.load()).get_secret_value() == "postgresql://mine/x", "our own name is the stronger one"


def test_an_empty_standard_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert (value("database.url"), origin("database.url")) == ("", "settings/e2i.yaml")


def test_secrets_are_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@host/db")
    monkeypatch.setenv("E2I_ALERT_WEBHOOK", "https://hooks.example/hunter2")
    settings = config.load(mlflow={"tracking": {"uri": "http://user:hunter2@host"}})
    shown = config.origins(settings)
    assert {shown[key][0] for key in ("database.url", "mlflow.tracking.uri", "data_quality.alerting.webhook_url")} == {"**********"}
    assert shown["optuna.storage.url"][0] == ""
    assert "hunter2" not in f"{shown} {settings!r} {settings}"


def test_variables_are_put_in_and_defaults_stand_in_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value("environment") == "development"
    monkeypatch.setenv("ENVIRONMENT", "staging")
    assert value("environment") == "staging"
    monkeypatch.setenv("PLACE", "eu")
    toml('environment = "${PLACE}-${TEAM:-nobody}"\n[mlflow.experiments.default_tags]\nteam = "${TEAM:-}"')
    settings = config.load()
    assert settings.environment == "eu-nobody"
    assert settings.mlflow.experiments.default_tags == {"project": "e2i_causal_analytics", "team": ""}
    assert origin("mlflow.experiments.default_tags.team") == "e2i.toml"


@pytest.mark.parametrize("given", [None, ""])
def test_a_variable_without_a_value_is_an_error_that_names_file_and_key(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    if given is not None:
        monkeypatch.setenv("PLACE", given)
    toml('[mlflow.tracking]\nuri = "http://${PLACE}:5000"')
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert str(caught.value) == "e2i.toml, mlflow.tracking.uri: ${PLACE} has no value. Set the variable PLACE, or write ${PLACE:-default}."


@pytest.mark.parametrize(
    ("text", "unknown", "near"),
    [
        ('[databse]\nurl = "x"', "databse", "database"),
        ("[database]\nprot = 1", "database.prot", "port"),
        ("[mlflow.tracking.retry]\nmax_attemps = 1", "mlflow.tracking.retry.max_attemps", "max_attempts"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(text: str, unknown: str, near: str) -> None:
    toml(text)
    with pytest.raises(ConfigError, match=re.escape(f"e2i.toml: unknown key '{unknown}'. Did you mean `{near}`?")):
        config.load()


def test_an_unknown_key_without_a_neighbour_gets_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The keys are agents, data_quality, database, environment"):
        config.load(toml=toml("zzz = 1", "mine.toml"))


def test_a_mistyped_variable_is_refused_instead_of_left_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2I_DATABSE__URL", "postgresql://h/d")
    with pytest.raises(ConfigError, match=r"no setting reads the variable E2I_DATABSE__URL.*`database`"):
        config.load()
    monkeypatch.delenv("E2I_DATABSE__URL")
    monkeypatch.setenv("E2I_DATABASE__PROT", "1")
    with pytest.raises(ConfigError, match=r"database\.prot"):
        config.load()


def test_a_value_of_the_wrong_type_lists_every_place_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('[mlflow.tracking]\nrequest_timeout = "soon"')
    monkeypatch.setenv("E2I_DATABASE__PORT", "70000")
    with pytest.raises(ConfigError) as caught:
        config.load()
    told = str(caught.value)
    for key, variable in (
        ("database.port", "E2I_DATABASE__PORT"),
        ("mlflow.tracking.request_timeout", "E2I_MLFLOW__TRACKING__REQUEST_TIMEOUT"),
    ):
        assert re.search(rf"{re.escape(key)}: .*tried: {variable}, e2i\.toml, the shipped settings", told)
    assert caught.value.exit_code == 2
    assert "--origin" in told


def test_a_section_in_one_variable_is_read_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2I_DATABASE", '{"port": 5555}')
    assert (value("database.port"), origin("database.port")) == (5555, "environment E2I_DATABASE")
    assert origin("database.url") == "settings/e2i.yaml"
    monkeypatch.setenv("E2I_DATABASE", "port=5555")
    with pytest.raises(ConfigError, match="E2I_SECTION__KEY"):
        config.load()


@pytest.mark.parametrize("content", [b"[database", b"\xff\xfe"])
def test_a_settings_file_that_cannot_be_read_is_named(content: bytes) -> None:
    Path("e2i.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"e2i\.toml: cannot be read"):
        config.load()


def test_a_settings_file_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"other\.toml: no such file"):
        config.load(toml=Path("other.toml"))
    assert origin("log_level", toml=None) == "settings/e2i.yaml"


def test_another_settings_file_replaces_the_one_of_the_folder() -> None:
    toml('log_level = "info"')
    assert config.origins(config.load(toml=toml('log_level = "error"', "other.toml")))["log_level"] == ("error", "other.toml")


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    settings = config.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "debug"
    with pytest.raises(ValueError, match="frozen"):
        settings.database.port = 1


def test_a_tilde_in_home_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.load(home=Path("~/state")).home == tmp_path / "state"
    assert config.load().home == Path(".e2i")


def test_what_libraries_send_home_is_off_and_a_users_own_value_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.VENDOR_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    config.set_vendor_environment({"MORE": "x"})
    assert (os.environ["DO_NOT_TRACK"], os.environ["OMP_NUM_THREADS"], os.environ["MORE"]) == ("true", "3", "x")
    for name in ("MORE", *config.VENDOR_ENVIRONMENT):
        if name != "OMP_NUM_THREADS":
            monkeypatch.delenv(name)


def test_the_shipped_files_hold_no_key_that_is_not_a_setting() -> None:
    for section, name in config.FILES.items():
        content = yaml.safe_load((config.SETTINGS / name).read_text())
        for part in reversed(section.split(".") if section else []):
            content = {part: content}
        config._refuse_unknown(content, config.Settings, where=name)
    shipped = {path.relative_to(config.SETTINGS).as_posix() for path in config.SETTINGS.rglob("*.yaml")}
    assert shipped == set(config.FILES.values())


def test_eighteen_agents_have_a_file_and_those_that_exist_agree_with_it() -> None:
    from e2i.agents.registry import AGENTS

    sections = config.load().agents
    assert len(sections) == 18
    assert {name: spec.tier.value for name, spec in AGENTS.items()} == {name: sections[name].tier for name in AGENTS}


def test_settings_travel_to_a_process_of_our_own_whole_and_secrets_are_known_and_never_shown() -> None:
    toml('[[llm.chain]]\nprovider = "anthropic"\nmodel = "m"\napi_key = "chain-secret"\n[observability.opik]\napi_key = "opik-secret"\n')
    settings = config.load(database={"url": "postgresql://u:p@h/d"})
    again = config.load(**json.loads(json.dumps(config.as_arguments(settings))))
    assert again.model_dump() == settings.model_dump()
    assert config.secrets(settings) == ("chain-secret", "opik-secret", "postgresql://u:p@h/d")
    shown = json.dumps(config.origins(settings))
    assert not [secret for secret in config.secrets(settings) if secret in shown]


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *[
            (f"observability.{sink}.endpoint", address)
            for sink in ("opik", "otlp")
            for address in (
                "localhost:4318",
                "ftp://host",
                "http://",
                "http://h:port",
                "http://[::1",
                "http:// h/",
                "http://h\n",
                "//h",
                "h",
                " ",
            )
        ],
        ("observability.otlp.headers", "authorization"),
        ("observability.otlp.headers", "=QX7value"),
        ("observability.otlp.headers", "a=b,two words=QX7value"),
        ("observability.otlp.headers", "naïve=QX7value"),
        ("observability.otlp.headers", "a=QX7value%0D%0Aevil: 1"),
        ("observability.otlp.headers", "a=QX7vÄlue"),
        ("observability.opik.api_key", "QX7value\n"),
        ("observability.opik.api_key", "QX7välue"),
        ("observability.opik.workspace", "wörk"),
        ("mlflow.tracking.token", "QX7value\r\n"),
        ("observability.spans.max_input_size_bytes", 63),
        ("observability.spans.max_output_size_bytes", 0),
        ("observability.spans.max_metadata_size_bytes", -1),
        ("observability.spans.redact_patterns", ["password", ""]),
        ("observability.spans.redact_patterns", [" - "]),
        ("observability.sampling.agent_overrides", {"drift_monitor": 1.01}),
        ("observability.sampling.agent_overrides", {"drift_monitor": -0.1}),
        ("observability.sampling.agent_overrides", {"drift_monitor": float("nan")}),
    ],
)
def test_a_setting_that_could_never_work_is_told_at_the_start_by_its_key_and_without_a_secret(key: str, wrong: Any) -> None:
    given: Any = wrong
    for part in reversed(key.split(".")):
        given = {part: given}
    with pytest.raises(ConfigError) as caught:
        config.load(**given)
    told = str(caught.value)
    assert re.search(rf"settings: {re.escape(key)}(\.\w+)?: .*tried: E2I_{key.upper().replace('.', '__')}", told)
    assert "--origin" in told
    assert "QX7" not in told


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://127.0.0.1:5173/api",
        "https://opik.example/api/",
        "http://u:p@host:1",
        "HTTP://host",
        "http://[::1]:4318",
        "https://bücher.example",
    ],
)
def test_an_address_or_none_is_taken(address: str) -> None:
    observability = config.load(observability={"opik": {"endpoint": address}, "otlp": {"endpoint": address}}).observability
    assert (observability.opik.endpoint, observability.otlp.endpoint) == (address, address)


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    assert parse_headers("Authorization=Bearer%20a%3Db, x-key = v=w ,,") == {"authorization": "Bearer a=b", "x-key": "v=w"}
    assert parse_headers("") == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[agents.causal_impakt]\nbudget_s = 5", "there is no agent 'causal_impakt'. Did you mean `causal_impact`?"),
        ("[agents.causal_impact]\nbudgets = 5", "agents.causal_impact.budgets: no setting reads this key. Did you mean `budget_s`?"),
        ('[[llm.chain]]\nprovider = "anthropic"\nmodell = "x"', "llm.chain.0.modell: no setting reads this key. Did you mean `model`?"),
    ],
)
def test_a_name_that_nothing_reads_is_told_with_the_nearest_at_any_depth(content: str, told: str) -> None:
    toml(content)
    with pytest.raises(ConfigError) as raised:
        config.load()
    assert told in str(raised.value)
    assert "mlflow_experiment" not in str(raised.value)


def test_a_variable_of_a_section_that_nothing_reads_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2I_MLFLOW__TRACKING__URL", "x")
    with pytest.raises(ConfigError, match=r"mlflow\.tracking\.url: no setting reads this key\. Did you mean `uri`"):
        config.load()
