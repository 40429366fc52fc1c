"""From a question and a table to a design with its power; and changes that gain power where it falls short."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from e2i.domain.trials import Analysis, BaselineSpec, ExperimentSpec, MarketSelection, PowerAnalysis, RedesignStep, TrialDesign
from e2i.errors import ConfigError
from e2i.ml.power.facts import Facts, given_facts, measure
from e2i.ml.power.formulas import Clusters, Comparison, Means, Pairs, Proportions, Rates, Survival, require_spread
from e2i.ml.power.geo import placebo_windows
from e2i.ml.power.sample import WHERE, read_sample
from e2i.ml.power.simulation import Trial
from e2i.ml.power.solve import curve, detectable, required_n
from e2i.ml.power.spending import boundaries, inflation

if TYPE_CHECKING:
    import polars as pl

    from e2i.ml.power.sample import Sample

_FEW_UNITS = 40
"""a panel of fewer units is regions, not people: a test of markets"""
_LEAK = 0.05
"""share of units that share a practice or territory, above which those are assigned whole"""
_FEWEST_CLUSTERS = 8
_FEWEST_SIMULATED = 4
_FEWEST_DRAWS = 300
_SIMULATED_CELLS = 1e7
"""simulations x units x squared columns: seconds"""
_GAIN = 0.005
_SIZES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A design with its facts and power. `spec` holds what redesigns changed; `markets` only for geo."""

    spec: ExperimentSpec
    design: TrialDesign
    analysis: Analysis
    rationale: str
    facts: Facts
    power: PowerAnalysis
    markets: MarketSelection | None = None


def choose(spec: ExperimentSpec, sample: Sample | None) -> tuple[ExperimentSpec, TrialDesign, str]:
    """The design and why; a column named under `shared` becomes the cluster where treatment would leak over it."""
    if spec.design != "auto":
        return spec, spec.design, f"Design `{spec.design}` was asked for."
    if spec.cluster is not None or (sample is None and spec.baseline.cluster_size is not None):
        return spec, "cluster_rct", f"Units of one `{spec.cluster or 'cluster'}` are treated together, so clusters are assigned whole."
    if sample is not None and sample.wide is not None and sample.n < _FEW_UNITS and placebo_windows(sample.wide.shape[1], spec.geo.weeks):
        return spec, "geo", f"The panel follows {sample.n} units over time: too few for chance to balance, so markets are chosen by fit."
    shared = {} if sample is None else sample.shared
    leaky = max(sorted(shared), key=lambda name: shared[name], default=None)
    if leaky is not None and shared[leaky] > _LEAK:
        why = f"{shared[leaky]:.0%} of units share their `{leaky}` with another unit: treatment would leak, so it is assigned whole."
        return spec.model_copy(update={"cluster": leaky}), "cluster_rct", why
    if spec.strata:
        return spec, "stratified", f"Chance assigns within levels of {', '.join(spec.strata)}, which removes their part of the variance."
    return spec, "rct", "Units can be treated singly and nothing named leaks between them: chance assigns single units."


def choose_analysis(spec: ExperimentSpec, design: TrialDesign, sample: Sample | None) -> Analysis:
    """What the later estimate will be."""
    if spec.outcome_type == "time_to_event":
        return "log_rank"
    if design == "matched_pairs":
        return "paired"
    if spec.analysis == "double_difference" and (sample is None or sample.pre is None):
        raise ConfigError("a double difference needs a panel.", where=WHERE, advice="Name `unit` and `time`, or leave out `analysis`.")
    if spec.analysis != "auto":
        return spec.analysis
    has_history = sample is not None and sample.pre is not None
    return "ancova" if has_history or spec.covariates or (sample is None and spec.baseline.r2) else "difference"


def draft(spec: ExperimentSpec, frame: pl.DataFrame | None) -> Draft:
    """Design, facts and power for single units, clusters and pairs; geo markets are chosen by `geo`.

    Raises
    ------
    ConfigError
        Neither a table nor a baseline says what the formula needs, or nothing says how many units there are.
    """
    sample = None if frame is None else read_sample(frame, spec)
    chosen, design, rationale = choose(spec, sample)
    if frame is not None and chosen.cluster != spec.cluster:
        sample = read_sample(frame, chosen)
    chosen = chosen.model_copy(update={"design": design})
    analysis = choose_analysis(chosen, design, sample)
    facts = given_facts(chosen) if sample is None else measure(sample, chosen, analysis=analysis)
    return Draft(
        spec=chosen,
        design=design,
        analysis=analysis,
        rationale=rationale,
        facts=facts,
        power=power_analysis(chosen, facts, design, analysis),
    )


