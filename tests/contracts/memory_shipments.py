"""A SpanShipments in memory, which survives a shipper and can be put back in time; it passes the same contract as the one on PostgreSQL."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2i.errors import StorageError

if TYPE_CHECKING:
    from e2i.domain.telemetry import SpanRecord


def _no_fault() -> None:
    return None


@dataclass
class MemoryShipments:
    """`before` is called before each commit and `after` behind it; either may raise or never come back."""

    rows: dict[tuple[str, str], SpanRecord] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    """span ids that are refused, as PostgreSQL refuses a value"""
    before: Callable[[], Any] = _no_fault
    after: Callable[[], Any] = _no_fault
    calls: int = 0
    left_out: list[SpanRecord] = field(default_factory=list)
    """spans that were counted and have no row"""

    async def ship(
        self, spans: Sequence[SpanRecord], *, spool_id: str, state: Mapping[str, Any], left_out: Sequence[SpanRecord] = ()
    ) -> int:
        """See SpanShipments."""
        self.calls += 1
        self.before()
        if bad := [span.span_id for span in spans if span.span_id in self.poison]:
            raise StorageError(f"a value was refused: {bad}", where="ml_observability_spans")
        new = {span.key: span for span in spans if span.key not in self.rows}
        self.rows.update(new)
        kept = json.dumps(dict(state))
        if self.states.get(spool_id) != kept:
            self.left_out += left_out
        self.states[spool_id] = kept
        self.after()
        return len(new)

    async def shipped(self, spool_id: str) -> dict[str, Any] | None:
        """See SpanShipments."""
        self.before()
        found = self.states.get(spool_id)
        return None if found is None else json.loads(found)

    def backup(self) -> MemoryShipments:
        """A copy of what is there now."""
        return MemoryShipments(rows=copy.copy(self.rows), states=copy.copy(self.states), left_out=copy.copy(self.left_out))
