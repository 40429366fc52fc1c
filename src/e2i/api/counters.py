"""What the receiver counts about itself, as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "e2i_receiver_requests_total": ("counter", "Requests answered, by route and status."),
    "e2i_receiver_spans_total": ("counter", "Spans received, by who sent them and whether they were stored."),
    "e2i_receiver_body_bytes_total": ("counter", "Bytes of bodies after opening, by route."),
    "e2i_receiver_in_flight": ("gauge", "Requests whose spans are being read or written."),
}


class Counters:
    """Counters by name and labels; for one event loop."""

    def __init__(self) -> None:
        self._values: dict[str, Counter[tuple[tuple[str, str], ...]]] = {name: Counter() for name in _HELP}

    def request(self, route: str, status: int) -> None:
        """One request was answered. `route` is the template, never the path: labels stay few."""
        self._values["e2i_receiver_requests_total"][("route", route), ("status", str(status))] += 1

    def spans(self, origin: str, *, accepted: int, rejected: int) -> None:
        """Spans of one body."""
        self._values["e2i_receiver_spans_total"][("origin", origin), ("outcome", "accepted")] += accepted
        self._values["e2i_receiver_spans_total"][("origin", origin), ("outcome", "rejected")] += rejected

    def body(self, route: str, size: int) -> None:
        """Bytes of one body."""
        self._values["e2i_receiver_body_bytes_total"][(("route", route),)] += size

    def text(self, *, in_flight: int) -> str:
        """All of them; names stand even before anything was counted."""
        self._values["e2i_receiver_in_flight"][()] = in_flight
        return "".join(line + "\n" for name, values in self._values.items() for line in _lines(name, values))


def _lines(name: str, values: Mapping[tuple[tuple[str, str], ...], int]) -> Iterator[str]:
    kind, text = _HELP[name]
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in sorted(values.items()):
        inside = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels)
        yield f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(content: str) -> str:
    return content.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
