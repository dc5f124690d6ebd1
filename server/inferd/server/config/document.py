"""Reads YAML for settings: keeps the line of every key, refuses duplicate keys, and reads scalars as YAML 1.2 does.

In YAML 1.1 `off` is false, `010` is eight and `1:30` is ninety. In YAML 1.2's core schema only true and false are
booleans, numbers are decimal (or 0x, 0o), and everything else that is not null is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from inferd.server.config.errors import ConfigError, Problem, dotted

Path_ = tuple[str | int, ...]
MOST_BYTES: Final = 4 * 2**20
MOST_VALUES: Final = 200_000


class Document(dict[str, Any]):
    """A mapping that was read from YAML. `source` is the file's name; `line_of` gives the line of a key."""

    def __init__(self, values: Mapping[str, Any], source: str, lines: Mapping[Path_, int]) -> None:
        super().__init__(values)
        self.source: Final = source
        self._lines: Final = dict(lines)

    def line_of(self, path: Path_) -> int:
        """The line (from 1) of the key at `path`, or of the nearest key above it; 0 for the whole document."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)


def read_document(file: Path, source: str | None = None) -> Document:
    """Reads a YAML file that holds a mapping, or nothing. Raises ConfigError."""
    name = source or str(file)
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(name, "", "a readable file", error.strerror or str(error))]) from None
    if len(data) > MOST_BYTES:
        raise ConfigError([Problem(name, "", f"at most {MOST_BYTES} bytes", "more")])
    return decode_document(data, name)


def decode_document(data: bytes, source: str) -> Document:
    """As `read_document`, from the content of the file `source`. Raises ConfigError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(source, "", "UTF-8 text", "other bytes", line=line)]) from None
    return parse_document(text, source)


def parse_document(text: str, source: str) -> Document:
    """Reads YAML text that holds a mapping, or nothing. Raises ConfigError."""
    index = _Index(source)
    try:
        value = _load(text, index)
    except yaml.YAMLError as error:
        raise ConfigError([_syntax(error, source)]) from None
    except RecursionError:
        raise ConfigError([Problem(source, "", "fewer levels of nesting", "too many")]) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError([Problem(source, "", "YAML", str(error))]) from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError([Problem(source, "", "a mapping (key: value)", f"a {_kind(value)}", line=1)])
    return Document(value, source, index.lines)


def parse_value(text: str) -> Any:
    """Reads one YAML value, such as `8`, `off` or `[a, b]`. Raises ValueError, which says what was expected."""
    try:
        value = _load(text, _Index(""))
    except yaml.YAMLError as error:
        raise ValueError(f"a YAML value ({_syntax(error, '').got})") from None
    except ConfigError as error:
        raise ValueError(error.problems[0].expected) from None
    except RecursionError:
        raise ValueError("a YAML value with fewer levels of nesting") from None
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a YAML value ({error})") from None
    return value


# The parser in C is ten times faster; a build of PyYAML may lack it.
_SAFE: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE):  # type: ignore[misc]
    """SafeLoader with YAML 1.2's scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 8) if text.startswith("0o") else int(text, 16) if text.startswith("0x") else int(text, 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def _load(text: str, index: _Index) -> Any:
    """The value of a YAML text; its keys are checked by `index`. Raises YAMLError, ConfigError, ValueError,
    RecursionError."""
    _check_size(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values, counting what its aliases stand for")
        index.visit(node)  # first: constructing a mapping merges its merge keys into the node
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_size(text: str) -> None:
    """Raises ValueError for a text of more than MOST_VALUES values, before anything is made of it."""
    for number, _ in enumerate(yaml.parse(text, Loader=_Loader)):
        if number > 2 * MOST_VALUES:  # an event begins or ends each collection
            raise ValueError(f"more than {MOST_VALUES} values")


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values `node` holds when every alias is expanded. Nested aliases grow exponentially."""
    if id(node) not in sizes:
        sizes[id(node)] = 1  # an alias to a value around itself counts once; `_Index` refuses it
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [value for pair in node.value for value in pair]
        sizes[id(node)] = 1 + sum(_expanded(each, sizes) for each in inner)
    return sizes[id(node)]


class _Index:
    """Collects the line of every key. Raises ConfigError for a duplicate key and for a key that is not text."""

    def __init__(self, source: str) -> None:
        self.lines: Final[dict[Path_, int]] = {}
        self._source: Final = source
        self._above: Final[set[int]] = set()
        self._seen: Final[set[int]] = set()

    def visit(self, node: yaml.Node, path: Path_ = ()) -> None:
        if id(node) in self._above:
            raise self._error(path, "no alias to a value around itself", "", node)
        if id(node) in self._seen:  # an alias: it has the lines of its anchor
            return
        self._seen.add(id(node))
        self._above.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self.lines[(*path, position)] = _line(item)
                self.visit(item, (*path, position))
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, path)
        self._above.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> None:
        keys: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                self.visit(value_node, path)
                continue
            key = key_node.value
            if not isinstance(key, str) or key_node.tag != "tag:yaml.org,2002:str":
                raise self._error(path, "a key that is text (put it in quotes)", str(key), key_node)
            here = (*path, key)
            if key in keys:
                raise self._error(here, "every key once", "it twice", key_node)
            keys.add(key)
            self.lines[here] = _line(key_node)
            self.visit(value_node, here)

    def _error(self, path: Path_, expected: str, got: str, node: yaml.Node) -> ConfigError:
        return ConfigError([Problem(self._source, dotted(path), expected, got, line=_line(node))])


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "boolean", int: "number", float: "number"}.get(type(value), "other value")


def _syntax(error: yaml.YAMLError, source: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    return Problem(
        source, "", "YAML", str(reason).removeprefix("but found "), line=mark.line + 1 if mark is not None else 0
    )
