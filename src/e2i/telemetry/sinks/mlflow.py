"""MLflow's trace store, through its OTLP endpoint.

MLflow's own library would make the shipper twice as large (200 MB) to ask one question, the id of an experiment; so that is asked by REST.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.telemetry.sinks.opik_records import is_top
from e2i.telemetry.sinks.otlp import OtlpExporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.telemetry import SpanRecord

NAME = "mlflow"
_API = "api/2.0/mlflow/experiments"
_NO_SUCH = 404
_ADVICE = "Check MLFLOW_TRACKING_URI and MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN; the spans wait in the spool."


class MlflowExporter:
    """An Exporter to an MLflow server; the experiment is looked up, or made, when there is something to send.

    Parameters
    ----------
    uri : of the server, without `/v1/traces`
    experiment : name
    user : name and password; an empty name: none
    token : empty: none
    """

    name = NAME

    def __init__(
        self,
        uri: str,
        *,
        experiment: str,
        user: tuple[str, str] = ("", ""),
        token: str = "",
        batch_size: int = 100,
        timeout_s: float = 10.0,
    ) -> None:
        self.batch_size = batch_size
        self._uri = uri.rstrip("/")
        self._experiment = experiment
        self._timeout_s = timeout_s
        self._auth = httpx.BasicAuth(*user) if user[0] else None
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._exporter: OtlpExporter | None = None

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        """See Exporter."""
        if self._exporter is None:
            self._exporter = await self._connected()
        # MLflow ends a trace with its root; the caller above a run of ours is not there.
        return await self._exporter.send([replace(each, parent_span_id=None) if is_top(each) else each for each in spans])

    async def close(self) -> None:
        """See Exporter."""
        if self._exporter is not None:
            await self._exporter.close()

    async def _connected(self) -> OtlpExporter:
        async with httpx.AsyncClient(timeout=self._timeout_s, auth=self._auth, headers=self._headers, trust_env=False) as client:
            experiment_id = await self._find(client)
            probe = client.build_request("GET", self._uri)
            if self._auth is not None:
                probe = next(self._auth.auth_flow(probe))
        headers = {"x-mlflow-experiment-id": experiment_id}
        if authorization := probe.headers.get("authorization"):
            headers["authorization"] = authorization
        return OtlpExporter(f"{self._uri}/v1/traces", name=NAME, headers=headers, batch_size=self.batch_size, timeout_s=self._timeout_s)

    async def _find(self, client: httpx.AsyncClient) -> str:
        asked = {"experiment_name": self._experiment}
        found = await self._ask(client, "GET", "get-by-name", params=asked)
        if found is None:
            # Somebody else may make it at the same moment; whoever made it, it is there afterwards.
            made = await self._ask(client, "POST", "create", json={"name": self._experiment}, bears_conflict=True)
            if made is not None and "experiment_id" in made:
                return str(made["experiment_id"])
            found = await self._ask(client, "GET", "get-by-name", params=asked)
        try:
            experiment = found["experiment"]  # type: ignore[index]
            if experiment.get("lifecycle_stage") == "deleted":
                advice = "Restore it, or name another in observability.mlflow.experiment."
                raise BackendUnavailable(f"experiment {self._experiment!r} is deleted.", where=self._uri, advice=advice)
            return str(experiment["experiment_id"])
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendUnavailable("its answer names no experiment.", where=self._uri, advice=_ADVICE) from error

    async def _ask(
        self, client: httpx.AsyncClient, method: str, what: str, *, bears_conflict: bool = False, **given: Any
    ) -> dict[str, Any] | None:
        try:
            answer = await client.request(method, f"{self._uri}/{_API}/{what}", **given)
            if answer.status_code == _NO_SUCH or (bears_conflict and answer.status_code == 400):
                return None
            if answer.is_error:
                raise BackendUnavailable(f"answers {answer.status_code}: {answer.text[:200]}", where=self._uri, advice=_ADVICE)
            return dict(answer.json())
        except httpx.InvalidURL as error:
            raise BackendRejected(str(error), where=self._uri, advice=_ADVICE) from error
        except (httpx.HTTPError, ValueError) as error:
            raise BackendUnavailable(f"{type(error).__name__}: {error}", where=self._uri, advice=_ADVICE) from error
