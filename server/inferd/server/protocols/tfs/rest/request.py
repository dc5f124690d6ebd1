"""Parses a predict request of TensorFlow Serving's REST API: rows ("instances") or columns ("inputs")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferd.backends.api import Array, Signature, TensorSpec
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.arrays import array_of, b64_or_utf8, is_b64
from inferd.server.http.json.numbers import Numbers
from inferd.server.http.json.text import loads


def read_document(body: bytes) -> tuple[dict[str, Any], str]:
    """The request as a JSON object, and the name of its signature, "" for the default one. Raises InvalidRequest."""
    given = loads(body)
    if not isinstance(given, dict):
        raise InvalidRequest("Request body must be a JSON object")
    name = given.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequest(f"'signature_name' must be a string, got {name!r:.60}")
    return given, name


def read_inputs(given: Mapping[str, Any], signature: Signature) -> tuple[dict[str, Array], bool]:
    """The inputs by name, and whether they came as rows. Empties the lists of rows. Raises InvalidRequest."""
    if ("instances" in given) == ("inputs" in given):
        came = "both" if "inputs" in given else "neither"
        raise InvalidRequest(f"Predict request must have exactly one of the keys 'instances' or 'inputs', got {came}")
    specs = {spec.name: spec for spec in signature.inputs}
    if "inputs" in given:
        return _columns(given["inputs"], specs), False
    rows = given["instances"]
    if isinstance(rows, Numbers):
        return {name: _tensor(rows, spec) for name, spec in _only(specs, "instances").items()}, True
    if not isinstance(rows, list):
        raise InvalidRequest("Expected 'instances' to be a list of one or more items")
    if not rows:
        raise InvalidRequest("Expected 'instances' to be a list of one or more items, got none")
    return _rows(rows, specs), True


def _columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if not isinstance(value, dict) or is_b64(value):
        return {name: _tensor(value, spec) for name, spec in _only(specs, "inputs").items()}
    return {name: _tensor(item, _known(name, specs)) for name, item in value.items()}


def _rows(rows: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if not isinstance(rows[0], dict) or is_b64(rows[0]):
        for place, row in enumerate(rows):
            if isinstance(row, dict) and not is_b64(row):
                raise _odd_row(place, "a value as in the items before it", "an object")
        return {name: _tensor(rows, spec) for name, spec in _only(specs, "instances").items()}
    names = rows[0].keys()  # a view that keeps the first row alive: the loop removes it from the list
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != names:
            wanted = f"an object with {', '.join(map(repr, list(names)[:20]))}"
            came = f"one with {', '.join(map(repr, list(row)[:20]))}" if isinstance(row, dict) else "a value"
            raise _odd_row(place, wanted, came)
        for name, item in row.items():
            columns[name].append(item)
        rows[place] = None  # freed one by one: freeing millions of rows at once would hold the interpreter lock
    return {name: _tensor(column, _known(name, specs)) for name, column in columns.items()}


def _odd_row(place: int, wanted: str, came: str) -> InvalidRequest:
    return InvalidRequest(f"Failed to process element: {place} of 'instances' list: expected {wanted}, got {came}")


def _only(specs: Mapping[str, TensorSpec], key: str) -> Mapping[str, TensorSpec]:
    if len(specs) != 1:
        raise InvalidRequest(
            f"'{key}' must name its tensors: the signature has {len(specs)} inputs, {', '.join(map(repr, specs))}"
        )
    return specs


def _known(name: str, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    spec = specs.get(name)
    if spec is None:
        raise InvalidRequest(
            f"input tensor alias not found in signature: {name[:200]}. Inputs expected to be in the set "
            f"{{{','.join(sorted(specs))}}}."
        )
    return spec


def _tensor(value: Any, spec: TensorSpec) -> Array:
    return array_of(value, spec.dtype, f"Failed to process input {spec.name!r}", b64_or_utf8)
