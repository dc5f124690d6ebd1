"""Layers of settings: each comes from one source, higher layers override lower ones, and the result is validated.

A layer knows where each of its values is set, so that an error in the merged settings names the file, environment
variable or flag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from inferd.server.config.document import Document
from inferd.server.config.errors import ConfigError, Problem, dotted, shown
from inferd.server.config.fields import Section
from inferd.server.config.keys import KeyPath, annotations_at, is_list, is_mapping, nearest, nearest_key, section_at
from inferd.server.config.schema import ServerConfig
from inferd.server.config.units import WRITTEN

Where = tuple[str | int, ...]
SectionT = TypeVar("SectionT", bound=Section)

# Keys whose value is one of several alternatives. A higher layer replaces the value of a lower one instead of merging.
_REPLACED: Final = frozenset({"version_policy"})

_EXPECTED: Final = {
    "string_type": "text (in quotes)",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "too_short": "at least one item",
    "string_too_short": "text that is not empty",
    "recursion_loop": "a value that does not hold itself",
}


class Layer:
    """Settings from one source. `names` gives the source of single paths (an environment variable, a flag)."""

    def __init__(
        self,
        values: Mapping[str, Any],
        source: str,
        names: Mapping[KeyPath, str] | None = None,
        *,
        document: Document | None = None,
        above: KeyPath = (),
    ) -> None:
        self.values: Final = values
        self._source: Final = source
        self._names: Final = dict(names or {})
        self._document: Final = values if isinstance(values, Document) else document
        self._above: Final = above

    def below(self, path: KeyPath) -> Layer:
        """The part of the layer at a path, as a layer; empty if there is no mapping at the path."""
        value: Any = self.values
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        values = value if isinstance(value, Mapping) else {}
        return Layer(values, self._source, self._names, document=self._document, above=(*self._above, *path))

    def holds(self, path: Where) -> int:
        """How many parts of the path this layer contains."""
        value: Any = self.values
        for depth, part in enumerate(path):
            if not _has(value, part):
                return depth
            value = value[part]
        return len(path)

    def without_empty_sections(self, model: type[Section]) -> Layer:
        """The layer without sections that are null. A section whose keys are all commented out reads as null; it
        counts as not given, unless null is an allowed value."""
        return Layer(_without_empty_sections(self.values, model), self._source)

    def where(self, path: Where) -> tuple[str, int]:
        """The source of the value at a path, and its line (0 if the source is no file)."""
        full = (*self._above, *path)
        if self._document is not None:
            return self._document.source, self._document.line_of(full)
        for depth in range(len(full), 0, -1):
            name = self._names.get(tuple(str(part) for part in full[:depth]))
            if name is not None:
                return name, 0
        below = [name for key, name in self._names.items() if key[: len(full)] == full]
        return (below[-1] if below else self._source), 0


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merges the layers. Later layers override earlier ones; mappings are merged key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        result = _merged(result, layer.values)
    return result


def assign(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Sets the value at a path of nested mappings, and creates missing mappings."""
    for part in path[:-1]:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value


def _without_empty_sections(values: Any, model: type[Section], path: Where = ()) -> Any:
    if not isinstance(values, Mapping):
        return values
    result: dict[Any, Any] = {}
    for key, value in values.items():
        choices = annotations_at((*path, key), model) if isinstance(key, str) else ()
        if value is None and choices and not {type(None), Any} & set(choices):
            if any(is_mapping(kind) for kind in choices):
                result[key] = {}
            elif not any(is_list(kind) for kind in choices):
                result[key] = value
        else:
            result[key] = _without_empty_sections(value, model, (*path, str(key)))
    return result


def validated(
    model: type[SectionT],
    layers: Sequence[Layer],
    *,
    root: type[Section] = ServerConfig,
    above: KeyPath = (),
    context: Mapping[str, Any] | None = None,
) -> SectionT:
    """The merged layers as a section. Raises ConfigError with every problem.

    `root` is the schema in which known keys are looked up; `above` is the path of these values within it.
    """
    values = merge([layer.without_empty_sections(model) for layer in layers])
    try:
        return model.model_validate(values, context={WRITTEN: True, **(context or {})})
    except ValidationError as error:
        raise ConfigError(_problems(error, values, layers, root, above)) from None


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(low)
    for key, value in high.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key not in _REPLACED:
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result


def _problems(
    error: ValidationError, values: Any, layers: Sequence[Layer], root: type[Section], above: KeyPath
) -> list[Problem]:
    found: dict[tuple[Where, str], Problem] = {}
    for each in error.errors(include_url=False):
        kind = str(each["type"])
        path = _path(tuple(each["loc"]), values, keep_last=kind in ("missing", "extra_forbidden"))
        top = max(layers, key=lambda layer: (layer.holds(path), layers.index(layer)))
        source, line = top.where(path)
        full = (*above, *path)
        key = dotted(full)
        if kind == "extra_forbidden":
            meant = nearest_key(full, root)
            section = section_at(full[:-1], root)
            expected = "a known key" if meant or section is None else f"one of {', '.join(section.model_fields)}"
            problem = Problem(source, key, expected, "an unknown one", meant, line)
        elif kind == "missing":
            problem = Problem(source, key, "a value", "none", line=line)
        else:
            expected, got = _expected_and_got(kind, each["msg"], each.get("input"), full)
            options = re.findall(r"'([^']*)'", str(each.get("ctx", {}).get("expected", "")))
            given = each.get("input")
            meant = nearest(given, options) if kind == "literal_error" and isinstance(given, str) else ""
            problem = Problem(source, key, expected, got, meant, line)
        before = found.get((path, problem.got))
        if before is not None and problem.expected != before.expected:  # each branch of a union reports an error
            expected = f"{before.expected} or {problem.expected}"
            problem = Problem(source, key, expected, problem.got, before.nearest or problem.nearest, line)
        found[path, problem.got] = problem
    # If one branch of a union has reported an error deeper in the value, the other branch's error about the whole value
    # is noise. So is "too short" for a list whose items were refused.
    noise = (_EXPECTED["string_type"], _EXPECTED["too_short"])
    paths = [path for path, _ in found]
    return [
        problem
        for (path, _), problem in found.items()
        if not (problem.expected in noise and any(_inside(other, path) for other in paths))
    ]


def _inside(path: Where, other: Where) -> bool:
    return len(path) > len(other) and path[: len(other)] == other


def _expected_and_got(kind: str, message: str, given: Any, path: Where) -> tuple[str, str]:
    """What was expected and what was found, from an error of pydantic."""
    if kind == "value_error":
        text = message.removeprefix("Value error, ").removeprefix("expected ")
        expected, _, got = text.rpartition(", got ")
        if not expected:
            return text, shown(given, path)
        # For a whole section, the check's own text is clearer than the section. A single value is shown by `shown`,
        # which hides secrets.
        return expected, got if isinstance(given, Mapping) else shown(given, path)
    if kind in _EXPECTED:
        return _EXPECTED[kind], shown(given, path)
    bound = re.search(r"at most (\d+) items?.* not (\w+)", message) if kind == "too_long" else None
    if bound is not None:
        return f"at most {bound[1]} items", bound[2]
    return message.removeprefix("Input should be ").removeprefix("Value should be "), shown(given, path)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _path(loc: Where, values: Any, keep_last: bool) -> Where:
    """The path of an error without the names of union branches, which pydantic adds."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        if _has(values, part):
            values = values[part]
        elif not (keep_last and position == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)
