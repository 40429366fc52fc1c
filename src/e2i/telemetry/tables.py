"""Tables printed as text: the head of a column says what the cells below it are.

CSV and its kin, Markdown, frames as pandas, polars and psql print them, and the tuples of SQL (`(patient_id, week) = (…)`). Linear in
the text: every line is looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from e2i.telemetry.labelled import marker
from e2i.telemetry.sensitive_keys import Label

Cell = tuple[int, int]
Found = tuple[int, int, str]
LabelOf = Callable[[str], Label | None]
Search = Callable[[str], Any]

_BREAK = re.compile(r"\r\n|[\r\n\x1e]|(?:\\{1,8}r)?\\{1,8}n")
_NAME = re.compile(r"[A-Za-z_#$][\w.#$/()%:-]*(?: [\w.#$/()%-]+){0,3}")
_DATA_TYPE = re.compile(r"(?i)(?:u?int|float|[iuf]|decimal|utf|varchar|str|string|bool|date|datetime|object|category)[0-9]{0,3}(?:\[.*)?")
_DELIMITERS = (re.compile(r"[|\u2502\u2506]|\\{1,8}u250[26]"), re.compile(r"\t|\\{1,8}t"), re.compile(";"), re.compile(","))
_TUPLE = re.compile(
    r"[\[(]([^\[\]()\r\n]{1,2000})[\])]\s{0,4}(?:(?i:values)|=|,(?:\s?\\{0,8}[\"'](?i:data|rows|values)\\{0,8}[\"']:\s?[\[(])?)\s{0,4}(?=[\[(])"
)
_ROW = re.compile(r"\s{0,4},?\s{0,4}[\[(]([^\[\]()]{0,4000})(?:[\])]|$)")
_COLUMN = re.compile(
    r"(?<![\w.-])([A-Za-z_][\w.-]{0,63})[\"'\\]{0,8}"
    r"(?:\s{0,2}[:=]\s{0,2}(?:\w{1,12}\()?([\[{(])|\s\[\w{1,12}\](?:\s|\\{1,8}n){1,2}(\[)|\s{1,40}<\w{1,12}>\s())"
)
"""`'patient_id': ['P-0017', …`, `patient_id=array([…`, a polars series, a line of `glimpse`"""
_CLOSING = {"[": re.compile(r"\]"), "(": re.compile(r"\)"), "{": re.compile(r"\}"), "": _BREAK}
_ELEMENT = re.compile(r"(?:\s{0,2}[\"']?[0-9]{1,9}(?:\\{0,8}[\"'])?\s?:)?([^,\[{(\r\n\t\\]+)")
_OWN_KEYS = re.compile(r"[\s\"'\\]{0,12}[A-Za-z_]\w{0,63}[\"'\\]{0,9}\s?:")
_PAGE_ROW = re.compile(r"<tr[^>]{0,200}>")
_PAGE_CELL = re.compile(r"<t[hd][^>]{0,200}>([^<]{0,200})<")
_SERIES = re.compile(r"Name: (\w{1,64}), (?:Length: [0-9]+, )?dtype: ")
_OPENING = re.compile(r"(?:^|[:=(\[{>])\s?b?\\{0,8}[\"']")
_OPENINGS = 8
_WORD = re.compile(r"\S+")
_HEAD = re.compile(r"\S+(?: \S+)*")
_DATE = re.compile(
    r"[0-9]{1,4}[-/. ][0-9A-Za-z]{1,9}[-/. ,]{1,2}[0-9]{1,4}(?:[T ][0-9:.]+)?|[0-9]{8}|[A-Za-z]{3,9}\.? [0-9]{1,2},? [0-9]{4}"
)
_ODD = re.compile(r"[0-9!@#$%^&*+/~=]")
_MARKS = " \t\"'`*\\"
_ENDS = _MARKS + "}])"
_FURTHEST = 4096
_LONGEST = 64
"""characters of a cell that may be an identifier"""


@dataclass(frozen=True, slots=True)
class _Head:
    """Which columns to look at: by their number in a line that `delimiter` divides, or by their place in one of blanks."""

    delimiter: re.Pattern[str] | None
    width: int
    columns: tuple[tuple[int, Label], ...]
    places: tuple[Cell, ...] = ()


def cells_to_hide(text: str, may_name: Search, label_of: LabelOf) -> Iterator[Found]:
    """Start, end and kind of the cells that look like what the head of their column says.

    Parameters
    ----------
    may_name : true for every line that holds the name of a column to look at; quick
    label_of : what the name of a column says
    """
    head: _Head | None = None
    above: list[Cell] = []
    for start, end in _lines(text):
        line = text[start:end]
        if not line.strip(_MARKS):
            head = None
            above.clear()
            continue
        if (series := _SERIES.search(line)) is not None and may_name(line):
            yield from _above(text, above, label_of(series.group(1)))
        above.append((start, end))
        found = [] if head is None else list(_in_row(head, line, is_last=end == len(text)))
        for at, to, kind in found:
            yield start + at, start + to, kind
        if not found and may_name(line):
            head = _head(line, label_of) or head
    yield from _pages(text, may_name, label_of)
    yield from _tuples(text, may_name, label_of)
    yield from _collections(text, may_name, label_of)


def _lines(text: str) -> Iterator[Cell]:
    done = 0
    for match in _BREAK.finditer(text):
        yield done, match.start()
        done = match.end()
    yield done, len(text)


def _head(line: str, label_of: LabelOf) -> _Head | None:
    """The line as names of columns; inside JSON or a `repr` it begins behind a quote."""
    found = _names(line, label_of)
    for opening, _ in zip(_OPENING.finditer(line), range(_OPENINGS), strict=False):
        if found is not None:
            break
        found = _names(line[opening.end() :], label_of)
    return found


def _names(line: str, label_of: LabelOf) -> _Head | None:
    """The line as names of columns, of which at least one says something; None when it is a row."""
    delimiter = next((one for one in _DELIMITERS if one.search(line)), None)
    # Names with underscores have no blanks of their own, and one blank is all that divides columns as wide as their heads.
    divided = _WORD if "_" in line else _HEAD
    places = tuple(match.span() for match in divided.finditer(line)) if delimiter is None else tuple(_cells(line, delimiter))
    labels = _labels([line[at:to] for at, to in places], label_of)
    if not labels or (len(places) == 1 and labels[0][1] in ("secret", "degree")):
        return None
    return _Head(delimiter, len(places), labels, () if delimiter else places)


def _labels(names: list[str], label_of: LabelOf) -> tuple[tuple[int, Label], ...]:
    """Of cells that are names throughout; what people write in a sentence seldom is."""
    plain = [name.strip(_MARKS) for name in names]
    if len(plain) > 500 or not all(not name or (len(name) <= _LONGEST and _NAME.fullmatch(name)) for name in plain):
        return ()
    if any(_DATA_TYPE.fullmatch(name) for name in plain):
        return ()
    found = ((number, label_of(name)) for number, name in enumerate(plain) if name)
    return tuple((number, label) for number, label in found if label not in (None, "holder"))


def _cells(line: str, delimiter: re.Pattern[str]) -> Iterator[Cell]:
    """Between delimiters, of which those inside quotes are none."""
    at = last = quotes = 0
    for match in delimiter.finditer(line):
        quotes += line.count('"', last, match.start())
        last = match.end()
        if quotes % 2 == 0:
            yield at, match.start()
            at = last
    yield at, len(line)


def _in_row(head: _Head, line: str, *, is_last: bool) -> Iterator[Found]:
    if head.delimiter is None:
        yield from _in_blanks(head, line, is_last=is_last)
        return
    cells = list(_cells(line, head.delimiter))
    if len(cells) != head.width and not (is_last and len(cells) < head.width):
        return
    for number, label in head.columns:
        if number < len(cells):
            yield from _in_cell(line, cells[number], label)


def _in_blanks(head: _Head, line: str, *, is_last: bool) -> Iterator[Found]:
    """Columns of a printed frame have no delimiter: what stands below or above one another belongs together."""
    words = [match.span() for match in _WORD.finditer(line)]
    if (len(words) < head.width and not is_last) or (head.width == 1 and len(words) > 2):
        return
    for number, label in head.columns:
        at, to = head.places[number]
        for word in words:
            if word[0] < to and at < word[1]:
                yield from _in_cell(line, word, label)


def _in_cell(line: str, cell: Cell, label: Label) -> Iterator[Found]:
    value = line[cell[0] : cell[1]]
    at = cell[0] + len(value) - len(value.lstrip(_MARKS))
    value = value.strip(_MARKS).rstrip(_ENDS)
    if not value or len(value) > _LONGEST or _DATA_TYPE.fullmatch(value) or (label == "dob" and not _DATE.fullmatch(value)):
        return
    if label in ("secret", "degree") and (len(value) < 4 or " " in value or not _ODD.search(value)):
        return
    told = marker(label, value)
    if told is not None and not (value.startswith("[") and value.endswith("]")):
        yield at, at + len(value), told[1:-1]


def _pages(text: str, may_name: Search, label_of: LabelOf) -> Iterator[Found]:
    """Tables of HTML: the first row with names of columns is their head."""
    rows = [match.end() for match in _PAGE_ROW.finditer(text)]
    labels: tuple[tuple[int, Label], ...] = ()
    for start, end in pairwise((*rows, len(text))):
        cells = [match.span(1) for match in _PAGE_CELL.finditer(text, start, end)]
        row = text[start:end]
        found = [one for number, label in labels if number < len(cells) for one in _in_cell(text, cells[number], label)]
        yield from found
        if not found and may_name(row):
            labels = _labels([text[at:to] for at, to in cells], label_of) or labels


def _above(text: str, lines: list[Cell], label: Label | None) -> Iterator[Found]:
    """A series of pandas has its name below it."""
    for start, end in reversed(lines):
        words = [match.span() for match in _WORD.finditer(text, start, end)]
        if label is None or not 1 <= len(words) <= 2:
            return
        yield from _in_cell(text, words[-1], label)


def _collections(text: str, may_name: Search, label_of: LabelOf) -> Iterator[Found]:
    """All values of a column that is written as a list, a set, or a mapping from row numbers."""
    done = 0
    for match in _COLUMN.finditer(text):
        name = match.group(1)
        if match.start() < done or not may_name(name) or (label := label_of(name)) in (None, "holder"):
            continue
        opened = match.group(2) or match.group(3) or ""
        closing = _CLOSING[opened].search(text, match.end(), match.end() + _FURTHEST)
        done = closing.start() if closing else min(len(text), match.end() + _FURTHEST)
        if opened == "{" and _OWN_KEYS.match(text, match.end()):
            done = match.end()
            continue
        at = match.end()
        while text[at : at + 1] in ("[", "{", "("):
            at += 1
        for element in _ELEMENT.finditer(text, at, done):
            yield from _in_cell(text, element.span(1), label)


def _tuples(text: str, may_name: Search, label_of: LabelOf) -> Iterator[Found]:
    """`insert into t (patient_id, week) values ('P-0017', 3), …` and `Key (patient_id, week)=(P-0017, 3) already exists`."""
    comma = _DELIMITERS[-1]
    done = 0
    for match in _TUPLE.finditer(text):
        if match.start() < done or not may_name(match.group(1)):
            continue
        names = match.group(1)
        labels = _labels([names[at:to] for at, to in _cells(names, comma)], label_of)
        done = match.end()
        while labels and (row := _ROW.match(text, done)) is not None:
            inside, start, done = row.group(1), row.start(1), row.end()
            cells = list(_cells(inside, comma))
            for number, label in labels:
                if number < len(cells):
                    for at, to, kind in _in_cell(inside, cells[number], label):
                        yield start + at, start + to, kind
