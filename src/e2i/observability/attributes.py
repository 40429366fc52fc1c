"""Span attribute names: ours under `e2i.*`; the GenAI names of OpenTelemetry join here with the telemetry pipeline."""

from __future__ import annotations

RUN_ID = "e2i.run.id"
STUDY = "e2i.study"
EXPERIMENT_ID = "e2i.experiment.id"
AGENT = "e2i.agent.name"
TIER = "e2i.agent.tier"
STEP = "e2i.agent.step"
ATTEMPT = "e2i.step.attempt"
ERROR_CATEGORY = "e2i.error.category"
