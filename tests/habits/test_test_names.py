"""The names of tests: workers that run side by side collect each for themselves, and must find the same."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MODULE = """
import gzip, time, pytest

@pytest.mark.parametrize("content", [b"plain", gzip.compress(b"a", mtime=time.time_ns() % 2**32), b"\\xff", "text"])
def test_it(content): pass
"""

pytest_plugins = ["pytester"]


def test_a_name_holds_no_bytes_that_differ_from_run_to_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_names=MODULE)
    listed = pytester.runpytest_inprocess(
        "--collect-only", "-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"
    ).outlines
    assert [line.partition("::")[2] for line in listed[:4]] == ["test_it[plain]", "test_it[content0]", "test_it[content1]", "test_it[text]"]
