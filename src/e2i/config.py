"""Every setting, one row each, and where its value came from. The only reader of the environment.

Order: explicit argument, environment, `e2i.toml`, the YAML shipped in `settings/`. Standard variables (DATABASE_URL,
MLFLOW_TRACKING_URI, OPTUNA_STORAGE_URL) are honoured under their own names; every key also as E2I_SECTION__KEY.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from e2i.domain.nearest import suggestion
from e2i.errors import ConfigError
from e2i.settings.sections import (
    AgentSection,
    DatabaseSection,
    DataQualitySection,
    LargeFilesSection,
    LlmSection,
    MlflowSection,
    ObservabilitySection,
    OptunaSection,
    RaySection,
)

SETTINGS = Path(__file__).parent / "settings"
FILES = {
    "": "e2i.yaml",
    "mlflow": "mlflow.yaml",
    "optuna": "optuna_config.yaml",
    "data_quality": "data_quality.yaml",
    "observability": "observability.yaml",
    "llm": "llm.yaml",
    **{f"agents.{path.stem}": f"agents/{path.name}" for path in sorted((SETTINGS / "agents").glob("*.yaml"))},
}
STANDARD = {
    "DATABASE_URL": "database.url",
    "MLFLOW_TRACKING_URI": "mlflow.tracking.uri",
    "MLFLOW_TRACKING_USERNAME": "mlflow.tracking.username",
    "MLFLOW_TRACKING_PASSWORD": "mlflow.tracking.password",
    "MLFLOW_TRACKING_TOKEN": "mlflow.tracking.token",
    "OPTUNA_STORAGE_URL": "optuna.storage.url",
    "OPIK_URL_OVERRIDE": "observability.opik.endpoint",
    "OPIK_API_KEY": "observability.opik.api_key",
    "OPIK_WORKSPACE": "observability.opik.workspace",
    "OPIK_PROJECT_NAME": "observability.opik.project_name",
    "OTEL_SERVICE_NAME": "observability.service_name",
    "TRACEPARENT": "observability.caller.traceparent",
    "TRACESTATE": "observability.caller.tracestate",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "observability.otlp.endpoint",
    "OTEL_EXPORTER_OTLP_HEADERS": "observability.otlp.headers",
    "ANTHROPIC_API_KEY": "llm.anthropic_api_key",
    "OPENAI_API_KEY": "llm.openai_api_key",
}
VENDOR_ENVIRONMENT = {
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # An MLflow server waits for ever when litellm is installed and its price list cannot be fetched.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "OPIK_SENTRY_ENABLE": "false",
    "OPIK_ANALYTICS_ENABLE": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Below `uv run` Ray would build the environment of its workers anew, from the network.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Spinning BLAS threads cost six times the CPU on small matrices, and their sums differ from run to run.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Settings(BaseSettings):
    """All settings, validated; see `load`."""

    model_config = SettingsConfigDict(
        env_prefix="E2I_", env_nested_delimiter="__", extra="ignore", frozen=True, nested_model_default_partial_update=True
    )
    toml_path: ClassVar[Path | None] = None

    home: Path
    environment: str
    log_level: Literal["debug", "info", "warning", "error"]
    database: DatabaseSection
    large_files: LargeFilesSection
    ray: RaySection
    mlflow: MlflowSection
    optuna: OptunaSection
    data_quality: DataQualitySection
    observability: ObservabilitySection
    llm: LlmSection
    agents: dict[str, AgentSection]

    @field_validator("home", mode="after")
    @classmethod
    def _in_the_users_home(cls, home: Path) -> Path:
        return home.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our order of layers."""
        layers: list[PydanticBaseSettingsSource] = [init_settings, env_settings, _Standard(settings_cls)]
        if cls.toml_path is not None:
            layers.append(_Toml(settings_cls, cls.toml_path))
        return (*layers, _Shipped(settings_cls))


