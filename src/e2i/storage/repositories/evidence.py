"""causal_paths and causal_validations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from e2i.domain.evidence import ProvenEffect
from e2i.storage.postgres import as_json
from e2i.storage.sql import load

if TYPE_CHECKING:
    from e2i.domain.evidence import CausalFinding
    from e2i.domain.study import Study
    from e2i.storage.postgres import Database

_SQL = load("evidence")


class CausalEvidenceRepository:
    """`EvidenceRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, finding: CausalFinding, *, study: Study, run_id: str, data_sha256: str, trace_id: str | None) -> str:
        """The finding with its tests in one transaction; a repeated step replaces what it wrote. Returns the path's id."""
        asked = study.effect
        assert asked is not None
        effect = finding.effect
        low, high = effect.interval() if effect is not None else (None, None)
        path_id = f"{run_id}_effect"
        common = {"path_id": path_id, "gate": finding.verdict.name, "brand": study.brand}
        async with self._db.transaction() as connection:
            await connection.execute(
                _SQL["save"],
                {
                    **common,
                    "run_id": run_id,
                    "chain": as_json([asked.treatment, asked.outcome]),
                    "start_node": asked.treatment,
                    "end_node": asked.outcome,
                    "effect": _finite(effect.estimate) if effect is not None else None,
                    "low": low,
                    "high": high,
                    "standard_error": _finite(effect.standard_error) if effect is not None else None,
                    "estimand": effect.estimand if effect is not None else None,
                    "design": effect.design if effect is not None else None,
                    "method": effect.estimator if effect is not None else None,
                    "interval_method": effect.interval_method if effect is not None else None,
                    "confounders": list(dict.fromkeys((*asked.confounders, *asked.modifiers))),
                    "reasons": list(finding.verdict.reasons),
                    "data_sha256": data_sha256,
                    "trace_id": trace_id,
                    "seed": study.seed,
                },
            )
            await connection.execute(_SQL["clear_validations"], common)
            for item in finding.refutations:
                await connection.execute(
                    _SQL["save_validation"],
                    {
                        **common,
                        "test": item.test[:100],
                        "status": "skipped" if item.is_reported_only else "passed" if item.passed else "failed",
                        "original": _finite(effect.estimate) if effect is not None else None,
                        "refuted": _finite(item.estimate),
                        "p_value": _finite(item.p_value),
                        "statistic": _finite(item.statistic),
                        "details": item.detail,
                        "treatment": asked.treatment,
                        "outcome": asked.outcome,
                    },
                )
        return path_id

    async def proven(self, outcome: str, *, brand: str | None) -> list[ProvenEffect]:
        """The newest effect on `outcome` that passed the gate, per cause."""
        return [
            ProvenEffect(
                path_id=row["path_id"],
                run_id=row["run_id"],
                treatment=row["start_node"],
                outcome=row["end_node"],
                estimand=row["estimand"],
                design=row["design"],
                estimate=row["causal_effect_size"],
                low=row["effect_low"],
                high=row["effect_high"],
            )
            for row in await self._db.rows(_SQL["proven"], outcome=outcome, brand=brand)
        ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
