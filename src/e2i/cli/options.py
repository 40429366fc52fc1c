"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from e2i.config import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder for state; default .e2i, or E2I_HOME.")]


def settings(home: Path | None) -> Settings:
    """All settings, with `--home` as the strongest layer, and logging set up."""
    import logging

    from e2i import config

    loaded = config.load(**({"home": home} if home is not None else {}))
    config.set_vendor_environment()
    logging.basicConfig(level=loaded.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    if loaded.log_level != "debug":
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # each attempt; our own error says it once, with advice
    return loaded
