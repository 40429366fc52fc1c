"""What the documents show works: Python blocks run, study files are valid, commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from e2i.domain.study import Study

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?<!from )(?<!python )(?:\.venv/bin/)?\be2i ((?:[a-z]+)(?: [a-z]+)?)")
GROUPS = {"db", "data", "config", "audit", "trace", "retention"}


def blocks(language: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(path.name, text) for path in DOCUMENTS for text in pattern.findall(path.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_python_blocks_run(document: str, code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{document}: {done.stderr}"
    assert done.stdout


@pytest.mark.parametrize(("document", "text"), blocks("yaml"))
def test_study_blocks_are_valid(document: str, text: str) -> None:
    assert Study.model_validate(yaml.safe_load(text)).name, document


def test_every_command_that_is_shown_exists() -> None:
    shown = {match for path in DOCUMENTS for match in COMMAND.findall(path.read_text())}
    known = subprocess.run([sys.executable, "-m", "e2i", "--help"], capture_output=True, text=True, check=True).stdout
    for words in sorted(shown):
        first, *rest = words.split()
        assert re.search(rf"^  {first} ", known, re.MULTILINE), f"no command {first}"
        if first in GROUPS and rest:
            helped = subprocess.run([sys.executable, "-m", "e2i", first, "--help"], capture_output=True, text=True, check=True).stdout
            assert re.search(rf"^  {rest[0]} ", helped, re.MULTILINE), f"no command {words}"


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"`((?:docs|studies|benchmarks|src|tests)/[\w./-]+)`", path.read_text()):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
