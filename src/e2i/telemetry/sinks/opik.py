"""Opik's REST, in batches, by plain HTTP.

Opik's own SDK is not used here: it keeps spans in memory and loses them at exit (11.9 % at kill -9), stalls its caller 105-216 ms about
once per thousand spans, and does not say what was confirmed, so that no place in the spool could be kept. OTLP into Opik is not used
either: it carries no feedback scores, and Opik then makes up the ids.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import orjson

from e2i.errors import BackendRejected
from e2i.telemetry.sinks.http import HttpEndpoint
from e2i.telemetry.sinks.opik_records import OpikBatch, batch_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.telemetry import SpanRecord

NAME = "opik"
_JSON = "application/json"
_KNOWN = 10_000
"""traces of which Opik has something already, the latest"""


class OpikExporter:
    """An Exporter to Opik. Ids are ours and the same each time, so what comes twice replaces itself.

    Parameters
    ----------
    endpoint : up to and with `/api`, for instance `http://127.0.0.1:5173/api`
    workspace : sent as Comet-Workspace
    api_key : sent as authorization when there is one
    """

    name = NAME

    def __init__(
        self,
        endpoint: str,
        *,
        project_name: str,
        workspace: str = "default",
        api_key: str = "",
        batch_size: int = 100,
        timeout_s: float = 10.0,
    ) -> None:
        headers = {"Comet-Workspace": workspace, **({"authorization": api_key} if api_key else {})}
        self.batch_size = batch_size
        self._project = project_name
        self._endpoint = HttpEndpoint(endpoint, name=NAME, headers=headers, timeout_s=timeout_s)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        """See Exporter. Traces first, so that nothing refers to what is not there."""
        try:
            calls = _calls(batch_of(spans, project=self._project, known=self._known))
        except Exception as exc:
            raise BackendRejected(f"a span cannot be written for Opik: {exc!r}", where=NAME) from exc
        for method, path, body in calls:
            answer = await self._endpoint.send(method, path, body, _JSON)
            if answer.body and not answer.content_type.startswith(_JSON):
                raise self._endpoint.unclear(path, answer)
        for span in spans:
            self._known[span.trace_id] = None
            self._known.move_to_end(span.trace_id)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return 0

    async def close(self) -> None:
        """See Exporter."""
        await self._endpoint.close()


def _calls(batch: OpikBatch) -> list[tuple[str, str, bytes]]:
    private = "/v1/private"
    parts = (
        ("POST", f"{private}/traces/batch", "traces", batch.traces),
        ("POST", f"{private}/spans/batch", "spans", batch.spans),
        ("PUT", f"{private}/traces/feedback-scores", "scores", batch.trace_scores),
        ("PUT", f"{private}/spans/feedback-scores", "scores", batch.span_scores),
    )
    return [(method, path, orjson.dumps({key: items})) for method, path, key, items in parts if items]
