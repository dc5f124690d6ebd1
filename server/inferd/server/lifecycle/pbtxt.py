"""Triton's config.pbtxt as a plain mapping: the fields that inferd honours, and the names of those that it does not.

The mapping has the field names and the shape of Triton's ModelConfig message; repeated fields are lists, maps are
dicts:

    {"name": "m", "platform": "onnxruntime_onnx", "max_batch_size": 8,
     "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [64]}], "parameters": {"KEY": "value"},
     "version_policy": {"latest": {"num_versions": 1}}, "dynamic_batching": {"preferred_batch_size": [4, 8]}, ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.server.lifecycle.layout import LayoutError
from inferd.server.lifecycle.text_format import Message, Name, TextFormatError, Value, parse

_MAX_BYTES = 4 * 2**20

Reader = Callable[[Value], Any]


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """`values`: what the file says of things inferd honours. `unknown`: paths of fields that it does not, in the file's
    order."""

    values: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def read_triton_config(file: Path, model: str) -> TritonConfig:
    """Reads config.pbtxt of the model directory `model`. Raises LayoutError naming file, field, expected and got."""
    try:
        with open(file, "rb") as source:
            raw = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LayoutError(f"{file} cannot be read: {error.strerror or error}") from None
    if len(raw) > _MAX_BYTES:
        raise LayoutError(f"{file} is larger than {_MAX_BYTES} bytes: not a model configuration")
    try:
        values, unknown = triton_config(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise LayoutError(f"{file}: expected text in UTF-8, got other bytes") from None
    except TextFormatError as error:
        raise LayoutError(f"{file}: {error}") from None
    name = values.get("name", "")
    if name and name != model:
        raise LayoutError(f"{file}: name: expected {model!r} (the directory's name) or nothing, got {name!r}")
    return TritonConfig(values, tuple(unknown))


def triton_config(text: str) -> tuple[dict[str, Any], list[str]]:
    """The mapping and the unknown fields of a configuration. Raises TextFormatError."""
    unknown: list[str] = []
    return _message(parse(text), _MODEL, "", unknown), unknown


class _Repeated:
    """A repeated field: each occurrence, or each item of a list, is read by `item`."""

    def __init__(self, item: Reader | dict[str, Any]) -> None:
        self.item = item


class _Map:
    """A map field: occurrences of { key: ... value: ... }; `item` reads the value."""

    def __init__(self, item: Callable[[Value, str, list[str]], Any], key: Reader | None = None) -> None:
        self.item = item
        self.key = key or _string


def _message(fields: Message, schema: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields:
        where = f"{path}.{name}" if path else name
        kind = schema.get(name)
        if kind is None:
            if where not in unknown:
                unknown.append(where)
        elif isinstance(kind, _Repeated):
            items = value if isinstance(value, list) and not isinstance(value, Message) else [value]
            found.setdefault(name, []).extend(_read(item, kind.item, where, unknown) for item in items)
        elif isinstance(kind, _Map):
            entries = value if isinstance(value, list) and not isinstance(value, Message) else [value]
            for entry in entries:
                pair = dict(_expect_message(entry, where))
                key = kind.key(pair.get("key", "" if kind.key is _string else 0))
                found.setdefault(name, {})[key] = kind.item(pair.get("value", ""), f"{where}[{key}]", unknown)
        else:
            found[name] = _read(value, kind, where, unknown)
    return found


def _read(value: Value, kind: Any, where: str, unknown: list[str]) -> Any:
    if isinstance(kind, dict):
        return _message(_expect_message(value, where), kind, where, unknown)
    try:
        return kind(value)
    except TextFormatError as error:
        raise TextFormatError(f"{where}: {error}") from None


def _expect_message(value: Value, where: str) -> Message:
    if isinstance(value, Message):
        return value
    raise TextFormatError(f"{where}: expected {{ ... }}, got {value!r}")


def _string(value: Value) -> str:
    if isinstance(value, str) and not isinstance(value, Name):
        return value
    raise TextFormatError(f"expected a quoted string, got {_shown(value)}")


def _integer(value: Value) -> int:
    if isinstance(value, int):
        return value
    raise TextFormatError(f"expected an integer, got {_shown(value)}")


def _boolean(value: Value) -> bool:
    if isinstance(value, Name) and value in ("true", "True", "t"):
        return True
    if isinstance(value, Name) and value in ("false", "False", "f"):
        return False
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise TextFormatError(f"expected true or false, got {_shown(value)}")


def _word(value: Value) -> str:
    if isinstance(value, Name):
        return str(value)
    raise TextFormatError(f"expected a name such as TYPE_FP32 or KIND_CPU, got {_shown(value)}")


def _shown(value: Value) -> str:
    return "{ ... }" if isinstance(value, Message) else repr(value)


def _parameter(value: Value, where: str, unknown: list[str]) -> str:
    # ModelParameter is a message of its own with one field.
    return str(
        _message(_expect_message(value, where), {"string_value": _string}, where, unknown).get("string_value", "")
    )


def _text(value: Value, where: str, unknown: list[str]) -> str:
    try:
        return _string(value)
    except TextFormatError as error:
        raise TextFormatError(f"{where}: {error}") from None


def _sample_input(value: Value, where: str, unknown: list[str]) -> dict[str, Any]:
    return _message(_expect_message(value, where), _SAMPLE_INPUT, where, unknown)


def _queue_policy(value: Value, where: str, unknown: list[str]) -> dict[str, Any]:
    return _message(_expect_message(value, where), _QUEUE_POLICY, where, unknown)


_RESHAPE = {"shape": _Repeated(_integer)}
_SAMPLE_INPUT = {
    "data_type": _word, "dims": _Repeated(_integer), "zero_data": _boolean, "random_data": _boolean,
    "input_data_file": _string,
}  # fmt: skip
_INPUT = {
    "name": _string, "data_type": _word, "format": _word, "dims": _Repeated(_integer), "reshape": _RESHAPE,
    "optional": _boolean,
}  # fmt: skip
_OUTPUT = {
    "name": _string, "data_type": _word, "dims": _Repeated(_integer), "reshape": _RESHAPE, "label_filename": _string,
}  # fmt: skip
_QUEUE_POLICY = {
    "timeout_action": _word, "default_timeout_microseconds": _integer, "allow_timeout_override": _boolean,
    "max_queue_size": _integer,
}  # fmt: skip
_MODEL: dict[str, Any] = {
    "name": _string,
    "platform": _string,
    "backend": _string,
    "runtime": _string,
    "max_batch_size": _integer,
    "default_model_filename": _string,
    "input": _Repeated(_INPUT),
    "output": _Repeated(_OUTPUT),
    "version_policy": {
        "latest": {"num_versions": _integer},
        "all": {},
        "specific": {"versions": _Repeated(_integer)},
    },
    "instance_group": _Repeated(
        {"name": _string, "kind": _word, "count": _integer, "gpus": _Repeated(_integer)},
    ),
    "ensemble_scheduling": {
        "step": _Repeated(
            {
                "model_name": _string,
                "model_version": _integer,
                "input_map": _Map(_text),
                "output_map": _Map(_text),
                "model_namespace": _string,
            },
        ),
        "max_inflight_requests": _integer,
    },
    "model_warmup": _Repeated(
        {"name": _string, "batch_size": _integer, "inputs": _Map(_sample_input), "count": _integer},
    ),
    "model_transaction_policy": {"decoupled": _boolean},
    "optimization": {
        "graph": {"level": _integer},
        "execution_accelerators": {
            "gpu_execution_accelerator": _Repeated({"name": _string, "parameters": _Map(_text)}),
            "cpu_execution_accelerator": _Repeated({"name": _string, "parameters": _Map(_text)}),
        },
    },
    "dynamic_batching": {
        "preferred_batch_size": _Repeated(_integer),
        "max_queue_delay_microseconds": _integer,
        "preserve_ordering": _boolean,
        "priority_levels": _integer,
        "default_priority_level": _integer,
        "default_queue_policy": _QUEUE_POLICY,
        "priority_queue_policy": _Map(_queue_policy, key=_integer),
    },
    "parameters": _Map(_parameter),
}
