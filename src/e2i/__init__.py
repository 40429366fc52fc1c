"""E2I: causal analytics for pharma commercial teams. Governed models, refuted effects, every number traceable."""

__version__ = "0.1.0"
__all__ = ["__version__"]
