"""ml_hpo_studies and hpo_pattern_memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from e2i.errors import StorageError
from e2i.ports.records import Pattern
from e2i.storage.postgres import as_json
from e2i.storage.repositories.experiments import experiment_row
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.domain.experiments import SearchResult
    from e2i.storage.postgres import Database

_SQL = load("search")
RANGES = {
    "log_rows": 6.0,
    "log_features": 4.0,
    "is_regression": 1.0,
    "minority_share": 0.5,
    "categorical_share": 1.0,
    "mean_levels": 4.0,
    "missing_share": 1.0,
    "mean_abs_skew": 10.0,
    "mean_abs_correlation": 1.0,
    "landmark_best": 1.0,
    "landmark_mean": 1.0,
    "landmark_linear": 1.0,
}
"""meta-feature -> what counts as its largest value; the width of hpo_pattern_memory.embedding is twice their number"""


class HpoRepository:
    """`SearchRecords` on PostgreSQL with pgvector."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save_study(
        self, result: SearchResult, *, experiment_id: str, problem_type: str, space: Mapping[str, Any], sampler: str, pruner: str
    ) -> None:
        """Insert or update by study_name. Raises NotFound when there is no such experiment."""
        async with self._db.transaction() as connection:
            parameters = {
                **_found(result),
                "experiment_id": await experiment_row(connection, experiment_id),
                "problem_type": problem_type,
                "space": as_json({name: dict(spec) for name, spec in space.items()}),
                "sampler": sampler,
                "pruner": pruner,
            }
            await connection.execute(_SQL["save_study"], parameters)

    async def remember(self, result: SearchResult, *, problem_type: str, meta_features: Mapping[str, float]) -> None:
        """Keep the best parameters as a pattern, one per study_name."""
        await self._db.run(
            _SQL["remember"],
            **_found(result),
            problem_type=problem_type,
            meta_features=as_json(dict(meta_features)),
            embedding=_vector(meta_features),
        )

    async def similar(
        self, *, algorithm: str, problem_type: str, meta_features: Mapping[str, float], minimum: float, limit: int
    ) -> list[Pattern]:
        """Patterns by cosine similarity of standardised meta-features, best first; `similarity` is in [0, 1]."""
        rows = await self._db.rows(
            _SQL["similar"],
            algorithm=algorithm,
            problem_type=problem_type,
            embedding=_vector(meta_features),
            minimum=minimum,
            limit=limit,
        )
        return [Pattern(**row) for row in rows]


def _vector(meta_features: Mapping[str, float]) -> str:
    """Each value as a point on a half circle, in the order of RANGES.

    So the cosine of two vectors is the mean of the cosines of the differences: it depends on how far apart two data sets
    are, not on where a scale begins. A quarter of the range apart in everything gives 0.71.
    """
    wrong = sorted(set(RANGES) ^ set(meta_features)) or [name for name, value in meta_features.items() if not math.isfinite(value)]
    if wrong:
        raise StorageError(
            f"meta-features are missing, unknown or not finite: {', '.join(wrong)}.",
            where="hpo_pattern_memory",
            advice=f"Give a finite number for each of {', '.join(RANGES)}.",
        )
    shares = [min(abs(float(meta_features[name])) / most, 1.0) for name, most in RANGES.items()]
    return str([part for share in shares for part in (math.cos(math.pi * share), math.sin(math.pi * share))])


def _found(result: SearchResult) -> dict[str, object]:
    return {
        "study_name": result.study_name,
        "algorithm": result.algorithm,
        "metric": result.metric,
        "n_trials": result.n_complete + result.n_pruned + result.n_failed,
        "n_completed": result.n_complete,
        "n_pruned": result.n_pruned,
        "n_failed": result.n_failed,
        "n_warm_start": result.n_warm_start,
        "best_trial": result.best_trial,
        "best_value": result.best_value,
        "best_params": as_json(result.best_params),
        "seconds": result.seconds,
    }
