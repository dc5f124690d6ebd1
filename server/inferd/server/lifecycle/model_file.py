"""A model's `model.yaml` as a plain mapping. What its keys mean and whether they are known is the configuration's business."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from inferd.server.lifecycle.layout import LayoutError

_MAX_BYTES = 4 * 2**20


class _UniqueKeys(yaml.SafeLoader):
    """YAML silently keeps the last of two equal keys; here the second one is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} appears twice", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_model_file(file: Path) -> dict[str, Any]:
    """The mapping in `file`; an empty file is an empty mapping. Raises LayoutError naming file, line and what is wrong."""
    try:
        with open(file, "rb") as source:
            raw = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LayoutError(f"{file} cannot be read: {error.strerror or error}") from None
    if len(raw) > _MAX_BYTES:
        raise LayoutError(f"{file} is larger than {_MAX_BYTES} bytes: not a model's settings")
    try:
        value = yaml.load(raw, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise LayoutError(f"{file}: {where}{error.problem or error.context or 'not YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LayoutError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise LayoutError(f"{file}: expected keys and values, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise LayoutError(f"{file}: expected keys that are texts, got {key!r}")
    return value