class _Layer(PydanticBaseSettingsSource):
    """A source that is a whole mapping."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def mapping(self) -> dict[str, Any]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        return self.mapping()


class _Standard(_Layer):
    def mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, key in STANDARD.items():
            if os.environ.get(variable):
                _put(found, key, os.environ[variable])
        return found


class _Toml(_Layer):
    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls)
        self._path = path

    def mapping(self) -> dict[str, Any]:
        import tomllib

        try:
            content = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", where=str(self._path), advice="Mend or remove the file.") from error
        _refuse_unknown(content, Settings, where=str(self._path))
        return _substitute(content, str(self._path))  # type: ignore[no-any-return]


class _Shipped(_Layer):
    def mapping(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for section, name in FILES.items():
            content = _substitute(yaml.safe_load((SETTINGS / name).read_text(encoding="utf-8")), f"settings/{name}")
            if section:
                _put(merged, section, content)
            else:
                merged |= content
        return merged


def load(*, toml: Path | None = None, **arguments: Any) -> Settings:
    """Read all layers.

    Parameters
    ----------
    toml : the settings file; by default `e2i.toml` in the working folder, if there is one
    arguments : explicit values, strongest layer

    Raises
    ------
    ConfigError
        A value is missing (with every place that was tried), of the wrong type, or names an unknown key.
    """
    path = toml or Path("e2i.toml")
    if toml is not None and not toml.is_file():
        raise ConfigError("no such file.", where=str(toml), advice="Give the path of a TOML file, or leave the option out.")
    _refuse_unknown_variables()
    bound = type("Settings", (Settings,), {"toml_path": path if path.is_file() else None, "__module__": __name__})
    try:
        return bound(**arguments)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise _explain(error, path) from error
    except SettingsError as error:
        raise ConfigError(
            f"{error}: its value is not JSON.", where="environment", advice="Set single keys instead: E2I_SECTION__KEY=value."
        ) from error


def origins(settings: Settings, **arguments: Any) -> dict[str, tuple[Any, str]]:
    """Key -> (value, where it came from); secrets are shown as `**********`."""
    kind = type(settings)
    given = _flat(arguments)
    environment = _flat(EnvSettingsSource(kind)())
    standard = {key: name for name, key in STANDARD.items() if os.environ.get(name)}
    toml = _flat(_Toml(kind, kind.toml_path).mapping()) if kind.toml_path else {}
    shipped = {key: f"settings/{name}" for section, name in FILES.items() for key in _keys(section, name)}
    table: dict[str, tuple[Any, str]] = {}
    for key, value in _flat(settings.model_dump()).items():
        if key in given:
            origin = "argument"
        elif key in environment:
            origin = f"environment {_variable_of(key)}"
        elif key in standard:
            origin = f"environment {standard[key]}"
        else:
            origin = str(kind.toml_path) if key in toml else shipped[key]
        table[key] = (_as_json_types(value, str), origin)  # a secret as text is stars, an empty one is empty
    return table


def as_arguments(settings: Settings) -> dict[str, Any]:
    """All values as JSON types, secrets in clear: for `load` in a process of our own. Never to be shown or kept."""
    return _as_json_types(settings.model_dump(), SecretStr.get_secret_value)  # type: ignore[no-any-return]


def secrets(settings: Settings) -> tuple[str, ...]:
    """Every secret that is set, so that it can be kept out of spans and logs."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
            collect(item)

    collect(settings.model_dump())
    return tuple(sorted(found - {""}))