def comparison(spec: ExperimentSpec, facts: Facts, design: TrialDesign) -> Comparison:
    """The formula with this plan's numbers. Raises ConfigError for a number that nobody has given."""
    clusters = None
    if design == "cluster_rct":
        icc = _need(facts.icc if facts.icc_upper is None else facts.icc_upper, "icc")
        clusters = Clusters(size=_need(facts.cluster_size, "cluster_size"), icc=icc, cv=facts.cluster_cv)
    pi, kept, k = spec.treated_share, facts.kept, facts.adjusters
    if facts.outcome_type == "time_to_event":
        return Survival(event_share=_need(facts.event_share, "event_share"), treated=pi, clusters=clusters)
    if facts.outcome_type == "binary" and design != "matched_pairs":
        base = _need(facts.mean, "mean")
        require_spread(base * (1.0 - base), outcome=spec.outcome)
        return Proportions(base=base, treated=pi, kept=kept, covariates=k, clusters=clusters)
    if facts.outcome_type == "count" and design != "matched_pairs":
        mean = _need(facts.mean, "mean")
        require_spread(mean, outcome=spec.outcome)
        return Rates(base=mean, dispersion=_need(facts.dispersion, "dispersion"), treated=pi, kept=kept, covariates=k, clusters=clusters)
    sd = _need(facts.sd, "sd")
    require_spread(sd, outcome=spec.outcome)
    if design == "matched_pairs":
        if facts.outcome_type == "count":
            raise ConfigError(
                "matched pairs compare means, and the outcome is a count.", where=WHERE, advice="Set outcome_type: continuous."
            )
        return Pairs(sd=sd, correlation=_need(facts.pair_correlation, "r2"))
    return Means(sd=sd, treated=pi, kept=kept, covariates=k, clusters=clusters)


def power_analysis(spec: ExperimentSpec, facts: Facts, design: TrialDesign, analysis: Analysis) -> PowerAnalysis:
    """Size, detectable effect and power of the plan. Raises ConfigError when nothing says how many units there are."""
    formula, target = comparison(spec, facts, design), spec.target
    looks = spec.interim_looks + 1
    limits = boundaries([(k + 1) / looks for k in range(looks)], alpha=spec.alpha, spending=spec.spending)
    cost = inflation(limits, alpha=spec.alpha, power=spec.power)
    needed = None if target is None else required_n(formula, target, alpha=spec.alpha, power=spec.power)
    required = None if needed is None else _whole(needed * cost / (1.0 - spec.expected_attrition), facts, design)
    planned = _planned(required, _available(spec, facts, design))
    analysed = planned * (1.0 - spec.expected_attrition)
    effective = analysed / cost
    up = target is None or target > formula.null
    mde = detectable(formula, effective, alpha=spec.alpha, power=spec.power, up=up)
    clusters = getattr(formula, "clusters", None)
    return PowerAnalysis(
        outcome_type=facts.outcome_type,
        analysis=analysis,
        method=_METHODS[type(formula).__name__],
        alpha=spec.alpha,
        target_power=spec.power,
        target_effect=target,
        effect_scale="difference" if formula.null == 0.0 else "hazard_ratio" if facts.outcome_type == "time_to_event" else "rate_ratio",
        required_n=required,
        planned_n=planned,
        analysed_n=math.floor(analysed),
        planned_clusters=None if clusters is None else round(planned / clusters.size),
        achieved_power=None if target is None else formula.power(target, effective, alpha=spec.alpha),
        mde=mde,
        mde_share_of_baseline=_share(mde, facts, formula.null),
        design_effect=1.0 if clusters is None else clusters.design_effect,
        variance_kept=facts.kept if facts.pair_correlation is None or design != "matched_pairs" else 1.0 - facts.pair_correlation,
        interim_inflation=cost,
        inputs=_inputs(facts, design),
        curve=()
        if (shown := target if target is not None else mde) is None
        else curve(formula, shown, [max(4, round(planned * share)) for share in _SIZES], alpha=spec.alpha, counted=effective / planned),
        sensitivity={} if shown is None else _sensitivity(formula, shown, effective, alpha=spec.alpha),
    )


