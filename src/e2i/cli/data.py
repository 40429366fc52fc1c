"""`e2i data`: the pharma world as files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from e2i.cli.options import AsJson
from e2i.cli.output import print_json, print_line, print_table

app = typer.Typer(help="Data.", no_args_is_help=True)


@app.callback()
def callback() -> None:
    """Data."""


@app.command()
def world(
    folder: Annotated[Path, typer.Argument(help="Where to write one parquet file per table.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 7,
    hcps: Annotated[int, typer.Option(help="Number of HCPs.", min=200)] = 5000,
    as_json: AsJson = False,
) -> None:
    """Write the synthetic pharma world; the truth goes to a file of its own that no agent reads."""
    from e2i.data.synthetic import write_world

    started = time.perf_counter()
    rows = write_world(folder, seed=seed, size=hcps)
    if as_json:
        print_json({"folder": str(folder), "synthetic": True, "rows": rows, "seconds": round(time.perf_counter() - started, 2)})
        return
    print_table([{"table": name, "rows": count} for name, count in rows.items()])
    print_line(f"Synthetic data, seed {seed}, in {folder}.")
