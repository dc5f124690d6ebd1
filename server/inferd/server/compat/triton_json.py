"""Reads Triton's ModelConfig in JSON, as a load request carries it. Gives the same mapping as a config.pbtxt.

The JSON is that of protobuf: names with underscores or in camel case, integers also as strings, enums by name, maps as
objects, null for a field that is not set.
"""

from __future__ import annotations

import json
import re
from typing import Any

from inferd.server.compat.pbtxt import (
    MODEL,
    Map,
    Reader,
    Repeated,
    TritonConfig,
    check_unknown,
    integer,
    read_message,
    string,
)
from inferd.server.compat.text_format import Name, TextFormatError, TextMessage, Value

MAX_CHARACTERS = 2**20
_UNSET: tuple[Any, ...] = (None, "", False, 0, [], {})


def read_triton_json(text: str) -> TritonConfig:
    """The mapping, and the fields that inferd does not honour. Raises TextFormatError, which says what was expected and
    what was found."""
    if len(text) > MAX_CHARACTERS:
        raise TextFormatError(f"expected at most {MAX_CHARACTERS} characters, got {len(text)}")
    try:
        given = json.loads(text, object_pairs_hook=_distinct)
    except ValueError as error:
        raise TextFormatError(f"expected JSON: {error}") from None
    except RecursionError:
        raise TextFormatError("expected JSON, got one that is nested too deep") from None
    unknown: dict[str, None] = {}
    values = read_message(_message(given, MODEL, "", unknown), MODEL, "", unknown)
    return TritonConfig(values, tuple(unknown))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A key that is given twice is refused: readers differ in which value they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _message(given: Any, schema: dict[str, Any], path: str, unknown: dict[str, None]) -> TextMessage:
    fields = TextMessage()
    for key, value in _object(given, path).items():
        name = key if key in schema else _with_underscores(key)
        kind = schema.get(name)
        where = f"{path}.{name}" if path else name
        if kind is not None and any(name == other for other, _ in fields):
            raise TextFormatError(f"{where}: expected it once, got it twice, as {key} too")
        if kind is not None and value is not None:
            fields.append((name, _value(value, kind, where, unknown)))
        elif kind is None and value not in _UNSET:
            check_unknown(name, where, schema)
            unknown[where] = None
    return fields


def _value(given: Any, kind: Any, where: str, unknown: dict[str, None]) -> Value:
    if isinstance(kind, dict):
        return _message(given, kind, where, unknown)
    if isinstance(kind, Repeated):
        if not isinstance(given, list):
            raise TextFormatError(f"{where}: expected a list, got {_shown(given)}")
        return [_value(item, kind.item, where, unknown) for item in given]
    if isinstance(kind, Map):
        entries: list[Value] = []
        for key, value in _object(given, where).items():
            inner = _value(value, kind.item, f"{where}[{key}]", unknown)
            entries.append(TextMessage([("key", _leaf(key, kind.key, where)), ("value", inner)]))
        return entries
    return _leaf(given, kind, where)


def _leaf(given: Any, kind: Reader, where: str) -> Value:
    if isinstance(given, bool):
        return Name("true" if given else "false")
    if kind is integer and isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,20}", given):
        return int(given)
    if kind not in (string, integer) and isinstance(given, str):
        return Name(given)
    if isinstance(given, str | int | float):
        return given
    raise TextFormatError(f"{where}: expected a single value, got {_shown(given)}")


def _object(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TextFormatError(f"{where or 'the whole'}: expected an object {{...}}, got {_shown(given)}")
    return given


def _with_underscores(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: "_" + found[0].lower(), name)


def _shown(given: Any) -> str:
    shown = json.dumps(given)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
