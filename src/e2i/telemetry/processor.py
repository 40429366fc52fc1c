"""OpenTelemetry's end of the spool: a span that has ended is bounded, redacted, classed and written before `end` returns.

Written straight from the SDK's span: a record in between would cost more than the encoding.
"""

# ruff: noqa: SLF001 - see `_keep`

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry.attributes import BoundedAttributes as _Attributes
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord, SpanStatus
from e2i.observability import attributes as names
from e2i.telemetry import frames
from e2i.telemetry.plain import attributes as plain_attributes
from e2i.telemetry.plain import plain, shorten
from e2i.telemetry.silence import Silence, unquoted

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan, Span
    from opentelemetry.trace import Link, SpanContext

    from e2i.telemetry.redaction import Redactor
    from e2i.telemetry.sampling import Sampler
    from e2i.telemetry.spool import SpoolWriter

_log = logging.getLogger(__name__)
_AGENT, _GEN_AI_AGENT = names.AGENT, names.GEN_AI_AGENT_NAME
_INTERNAL, _ERROR, _UNSET = SpanKind.INTERNAL, StatusCode.ERROR, StatusCode.UNSET
_STATUS: dict[StatusCode, SpanStatus] = {StatusCode.UNSET: "unset", StatusCode.OK: "ok", StatusCode.ERROR: "error"}
_ROOTS_KEPT = 10_000
_NAMES_KEPT = 2048
_LARGEST = 1024 * 1024
"""bytes of one span; beyond it events, links and values are cut"""
_EXACT = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""only the types that redaction knows: an object that became text here would not have been looked at"""
_SERVICE = "service.name"
_NONE: tuple[()] = ()
_LAST_MOMENT = 2**63 - 1


class SpoolProcessor(SpanProcessor):
    """Puts every ended span into the spool; never raises into the code that is observed.

    Parameters
    ----------
    service : the name of a span whose resource has none
    log_prompts : agent's name, or None -> whether what people and models said is kept
    silent_agents : those for which `log_prompts` says no; nothing that happens inside them is quoted either
    """

    def __init__(
        self,
        writer: SpoolWriter,
        redactor: Redactor,
        sampler: Sampler,
        *,
        service: str,
        log_prompts: Callable[[str | None], bool],
        silent_agents: frozenset[str] = frozenset(),
    ) -> None:
        self._writer = writer
        self._write = writer.write
        self._note_kept = writer.note_kept
        self._clean = redactor.clean
        self._clean_text = redactor.clean_text
        self._classify = sampler.classify
        self._own_rates = sampler.agents
        self._roots: dict[int, str] = {}
        """traces begun here by an agent with a rate of its own, the latest"""
        self._log_prompts = log_prompts
        self._silence = Silence(silent_agents) if silent_agents else None
        self._default_service = service
        self._resource: Resource | None = None
        self._service = service
        self._names: dict[str, str] = {}
        self._has_complained = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember who began a trace, where that decides its rate, and what is inside an agent that may not be quoted."""
        if span._parent is not None:
            if self._silence is not None:
                self._silence.inherit(span, parent_context)
            return
        found: Any = span._attributes
        if not self._own_rates or not found:
            return
        if type(found) is _Attributes:
            found = found._dict  # its own `get` raises and catches where a name is missing
        agent = found.get(_AGENT) or found.get(_GEN_AI_AGENT)
        if agent in self._own_rates and (context := span.context) is not None:
            if len(self._roots) >= _ROOTS_KEPT:
                self._roots.pop(next(iter(self._roots)), None)
            self._roots[context.trace_id] = str(agent)

    def on_end(self, span: ReadableSpan) -> None:
        """Keep the span; when this returns it survives the end of the process."""
        context = span.context
        if context is None or not context.trace_flags & 1:  # recorded only: a sampler in front said that it is not to be exported
            return
        keep, is_last = self._keep, False
        while True:
            try:
                keep(span, context)
            except Exception as error:  # noqa: BLE001 - whatever a foreign value did, the caller must not feel it
                if is_last:
                    self._writer.count_drop("not_serialisable")
                    self._complain(error)
                    return
                keep, is_last = self._keep_plainly, True
            else:
                return

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Force the spool to the disk. Sinks have their own pace."""
        del timeout_millis
        self._writer.sync()
        return True

    def shutdown(self) -> None:
        """Close the spool's files; all that ended is in them."""
        self._writer.close()

    def _keep(self, span: ReadableSpan, context: SpanContext) -> None:
        """The way of nearly every span; raises when a value is not what JSON holds.

        It reads the SDK's private fields: the public ones copy, 5 microseconds per span. Where they are missing it raises, too.
        """
        found: Any = span._attributes
        if type(found) is _Attributes:
            found = found._dict  # immutable since the span ended
        fields = vars(span)  # without lists of events and links where none came
        events, links = fields.get("_events"), fields.get("_links")
        agent = found.get(_AGENT) or found.get(_GEN_AI_AGENT)
        if type(agent) is not str:
            agent = None
        scope, parent, status, name = span._instrumentation_scope, span._parent, span._status, span._name
        log_prompts = self._log_prompts(agent)
        if self._silence is not None:
            log_prompts = log_prompts and not self._silence.holds(context, parent)
        if span._resource is not self._resource:
            self._learn_service(span._resource)
        code, message, trace, ended = status._status_code, status._description, context.trace_id, span._end_time
        trace_id = trace.to_bytes(16, "big").hex()
        values = (  # as in `frames.encode`
            trace_id,
            context.span_id.to_bytes(8, "big").hex(),
            False if parent is None else parent.span_id.to_bytes(8, "big").hex(),
            self._names.get(name) or self._name(name),
            span._start_time or 0,
            False if ended is None else ended,
            "unset" if code is _UNSET else _STATUS[code],
            self._clean_text(message) if message else False,
            "internal" if span._kind is _INTERNAL else span._kind.name.lower(),
            self._service,
            "" if scope is None else scope._name,
            "e2i",
            self._clean(found if log_prompts else unquoted(found), log_prompts=log_prompts),
            [self._plain_event(event, log_prompts=log_prompts) for event in events] if events else _NONE,
            [self._plain_link(link, log_prompts=log_prompts) for link in links] if links else _NONE,
        )
        payload = orjson.dumps(values, None, _EXACT)
        if len(payload) > _LARGEST:
            raise ValueError("too large")
        root = self._roots.get(trace) if self._roots else None
        is_entry = parent is not None and parent.is_remote
        kind, is_noted = self._classify(trace, agent=agent, is_error=code is _ERROR, root=root, is_entry=is_entry)
        if is_noted:
            self._note_kept(trace_id)
        self._write(payload, kind)

    def _keep_plainly(self, span: ReadableSpan, context: SpanContext) -> None:
        """The way of a span with foreign values or too much of them."""
        found = plain_attributes(span.attributes)
        agent = found.get(_AGENT) or found.get(_GEN_AI_AGENT)
        agent = agent if isinstance(agent, str) else None
        log_prompts = self._log_prompts(agent)
        if self._silence is not None:
            log_prompts = log_prompts and not self._silence.holds(context, span.parent)
        trace_id, span_id = _ids(context)
        self._learn_service(span.resource)
        code, message, scope = span.status.status_code, span.status.description, span.instrumentation_scope
        record = SpanRecord(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=_ids(span.parent)[1] if span.parent else None,
            name=self._clean_text(str(plain(span.name))),
            started_ns=_moment(span.start_time),
            ended_ns=None if span.end_time is None else _moment(span.end_time),
            status=_STATUS[code],
            status_message=self._clean_text(str(plain(message))) if message else None,
            kind=span.kind.name.lower(),
            service=self._service,
            scope=str(plain(scope.name)) if scope else "",
            attributes=self._clean(found if log_prompts else unquoted(found), log_prompts=log_prompts),
            events=tuple(self._event(event, log_prompts=log_prompts) for event in span.events),
            links=tuple(self._link(link, log_prompts=log_prompts) for link in span.links),
        )
        payload = frames.encode(record)
        if len(payload) > _LARGEST:
            payload = frames.encode(shorten(record, _LARGEST))
        root, is_entry = self._roots.get(context.trace_id), span.parent is not None and span.parent.is_remote
        kind, is_noted = self._classify(context.trace_id, agent=agent, is_error=code is _ERROR, root=root, is_entry=is_entry)
        if is_noted:
            self._note_kept(trace_id)
        self._write(payload, kind)

    def _event(self, event: Event, *, log_prompts: bool) -> SpanEvent:
        found = plain_attributes(event.attributes)
        kept = self._clean(found if log_prompts else unquoted(found), log_prompts=log_prompts)
        return SpanEvent(name=self._clean_text(str(plain(event.name))), at_ns=_moment(event.timestamp), attributes=kept)

    def _link(self, link: Link, *, log_prompts: bool) -> SpanLink:
        trace_id, span_id = _ids(link.context)
        found = self._clean(plain_attributes(link.attributes), log_prompts=log_prompts)
        return SpanLink(trace_id=trace_id, span_id=span_id, attributes=found)

    def _plain_event(self, event: Event, *, log_prompts: bool) -> tuple[str, int, dict[str, Any]]:
        found = event.attributes
        if found and not log_prompts:
            found = unquoted(found)
        return self._name(event.name), event.timestamp, self._clean(found, log_prompts=log_prompts) if found else {}

    def _plain_link(self, link: Link, *, log_prompts: bool) -> tuple[str, str, dict[str, Any]]:
        found = link.attributes
        return *_ids(link.context), self._clean(found, log_prompts=log_prompts) if found else {}

    def _name(self, name: str) -> str:
        """Names repeat: each is cleaned once."""
        cleaned = self._names.get(name)
        if cleaned is None:
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            cleaned = self._names[name] = self._clean_text(name)
        return cleaned

    def _learn_service(self, resource: Resource) -> None:
        name = resource.attributes.get(_SERVICE)
        is_told = isinstance(name, str) and name and not name.startswith("unknown_service")
        self._service = str(plain(name)) if is_told else self._default_service
        self._resource = resource

    def _complain(self, error: Exception) -> None:
        """Once; the counter says the rest. The error's text may hold what must not be written anywhere."""
        if not self._has_complained:
            self._has_complained = True
            _log.warning("a span cannot be kept (%s); further ones are only counted", type(error).__name__)


def _ids(context: SpanContext) -> tuple[str, str]:
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _moment(at_ns: Any) -> int:
    return min(max(int(at_ns or 0), 0), _LAST_MOMENT)
