"""The same estimates by the field's libraries: linearmodels, statsmodels, doubleml, diff-diff."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl

if TYPE_CHECKING:
    from published.case import Case

FOLDS = 5
REPETITIONS = 3


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What a library says."""

    library: str
    estimate: float
    standard_error: float | None


def mean_difference(frame: pl.DataFrame, case: Case) -> Peer:
    """OLS on the treatment alone; errors robust (HC2), or clustered."""
    import statsmodels.api as sm

    rows = _rows(frame, case)
    model = sm.OLS(rows[case.effect.outcome], sm.add_constant(rows[[case.effect.treatment]]))
    if case.effect.cluster is None:
        fitted = model.fit(cov_type="HC2")
    else:
        fitted = model.fit(cov_type="cluster", cov_kwds={"groups": rows[case.effect.cluster]})
    return Peer(library="statsmodels OLS", estimate=fitted.params.iloc[1], standard_error=fitted.bse.iloc[1])


def least_squares(frame: pl.DataFrame, case: Case) -> Peer:
    """OLS with the confounders as they are; robust errors."""
    import statsmodels.api as sm

    rows = _rows(frame, case)
    columns = [case.effect.treatment, *case.effect.confounders]
    fitted = sm.OLS(rows[case.effect.outcome], sm.add_constant(rows[columns])).fit(cov_type="HC1")
    return Peer(library="statsmodels OLS", estimate=fitted.params.iloc[1], standard_error=fitted.bse.iloc[1])


def two_stage(frame: pl.DataFrame, case: Case) -> Peer:
    """2SLS; errors robust, or clustered."""
    from linearmodels.iv import IV2SLS

    rows, effect = _rows(frame, case), case.effect
    others = rows[list(effect.confounders)].assign(constant=1.0)
    model = IV2SLS(rows[effect.outcome], others, rows[[effect.treatment]], rows[list(effect.instruments)])
    options = {"cov_type": "clustered", "clusters": rows[effect.cluster]} if effect.cluster else {"cov_type": "robust"}
    fitted = model.fit(**options, debiased=True)
    return Peer(library="linearmodels IV2SLS", estimate=fitted.params[effect.treatment], standard_error=fitted.std_errors[effect.treatment])


def fixed_effects(frame: pl.DataFrame, case: Case) -> Peer:
    """Two-way fixed effects; errors clustered by unit."""
    from linearmodels.panel import PanelOLS

    effect = case.effect
    assert case.unit is not None
    assert case.time is not None
    rows = _rows(frame, case)
    rows[case.unit] = rows[case.unit].astype("category").cat.codes
    rows = rows.set_index([case.unit, case.time])
    model = PanelOLS(
        rows[effect.outcome],
        rows[[effect.treatment, *effect.confounders]],
        entity_effects=True,
        time_effects=True,
        weights=None if effect.weights is None else rows[[effect.weights]],
    )
    fitted = model.fit(cov_type="clustered", cluster_entity=True)
    return Peer(
        library="linearmodels PanelOLS", estimate=fitted.params[effect.treatment], standard_error=fitted.std_errors[effect.treatment]
    )


def double_machine_learning(frame: pl.DataFrame, case: Case) -> Peer:
    """DoubleML's interactive regression model, linear and logistic nuisances, five folds, three partitions."""
    import doubleml
    from sklearn.linear_model import LassoCV, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    effect = case.effect
    rows = pd.get_dummies(_rows(frame, case), drop_first=True, dtype=float)
    columns = [name for name in rows.columns if name not in (effect.outcome, effect.treatment, case.unit)]
    data = doubleml.DoubleMLData(rows, y_col=effect.outcome, d_cols=effect.treatment, x_cols=columns)
    np.random.seed(1)  # noqa: NPY002 - the library draws its partitions from the global generator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = doubleml.DoubleMLIRM(
            data,
            ml_g=make_pipeline(StandardScaler(), LassoCV(cv=3)),
            ml_m=make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)),
            n_folds=FOLDS,
            n_rep=REPETITIONS,
            score="ATTE" if effect.estimand == "ATT" else "ATE",
        ).fit()
    return Peer(library="doubleml IRM (lasso, logit)", estimate=float(model.coef[0]), standard_error=float(model.se[0]))


def group_time(frame: pl.DataFrame, case: Case) -> Peer:
    """Callaway and Sant'Anna against units not yet treated, the simple average over all treated periods."""
    import diff_diff

    effect = case.effect
    assert case.unit is not None
    assert case.time is not None
    first = pl.col(case.time).filter(pl.col(effect.treatment) == 1).min().over(case.unit).fill_null(0).alias("first")
    rows = frame.select(case.unit, case.time, effect.outcome, first).to_pandas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = diff_diff.CallawaySantAnna(control_group="not_yet_treated").fit(
            rows, outcome=effect.outcome, unit=case.unit, time=case.time, first_treat="first"
        )
    return Peer(library="diff-diff CallawaySantAnna", estimate=float(found.overall_att), standard_error=float(found.overall_se))


def rebuilt_path(frame: pl.DataFrame, case: Case) -> Peer:
    """Synthetic control on the outcomes before treatment."""
    import diff_diff

    effect = case.effect
    assert case.unit is not None
    assert case.time is not None
    rows = frame.select(case.unit, pl.col(case.time).cast(pl.Int64), effect.treatment, effect.outcome).to_pandas()
    treated = rows.loc[rows[effect.treatment] == 1, case.unit].iloc[0]
    after = sorted(rows.loc[rows[effect.treatment] == 1, case.time].unique().tolist())
    before = sorted(set(rows[case.time]) - set(after))
    equal = np.full(len(before), 1.0 / len(before))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = diff_diff.SyntheticControl(v_method="custom", custom_v=equal, standardize="none", seed=1).fit(
            rows,
            outcome=effect.outcome,
            treatment=effect.treatment,
            unit=case.unit,
            time=case.time,
            post_periods=after,
            treated_unit=treated,
        )
    return Peer(library="diff-diff SyntheticControl", estimate=float(found.att), standard_error=None)


def _rows(frame: pl.DataFrame, case: Case) -> pd.DataFrame:
    """Complete rows of the columns that the question names."""
    effect = case.effect
    single = (case.unit, case.time, effect.treatment, effect.outcome, effect.cluster, effect.weights)
    names = dict.fromkeys(name for name in (*single, *effect.instruments, *effect.confounders) if name is not None)
    rows = frame.select(*names).drop_nulls().to_pandas()
    numbers = [name for name in names if pd.api.types.is_numeric_dtype(rows[name]) and name not in (case.unit, case.time, effect.cluster)]
    rows[numbers] = rows[numbers].astype(float)
    if effect.cluster is not None:
        rows[effect.cluster] = rows[effect.cluster].astype("category").cat.codes
    return rows
