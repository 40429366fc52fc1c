"""Fitted nuisances as bytes and back: one step of an agent leaves them for the next. Numbers only, no pickle."""

from __future__ import annotations

import io
import json
from typing import cast

import numpy as np

from e2i.causal.estimators.doubly_robust import Fit, Propensity, Target


def nuisances_to_bytes(propensity: Propensity, fit: Fit) -> bytes:
    """A npz archive."""
    told = {
        "estimand": fit.estimand,
        "estimate": fit.estimate,
        "standard_error": fit.standard_error,
        "propensity": propensity.learners,
        "outcome": fit.learners,
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        propensity=propensity.raw,
        folds=propensity.folds,
        estimates=fit.estimates,
        influence=fit.influence,
        untreated_mean=fit.untreated_mean,
        treated_mean=fit.treated_mean,
        told=np.array(json.dumps(told)),
    )
    return buffer.getvalue()


def nuisances_from_bytes(content: bytes) -> tuple[Propensity, Fit]:
    """What `nuisances_to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        told = json.loads(str(arrays["told"]))
        propensity = Propensity(raw=arrays["propensity"], folds=arrays["folds"], learners=told["propensity"])
        fit = Fit(
            estimand=cast("Target", told["estimand"]),
            estimate=told["estimate"],
            standard_error=told["standard_error"],
            estimates=arrays["estimates"],
            influence=arrays["influence"],
            untreated_mean=arrays["untreated_mean"],
            treated_mean=arrays["treated_mean"],
            learners=told["outcome"],
        )
    return propensity, fit
