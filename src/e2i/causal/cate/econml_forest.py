"""EconML's causal forest behind the same call, for comparison: it fits its own nuisances, which takes its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.forest import MINIMUM_ROWS, CateModel, UnitEffects
from e2i.causal.cate.sums import LEVEL
from e2i.causal.design import Sample
from e2i.errors import TooFewRows


@dataclass(frozen=True, kw_only=True)
class EconMLForest:
    """`CausalForestDML` (Athey, Tibshirani and Wager 2019) on a sample; modifiers as features, all covariates as controls."""

    sample: Sample
    trees: int = 100
    jobs: int = 1

    def fit(self, modifiers: FloatArray, scores: Scores, *, seed: int) -> CateModel:
        """Grow the forest; `scores` tells the sampling weights and clusters only.

        Raises
        ------
        TooFewRows
            Fewer than 100 rows, or rows that are not the sample's.
        """
        from econml.dml import CausalForestDML

        if len(modifiers) < MINIMUM_ROWS or len(modifiers) != len(self.sample.outcome):
            raise TooFewRows(
                f"{len(modifiers)} rows; EconML's forest needs the sample's {len(self.sample.outcome)}, at least {MINIMUM_ROWS}.",
                where="forest",
                advice="Use `HonestForest` for parts of a sample.",
            )
        forest: Any = CausalForestDML(discrete_treatment=True, n_estimators=self.trees, n_jobs=self.jobs, random_state=seed, inference=True)
        forest.fit(
            self.sample.outcome,
            self.sample.treatment,
            X=modifiers,
            W=self.sample.covariates.matrix if self.sample.covariates.matrix.shape[1] else None,
            groups=scores.cluster,
            sample_weight=scores.weights if np.ptp(scores.weights) > 0 else None,
        )
        return _EconMLModel(forest=forest)


@dataclass(frozen=True, kw_only=True)
class _EconMLModel:
    forest: Any

    def predict(self, modifiers: FloatArray) -> UnitEffects:
        """Effects at modifiers of shape (m, k)."""
        found = self.forest.effect_inference(modifiers)
        low, high = found.conf_int(alpha=1.0 - LEVEL)
        return UnitEffects(
            estimate=np.ravel(found.point_estimate),
            standard_error=np.ravel(found.stderr),
            low=np.ravel(low),
            high=np.ravel(high),
            interval_method="EconML CausalForestDML, bootstrap of little bags",
        )
