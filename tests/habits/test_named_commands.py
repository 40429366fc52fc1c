"""Every `e2i` command that a message, a page or an example names can be given as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from e2i.cli.main import app

ROOT = Path(__file__).parents[2]
PATTERNS = ("src/**/*.py", "src/**/*.yaml", "src/**/*.j2", "docs/**/*.md", "examples/*.py", "*.md", "Makefile")
NAMED = re.compile(r"(?:`|\$ |bin/)e2i ([a-z][^`|#]*)")


def mistakes(text: str) -> Iterator[str]:
    """Commands and options that do not exist."""
    for match in NAMED.finditer(text):
        node: Any = typer.main.get_command(app)
        words = [word.strip(".,;:[]()").partition("=")[0] for word in match[1].split()]
        while words and hasattr(node, "commands"):
            name = words.pop(0)
            if name not in node.commands:
                yield match[0]
                break
            node = node.commands[name]
        known = {option for parameter in node.params for option in parameter.opts} | {"--help"}
        if not hasattr(node, "commands"):
            yield from (f"{match[0]}: {word}" for word in words if word.startswith("--") and word not in known)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_command_that_is_named_exists_with_the_options_that_are_named(pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert [f"{path.relative_to(ROOT)}: {found}" for path in files for found in mistakes(path.read_text())] == []


def test_a_command_or_an_option_that_is_not_there_is_found() -> None:
    assert list(mistakes("see `e2i nosuch`, `e2i trace nosuch`, `e2i run --nosuch` and `e2i run STUDY --json`")) == [
        "`e2i nosuch",
        "`e2i trace nosuch",
        "`e2i run --nosuch: --nosuch",
    ]
