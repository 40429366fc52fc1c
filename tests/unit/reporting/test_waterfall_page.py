"""The HTML waterfall: one file, everything in it escaped, every span in it once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from e2i.app.traces import build_trace
from e2i.errors import StorageError
from e2i.reporting.waterfall import CHUNK, render_waterfall, write_waterfall
from growth import growth
from span_doubles import TRACE, failed, large_trace, stored, study_trace

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" ' & {{7*7}} <!-- \u2028 \u202e"


class Page(HTMLParser):
    """Tags, attributes, and what scripts hold."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.words: list[str] = []
        self._script: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._script = dict(attrs).get("id") or tag
            self.scripts[self._script] = ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, text):
        if self._script is not None:
            self.scripts[self._script] += text
        else:
            self.words.append(text)

    @property
    def index(self) -> dict:
        return json.loads(self.scripts["index"])

    def details(self) -> list[dict | None]:
        packed = [self.scripts[f"d{number}"] for number in range(sum(re.fullmatch(r"d\d+", name) is not None for name in self.scripts))]
        return [each for chunk in packed for each in json.loads(zlib.decompress(base64.b64decode(chunk)))]


def page_of(spans) -> Page:
    return Page(render_waterfall(build_trace(spans)))


def test_the_page_holds_the_tree_as_columns():
    page = page_of(study_trace())
    index = page.index
    columns = index["columns"]
    assert {len(values) for values in columns.values()} == {10}
    assert (index["trace"], index["length"], index["mark"]) == (TRACE, 62_000_000, -1)
    names = [index["names"][number] for number in columns["name"]]
    place = names.index("chat claude-sonnet-5")
    assert names[columns["parent"][place]] == "invoke_agent causal_impact"
    assert (columns["bad"][place], columns["length"][place], columns["tokens_in"][place]) == (1, 5_000_000, 812)
    assert columns["below"][0] == 9
    assert index["agents"][columns["agent"][place]] == "causal_impact"


def test_details_tell_inputs_outputs_attributes_events_and_errors():
    details = page_of(study_trace()).details()
    chat = next(each for each in details if each and each["error_type"])
    assert chat["error_message"] == "429: try again in 5 s"
    assert "Did the speaker program" in chat["inputs"]["input.value"]
    assert chat["attributes"]["gen_ai.request.model"] == "claude-sonnet-5"
    assert "input.value" not in chat["attributes"]
    assert chat["events"][0]["attributes"]["exception.stacktrace"].startswith("Traceback")
    assert chat["facts"]["run"] == "run_20261121T100000_4f2a1c"


def test_nothing_from_a_span_becomes_markup():
    span = failed(
        EVIL, number=1, message=EVIL, error=EVIL, attributes={EVIL: EVIL, "input.value": EVIL, "e2i.agent.name": EVIL, "e2i.run.id": EVIL}
    )
    page = page_of([span, stored(EVIL, number=2, parent="nowhere"), stored(EVIL, number=3)])
    assert [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "link", "base", "form")] == []
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert not set("<>&\u2028") & set(page.scripts["index"])
    assert page.index["names"] == [EVIL]
    assert page.details()[0]["attributes"][EVIL] == EVIL
    assert EVIL.split("<!--", maxsplit=1)[0].strip() in " ".join(page.words)


def test_the_page_asks_nothing_of_the_network_and_runs_its_own_script_only():
    html = render_waterfall(build_trace(study_trace()))
    page = Page(html)
    policy = next(found["content"] for tag, found in page.tags if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    fingerprint = base64.b64encode(hashlib.sha256(page.scripts["script"].encode()).digest()).decode()
    assert f"script-src 'sha256-{fingerprint}'" in policy
    assert not [found for _, found in page.tags if "src" in found or "href" in found]
    assert not re.search(r"https?://|//[a-z]+\.[a-z]+/", html.split("</style>", 1)[1].split('id="index"')[0])
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert danger not in page.scripts["script"]


def test_orphans_stand_below_a_marked_row():
    spans = [
        stored("late root", number=1, at_ms=5),
        stored("lost", number=2, parent=77),
        stored("under", number=3, parent=2, at_ms=1),
        stored("in", number=4, parent=1, at_ms=5),
    ]
    index = page_of(spans).index
    names = ["MARK" if number < 0 else index["names"][number] for number in index["columns"]["name"]]
    assert names == ["late root", "in", "MARK", "lost", "under"]
    assert (index["mark"], index["columns"]["below"][2]) == (2, 2)
    assert index["columns"]["parent"] == [-1, 0, -1, 2, 3]


def test_an_open_span_has_no_length():
    index = page_of([stored("root", ms=None), stored("x", number=2, parent=1, at_ms=1, ms=4)]).index
    assert index["columns"]["length"] == [-1, 4000]


def test_without_scripts_there_is_a_notice_and_a_summary():
    text = " ".join(page_of(study_trace()).words)
    assert "scripts are off" in text
    assert "RateLimitError" in text
    assert "invoke_agent causal_impact" in text
    assert len(render_waterfall(build_trace(large_trace(5000))).split("<noscript>")[1].split("</noscript>")[0].split("<tr>")) < 200


def test_the_time_to_write_a_page_grows_with_its_spans_and_no_faster(tmp_path: Path):
    traces = {size: large_trace(size, text=1000) for size in (1_000, 10_000)}
    assert growth(lambda size: write_waterfall(build_trace(traces[size]), tmp_path / "trace.html"), 1_000) < 30


def test_30000_spans_are_one_small_file(tmp_path: Path):
    trace = build_trace(large_trace(30_000, text=1000))
    path = write_waterfall(trace, tmp_path / "traces" / "trace.html")
    assert path.stat().st_size < 8_000_000
    details = Page(path.read_text()).details()
    assert len(details) == 30_000
    assert [each.name for each in path.parent.iterdir()] == ["trace.html"]


def test_long_texts_of_a_huge_trace_are_cut_with_a_mark_and_a_note():
    big = "x" * 60_000
    spans = [stored("call", number=number, attributes={"input.value": big, "n": number, "list": [1, 2]}) for number in range(1, 1001)]
    html = render_waterfall(build_trace(spans))
    page = Page(html)
    assert "1,000 long values are cut to 48,000 characters" in re.sub(r"\s+", " ", " ".join(page.words))
    first = page.details()[0]["inputs"]["input.value"]
    assert first.endswith("48,000 of 60,000 characters; `e2i trace export` has them all)")
    assert page.details()[0]["attributes"] == {"n": 1, "list": [1, 2]}
    assert "cut to" not in render_waterfall(build_trace(spans[:3]))


def test_chunks_follow_the_order_of_the_rows():
    page = page_of(large_trace(CHUNK * 2 + 5))
    assert [each["facts"]["span"] for each in page.details()] == page.index["columns"]["id"]


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_waterfall(build_trace(study_trace()), tmp_path / "file" / "page.html")
    with pytest.raises(StorageError):
        write_waterfall(build_trace(study_trace()), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
