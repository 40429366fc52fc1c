"""Synthetic control: the treated against a weighted average of donors that moved like them before (Abadie et al. 2010)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.block import Block, block_of, fit_hazards
from e2i.causal.panel.data import Panel
from e2i.causal.panel.donor_weights import ByOutcomes, ByPredictors, RidgeAugmented, Weighing, chosen_penalty
from e2i.causal.panel.placebos import donor_stability, in_space, leave_one_out, placebo_in_space, placebo_in_time, pre_fit, rmspe
from e2i.causal.panel.predictors import Predictor, default_predictors
from e2i.causal.panel.synthetic_fit import SyntheticFit, named_weights, path_of
from e2i.causal.panel.synthetic_inference import (
    Inference,
    Placebos,
    Residuals,
    can_be_conformal,
    can_be_placebo,
    conformal,
    placebo_interval,
    rank_p_value,
    unbounded,
)

_LONG_SEARCH, _RESTARTS = 1_500, 2
_LONG = 40
"""from so many periods on, the test over time comes first"""


@dataclass(frozen=True, kw_only=True)
class SyntheticControl:
    """Effect on the treated, averaged over the treated periods.

    Without predictors donors are weighed by all outcomes before treatment; with predictors (default when the study names
    confounders: their means and three outcomes) their importances are searched. `augmented` corrects what imbalance remains by a
    ridge regression. Several treated units are pooled into one average; with `pool=False` each has its own donors.
    """

    predictors: tuple[Predictor, ...] | None = None
    augmented: bool = False
    pool: bool = True

    def fit(self, data: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The effect with its interval; `study` gives the rest.

        Raises
        ------
        DataError, NotIdentified, NoVariation
            See `block_of`.
        """
        return self.study(data, spec, seed=seed).estimate

    def study(self, data: Panel, spec: Identification, *, seed: int) -> SyntheticFit:
        """The effect, both paths, donor weights, placebos in space and time, fit before treatment, leave one donor out."""
        block = block_of(data, spec)
        mixing = block.pooled() if self.pool else block.singles(block.treated)
        weights, weighing, importance = self._weigh(block, mixing, spec=spec, seed=seed)
        gaps = (mixing - weights).T @ block.outcome
        own, observed = gaps.mean(axis=0), (mixing.T @ block.outcome).mean(axis=0)
        # Ranks compare like with like: where the treated got a longer search than the placebos, their short one is ranked.
        like = ((mixing - weighing(block, mixing)).T @ block.outcome).mean(axis=0) if isinstance(weighing, ByPredictors) else own
        placebos = in_space(block, like, weighing, seed=seed)
        found = _infer(block, mixing, own, like=like, weighing=weighing, placebos=placebos)
        left_out = leave_one_out(block, mixing, weights, weighing=weighing)
        estimate = _estimate(block, own, found, like=like, placebos=placebos, name=self._name(weighing))
        estimate = replace(estimate, diagnostics={**estimate.diagnostics, **_range(left_out)}, notes=_notes(data, placebos, weighing))
        tests = (
            pre_fit(block, like, placebos, interval=found.interval),
            placebo_in_space(block, like, placebos, interval=found.interval),
            placebo_in_time(block, mixing, weighing, seed=seed),
            donor_stability(left_out, estimate.estimate, interval=found.interval),
        )
        each = gaps[:, block.start :].mean(axis=1)
        return SyntheticFit(
            estimate=estimate,
            path=path_of(block, observed, observed - own),
            weights=named_weights(block.unit_names, weights.mean(axis=1)),
            refutations=tuple(test for test in tests if test is not None),
            hazards=fit_hazards(block),
            importance=importance,
            by_unit={} if self.pool else {block.unit_names[unit]: float(each[k]) for k, unit in enumerate(block.treated)},
            placebos={name: float(ratio) for name, ratio in zip(placebos.names, placebos.ratio, strict=True)},
        )

    def _weigh(self, block: Block, mixing: FloatArray, *, spec: Identification, seed: int) -> tuple[FloatArray, Weighing, dict[str, float]]:
        """Weights of the treated, how placebos are weighed, and the predictors' importances."""
        if self.augmented:
            ridge = RidgeAugmented(penalty=chosen_penalty(block, mixing))
            return ridge(block, mixing), ridge, {}
        predictors = self.predictors
        if predictors is None:
            predictors = default_predictors(block, spec.outcome) if block.covariate_names else ()
        if not predictors:
            return ByOutcomes()(block, mixing), ByOutcomes(), {}
        search = ByPredictors(predictors=predictors, outcome=spec.outcome, seed=seed)
        weights, found = replace(search, evaluations=_LONG_SEARCH, restarts=_RESTARTS).search(block, mixing)
        labels = [one.label for one in predictors]
        return weights, search, dict(zip(labels, found.mean(axis=1).tolist(), strict=True))

    def _name(self, weighing: Weighing) -> str:
        if isinstance(weighing, RidgeAugmented):
            return "synthetic control, ridge augmented"
        return "synthetic control, predictors" if isinstance(weighing, ByPredictors) else "synthetic control, outcomes before treatment"


