"""YAML with the line of every key and value, so that each error can say where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Place = tuple[str | int, ...]
"""a path of keys and list positions, e.g. ("effect", "confounders", 2)"""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong at one line of the file. `is_in_data`: the file and the data together are wrong, not the file by itself."""

    line: int
    what: str
    advice: str | None = None
    is_in_data: bool = False


@dataclass(frozen=True, kw_only=True)
class MarkedYaml:
    """The content of a YAML mapping; `keys` and `values` give the line (from 1) of each place."""

    content: dict[str, object]
    keys: dict[Place, int]
    values: dict[Place, int]
    problems: tuple[Problem, ...] = ()

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest place around it."""
        for length in range(len(place), 0, -1):
            for lines in (self.keys, self.values):
                if place[:length] in lines:
                    return lines[place[:length]]
        return 1


@dataclass
class _Marks:
    keys: dict[Place, int] = field(default_factory=dict)
    values: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_yaml(path: Path) -> MarkedYaml:
    """Read one YAML mapping.

    Raises
    ------
    ConfigError
        No such file, not UTF-8, empty, a syntax error, not a mapping, or an anchor; with file and line.
    """
    text = _text(path)
    try:
        aliases = [token for token in yaml.scan(text, Loader=yaml.SafeLoader) if isinstance(token, yaml.AliasToken)]
        if aliases:
            line = aliases[0].start_mark.line + 1
            raise ConfigError("aliases (`*name`) are not used here.", where=f"{path}:{line}", advice="Write the value out.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = f"this is not valid YAML: {error.problem or error.context}."
        raise ConfigError(what, where=where, advice="Check the indentation, the brackets and the quotes around this line.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not valid YAML: {error}.", where=str(path), advice="Save it as plain text.") from error
    if node is None:
        raise ConfigError("the file is empty.", where=f"{path}:1", advice="`e2i init DATA` writes a study to start from.")
    if not isinstance(node, yaml.MappingNode):
        what = "the file is not a mapping of keys to values."
        raise ConfigError(what, where=f"{path}:{node.start_mark.line + 1}", advice="Begin with `name: …` and `data: {source: …}`.")
    marks = _Marks()
    content = _mapping(node, (), marks)
    return MarkedYaml(content=content, keys=marks.keys, values=marks.values, problems=tuple(marks.problems))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("there is no such file.", where=str(path), advice="Give the path of a study file.") from error
    except IsADirectoryError as error:
        raise ConfigError("this is a folder.", where=str(path), advice="Give the path of a study file inside it.") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError("this line is not UTF-8 text.", where=f"{path}:{line}", advice="Save the file as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}.", where=str(path), advice="Check its rights.") from error


def _value(node: yaml.Node, place: Place, marks: _Marks) -> object:
    marks.values[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, marks)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*place, position), marks) for position, child in enumerate(node.value)]
    return _scalar(node, marks)


def _mapping(node: yaml.MappingNode, place: Place, marks: _Marks) -> dict[str, object]:
    content: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            marks.problems.append(Problem(line=line, what="a key is not a plain name", advice="Write `name: value`."))
            continue
        key = str(key_node.value)
        here = (*place, key)
        if key in content:
            marks.problems.append(
                Problem(line=line, what=f"key `{key}` is given twice (first in line {marks.keys[here]})", advice="Keep one of them.")
            )
            continue
        marks.keys[here] = line
        content[key] = _value(value_node, here, marks)
    return content


def _scalar(node: yaml.Node, marks: _Marks) -> object:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError):
        what = f"value `{node.value}` cannot be read as {str(node.tag).rpartition(':')[2]}"
        marks.problems.append(Problem(line=node.start_mark.line + 1, what=what, advice="Put text in quotes."))
        return str(node.value)
    finally:
        loader.dispose()
