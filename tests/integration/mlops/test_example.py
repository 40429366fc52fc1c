"""The example in `examples/` runs as its first lines say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.slow
def test_an_agent_of_ones_own_leaves_a_trace_a_run_and_its_artifacts(tmp_path: Path) -> None:
    home = tmp_path / ".e2i"
    environment = {**os.environ, "E2I_HOME": str(home), "COLUMNS": "160"}
    command = [sys.executable, str(EXAMPLES / "agent_with_mlflow.py")]
    said = json.loads(subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout)
    artifacts = home / "mlartifacts" / "e2i_explainer_kisqali" / said["mlflow_run_id"] / "artifacts"
    assert {path.name for path in artifacts.rglob("*") if path.is_file()} == {"graph.mmd", "explain.json"}
    assert json.loads((artifacts / "prompts" / "explain.json").read_text())["completion"] == said["answer"]
    show = [sys.executable, "-m", "e2i", "trace", "show", said["trace_id"]]
    shown = subprocess.run(show, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    for name in ("explainer.explain", "LangGraph", "chat answers-from-a-list", "24/13"):
        assert name in shown
