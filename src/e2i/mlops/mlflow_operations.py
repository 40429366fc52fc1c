"""What an outbox message does in MLflow: one idempotent, synchronous function per operation.

Every object that we make carries the tag `e2i.key`; before making one we look for it. Times are those of the message, so a
second delivery writes the same rows again instead of new ones.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.errors import BackendRejected, DataError
from e2i.mlops.mlflow_errors import code_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from e2i.ports.models import TrialRecord

TARGET = "mlflow"
KEY = "e2i.key"
PARENT_KEY = "e2i.parent_key"
DIGEST = "e2i.digest"
STAGE = "e2i.stage"
MODEL_FOLDER = "model"
_ALIASES = ("staging", "shadow", "champion", "production")
_PARAMETER_LIMIT = 6000
_KEY_PATTERN = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_LOGGED_MODEL = "models:/"
_TRIAL_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def quieten() -> None:
    """Import MLflow; keep its advice to its own authors, and errors that we raise anyway, away from our users' terminal."""
    warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
    import mlflow  # noqa: F401  # its import sets the levels that are set right below

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def checked_key(key: str) -> str:
    """A key that can stand in an MLflow filter. Raises DataError."""
    if not _KEY_PATTERN.fullmatch(key):
        raise DataError(f"{key!r} cannot identify a run.", where="key", advice="Use letters, digits and _ . : / - only, at most 200.")
    return key


def checked_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text. Raises DataError for one that MLflow would cut off."""
    texts = {name: str(value) for name, value in params.items()}
    for name, text in texts.items():
        if len(text) > _PARAMETER_LIMIT:
            raise DataError(
                f"has {len(text)} characters, MLflow keeps {_PARAMETER_LIMIT}.", where=f"parameter {name}", advice="Log it as an artifact."
            )
    return texts


def checked_metrics(metrics: Mapping[str, float], *, where: str = "metric") -> dict[str, float]:
    """Finite metrics. Raises DataError: MLflow would keep infinity as 1.797e308 without a word."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DataError(
                f"is {value}, which is not a number that can be compared.",
                where=f"{where} {name}",
                advice="Leave out a metric that is undefined; say why in a parameter or an artifact.",
            )
    return {name: float(value) for name, value in metrics.items()}


def trial_payload(trial: TrialRecord) -> dict[str, Any]:
    """A search trial as a message. Raises DataError for a value that is not finite."""
    where = f"trial {trial.number}, metric"
    values = {str(step): value for step, value in trial.intermediate.items()}
    checked_metrics(values | ({} if trial.value is None else {"value": trial.value}), where=where)
    params = {name if name.startswith("hp_") else f"hp_{name}": value for name, value in trial.params.items()}
    return {**asdict(trial), "params": checked_params(params), "intermediate": values}