def redesign(current: Draft, frame: pl.DataFrame | None) -> tuple[Draft, RedesignStep] | None:
    """The single change that gains most power; None where power suffices, has no target, or no change gains 0.5 points."""
    before = current.power
    if before.achieved_power is None or before.achieved_power >= before.target_power:
        return None
    best: tuple[Draft, str] | None = None
    for action, spec in _changes(current):
        tried = draft(spec, frame)
        if best is None or (tried.power.achieved_power or 0.0) > (best[0].power.achieved_power or 0.0):
            best = tried, action
    if best is None or (best[0].power.achieved_power or 0.0) < before.achieved_power + _GAIN:
        return None
    return best[0], step(best[1], before, best[0].power)


def step(action: str, before: PowerAnalysis, after: PowerAnalysis) -> RedesignStep:
    """What a change did."""
    return RedesignStep(
        action=action, power_before=before.achieved_power, power_after=after.achieved_power, mde_before=before.mde, mde_after=after.mde
    )


def _changes(current: Draft) -> list[tuple[str, ExperimentSpec]]:
    """Changes that this design admits, each as a sentence and the section that it makes."""
    spec, facts = current.spec, current.facts
    out: list[tuple[str, ExperimentSpec]] = []
    if spec.candidate_covariates and facts.units is not None and current.analysis != "log_rank":
        names = tuple(dict.fromkeys((*spec.covariates, *spec.candidate_covariates)))
        analysis = "ancova" if spec.analysis == "difference" else spec.analysis
        text = f"adjust for {', '.join(spec.candidate_covariates)}"
        out.append((text, spec.model_copy(update={"covariates": names, "candidate_covariates": (), "analysis": analysis})))
    if facts.windows is not None and current.analysis in ("difference", "double_difference"):
        out.append(("adjust for the pre-period mean (ANCOVA)", spec.model_copy(update={"analysis": "ancova"})))
    longest = spec.maximum_follow_up
    if longest is not None and longest > spec.follow_up and (facts.windows is not None or facts.outcome_type == "time_to_event"):
        longer = min(longest, 2 * spec.follow_up)
        change: dict[str, object] = {"follow_up": longer}
        if facts.outcome_type == "time_to_event":
            share = 1.0 - (1.0 - _need(facts.event_share, "event_share")) ** (longer / spec.follow_up)
            change["baseline"] = spec.baseline.model_copy(update={"event_share": share})
        out.append((f"measure the outcome over {longer} instead of {spec.follow_up} periods", spec.model_copy(update=change)))
    spread = _spread(spec, facts) if current.design == "cluster_rct" else None
    if spread is not None:
        baseline = spec.baseline.model_copy(update={"cluster_size": spread})
        text = f"take {spread:.3g} units from each of {spec.clusters_available or facts.clusters} clusters instead of whole clusters"
        out.append((text, spec.model_copy(update={"baseline": baseline})))
    return out


def _spread(spec: ExperimentSpec, facts: Facts) -> float | None:
    """Units per cluster when all clusters take part; None where that is no fewer than now."""
    clusters = spec.clusters_available or facts.clusters
    if spec.units_available is None or clusters is None or facts.cluster_size is None:
        return None
    size = spec.units_available / clusters
    return size if 1.0 <= size < facts.cluster_size - 1e-9 else None


def _available(spec: ExperimentSpec, facts: Facts, design: TrialDesign) -> int | None:
    units = spec.units_available if spec.units_available is not None else facts.units
    if design != "cluster_rct" or facts.cluster_size is None:
        return units if units is None else units - units % 2 if design == "matched_pairs" else units
    clusters = spec.clusters_available or (facts.clusters if spec.units_available is None else None)
    most = math.inf if clusters is None else clusters * facts.cluster_size
    most = most if units is None else min(most, units)
    return None if math.isinf(most) else int(most)


def _planned(required: int | None, available: int | None) -> int:
    if required is None and available is None:
        raise ConfigError(
            "nothing says how many units there are.", where=WHERE, advice="Give `minimum_detectable`, `units_available`, or a table."
        )
    return min(each for each in (required, available) if each is not None)


