"""An Opik for tests: the part of its REST that its SDK uses to send, with every body checked by the SDK's own types.

    with OpikServer() as server:
        OpikExporter(server.endpoint, project_name="p")           # ours
        opik.Opik(host=server.endpoint, ...)                      # the real SDK
    server.traces, server.spans        # by id; the record that was updated last stands, a PATCH changes single fields
    server.scores                      # by (kind, id, name)
    server.received                    # spans with repetitions

For a poison record see `FaultyServer`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pydantic

from faulty_http import FaultyServer, Mode, Refused, Reply, Request

__all__ = ["Mode", "OpikServer"]

_LARGEST_BATCH = 1000
_BASE = "/api/v1/private"


@dataclass
class OpikServer(FaultyServer):
    """See the module. `api_key`: asked for when it is set."""

    api_key: str = ""
    traces: dict[str, dict[str, Any]] = field(default_factory=dict)
    spans: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    received: int = 0

    @property
    def endpoint(self) -> str:
        """What OPIK_URL_OVERRIDE would say."""
        return f"{self.url}/api"

    def respond(self, request: Request) -> Reply:
        """See FaultyServer."""
        if request.path.startswith("/api/is-alive/"):
            return Reply(200, b'{"message": "Healthy Server", "healthy": true}')
        if self.api_key and request.headers.get("authorization") != self.api_key:
            raise Refused(401, "API key should be provided")
        if not request.headers.get("comet-workspace"):
            raise Refused(403, "Comet-Workspace is missing")
        from opik.rest_api.types.feedback_score_batch_item import FeedbackScoreBatchItem
        from opik.rest_api.types.span_write import SpanWrite
        from opik.rest_api.types.trace_write import TraceWrite

        routes: dict[tuple[str, str], Callable[[], None]] = {
            ("POST", "/traces/batch"): lambda: self._take(self.traces, _items(request, "traces", TraceWrite)),
            ("POST", "/spans/batch"): lambda: self._take_spans(_items(request, "spans", SpanWrite)),
            ("PUT", "/traces/feedback-scores"): lambda: self._score("trace", _items(request, "scores", FeedbackScoreBatchItem)),
            ("PUT", "/spans/feedback-scores"): lambda: self._score("span", _items(request, "scores", FeedbackScoreBatchItem)),
        }
        path = request.path.removeprefix(_BASE)
        if route := routes.get((request.method, path)):
            route()
            return Reply(204)
        kind, _, identifier = path.strip("/").partition("/")
        if request.method == "PATCH" and kind in ("traces", "spans") and identifier:
            _check_id(identifier)
            self._patch(self.traces if kind == "traces" else self.spans, identifier, json.loads(request.body))
            return Reply(204)
        raise Refused(404, f"{request.method} {request.path} is not here")

    def _take_spans(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            _check_id(item.get("trace_id"))
            if item.get("parent_span_id") is not None:
                _check_id(item["parent_span_id"])
        self._take(self.spans, items)
        self.received += len(items)

    def _take(self, table: dict[str, dict[str, Any]], items: list[dict[str, Any]]) -> None:
        for item in items:
            _check_id(item.get("id"))
            if item.get("name") == self.poison and self.poison is not None:
                raise Refused(self.poison_status, f"{item['id']} is not welcome")
        for item in items:
            known = table.get(item["id"], {})
            is_newer = (item.get("last_updated_at") or "~") >= (known.get("last_updated_at") or "")
            table[item["id"]] = {**known, **item} if is_newer else {**item, **known}

    def _patch(self, table: dict[str, dict[str, Any]], identifier: str, fields: dict[str, Any]) -> None:
        """May come before the record itself."""
        table[identifier] = {"id": identifier, **table.get(identifier, {}), **fields}

    def _score(self, kind: str, items: list[dict[str, Any]]) -> None:
        for item in items:
            _check_id(item["id"])
            self.scores[kind, item["id"], item["name"]] = item


def _items(request: Request, key: str, kind: type[pydantic.BaseModel]) -> list[dict[str, Any]]:
    try:
        found = json.loads(request.body)[key]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, f"not a batch of {key}: {error!r}") from error
    if not isinstance(found, list) or not 0 < len(found) <= _LARGEST_BATCH:
        raise Refused(422, f"{key}: between 1 and {_LARGEST_BATCH} are taken")
    try:
        for item in found:
            kind.model_validate(item, strict=False)
    except pydantic.ValidationError as error:
        raise Refused(400, str(error)) from error
    return found


def _check_id(text: Any) -> None:
    try:
        version = uuid.UUID(text).version
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused(400, f"{text!r} is not a UUID") from error
    if version != 7:
        raise Refused(400, f"{text} is not a UUID of version 7")
