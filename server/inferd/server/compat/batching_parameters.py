"""Translates TensorFlow Serving's batching_parameters_file to inferd's settings.

max_batch_size { value: 128 }  batch_timeout_micros { value: 500 }  num_batch_threads { value: 4 }
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from inferd.server.compat.model_server_config import read_text
from inferd.server.compat.text_format import TextFormatError, TextMessage, Value, parse
from inferd.server.config.errors import ConfigError, Problem, shown
from inferd.server.config.model_schema import MOST_QUEUED

_SAFE: Final = "a large request is split where that was proven safe"
# Fields that are not honoured, and why. A field that is neither here nor in `_NUMBERS` is unknown.
_NOT_HONOURED: Final = {
    "allowed_batch_sizes": "a batch runs with the rows that it has",
    "pad_variable_length_inputs": "see batching.padding of a model",
    "enable_large_batch_splitting": _SAFE,
    "thread_pool_name": "it names nothing here",
}
_NUMBERS: Final = {
    "max_batch_size": 1,
    "max_execution_batch_size": 1,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 1,
    "num_batch_threads": 1,
}


@dataclass(slots=True)
class BatchingParameters:
    """`settings` by dotted key, as `load_config` takes flags, and `notes` on fields that are not honoured."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_batching_parameters(file: Path) -> BatchingParameters:
    """Reads a batching_parameters_file. Raises ConfigError, which names file, field, expected and got."""
    return parse_batching_parameters(read_text(file), str(file))


def parse_batching_parameters(text: str, source: str) -> BatchingParameters:
    """As `read_batching_parameters`, from the text of the file `source`."""
    found = BatchingParameters()
    numbers: dict[str, int] = {}
    notes: dict[str, None] = {}
    try:
        for key, value in parse(text):
            if key in _NUMBERS:
                numbers[key] = _number(key, value)
            else:
                reason = _NOT_HONOURED.get(key, "unknown")
                notes[f"{source}: {key} is not honoured: {reason}"] = None
    except TextFormatError as error:
        raise ConfigError([Problem(source, "", f"BatchingParameters in protobuf's text format ({error})")]) from None
    found.notes.extend(notes)
    # inferd splits requests that are larger than one run, too. So the smaller value bounds a run.
    rows = min((numbers[key] for key in ("max_batch_size", "max_execution_batch_size") if key in numbers), default=0)
    if rows:
        found.settings["batching.max_batch_size"] = rows
    if "batch_timeout_micros" in numbers:
        found.settings["batching.max_queue_delay"] = f"{numbers['batch_timeout_micros']}us"
    if "max_enqueued_batches" in numbers:
        # TensorFlow Serving counts batches in its queue, inferd requests. A batch holds at most one request per row.
        queued = numbers["max_enqueued_batches"] * (numbers.get("max_batch_size") or 1000)
        found.settings["queue.requests"] = min(queued, MOST_QUEUED)  # "without end" is often written as a large number
    if "num_batch_threads" in numbers:
        found.settings["instances.count"] = numbers["num_batch_threads"]
    return found


def _number(key: str, value: Value) -> int:
    """The value of a wrapper message, { value: 8 }. An empty message means 0."""
    if isinstance(value, TextMessage):
        value = dict(value).get("value", 0)
    least = _NUMBERS[key]
    if not isinstance(value, int) or value < least:
        raise TextFormatError(
            f"{key}: expected {{ value: N }} with a whole number of at least {least}, got {shown(value)}"
        )
    return value
