"""Two-stage least squares with an interval that stays honest when instruments are weak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.iv.checks import examine, raise_refused
from e2i.causal.iv.residuals import Residuals
from e2i.causal.iv.weak import USUAL_FROM, ConfidenceSet, Strength, anderson_rubin, anderson_rubin_p, strength
from e2i.errors import NotIdentified, NoVariation

_MANY = "for so many instruments these rows carry no robust variance: first stage and Anderson-Rubin set take errors as equally spread"


@dataclass(frozen=True, kw_only=True)
class TwoStageLeastSquares:
    """Effect of a treatment that the instruments move, linear in treatment and covariates (Angrist and Imbens 1995).

    Standard errors are robust (HC1), or clustered where the sample has clusters. The interval is Anderson and Rubin's where the
    effective first-stage F lies below its critical value, the usual one from an F of 104.7, and between the two see
    `choose_interval`; diagnostics tell both.
    """

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002
        """Estimate with its 95 % interval; `seed` is not used, nothing is drawn.

        Raises
        ------
        NotIdentified
            The instruments are missing, constant, copies of another role, or contradict each other.
        TooFewRows
            Fewer than 30 rows, 5 rows per column, or not more clusters than instruments.
        """
        hazards, residuals = examine(data)
        raise_refused(hazards, override=spec.override)
        assert residuals is not None, "what has no residuals was refused"
        return from_residuals(residuals, estimator="Two-stage least squares", treatment=data.treatment)


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Two-stage least squares on unit scale."""

    estimate: float
    standard_error: float
    scores: FloatArray
    """shape (n,): the estimate's error is their sum"""
    residual: FloatArray
    """shape (n,)"""


def two_stage(residuals: Residuals) -> LinearFit:
    """Coefficient of the treatment, with HC1 or clustered standard error."""
    delta, pi, _ = residuals.reduced_form
    explained = float(pi @ pi)
    effect = float(pi @ delta) / explained
    residual = residuals.outcome - residuals.treatment * effect
    scores = (residuals.instruments @ pi) * residual / (len(residual) * explained)
    return LinearFit(
        estimate=effect, standard_error=float(np.sqrt(residuals.variance(scores, parameters=1))), scores=scores, residual=residual
    )


def from_residuals(
    residuals: Residuals, *, estimator: str, treatment: FloatArray, diagnostics: dict[str, float] | None = None, notes: tuple[str, ...] = ()
) -> Estimate:
    """The estimate that outcome, treatment and instruments give once covariates are taken out, by whatever model.

    Parameters
    ----------
    treatment : shape (n,), as observed
    diagnostics, notes : put beside ours
    """
    from scipy.stats import t

    fit, first = two_stage(residuals), strength(residuals)
    if fit.standard_error <= 1e-9 * abs(fit.estimate):
        raise NoVariation(
            "the outcome is an exact function of treatment and covariates.", where="outcome", advice="Check how it was built."
        )
    robust = anderson_rubin(*residuals.reduced_form, degrees=residuals.joint_degrees)
    half = float(t.ppf(0.5 + LEVEL / 2, residuals.degrees)) * fit.standard_error
    wald = ConfidenceSet(segments=((fit.estimate - half, fit.estimate + half),))
    interval, method, more = choose_interval(wald.times(residuals.unit), robust.times(residuals.unit), first, method=_method(residuals))
    usual = float(2 * t.sf(abs(fit.estimate) / fit.standard_error, residuals.degrees))
    p_value = choose_p(usual, anderson_rubin_p(*residuals.reduced_form, effect=0.0, degrees=residuals.joint_degrees), first)
    is_binary = bool(np.isin(treatment, (0.0, 1.0)).all())
    dropped = tuple(f"instrument `{name}` adds nothing to the others and the covariates and was left out" for name in residuals.dropped)
    many = (_MANY,) if residuals.has_many_instruments else ()
    slope = () if is_binary else ("the effect is an average slope, weighted to units whose treatment the instruments move",)
    return Estimate(
        estimator=estimator,
        estimand="LATE",
        estimate=fit.estimate * residuals.unit,
        standard_error=fit.standard_error * residuals.unit,
        interval=interval,
        interval_method=method,
        p_value=p_value,
        influence=fit.scores * (len(treatment) * residuals.unit),
        n_treated=int(treatment.sum()) if is_binary else int((treatment != 0).sum()),
        n_untreated=int((treatment == 0).sum()),
        diagnostics={
            "conventional_se": float(np.sqrt(np.mean(fit.residual**2) / _left(residuals) / _explained(residuals))) * residuals.unit,
            **first_stage_diagnostics(first),
            **both_intervals(wald.times(residuals.unit), robust.times(residuals.unit)),
            **against_least_squares(residuals, fit),
            **overidentification(residuals, fit),
            "largest_row_share": float((fit.scores**2).max() / np.sum(fit.scores**2)),
            **(diagnostics or {}),
        },
        notes=(*dropped, *slope, *many, *more, *notes),
    )