def _infer(block: Block, mixing: FloatArray, own: FloatArray, *, like: FloatArray, weighing: Weighing, placebos: Placebos) -> Inference:
    """Over time where the history is long, over units where it is short and donors are many."""
    effect = float(own[block.start :].mean())
    periods = len(block.kept)
    over_time = can_be_conformal(periods) and block.n_post <= block.fit_end
    over_units = can_be_placebo(len(placebos.names))
    by_predictors = isinstance(weighing, ByPredictors)
    if over_units and not (over_time and periods >= _LONG and not by_predictors):
        return placebo_interval(effect, rmspe(like[: block.fit_end]), placebos)
    if not over_time:
        return unbounded(effect)
    fitted = weighing if isinstance(weighing, RidgeAugmented) else ByOutcomes()
    found = conformal(
        imposed(block, mixing, fitted),
        np.arange(periods) >= block.fit_end,
        centre=effect,
        unit=max(rmspe(own[: block.fit_end]), 0.05 * block.scale),
    )
    return replace(found, method=f"{found.method}; donors by outcomes, without predictors") if by_predictors else found


def imposed(block: Block, mixing: FloatArray, weighing: ByOutcomes | RidgeAugmented) -> Residuals:
    """Residuals of the treated (averaged over them) when an effect is imposed and all periods are fitted."""
    paths = block.outcome[:, block.kept]
    after = (block.kept >= block.start).astype(np.float64)
    allowed = block.others(mixing)

    def residuals(effects: FloatArray) -> FloatArray:
        total: FloatArray = np.zeros((len(effects), paths.shape[1]))
        for k in range(mixing.shape[1]):
            targets = (mixing[:, k] @ paths)[None, :] - effects[:, None] * after
            total += weighing.residuals(paths, targets, allowed[:, k : k + 1])
        return np.asarray(total / mixing.shape[1], dtype=np.float64)

    return residuals


def _estimate(block: Block, own: FloatArray, found: Inference, *, like: FloatArray, placebos: Placebos, name: str) -> Estimate:
    before, after = rmspe(own[: block.fit_end]), rmspe(own[block.start :])
    ratio = rmspe(like[block.start :]) / max(rmspe(like[: block.fit_end]), 1e-300)
    return Estimate(
        estimator=name,
        estimand="ATT",
        estimate=float(own[block.start :].mean()),
        standard_error=float("nan"),
        interval=found.interval,
        interval_method=found.method,
        p_value=found.p_value,
        n_treated=len(block.treated),
        n_untreated=len(block.donors),
        diagnostics={
            "pre_rmspe": before,
            "post_rmspe": after,
            "rmspe_ratio": after / max(before, 1e-300),
            "smallest_p": found.smallest_p,
            "placebo_p_value": rank_p_value(ratio, placebos.ratio),
            "placebos": float(len(placebos.ratio)),
            "placebos_dropped": float(placebos.dropped),
            "pre_periods": float(block.fit_end),
            "post_periods": float(block.n_post),
        },
    )


def _range(left_out: dict[str, float]) -> dict[str, float]:
    if not left_out:
        return {}
    return {"leave_one_donor_out_low": min(left_out.values()), "leave_one_donor_out_high": max(left_out.values())}


def _notes(panel: Panel, placebos: Placebos, weighing: Weighing) -> tuple[str, ...]:
    notes = []
    if placebos.dropped:
        notes.append(f"{placebos.dropped} placebos left out: before treatment they fit more than 5 times worse than the treated")
    if panel.weights is not None:
        notes.append("sampling weights are not used: every treated unit counts the same")
    if isinstance(weighing, RidgeAugmented):
        notes.append(f"ridge penalty {weighing.penalty:.3g} of the largest eigenvalue, by leaving out one period at a time")
        if panel.covariate_names:
            notes.append("confounders are not used by the augmented fit: donors are matched on outcomes before treatment")
    return tuple(notes)
