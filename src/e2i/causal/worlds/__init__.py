"""Worlds with known effects."""

from e2i.causal.worlds.cross_section import WORLDS, World
from e2i.causal.worlds.panel import PANEL_WORLDS, PanelWorld

__all__ = ["PANEL_WORLDS", "WORLDS", "PanelWorld", "World"]
