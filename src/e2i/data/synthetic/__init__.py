"""The pharma world."""

from e2i.data.synthetic.truth import TrueEffect, Truth
from e2i.data.synthetic.world import TABLE_NAMES, World, generate, generate_tables, study_world, write_world

__all__ = ["TABLE_NAMES", "TrueEffect", "Truth", "World", "generate", "generate_tables", "study_world", "write_world"]
