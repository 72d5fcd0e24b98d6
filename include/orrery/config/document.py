"""YAML files, read with the place of every key and value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orrery.config.errors import ConfigError, Problem

# Keys and list indexes from the top of the document down to a value.
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    line: int
    column: int
    length: int


@dataclass(frozen=True)
class Document:
    """A YAML mapping together with the places of its keys and values."""

    file: str
    data: dict[str, Any]
    keys: dict[Location, Place]
    values: dict[Location, Place]
    lines: tuple[str, ...]

    def at(self, location: Location) -> Any:
        """The value at a location that `values` has."""
        found: Any = self.data
        for part in location:
            found = found[part]
        return found

    def problem(self, location: Location, what: str, fix: str, *, at_value: bool = False) -> Problem:
        """A problem at `location`, or at the nearest enclosing key when that is not in the file."""
        places = self.values if at_value else self.keys
        while location and location not in places and location not in self.values:
            location = location[:-1]
        place = places.get(location) or self.values.get(location) or Place(1, 1, 1)
        return Problem(
            file=self.file,
            what=what,
            fix=fix,
            line=place.line,
            column=place.column,
            source=self.lines[place.line - 1] if place.line <= len(self.lines) else "",
            length=place.length,
        )


def read_document(path: Path, shown_as: str) -> Document:
    """Read a YAML mapping from `path`; errors call the file `shown_as`.

    Raises ConfigError when the file is no UTF-8, and as `parse_document` does.
    """
    return parse_document(read_text(path, shown_as), shown_as)


def read_text(path: Path, shown_as: str) -> str:
    """The text of a YAML file; raises ConfigError when it cannot be read or is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            [
                Problem(
                    shown_as,
                    f"not UTF-8: byte 0x{error.object[error.start]:02x} on line {line}",
                    "Save the file as UTF-8 in your editor.",
                    line=line,
                    column=1,
                )
            ]
        ) from None
    except OSError as error:
        raise ConfigError(
            [Problem(shown_as, f"cannot be read: {error.strerror}", "Check the file and its permissions.")]
        ) from None


def parse_document(text: str, shown_as: str) -> Document:
    """Read a YAML mapping from its text; errors call its file `shown_as`.

    Raises ConfigError when the text is no valid YAML, empty, not a mapping, or has the same key twice
    (which YAML parsers accept silently, losing one of the two).
    """
    lines = tuple(text.splitlines())
    node = _compose(text, lines, shown_as)
    if node is None:
        raise ConfigError(
            [Problem(shown_as, "the file is empty", "Add at least a select, or delete the file.", 1, 1)]
        )
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            [
                Problem(
                    shown_as,
                    "the file must be a mapping of keys to values",
                    'Write keys such as: select: "tag:my_product"',
                    node.start_mark.line + 1,
                    node.start_mark.column + 1,
                    lines[node.start_mark.line],
                )
            ]
        )
    reader = _Reader(shown_as, lines)
    try:
        data = reader.mapping(node, ())
    except RecursionError:
        raise ConfigError(
            [Problem(shown_as, "an alias (*) stands inside what it names", "Remove the alias.", 1, 1)]
        ) from None
    if reader.problems:
        raise ConfigError(reader.problems)
    return Document(shown_as, data, reader.keys, reader.values, lines)


def _compose(text: str, lines: tuple[str, ...], shown_as: str) -> yaml.Node | None:
    for number, line in enumerate(lines, start=1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            raise ConfigError(
                [
                    Problem(
                        shown_as,
                        "a tab character in the indentation; YAML allows only spaces there",
                        "Replace the tab by two spaces.",
                        number,
                        indent.index("\t") + 1,
                        line,
                    )
                ]
            )
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = mark.line if mark else 0
        raise ConfigError(
            [
                Problem(
                    shown_as,
                    f"not valid YAML: {error.problem or error.context}",
                    "Check the indentation, the quotes and the colon of this line and the one above.",
                    at + 1,
                    (mark.column if mark else 0) + 1,
                    lines[at] if at < len(lines) else "",
                )
            ]
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(
            [Problem(shown_as, f"not valid YAML: {error}", "Remove the special characters.", 1, 1)]
        ) from None
    return node


class _Reader:
    """Turns composed YAML nodes into plain values and notes where each stood."""

    def __init__(self, file: str, lines: tuple[str, ...]) -> None:
        self.file = file
        self.lines = lines
        self.keys: dict[Location, Place] = {}
        self.values: dict[Location, Place] = {}
        self.problems: list[Problem] = []

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        self.values[location] = self._place(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*location, key)
            if key in result:
                place = self._place(key_node)
                self.problems.append(
                    Problem(
                        self.file,
                        f"key {key!r} stands here twice",
                        f"Remove one of them; the first is on line {self.keys[here].line}.",
                        place.line,
                        place.column,
                        self.lines[place.line - 1],
                        place.length,
                    )
                )
                continue
            self.keys[here] = self._place(key_node)
            result[key] = self._value(value_node, here)
        return result

    def _value(self, node: yaml.Node, location: Location) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, location)
        self.values[location] = self._place(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*location, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _place(self, node: yaml.Node) -> Place:
        start, end = node.start_mark, node.end_mark
        length = end.column - start.column if end.line == start.line else 1
        return Place(start.line + 1, start.column + 1, max(length, 1))


def _scalar(node: yaml.Node) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError):
        # An explicit tag that does not fit, such as !!bool maybe.
        return node.value
