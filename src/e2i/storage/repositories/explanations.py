"""ml_shap_analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.storage.postgres import as_json
from e2i.storage.sql import load

if TYPE_CHECKING:
    from e2i.domain.experiments import Explanation
    from e2i.storage.postgres import Database

_SQL = load("explanations")


class ShapAnalysisRepository:
    """`ExplanationRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, explanation: Explanation, *, registry_id: str, split: str) -> str:
        """Insert, or replace the analysis of this model on this split; the row's uuid.

        Raises NotFound when there is no such model version.
        """
        row = await self._db.row(
            _SQL["save"],
            registry_id=registry_id,
            global_importance=as_json({top.feature: top.importance for top in explanation.top_features}),
            feature_directions=as_json({top.feature: top.direction for top in explanation.top_features}),
            top_interactions=as_json(explanation.interactions),
            base_value=explanation.base_value,
            additivity_error=explanation.additivity_error,
            narrative=explanation.narrative,
            key_drivers=[top.feature for top in explanation.top_features],
            sample_size=explanation.sample_size,
            method=explanation.method,
            seconds=explanation.seconds,
            split=split,
        )
        assert row is not None
        return str(row["id"])
