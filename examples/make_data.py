# ruff: noqa: INP001 - a script, not a package
"""Write examples/data/texas_prisons.csv from package causaldata: the file lacks the 0/1 column that a panel study names.

python examples/make_data.py

`causaldata` (MIT licence) carries the panel of Cunningham, "Causal Inference: The Mixtape" (2021), ch. 10. Texas doubled its prisons
from 1993 on; `expansion` is 1 for Texas from that year on, 0 for all else.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

FIRST_YEAR = 1993
TARGET = Path(__file__).parent / "data" / "texas_prisons.csv"


def main() -> None:
    """Keep what the study names, and add the treatment."""
    with as_file(files("causaldata").joinpath("texas", "texas.dta")) as path:
        panel = pd.read_stata(path)
    panel["expansion"] = ((panel["state"] == "Texas") & (panel["year"] >= FIRST_YEAR)).astype(int)
    TARGET.parent.mkdir(exist_ok=True)
    panel[["state", "year", "expansion", "bmprison"]].to_csv(TARGET, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