def choose_interval(
    wald: ConfidenceSet, robust: ConfidenceSet, first: Strength, *, method: str
) -> tuple[tuple[float, float], str, tuple[str, ...]]:
    """Anderson and Rubin's set where instruments are weak, the usual interval where they are strong; with the method's name and notes.

    Between the two a t interval can still be too short where treatment is strongly confounded (Lee, McCrary, Moreira and Porter 2022):
    one instrument then has Anderson and Rubin's set, which is exact; several have the wider ends of both, since that set grows short
    when instruments disagree.

    Raises
    ------
    NotIdentified
        Instruments are weak and no effect agrees with all of them.
    """
    told = f"Anderson-Rubin 95 % set: {robust.describe()}"
    if first.is_weak and not robust.segments:
        raise NotIdentified(
            f"the instruments are weak (effective F {first.effective_f:.1f}) and no effect agrees with all of them.",
            where="effect.instruments",
            advice="At least one of them is invalid: keep only those whose exclusion you can defend.",
        )
    if first.is_weak:
        weak = f"effective F {first.effective_f:.1f} is below {first.critical_value:.1f}: the usual interval cannot be trusted"
        return robust.hull, "Anderson-Rubin, robust to weak instruments", (weak, told)
    if not first.is_middling or not robust.segments:
        return wald.hull, method, (told,)
    usual = f"the usual interval is {wald.describe()}; below a first-stage F of {USUAL_FROM} it can be too short"
    if first.instruments == 1:
        return robust.hull, "Anderson-Rubin, robust to weak instruments", (usual,)
    ends = (min(wald.hull[0], robust.hull[0]), max(wald.hull[1], robust.hull[1]))
    return ends, "Anderson-Rubin and t, the wider ends", (usual, told)


def choose_p(usual: float, robust: float, first: Strength) -> float:
    """The p-value of no effect that belongs to the interval told."""
    if first.is_weak or (first.is_middling and first.instruments == 1):
        return robust
    return max(usual, robust) if first.is_middling else usual


def first_stage_diagnostics(first: Strength) -> dict[str, float]:
    """Strength of the first stage, by name."""
    return {
        "first_stage_f": first.first_stage_f,
        "first_stage_p": first.first_stage_p,
        "effective_f": first.effective_f,
        "effective_f_critical": first.critical_value,
        "partial_r2": first.partial_r2,
    }


def against_least_squares(residuals: Residuals, fit: LinearFit) -> dict[str, float]:
    """Ordinary least squares beside it, and Durbin, Wu and Hausman's test that the two agree (regression form, robust)."""
    from scipy.stats import f

    treatment, n = residuals.treatment, len(residuals.treatment)
    plain = float(treatment @ residuals.outcome) / n
    error = np.sqrt(residuals.variance(treatment * (residuals.outcome - plain * treatment) / n, parameters=1))
    fitted = residuals.instruments @ residuals.reduced_form[1]
    rest = treatment - fitted
    along, beside = float(fitted @ fitted), float(rest @ rest)
    slope = float(rest @ residuals.outcome) / beside
    remainder = residuals.outcome - fitted * fit.estimate - rest * slope
    scores = rest * remainder / beside - fitted * remainder / along
    statistic = (slope - fit.estimate) ** 2 / residuals.variance(scores, parameters=2)
    degrees = residuals.degrees - (0 if residuals.clusters is not None else 1)
    return {
        "least_squares": plain * residuals.unit,
        "least_squares_se": float(error) * residuals.unit,
        "hausman_f": statistic,
        "hausman_p": float(f.sf(statistic, 1, degrees)),
    }


def overidentification(residuals: Residuals, fit: LinearFit) -> dict[str, float]:
    """Sargan's test and Hansen's robust J (two-step weights) that all instruments agree; nothing with one instrument."""
    from scipy.stats import chi2

    delta, pi, _ = residuals.reduced_form
    m, n = len(pi), len(fit.residual)
    if m == 1:
        return {}
    gap = delta - pi * fit.estimate
    sargan = n * float(gap @ gap) / float(np.mean(fit.residual**2))
    moments = residuals.sums(residuals.instruments * fit.residual[:, None])
    spread = moments.T @ moments / n**2
    weighted = np.linalg.solve(spread, np.column_stack([pi, delta]))
    efficient = float(pi @ weighted[:, 1]) / float(pi @ weighted[:, 0])
    left = delta - pi * efficient
    hansen = float(left @ np.linalg.solve(spread, left))
    return {
        "sargan": sargan,
        "sargan_p": float(chi2.sf(sargan, m - 1)),
        "hansen_j": hansen,
        "hansen_j_p": float(chi2.sf(hansen, m - 1)),
    }


def _left(residuals: Residuals) -> int:
    return len(residuals.outcome) - residuals.partialled - 1


def _explained(residuals: Residuals) -> float:
    """Share of the treatment's variance that the instruments explain."""
    pi = residuals.reduced_form[1]
    return float(pi @ pi)


def _method(residuals: Residuals) -> str:
    if residuals.clusters is not None:
        return f"t with {residuals.degrees} degrees of freedom, clustered"
    return "t, robust (HC1)"


def both_intervals(wald: ConfidenceSet, robust: ConfidenceSet) -> dict[str, float]:
    """Ends of the usual interval and of Anderson and Rubin's, by name; of the latter's hull, nothing where it is empty."""
    if not robust.segments:
        return {"wald_low": wald.hull[0], "wald_high": wald.hull[1]}
    return {
        "wald_low": wald.hull[0],
        "wald_high": wald.hull[1],
        "anderson_rubin_low": robust.hull[0],
        "anderson_rubin_high": robust.hull[1],
    }
