"""The HTML waterfall in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from e2i.app.traces import build_trace
from e2i.reporting.waterfall import write_waterfall
from span_doubles import failed, large_trace, stored, study_trace

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--virtual-time-budget=5000", "--dump-dom",
)  # fmt: skip
EVIL = "</script><img src=x onerror=\"document.body.dataset.owned='1'\"><b>bold</b>"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="e2i-page-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def shown(folder: Path, spans, **state: str) -> str:
    """The page's body after its script has run: what stands in the document, without the data blocks."""
    page = write_waterfall(build_trace(spans), folder / "trace.html")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"{page.as_uri()}#{urlencode(state)}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return re.sub(r"<(script|style|noscript)\b.*?</\1>", "", done.stdout, flags=re.DOTALL)


def rows(dom: str) -> list[str]:
    return re.findall(r'<div class="row[^"]*".*?</div>', dom, flags=re.DOTALL)


def text(dom: str) -> str:
    return re.sub(r"<[^>]*>", " ", dom)


def test_a_small_trace_is_drawn_whole_with_bars_and_levels(folder: Path):
    found = rows(shown(folder, study_trace()))
    assert len(found) == 10
    assert all('class="bar' in row for row in found)
    assert 'aria-level="3"' in found[3]
    assert "812 / 354" in text(found[8])
    assert "bar critical bad" in found[7]


def test_a_span_is_opened_by_the_address_with_its_inputs_folded(folder: Path):
    dom = shown(folder, study_trace(), span=f"{9:016x}")
    panel = re.search(r"<aside.*?</aside>", dom, flags=re.DOTALL)
    assert panel is not None
    told = text(panel[0])
    assert "claude-sonnet-5" in told
    assert "812 in, 354 out" in told
    assert re.search(r"Input\s+\d+ characters", told)
    assert "Did the speaker program" not in told
    assert "<details open" not in panel[0]


def test_30000_spans_stand_in_a_few_rows_of_the_document(folder: Path):
    spans = large_trace(30_000, text=300)
    dom = shown(folder, spans)
    assert 10 < len(rows(dom)) < 100
    assert "30,000 spans" in text(dom)
    found = shown(folder, spans, status="error")
    assert "30 of 30,000 spans" in text(found)
    deep = shown(folder, spans, q="29999 trx", deep="1")
    assert "1 of 30,000 spans" in text(deep)
    assert sum('class="row found' in row for row in rows(deep)) == 1


def test_names_and_texts_of_spans_stay_text(folder: Path):
    attributes = {EVIL: EVIL, "input.value": EVIL, "e2i.agent.name": EVIL, "gen_ai.request.model": EVIL}
    dom = shown(folder, [failed(EVIL, number=1, message=EVIL, attributes=attributes), stored("x", number=2, parent=1)], span=f"{1:016x}")
    assert "data-owned" not in dom
    assert "<img" not in dom
    assert "<b>" not in dom
    assert "&lt;img src=x" in dom


def test_filters_keep_the_ancestors_of_what_they_find(folder: Path):
    found = [text(row) for row in rows(shown(folder, study_trace(), q="load"))]
    assert len(found) == 3
    assert "data_preparer.load" in found[2]
    by_agent = shown(folder, study_trace(), agent="model_selector")
    assert "1 of 10 spans" in text(by_agent)


def test_a_deep_chain_stays_readable(folder: Path):
    spans = [stored(f"level {i}", number=i, parent=i - 1 if i > 1 else None, at_ms=i * 0.01, ms=100 - i * 0.02) for i in range(1, 3001)]
    dom = shown(folder, spans, span=f"{3000:016x}")
    assert "level 3000" in text(dom)
    assert len(rows(dom)) < 100


def test_it_prints(folder: Path):
    page = write_waterfall(build_trace(large_trace(3000)), folder / "trace.html")
    flags = [flag for flag in FLAGS if flag != "--dump-dom"]
    target = folder / "trace.pdf"
    subprocess.run(
        [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={target}", page.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert target.read_bytes().startswith(b"%PDF")
    assert target.read_bytes().count(b"/Type /Page\n") > 1