def _as_json_types(value: Any, secret: Callable[[SecretStr], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_json_types(item, secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json_types(item, secret) for item in value]
    if isinstance(value, SecretStr):
        return secret(value)
    return str(value) if isinstance(value, Path) else value


def _variable_of(key: str) -> str:
    """The variable that set `key`: its own, or that of a section, given as JSON."""
    parts = key.upper().split(".")
    names = ["E2I_" + "__".join(parts[:count]) for count in range(len(parts), 0, -1)]
    found = {name.upper(): name for name in os.environ}
    return next((found[name] for name in names if name in found), names[0])


def set_vendor_environment(more: Mapping[str, str] | None = None) -> None:
    """Switch off what libraries would send home, and what would block an offline start; a user's own value stays."""
    for name, value in {**VENDOR_ENVIRONMENT, **(more or {})}.items():
        os.environ.setdefault(name, value)


def _substitute(value: Any, where: str, key: str = "") -> Any:
    """Replace ${VAR} and ${VAR:-default} in every string."""
    if isinstance(value, Mapping):
        return {name: _substitute(item, where, f"{key}.{name}" if key else name) for name, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, where, key) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            advice = f"Set the variable {name}, or write ${{{name}:-default}}."
            raise ConfigError(f"${{{name}}} has no value.", where=f"{where}, {key}", advice=advice)
        return found

    return _REFERENCE.sub(replace, value)


def _refuse_unknown(content: Mapping[str, Any], model: type[BaseModel], *, where: str, section: str = "") -> None:
    """Raise ConfigError, with the nearest known key, for a key that no setting reads."""
    for key, value in content.items():
        if key not in model.model_fields:
            raise ConfigError(f"unknown key {section + key!r}.", where=where, advice=_nearest(key, model))
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
            _refuse_unknown(value, inner, where=where, section=f"{section}{key}.")


def _refuse_unknown_variables() -> None:
    """A mistyped E2I_… variable would otherwise leave the value of a weaker layer in place, unnoticed."""
    referred = {match["name"] for name in FILES.values() for match in _REFERENCE.finditer((SETTINGS / name).read_text(encoding="utf-8"))}
    for name in os.environ:
        key = name.removeprefix("E2I_").lower().split("__")[0]
        if name.startswith("E2I_") and name not in referred and key not in Settings.model_fields:
            raise ConfigError(f"no setting reads the variable {name}.", where="environment", advice=_nearest(key, Settings))


def _nearest(key: str, model: type[BaseModel]) -> str:
    return suggestion(key, sorted(model.model_fields), otherwise="The keys are")


def _explain(error: ValidationError, toml: Path) -> ConfigError:
    lines = dict.fromkeys(_told(item["loc"], item["type"], item["msg"], toml) for item in error.errors())
    return ConfigError("; ".join(lines), where="settings", advice="`e2i config show --origin` lists every key.")


def _told(place: tuple[str | int, ...], kind: str, message: str, toml: Path) -> str:
    """One mistake; a name that nothing reads gets the nearest one that something does."""
    key = ".".join(str(part) for part in place)
    variable = "E2I_" + key.upper().replace(".", "__")
    tried = f"(tried: {variable}, {toml}, the shipped settings)"
    agents = [path.stem for path in sorted((SETTINGS / "agents").glob("*.yaml"))]
    if place[0] == "agents" and len(place) > 1 and place[1] not in agents:
        return f"agents: there is no agent {place[1]!r}. {suggestion(str(place[1]), agents, otherwise='The agents are')}"
    if kind == "extra_forbidden":
        model = _section_at(place[:-1])
        near = "" if model is None else f" {_nearest(str(place[-1]), model)}"
        return f"{key}: no setting reads this key.{near} {tried}"
    return f"{key}: {message} {tried}"


def _section_at(place: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The section whose keys stand at a place, below lists and mappings too."""
    kind: Any = Settings
    for part in place:
        inside = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field is not None else None
        else:
            kind = inside[0 if isinstance(part, int) else -1] if inside else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value


def _keys(section: str, name: str) -> list[str]:
    content = yaml.safe_load((SETTINGS / name).read_text(encoding="utf-8"))
    nested: dict[str, Any] = {}
    if section:
        _put(nested, section, content)
    return list(_flat(nested if section else content))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item and not name.startswith("optuna.search_space_presets."):
            table |= _flat(item, f"{name}.")
        else:
            table[name] = item
    return table
