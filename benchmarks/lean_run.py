"""The peer of `e2i run`: the same study, the same fits, the same logs and the same report, as one plain script.

Shared with E2I is what computes a number (the world, the checks, splits, folds, algorithms, metrics, SHAP, the causal
analysis) and the report's writer, so the fits are the same and only the governance differs. Not here: engine, checkpoints,
worker processes, PostgreSQL, registry of our own, outbox, audit trail, resumption, pattern memory, steps that can be stopped.
Done once here where E2I does it per step: matrices of the folds, the linear baseline, the model stays in memory.

python benchmarks/lean_run.py --state FOLDER [--study FILE] [--trials N]    prints report.json
"""

from __future__ import annotations

import os

# As e2i.config sets them, and before numpy is loaded.
os.environ |= {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}

import argparse
import json
import logging
import math
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import optuna
import polars as pl
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.models import infer_signature
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from e2i.causal import analysis
from e2i.causal.design import identify
from e2i.data.synthetic import generate_tables
from e2i.data.frames import frame_sha256
from e2i.domain.experiments import SPLITS, SearchResult, TrainedModel
from e2i.domain.report import DataSummary, EffectSummary, ExplanationSummary, ModelSummary, QCSummary, ReportEvidence, StudyReport
from e2i.domain.scope import excluded_features
from e2i.domain.study import Study
from e2i.ml.baselines import train_baselines
from e2i.ml.calibration import fit_calibration
from e2i.ml.columns import level_codes, target_values
from e2i.ml.evaluation import choose_threshold, curves, evaluate, judge, point_metrics
from e2i.ml.fairness import fairness
from e2i.ml.features import apply_features, plan_features
from e2i.ml.folds import FoldScorer, cross_validate, prepare_folds
from e2i.ml.leakage import LeakageRoles, find_leakage
from e2i.ml.selection import select_features
from e2i.ml.splits import plan_splits
from e2i.ml.training import ALGORITHMS, fit
from e2i.mlops.data_quality import DataQualityValidator
from e2i.mlops.model_store import NativeModelStore
from e2i.mlops.shap_explainer import ShapExplainer
from e2i.reporting.html import HtmlReportWriter
"""

"""
