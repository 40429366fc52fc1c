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
_DIMENSIONS = 32
_MOST = 6.0


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
            feature_names=sorted(meta_features),
            embedding=_vector(meta_features),
        )

    async def similar(
        self, *, algorithm: str, problem_type: str, meta_features: Mapping[str, float], minimum: float, limit: int
    ) -> list[Pattern]:
        """Patterns with the same meta-features by name, by cosine similarity of their standardised values, best first."""
        rows = await self._db.rows(
            _SQL["similar"],
            algorithm=algorithm,
            problem_type=problem_type,
            feature_names=sorted(meta_features),
            embedding=_vector(meta_features),
            minimum=minimum,
            limit=limit,
        )
        return [Pattern(**row) for row in rows]


def standardised(value: float) -> float:
    """A meta-feature in [0, 1]: a share as it is, a count by its power of ten out of a million. The sign does not count.

    >>> [round(standardised(x), 2) for x in (0.0, 0.3, 1.0, 10.0, 1000.0, 5e7)]
    [0.0, 0.3, 1.0, 0.17, 0.5, 1.0]
    """
    size = abs(value)
    return size if size <= 1 else min(math.log10(size), _MOST) / _MOST


def _vector(meta_features: Mapping[str, float]) -> str:
    """Each value as a point on a half circle, in the order of the names, padded with zeros.

    So the cosine of two vectors is the mean of the cosines of the differences: it depends on how far apart two data sets
    are, not on where the scale begins.
    """
    wrong = [name for name, value in meta_features.items() if not math.isfinite(value)]
    if wrong or not 0 < len(meta_features) <= _DIMENSIONS // 2:
        raise StorageError(
            f"meta-features are not usable: {', '.join(wrong) + ' not finite' if wrong else f'{len(meta_features)} of them'}.",
            where="hpo_pattern_memory",
            advice=f"Give one to {_DIMENSIONS // 2} finite numbers.",
        )
    angles = [math.pi * standardised(float(meta_features[name])) for name in sorted(meta_features)]
    values = [part for angle in angles for part in (math.cos(angle), math.sin(angle))]
    return str(values + [0.0] * (_DIMENSIONS - len(values)))


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
