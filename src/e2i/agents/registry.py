"""All agents, by name, in the order of the main job."""

from __future__ import annotations

from e2i.agents.causal_analytics import causal_impact, gap_analyzer, heterogeneous_optimizer
from e2i.agents.ml_foundation import (
    data_preparer,
    feature_analyzer,
    model_deployer,
    model_selector,
    model_trainer,
    observability_connector,
    scope_definer,
)
from e2i.agents.ml_predictions import resource_optimizer
from e2i.agents.monitoring import experiment_designer
from e2i.engine.spec import AgentSpec

AGENTS: dict[str, AgentSpec] = {
    spec.name: spec
    for spec in (
        scope_definer.SPEC,
        data_preparer.SPEC,
        feature_analyzer.SPEC,
        model_selector.SPEC,
        model_trainer.SPEC,
        model_deployer.SPEC,
        observability_connector.SPEC,
        causal_impact.SPEC,
        heterogeneous_optimizer.SPEC,
        gap_analyzer.SPEC,
        experiment_designer.SPEC,
        resource_optimizer.SPEC,
    )
}
