"""Tests that a wrong estimate should fail."""

from e2i.causal.refute.refits import (
    Estimator,
    enough_for_control,
    negative_control,
    permute_within,
    placebo_treatment,
    random_common_cause,
    subset_stability,
)
from e2i.causal.refute.suite import refute_all

__all__ = [
    "Estimator",
    "enough_for_control",
    "negative_control",
    "permute_within",
    "placebo_treatment",
    "random_common_cause",
    "refute_all",
    "subset_stability",
]
