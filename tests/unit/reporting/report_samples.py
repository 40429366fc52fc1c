"""Reports in every state, with evidence files made by the real code where that is cheap."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import section_samples

from e2i.domain.evidence import BalanceRow, CausalFinding, Effect, Overlap, Refutation, Verdict
from e2i.domain.experiments import (
    CriterionResult,
    Explanation,
    FeatureImportance,
    MetricValue,
    ModelVersion,
    SearchResult,
    SplitPlan,
    TrainedModel,
)
from e2i.domain.quality import QCIssue, QCReport
from e2i.domain.report import (
    DataSummary,
    EffectSummary,
    ExplanationSummary,
    ModelSummary,
    QCSummary,
    ReportEvidence,
    StudyReport,
)

WHEN = datetime(2025, 11, 21, 9, 30, tzinfo=UTC)
SHA = "9f2b" * 16
FEATURES = (
    "calls_pre",
    "nrx_pre",
    "decile",
    "digital_opens",
    "specialty",
    "samples_pre",
    "academic",
    "tenure_years",
    "region",
    "weeks_since_call",
)
SCORES = {"completeness": 0.981, "validity": 1.0, "consistency": 0.964, "uniqueness": 1.0, "timeliness": 0.87}


def qc(*, blocked=False) -> QCSummary:
    warning = QCIssue(
        check="many_gaps", severity="warning", column="digital_opens", detail="12.4 % of the values are missing.", advice="Check the feed."
    )
    leak = QCIssue(
        check="target_copy",
        severity="blocking",
        column="nrx_next_month",
        detail="It repeats the target: AUC 1.000 from this column alone.",
        advice="List it under `prediction.after_event`.",
    )
    keys = QCIssue(
        check="duplicate_keys",
        severity="blocking",
        column="npi",
        detail="184 rows repeat npi and week_end.",
        advice="Keep one row per HCP and week.",
    )
    scores = {**SCORES, "uniqueness": 0.31} if blocked else SCORES
    report = QCReport(
        report_id="qc-1",
        table="panel",
        status="failed" if blocked else "warning",
        score=0.745 if blocked else 0.968,
        scores=scores,
        issues=(leak, keys, warning) if blocked else (warning,),
        checks=(),
        rows=30000,
        columns=24,
        validated_at=WHEN,
        data_sha256=SHA,
    )
    return QCSummary.of(report)


def trained(folder) -> TrainedModel:
    metrics = {
        "roc_auc": (0.8137, 0.7951, 0.8309),
        "pr_auc": (0.5412, 0.5068, 0.5761),
        "brier": (0.1362, 0.1297, 0.1431),
        "calibration_slope": (0.981, 0.902, 1.063),
        "calibration_intercept": (0.012, -0.071, 0.094),
        "precision_at_decile": (0.682, 0.633, 0.729),
        "precision": (0.513, 0.481, 0.546),
        "recall": (0.602, 0.565, 0.638),
        "f1": (0.554, 0.523, 0.583),
        "false_positive_rate": (0.158, 0.145, 0.171),
    }
    return TrainedModel(
        algorithm="lightgbm",
        framework="lightgbm",
        hyperparameters={"n_estimators": 250, "num_leaves": 21, "learning_rate": 0.04731, "max_depth": None},
        features=FEATURES,
        model_ref="model",
        model_sha256="77ad" * 16,
        training_samples=18000,
        threshold=0.3125,
        calibration="sigmoid",
        epochs=187,
        duration_s=4.2,
        metrics={name: MetricValue(value=value, low=low, high=high) for name, (value, low, high) in metrics.items()},
        train_metrics={"roc_auc": 0.861, "brier": 0.118},
        validation_metrics={"roc_auc": 0.817, "brier": 0.135},
        baseline_metrics={"roc_auc": 0.6842, "brier": 0.171},
        fairness={
            "age_group": {
                "demographic_parity_difference": 0.043,
                "demographic_parity_ratio": 0.86,
                "equal_opportunity_difference": 0.021,
                "suppressed_groups": 1.0,
                "n[18-44]": 1204.0,
                "selection_rate[18-44]": 0.271,
                "tpr[18-44]": 0.611,
                "n[45-64]": 1987.0,
                "selection_rate[45-64]": 0.302,
                "tpr[45-64]": 0.598,
                "n[65+]": 1301.0,
                "selection_rate[65+]": 0.314,
                "tpr[65+]": 0.59,
                "n[unknown]": 7.0,
                "selection_rate[unknown]": 0.4286,
                "tpr[unknown]": 1.0,
            }
        },
        success={
            "minimum_auc": CriterionResult(required=0.75, value=0.8137, met=True),
            "maximum_brier": CriterionResult(required=0.15, value=0.1362, met=True),
        },
        mlflow_run_id="4c1d9a0f7b6e4d2f8e1a5b3c2d1e0f9a",
        model_uri="models:/m-4c1d9a0f7b6e",
        training_run_id="0b6c0f2e-5f0e-4a2c-9a0b-3d8a3a5d9c11",
        curves_ref=str(curves_file(folder)),
    )


def curves_file(folder):
    from e2i.ml.evaluation import curves

    rng = np.random.default_rng(4)
    signal = rng.normal(size=4500)
    p = 1 / (1 + np.exp(-(1.25 * signal - 1.5)))
    y = (rng.random(4500) < p).astype(float)
    path = folder / "curves.json"
    path.write_text(json.dumps(curves(y, p).to_dict()), encoding="utf-8")
    return path


def shap_file(folder):
    rng = np.random.default_rng(5)
    n, k = 1000, len(FEATURES)
    data = rng.normal(size=(n, k))
    data[:, 2] = rng.integers(1, 11, n)
    data[:, 4] = rng.integers(0, 4, n)
    data[:, 6] = rng.random(n) < 0.2
    data[rng.random(n) < 0.1, 3] = np.nan
    weight = np.array([0.62, 0.48, -0.11, 0.3, 0.25, 0.17, 0.4, -0.12, 0.08, -0.22])
    values = np.nan_to_num(data - np.nanmean(data, axis=0)) * weight + rng.normal(scale=0.04, size=(n, k))
    values[:, 0] = 0.6 * np.tanh(data[:, 0]) + 0.2 * data[:, 0] * (data[:, 6] - 0.2)
    path = folder / "shap_values.npz"
    ordered = np.array([name not in ("specialty", "region") for name in FEATURES])
    np.savez_compressed(path, values=values, data=data, features=np.array(FEATURES), ordered=ordered)
    return path


def explanation(folder) -> ExplanationSummary:
    path = shap_file(folder)
    importance = np.abs(np.load(path)["values"]).mean(axis=0)
    order = np.argsort(-importance)
    directions = {"decile": "negative", "tenure_years": "negative", "weeks_since_call": "negative", "specialty": "mixed", "region": "mixed"}
    return ExplanationSummary(
        explanation=Explanation(
            method="lightgbm_pred_contrib",
            sample_size=1000,
            base_value=-1.4632,
            top_features=tuple(
                FeatureImportance(feature=FEATURES[i], importance=float(importance[i]), direction=directions.get(FEATURES[i], "positive"))
                for i in order
            ),
            interactions=(("calls_pre", "academic", 0.0671), ("nrx_pre", "specialty", 0.0412)),
            additivity_error=2.2e-14,
            seconds=1.9,
            values_ref=str(path),
        )
    )


def overlap() -> Overlap:
    edges = np.linspace(0, 1, 26)
    rng = np.random.default_rng(8)
    treated, untreated = rng.beta(3.2, 3, 1800), rng.beta(2.4, 5, 3200)
    return Overlap(
        share_outside=0.0021,
        effective_share=0.713,
        propensity_auc=0.742,
        bin_edges=tuple(edges.tolist()),
        treated_density=tuple(np.histogram(treated, edges, density=True)[0].tolist()),
        untreated_density=tuple(np.histogram(untreated, edges, density=True)[0].tolist()),
    )


def effect(verdict="proceed", *, estimate=1.234, standard_error=0.171) -> EffectSummary:
    reasons = {
        "proceed": ("Overlap and balance are good; passed: placebo treatment, random common cause, subset stability, negative control.",),
        "review": ("no negative control outcome was tested, so hidden confounding is untested: no test here can exclude it.",),
        "block": ("Negative control failed. The treatment seems to move nrx_other_product by 0.41, which it cannot.",),
    }[verdict]
    rows = {
        "calls_pre": (0.62, 0.03), "nrx_pre": (0.81, 0.04), "decile": (-0.44, -0.02), "specialty=dermatology": (0.31, 0.01),
        "specialty=allergy": (-0.18, 0.0), "specialty (rare)": (-0.12, 0.02), "academic": (0.27, 0.05), "samples_pre": (0.38, 0.02),
        "digital_opens": (0.09, 0.01), "region=northeast": (0.05, -0.01),
    }  # fmt: skip
    return EffectSummary(
        treatment="speaker_program",
        outcome="nrx",
        finding=CausalFinding(
            effect=Effect(
                estimand="ATT",
                design="cross_section",
                estimator="cross-fitted doubly robust scores",
                estimate=estimate,
                standard_error=standard_error,
                n_treated=1800,
                n_untreated=3200,
                naive_difference=2.713,
                outcome_mean_untreated=6.421,
                diagnostics={
                    "rows_given": 5000.0, "rows_used": 5000.0, "missing_outcome": 3.0, "fold_spread": 0.08,
                    "largest_row_share": 0.0031, "weighting_estimate": 1.1977, "weighting_gap": -0.21, "e_value": 1.842,
                    "propensity_boosting": 0.38,
                },
            ),
            verdict=Verdict(name=verdict, reasons=reasons),
            overlap=overlap(),
            balance=tuple(BalanceRow(covariate=name, smd_before=a, smd_after=b, error_after=0.02) for name, (a, b) in rows.items()),
            refutations=(
                Refutation(
                    test="placebo_treatment",
                    passed=True,
                    detail="Shuffled treatment: effect 0.012, as it should be, near 0.",
                    statistic=0.07,
                    p_value=0.94,
                ),
                Refutation(test="random_common_cause", passed=True, detail="It moves by 0.4 % of its standard error.", p_value=0.88),
                Refutation(test="subset_stability", passed=True, detail="Two halves differ by 0.9 standard errors.", p_value=0.37),
                Refutation(
                    test="negative_control:nrx_other_product",
                    passed=verdict != "block",
                    detail="Effect on nrx_other_product: 0.02." if verdict != "block" else "Effect on nrx_other_product: 0.41.",
                    p_value=0.71 if verdict != "block" else 0.0004,
                ),
            ),
        ),
    )  # fmt: skip


def refused() -> EffectSummary:
    words = "31 % of rows have a propensity outside 0.01 to 0.99: treated and untreated HCPs cannot be compared."
    finding = CausalFinding(
        effect=None,
        verdict=Verdict(name="block", reasons=("Treated and untreated do not overlap.",)),
        overlap=None,
        balance=(),
        refutations=(),
        refusal=words,
    )
    return EffectSummary(treatment="speaker_program", outcome="nrx", finding=finding)


def complete(folder) -> tuple[StudyReport, ReportEvidence]:
    model = ModelSummary(
        target="will_convert",
        problem_type="binary_classification",
        trained=trained(folder),
        version=ModelVersion(
            registry_id="r-1",
            name="e2i_speaker_program_lift_lightgbm",
            version="3",
            stage="staging",
            is_champion=False,
            mlflow_run_id="4c1d9a0f7b6e4d2f8e1a5b3c2d1e0f9a",
            model_uri="models:/m-4c1d9a0f7b6e",
        ),
        search=SearchResult(
            study_name="hpo_1",
            algorithm="lightgbm",
            metric="roc_auc",
            best_params={},
            best_value=0.8192,
            best_trial=31,
            n_complete=19,
            n_pruned=31,
            n_failed=0,
            n_warm_start=3,
            seconds=24.53,
        ),
    )
    told = explanation(folder)
    timings = {
        "scope_definer.define_scope": 0.02, "data_preparer.validate": 3.41, "data_preparer.split": 0.62, "model_selector.benchmark": 6.2,
        "model_trainer.tune": 24.6, "model_trainer.fit": 1.31, "feature_analyzer.explain": 2.04, "causal_impact.estimate": 7.72,
    }  # fmt: skip
    report = StudyReport(
        study="speaker_program_lift",
        status="completed",
        run_id="run-20251121-0930-6f2a",
        experiment_id="speaker_program_lift_6f2a",
        trace_id="5b8efff798038103d269b633813fc60c",
        synthetic=True,
        created_at=WHEN,
        description="Did the speaker program lift new prescriptions?",
        brand="Kisqali",
        data=DataSummary(rows=30000, columns=24, sha256=SHA),
        qc=qc(),
        splits=SplitPlan(
            strategy="chronological",
            rows={"train": 18000, "validation": 6000, "test": 4500, "holdout": 1500},
            boundaries={"validation": "2025-03-07", "test": "2025-06-20"},
            gap_days=7,
            gap_rows=412,
            seed=42,
        ),
        model=model,
        explanation=told,
        effect=effect(),
        timings_s=timings,
    )
    return report, ReportEvidence(curves_ref=model.trained.curves_ref, shap_ref=told.explanation.values_ref, overlap=overlap())


def states(folder) -> dict[str, tuple[StudyReport, ReportEvidence]]:
    """Every state that a run can end in."""
    report, evidence = complete(folder)
    nothing = ReportEvidence()
    empty = {"model": None, "explanation": None, "effect": None, "splits": None}
    regression = replace(
        report.model,
        problem_type="regression",
        target="nrx",
        trained=replace(
            report.model.trained,
            metrics={"rmse": MetricValue(value=2.31, low=2.2, high=2.43), "r2": MetricValue(value=float("nan"))},
            threshold=None,
            success={"maximum_rmse": CriterionResult(required=2.0, value=2.31, met=False)},
            fairness={},
        ),
        version=None,
        search=None,
    )
    error = {
        "error": "BackendUnavailable",
        "category": "dependency",
        "what": "the database does not answer.",
        "where": "storage",
        "advice": "Start it, then run again.",
    }
    return {
        "complete": (report, evidence),
        "review": (replace(report, effect=effect("review"), synthetic=False), evidence),
        "block": (replace(report, effect=effect("block")), evidence),
        "null_effect": (replace(report, effect=effect(estimate=0.1)), evidence),
        "refused": (replace(report, effect=refused()), replace(evidence, overlap=None)),
        "refused_only": (
            replace(report, status="blocked", asked=("effect",), effect=refused(), model=None, explanation=None, splits=None),
            nothing,
        ),
        "blocked": (replace(report, status="blocked", qc=qc(blocked=True), **empty), nothing),
        "effect_only": (replace(report, model=None, explanation=None, splits=None), ReportEvidence(overlap=overlap())),
        "prediction_only": (replace(report, effect=None), replace(evidence, overlap=None)),
        "regression": (replace(report, effect=None, model=regression), ReportEvidence(shap_ref=evidence.shap_ref)),
        "failed": (replace(report, status="failed", error=error, **{**empty, "data": None, "qc": None}, timings_s={}), nothing),
        "failed_late": (replace(report, status="failed", error=error, explanation=None, effect=None), replace(evidence, shap_ref=None)),
        **section_samples.states(report, evidence, blocked=effect("block"), reviewed=effect("review")),
    }