class MLflowOperations:
    """Operations on one MLflow store; synchronous, safe in threads (MLflow's client is)."""

    def __init__(self, client: MlflowClient, *, artifact_location: str | None) -> None:
        self.client = client
        self._artifact_location = artifact_location
        self._experiments: dict[str, str] = {}

    def perform(self, operation: str, key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        """Do one message's work; `results` are those of the key so far. Returns what it adds."""
        if operation == "create_experiment":
            return {"experiment_id": self.experiment_id(payload["name"], payload["tags"])}
        if operation == "start_run":
            return self._start_run(key, payload, results)
        if operation == "register_model":
            return self._register_model(key, payload, results)
        if operation == "set_stage":
            return self._set_stage(payload)
        if "run_id" not in results:
            raise BackendRejected(
                f"{operation} has no run: MLflow refused to start it.", where=key, advice="The refusal of start_run says why."
            )
        step = {
            "log_batch": self._log_batch,
            "log_artifact": self._log_artifact,
            "log_model": self._log_model,
            "log_trials": self._log_trials,
            "finish_run": self._finish_run,
        }[operation]
        return step(key, payload, results)

    def experiment_id(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """Get or create."""
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                location = None if self._artifact_location is None else f"{self._artifact_location.rstrip('/')}/{name}"
                try:
                    self._experiments[name] = self.client.create_experiment(name, artifact_location=location, tags=dict(tags or {}))
                except MlflowException as error:
                    if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                        raise
                    return self.experiment_id(name, tags)
                return self._experiments[name]
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def find_runs(self, experiment_ids: Sequence[str], tag: str, value: str, *, limit: int = 1000) -> list[Run]:
        """Runs with this tag, deleted ones too, the same order always."""
        from mlflow.entities import ViewType

        found = self.client.search_runs(
            list(experiment_ids), f"tags.`{tag}` = '{checked_key(value)}'", run_view_type=ViewType.ALL, max_results=limit
        )
        return sorted(found, key=lambda run: (run.info.lifecycle_stage == "deleted", run.info.start_time, run.info.run_id))

    def _start_run(self, key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        experiment = self.experiment_id(payload["experiment_name"])
        if "run_id" in results:
            run = self.client.get_run(results["run_id"])
        else:
            known = self.find_runs([experiment], KEY, key, limit=2)
            run = known[0] if known else self._create_run(experiment, key, payload)
        if run.info.lifecycle_stage == "deleted":
            self.client.restore_run(run.info.run_id)
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        return {"run_id": run.info.run_id, "experiment_id": experiment}

    def _create_run(self, experiment: str, key: str, payload: Mapping[str, Any]) -> Run:
        tags = {**payload["tags"], KEY: key}
        return self.client.create_run(experiment, start_time=payload["started_ms"], tags=tags, run_name=payload["run_name"])

    def _log_batch(self, _key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        from mlflow.entities import Metric, Param

        run_id = results["run_id"]
        metrics = [Metric(name, value, payload["logged_ms"], payload["step"]) for name, value in payload["metrics"].items()]
        if metrics:
            metrics = self._not_yet_logged(run_id, metrics)
        params = [Param(name, value) for name, value in payload["params"].items()]
        for start in range(0, max(len(params), 1), 100):
            self.client.log_batch(run_id, params=params[start : start + 100], metrics=metrics if start == 0 else [], synchronous=True)
        return {}

    def _not_yet_logged(self, run_id: str, metrics: list[Any]) -> list[Any]:
        """Without those that a resumed run logs again: same name, step and value."""
        latest = {metric.key: metric for metric in self.client.get_run(run_id).data._metric_objs}  # noqa: SLF001
        fresh = []
        for metric in metrics:
            last = latest.get(metric.key)
            if last is None or last.step < metric.step:
                fresh.append(metric)
                continue
            history = [last] if last.step == metric.step else self.client.get_metric_history(run_id, metric.key)
            if not any(old.step == metric.step and old.value == metric.value for old in history):
                fresh.append(metric)
        return fresh

    def _log_artifact(self, _key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        path = Path(payload["staged"]) / payload["name"]
        if content_digest(path) != payload["sha256"]:
            raise BackendRejected(
                f"{payload['name']} is not what was logged: its content changed or it is gone.", where=str(path), advice="Log it again."
            )
        if path.is_dir():
            folder = f"{payload['folder']}/{path.name}" if payload["folder"] else path.name
            self.client.log_artifacts(results["run_id"], str(path), folder)
        else:
            self.client.log_artifact(results["run_id"], str(path), payload["folder"])
        return {}

    def _log_model(self, key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException

        folder = Path(payload["staged"]) / "mlflow"
        if content_digest(folder) != payload["sha256"]:
            raise BackendRejected("the model is not what was logged.", where=str(folder), advice="Log it again.")
        tags = {KEY: key, DIGEST: payload["digest"], "e2i.framework": payload["framework"]}
        model = self._logged_model(results["experiment_id"], key, payload)
        if model is None:
            model = self.client.create_logged_model(
                results["experiment_id"], name=payload["name"], source_run_id=results["run_id"], tags=tags
            )
        if str(model.status) != "READY":
            self.client.log_model_artifacts(model.model_id, str(folder))
            self.client.finalize_logged_model(model.model_id, "READY")
        try:
            self.client.log_outputs(results["run_id"], [LoggedModelOutput(model.model_id, 0)])
        except MlflowException:
            outputs = self.client.get_run(results["run_id"]).outputs
            if outputs is None or all(output.model_id != model.model_id for output in outputs.model_outputs):
                raise
        self.client.set_tag(results["run_id"], DIGEST, payload["digest"])
        return {"model_uri": model.model_uri, "model_source": model.artifact_location, "model_digest": payload["digest"]}

    def _logged_model(self, experiment: str, key: str, payload: Mapping[str, Any]) -> Any:
        """The model of this key, name and content, if an earlier delivery made it."""
        found = self.client.search_logged_models([experiment], filter_string=f"tags.`{KEY}` = '{checked_key(key)}'")
        wanted = (payload["name"], payload["digest"])
        return next((model for model in found if (model.name, model.tags.get(DIGEST)) == wanted), None)

    def _log_trials(self, key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        known = {run.data.tags[KEY]: run for run in self.find_runs([results["experiment_id"]], PARENT_KEY, key, limit=5000)}
        for trial in payload["trials"]:
            run = known.get(f"{key}/trial/{trial['number']}")
            if run is None or run.info.status == "RUNNING":
                self._log_trial(key, trial, payload, results, run)
        return {}

    def _log_trial(
        self, key: str, trial: Mapping[str, Any], payload: Mapping[str, Any], results: Mapping[str, Any], run: Run | None
    ) -> None:
        from mlflow.entities import Metric, Param

        if run is None:
            parent = {"mlflow.parentRunId": results["run_id"], PARENT_KEY: key}
            start = {
                "tags": {**payload["tags"], **parent, "e2i.trial_state": trial["state"]},
                "started_ms": trial["started_ms"],
                "run_name": f"trial {trial['number']}",
            }
            run = self._create_run(results["experiment_id"], f"{key}/trial/{trial['number']}", start)
        run_id = run.info.run_id
        end = trial["finished_ms"]
        metrics = [Metric("intermediate", value, end, int(step)) for step, value in trial["intermediate"].items()]
        if trial["value"] is not None:
            metrics.append(Metric("value", trial["value"], end, 0))
        params = [Param(name, value) for name, value in trial["params"].items()]
        if metrics or params:
            self.client.log_batch(run_id, metrics=metrics, params=params, synchronous=True)
        if trial["state"] in _TRIAL_STATUS:
            self.client.set_terminated(run_id, _TRIAL_STATUS[trial["state"]], end_time=end)

    def _finish_run(self, _key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        self.client.set_terminated(results["run_id"], payload["status"], end_time=payload["ended_ms"])
        return {"status": payload["status"]}

    def _register_model(self, key: str, payload: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
        from mlflow.exceptions import MlflowException

        name = payload["name"]
        source = results.get("model_source") or payload["model_uri"]
        if source is None:
            raise BackendRejected("there is no model to register.", where=f"model {name}", advice="Call run.log_model first.")
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self.model_versions(name, key)
        version = known[0] if known else self._create_version(name, source, key, {**payload["tags"]}, results)
        return {"registered_name": name, "version": str(version.version)}

    def _create_version(self, name: str, source: str, key: str, tags: dict[str, str], results: Mapping[str, Any]) -> Any:
        if "model_digest" in results:
            tags[DIGEST] = results["model_digest"]
        uri = str(results.get("model_uri", ""))
        return self.client.create_model_version(
            name,
            source=source,
            run_id=results.get("run_id"),
            tags={**tags, KEY: key},
            model_id=uri.removeprefix(_LOGGED_MODEL) if uri.startswith(_LOGGED_MODEL) else None,
        )

    def model_versions(self, name: str, key: str | None = None) -> list[Any]:
        """Versions of a registered model, oldest first; those of one run key when given."""
        quoted = name.replace("'", "''")
        condition = f"name = '{quoted}'" + (f" and tags.`{KEY}` = '{checked_key(key)}'" if key else "")
        return sorted(self.client.search_model_versions(condition), key=lambda version: int(version.version))

    def runs_of(self, experiment_name: str, limit: int) -> list[dict[str, Any]]:
        """Newest runs of an experiment as plain data; none when it does not exist."""
        experiment = self.client.get_experiment_by_name(experiment_name)
        if experiment is None:
            return []
        return [
            {
                "run_id": run.info.run_id,
                "key": run.data.tags.get(KEY),
                "status": run.info.status,
                "params": dict(run.data.params),
                "metrics": dict(run.data.metrics),
                "tags": dict(run.data.tags),
            }
            for run in self.client.search_runs([experiment.experiment_id], max_results=limit)
        ]

    def download(self, model_uri: str, folder: Path) -> Path:
        """The model's own folder inside a logged model `models:/m-…`, copied to `folder`."""
        from mlflow.artifacts import download_artifacts

        model = self.client.get_logged_model(model_uri.removeprefix(_LOGGED_MODEL))
        source = f"{model.artifact_location}/artifacts/{MODEL_FOLDER}"
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self.client.tracking_uri))

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version of a registered model."""
        return {alias: str(version) for alias, version in self.client.get_registered_model(name).aliases.items()}

    def _set_stage(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        name, version, stage = payload["name"], payload["version"], payload["stage"]
        self.client.set_model_version_tag(name, version, STAGE, stage)
        wanted = aliases_of(stage)
        for alias, holder in self.aliases(name).items():
            if holder == version and alias in _ALIASES and alias not in wanted:
                self.client.delete_registered_model_alias(name, alias)
        for alias in wanted:
            self.client.set_registered_model_alias(name, alias, version)
        return {"stage": stage}


def aliases_of(stage: str) -> tuple[str, ...]:
    """Aliases that a version in this stage holds; development and archived versions hold none, for an alias has one holder."""
    return {"staging": ("staging",), "shadow": ("shadow",), "production": ("champion", "production")}.get(stage, ())


def content_digest(path: Path) -> str:
    """sha256 over names and bytes of a file or folder; empty when it is gone."""
    if not path.exists():
        return ""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(str(file.relative_to(path.parent)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
