"""Reads Triton's config.pbtxt: a plain mapping of the fields that inferd honours, and the names of all other fields.

The mapping has the field names and the structure of Triton's ModelConfig message; repeated fields are lists, maps are
dicts:

    {"name": "m", "platform": "onnxruntime_onnx", "max_batch_size": 8,
     "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [64]}], "parameters": {"KEY": "value"},
     "version_policy": {"latest": {"num_versions": 1}}, "dynamic_batching": {"preferred_batch_size": [4, 8]}, ...}
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.backends.files import FileRule
from inferd.server.compat.text_format import Name, TextFormatError, TextMessage, Value, parse
from inferd.server.errors import LayoutError

_MAX_BYTES = 4 * 2**20
_LEAST, _LARGEST = -(2**63), 2**64 - 1
# A line up to its comment: a # in quotes begins none.
_BEFORE_COMMENT = re.compile(r"""(?:[^#"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*+""")
_SHOWN = 100  # characters of a value in a message
_SHOWN_FIELDS = 20  # fields that one note names
_SIMILAR = 0.75  # difflib's measure from which on a name counts as misspelt

NOT_HONOURED = frozenset(
    {
        "agents", "allow_ragged_batch", "batch_input", "batch_output", "bool_false_true", "buckets", "busy_wait_events",
        "cc_model_filenames", "control", "control_input", "count", "cuda", "data_file", "device_id", "direct",
        "eager_batching", "enable", "family", "fp32_false_true", "gather_kernel_buffer_threshold",
        "generative_sequence", "global", "graph_lower_bound", "graph_spec", "graphs", "histogram_options",
        "host_policy", "initial_state", "input_name", "input_pinned_memory", "int32_false_true",
        "is_non_linear_format_io", "is_shape_tensor", "iterative_sequence", "key", "max_candidate_sequences",
        "max_sequence_idle_microseconds", "metric_control", "metric_identifier", "metric_tags",
        "minimum_slot_utilization", "model_metrics", "model_operations", "model_repository_agents",
        "model_transaction_policy", "oldest", "op_library_filename", "output_copy_stream", "output_name",
        "output_pinned_memory", "passive", "priority", "profile", "rate_limiter", "resources", "response_cache",
        "secondary_devices", "sequence_batching", "source_input", "state", "target_name", "use_growable_memory",
        "use_same_buffer_for_input_output", "value", "zero_data",
    }
)  # fmt: skip
"""Names of fields of Triton's ModelConfig that inferd does not honour, of all messages in it together."""

Reader = Callable[[Value], Any]


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """`values`: the fields that inferd honours. `unknown`: paths of the other fields, in the file's order."""

    values: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def unknown_text(self) -> str:
        """The paths of the other fields as text; of many, the first ones."""
        more = len(self.unknown) - _SHOWN_FIELDS
        return ", ".join(self.unknown[:_SHOWN_FIELDS]) + (f" and {more} more" if more > 0 else "")


def read_triton_config(file: Path, model: str) -> TritonConfig:
    """Reads the config.pbtxt of the model `model`. Raises LayoutError, which names file, field, expected and got."""
    try:
        data = FileRule(os.path.abspath(file.parent), None).read(file.name, _MAX_BYTES)
    except OSError as error:
        raise LayoutError(f"{file} cannot be read: {error.strerror or error}") from None
    return parse_triton_config(data, str(file), model)


def _text(data: bytes, source: str) -> str:
    """The text of a file. In comments any bytes may stand, because protobuf's own parser does not look at them. Raises
    LayoutError for bytes elsewhere that are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    lines = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        found = _BEFORE_COMMENT.match(line)
        code = line if found is None else found[0]
        if not code.isascii() and any("\udc80" <= char <= "\udcff" for char in code):
            raise LayoutError(f"{source}: line {number}: expected text in UTF-8, got other bytes")
        lines[number - 1] = code
    return "\n".join(lines)


def parse_triton_config(data: bytes, source: str, model: str) -> TritonConfig:
    """As `read_triton_config`, from the content of the file `source`."""
    try:
        values, unknown = triton_config(_text(data, source))
    except TextFormatError as error:
        raise LayoutError(f"{source}: {error}") from None
    name = values.get("name", "")
    if name and name != model:
        line = values.lines.get("name", 0)
        raise LayoutError(
            f"{source}: line {line}: name: expected {model!r} (the directory's name) or nothing, got {name[:100]!r}"
        )
    return TritonConfig(values, tuple(unknown))


def triton_config(text: str) -> tuple[TritonFields, list[str]]:
    """The mapping and the unknown fields of the text of a config.pbtxt. Raises TextFormatError."""
    unknown: dict[str, None] = {}
    fields = TritonFields()
    fields.update(read_message(parse(text), MODEL, "", unknown, fields.lines))
    return fields, list(unknown)


class TritonFields(dict[str, Any]):
    """The mapping of a file. `lines`: where in the file its fields are, by path, such as "input[0].dims"."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class Repeated:
    """A repeated field. `item` reads each occurrence, or each item of a list."""

    def __init__(self, item: Reader | dict[str, Any]) -> None:
        self.item = item


class Map:
    """A map field: occurrences of { key: ... value: ... }. `only`: the values are messages of which this field alone is
    kept."""

    def __init__(self, item: Reader | dict[str, Any], key: Reader | None = None, only: str = "") -> None:
        self.item = item
        self.key = key or string
        self.only = only


def read_message(
    fields: TextMessage,
    schema: dict[str, Any],
    path: str,
    unknown: dict[str, None],
    lines: dict[str, int] | None = None,
    place: str = "",
) -> dict[str, Any]:
    """The mapping of a message at `path`. Adds the paths of fields that `schema` does not have to `unknown` (as its
    keys), and the lines of the others to `lines`; there the message is at `place`, which has the numbers of items.
    Raises TextFormatError."""
    reader = _MessageReader(schema, path, place, unknown, {} if lines is None else lines)
    for number, (name, value) in enumerate(fields):
        line = fields.lines[number] if number < len(fields.lines) else 0
        try:
            reader.read(name, value, line)
        except TextFormatError as error:
            raise error.at(line) from None
    return reader.found


class _MessageReader:
    """Reads the fields of one message. `found`: what was read so far."""

    def __init__(
        self, schema: dict[str, Any], path: str, place: str, unknown: dict[str, None], lines: dict[str, int]
    ) -> None:
        self.found: dict[str, Any] = {}
        self._schema = schema
        self._path = path
        self._place = place
        self._unknown = unknown
        self._lines = lines

    def read(self, name: str, value: Value, line: int) -> None:
        """Reads one field. Raises TextFormatError."""
        where = f"{self._path}.{name}" if self._path else name
        place = f"{self._place}.{name}" if self._place else name
        kind = self._schema.get(name)
        if kind is None:
            check_unknown(name, where, self._schema)
            self._unknown[where] = None
            return
        before = self._lines.get(place, 0)
        self._note(place, line)
        if isinstance(kind, Repeated):
            known = self.found.setdefault(name, [])
            for item in value if isinstance(value, list) and not isinstance(value, TextMessage) else [value]:
                known.append(self._value(item, kind.item, where, f"{place}[{len(known)}]", line))
        elif isinstance(kind, Map):
            for entry in value if isinstance(value, list) and not isinstance(value, TextMessage) else [value]:
                pair = dict(_expect_message(entry, where))
                key = kind.key(pair.get("key", "" if kind.key is string else 0))
                given = pair.get("value", TextMessage() if isinstance(kind.item, dict) else "")
                inner = self._value(given, kind.item, f"{where}[{key}]", f"{place}[{key}]", line)
                self.found.setdefault(name, {})[key] = inner.get(kind.only, "") if kind.only else inner
        elif name in self.found:
            first = f" (the first time in line {before})" if before else ""
            raise TextFormatError(f"{where}: expected once, got twice{first}")
        else:
            self.found[name] = self._value(value, kind, where, place, line)

    def _value(self, value: Value, kind: Any, where: str, place: str, line: int) -> Any:
        self._note(place, line)
        if isinstance(kind, dict):
            return read_message(_expect_message(value, where), kind, where, self._unknown, self._lines, place)
        return _read(value, kind, where)

    def _note(self, place: str, line: int) -> None:
        if line:
            self._lines.setdefault(place, line)


def check_unknown(name: str, where: str, schema: Mapping[str, Any]) -> None:
    """Raises TextFormatError for a field that is none of Triton's and nearly one that inferd honours: it is misspelt.
    Other unknown fields are for the caller to note."""
    if name in NOT_HONOURED:
        return
    near = difflib.get_close_matches(name, schema, n=1, cutoff=_SIMILAR)
    if near:
        raise TextFormatError(f"{where}: expected a known field, got an unknown one; did you mean {near[0]}?")


def _read(value: Value, kind: Any, where: str) -> Any:
    try:
        return kind(value)
    except TextFormatError as error:
        raise TextFormatError(f"{where}: {error}") from None


def _expect_message(value: Value, where: str) -> TextMessage:
    if isinstance(value, TextMessage):
        return value
    raise TextFormatError(f"{where}: expected {{ ... }}, got {_shown(value)}")


def string(value: Value) -> str:
    """Reads a quoted string. Raises TextFormatError."""
    if isinstance(value, str) and not isinstance(value, Name):
        return value
    raise TextFormatError(f"expected a quoted string, got {_shown(value)}")


def integer(value: Value) -> int:
    """Reads an integer. Raises TextFormatError."""
    if not isinstance(value, int):
        raise TextFormatError(f"expected an integer, got {_shown(value)}")
    if not _LEAST <= value <= _LARGEST:
        raise TextFormatError(f"expected an integer of at most 64 bits, got {_shown(value)}")
    return value


def boolean(value: Value) -> bool:
    """Reads true or false. Raises TextFormatError."""
    if isinstance(value, Name) and value in ("true", "True", "t"):
        return True
    if isinstance(value, Name) and value in ("false", "False", "f"):
        return False
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise TextFormatError(f"expected true or false, got {_shown(value)}")


def word(value: Value) -> str:
    """Reads an enum's name. Raises TextFormatError."""
    if isinstance(value, Name):
        return str(value)
    raise TextFormatError(f"expected a name such as TYPE_FP32 or KIND_CPU, got {_shown(value)}")


def _shown(value: Value) -> str:
    if isinstance(value, TextMessage):
        return "{ ... }"
    if isinstance(value, list):
        return "[ ... ]"
    text = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def enum(*names: str) -> Reader:
    """A reader for an enum: by name, or by number, which is the position in `names`. Text format and JSON allow both.
    The reader raises TextFormatError."""
    listed = ", ".join(name for name in names if not name.endswith("_INVALID"))

    def read(value: Value) -> str:
        if isinstance(value, int) and 0 <= value < len(names):
            return names[value]
        if not isinstance(value, Name):
            quoted = " without quotes" if isinstance(value, str) else ""
            raise TextFormatError(f"expected one of {listed}{quoted}, got {_shown(value)}")
        if value in names:
            return str(value)
        given = _TYPES_ELSEWHERE.get(value.removeprefix("TYPE_"), str(value))
        near = difflib.get_close_matches(given, names, n=1, cutoff=_SIMILAR)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise TextFormatError(f"expected one of {listed}, got {_shown(value)}{meant}")

    return read


# What other systems call element types.
_TYPES_ELSEWHERE = {
    "FLOAT": "TYPE_FP32", "FLOAT32": "TYPE_FP32", "DOUBLE": "TYPE_FP64", "FLOAT64": "TYPE_FP64", "HALF": "TYPE_FP16",
    "FLOAT16": "TYPE_FP16", "BFLOAT16": "TYPE_BF16", "INT": "TYPE_INT32", "LONG": "TYPE_INT64", "BYTES": "TYPE_STRING",
    "BOOLEAN": "TYPE_BOOL", "UINT": "TYPE_UINT32",
    "BOOL": "TYPE_BOOL", "STRING": "TYPE_STRING", "FP16": "TYPE_FP16", "FP32": "TYPE_FP32", "FP64": "TYPE_FP64",
    "BF16": "TYPE_BF16", "INT8": "TYPE_INT8", "INT16": "TYPE_INT16", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64",
    "UINT8": "TYPE_UINT8", "UINT16": "TYPE_UINT16", "UINT32": "TYPE_UINT32", "UINT64": "TYPE_UINT64",
}  # fmt: skip


_TYPE = enum(
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
)  # fmt: skip
_KIND = enum("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")
_FORMAT = enum("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW")
_TIMEOUT_ACTION = enum("REJECT", "DELAY")
_RESHAPE = {"shape": Repeated(integer)}
_SAMPLE_INPUT = {
    "data_type": _TYPE, "dims": Repeated(integer), "zero_data": boolean, "random_data": boolean,
    "input_data_file": string,
}  # fmt: skip
_INPUT = {
    "name": string, "data_type": _TYPE, "format": _FORMAT, "dims": Repeated(integer), "reshape": _RESHAPE,
    "optional": boolean,
}  # fmt: skip
_OUTPUT = {
    "name": string, "data_type": _TYPE, "dims": Repeated(integer), "reshape": _RESHAPE, "label_filename": string,
}  # fmt: skip
_QUEUE_POLICY = {
    "timeout_action": _TIMEOUT_ACTION, "default_timeout_microseconds": integer, "allow_timeout_override": boolean,
    "max_queue_size": integer,
}  # fmt: skip
MODEL: dict[str, Any] = {
    "name": string,
    "platform": string,
    "backend": string,
    "runtime": string,
    "max_batch_size": integer,
    "default_model_filename": string,
    "input": Repeated(_INPUT),
    "output": Repeated(_OUTPUT),
    "version_policy": {
        "latest": {"num_versions": integer},
        "all": {},
        "specific": {"versions": Repeated(integer)},
    },
    "instance_group": Repeated(
        {"name": string, "kind": _KIND, "count": integer, "gpus": Repeated(integer)},
    ),
    "ensemble_scheduling": {
        "step": Repeated(
            {
                "model_name": string,
                "model_version": integer,
                "input_map": Map(string),
                "output_map": Map(string),
                "model_namespace": string,
            },
        ),
        "max_inflight_requests": integer,
    },
    "model_warmup": Repeated(
        {"name": string, "batch_size": integer, "inputs": Map(_SAMPLE_INPUT), "count": integer},
    ),
    "model_transaction_policy": {"decoupled": boolean},
    "optimization": {
        "graph": {"level": integer},
        "execution_accelerators": {
            "gpu_execution_accelerator": Repeated({"name": string, "parameters": Map(string)}),
            "cpu_execution_accelerator": Repeated({"name": string, "parameters": Map(string)}),
        },
    },
    "dynamic_batching": {
        "preferred_batch_size": Repeated(integer),
        "max_queue_delay_microseconds": integer,
        "preserve_ordering": boolean,
        "priority_levels": integer,
        "default_priority_level": integer,
        "default_queue_policy": _QUEUE_POLICY,
        "priority_queue_policy": Map(_QUEUE_POLICY, key=integer),
    },
    "parameters": Map({"string_value": string}, only="string_value"),
}