def _whole(n: float, facts: Facts, design: TrialDesign) -> int:
    """Whole units, pairs, or an even number of clusters."""
    if design == "cluster_rct" and facts.cluster_size is not None:
        return math.ceil(2 * math.ceil(n / facts.cluster_size / 2 - 1e-9) * facts.cluster_size)
    return 2 * math.ceil(n / 2 - 1e-9) if design == "matched_pairs" else math.ceil(n - 1e-9)


def _share(mde: float | None, facts: Facts, null: float) -> float | None:
    if mde is None:
        return None
    if null == 1.0:
        return mde - 1.0
    return None if not facts.mean else mde / abs(facts.mean)


def _sensitivity(formula: Comparison, effect: float, n: float, *, alpha: float) -> dict[str, float]:
    """A spread larger by a share is a sample smaller by its square."""
    out = {}
    for change in (-0.2, -0.1, 0.1, 0.2):
        scaled = formula.null + (effect - formula.null) * (1.0 + change)
        out[f"effect {change:+.0%}"] = formula.power(scaled, n, alpha=alpha)
        out[f"sd {change:+.0%}"] = formula.power(effect, n / (1.0 + change) ** 2, alpha=alpha)
    return dict(sorted(out.items()))


def _inputs(facts: Facts, design: TrialDesign) -> dict[str, float]:
    named = {
        "mean": facts.mean,
        "sd": facts.sd,
        "dispersion": facts.dispersion,
        "event_share": facts.event_share,
        "variance_kept": facts.kept,
    }
    if design == "cluster_rct":
        named |= {"icc": facts.icc, "icc_upper": facts.icc_upper, "cluster_size": facts.cluster_size, "cluster_cv": facts.cluster_cv}
    if design == "matched_pairs":
        named["pair_correlation"] = facts.pair_correlation
    named["pre_post_correlation"] = facts.pre_post_correlation
    return {name: float(value) for name, value in sorted((*named.items(), *facts.serial.items())) if value is not None}


def _need(value: float | None, name: str) -> float:
    if value is None or not math.isfinite(value):
        raise ConfigError(f"`{name}` is not known.", where=WHERE, advice=f"Give a table to measure it in, or `baseline.{name}`.")
    return value


_METHODS = {
    "Means": "two-sample t, non-central t; ANCOVA factor 1 - R²; design effect 1 + ((1 + cv²) m - 1) ICC",
    "Proportions": "two proportions, pooled variance under no effect",
    "Rates": "negative binomial rate ratio (Zhu & Lakkis 2014)",
    "Survival": "number of events (Schoenfeld 1983)",
    "Pairs": "paired t, non-central t",
}


def trial_on(current: Draft, sample: Sample) -> tuple[Trial, float] | None:
    """What to simulate on the own table, and the formula's power for just that; None where it cannot be simulated.

    Overruled baselines, windows longer than the panel and an ICC above the measured one are left out on purpose: the table cannot
    show them. A plan with more units
    than can be simulated in seconds is tried with fewer and an effect that these find as often.
    """
    power, alpha = current.power, current.spec.alpha
    effect = power.target_effect if power.target_effect is not None else power.mde
    is_clustered = current.design == "cluster_rct"
    if effect is None or current.analysis == "log_rank" or (is_clustered and sample.cluster is None):
        return None
    window = {} if sample.window is None else {"pre_periods": sample.window[0], "follow_up": sample.window[1]}
    spec = current.spec.model_copy(update={**window, "baseline": BaselineSpec(), "design": current.design})
    facts = replace(measure(sample, spec, analysis=current.analysis), icc_upper=None)
    formula, size = comparison(spec, facts, current.design), (facts.cluster_size or 1.0) if is_clustered else 1.0
    if not formula.is_possible(effect) or power.analysed_n < _FEWEST_SIMULATED * size:
        return None
    most = int(max(_FEWEST_DRAWS, _SIMULATED_CELLS / spec.simulations / (facts.adjusters + 1) ** 2) * size)
    n, nominal = power.analysed_n, formula.power(effect, power.analysed_n, alpha=alpha)
    if n > most:
        reached = min(nominal, 1.0 - 1e-3)
        smaller = detectable(formula, most, alpha=alpha, power=reached, up=effect > formula.null) if reached > alpha else None
        if smaller is None:
            return None
        n, effect, nominal = most, smaller, formula.power(smaller, most, alpha=alpha)
    trial = Trial(n=n, effect=effect, analysis=current.analysis, alpha=alpha, treated=spec.treated_share, is_clustered=is_clustered)
    return trial, nominal
