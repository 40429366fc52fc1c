"""Train under the quality gate, tune on train, choose on validation, judge once on test."""

from e2i.agents.ml_foundation.model_trainer.agent import SPEC, Deps, State

__all__ = ["SPEC", "Deps", "State"]
