"""TensorFlow Serving's batching_parameters_file as settings of ours.

max_batch_size { value: 128 }  batch_timeout_micros { value: 500 }  num_batch_threads { value: 4 }
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from inferd.server.compat.model_server_config import read_text
from inferd.server.compat.text_format import TextFormatError, TextMessage, Value, parse
from inferd.server.config.errors import ConfigError, Problem

_SAFE: Final = "a large request is split where that was proven safe"
# Not honoured, and why; a field that stands neither here nor below is unknown.
_IDLE: Final = {
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
    """`settings` by dotted key, as `load_config` takes flags, and `notes` on what is not honoured."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_batching_parameters(file: Path) -> BatchingParameters:
    """Reads such a file. Raises ConfigError naming file, field, expected and got."""
    return parse_batching_parameters(read_text(file), str(file))


def parse_batching_parameters(text: str, source: str) -> BatchingParameters:
    """`read_batching_parameters` of the text of a file."""
    found = BatchingParameters()
    numbers: dict[str, int] = {}
    try:
        for key, value in parse(text):
            if key in _NUMBERS:
                numbers[key] = _number(key, value)
            else:
                why = _IDLE.get(key, "unknown")
                note = f"{source}: {key} is not honoured: {why}"
                if note not in found.notes:
                    found.notes.append(note)
    except TextFormatError as error:
        raise ConfigError([Problem(source, "", f"BatchingParameters in protobuf's text format ({error})")]) from None
    # Requests larger than one run are split here, too: what bounds a run is the smaller of the two.
    rows = min((numbers[key] for key in ("max_batch_size", "max_execution_batch_size") if key in numbers), default=0)
    if rows:
        found.settings["batching.max_batch_size"] = rows
    if "batch_timeout_micros" in numbers:
        found.settings["batching.max_queue_delay"] = f"{numbers['batch_timeout_micros']}us"
    if "max_enqueued_batches" in numbers:
        # There a queue is counted in batches, here in requests, of which a batch holds at most its rows.
        found.settings["queue.requests"] = numbers["max_enqueued_batches"] * (numbers.get("max_batch_size") or 1000)
    if "num_batch_threads" in numbers:
        found.settings["instances.count"] = numbers["num_batch_threads"]
    return found


def _number(key: str, value: Value) -> int:
    """The value of a wrapper message, { value: 8 }, in which nothing is 0."""
    if isinstance(value, TextMessage):
        value = dict(value).get("value", 0)
    least = _NUMBERS[key]
    if not isinstance(value, int) or value < least:
        raise TextFormatError(f"{key}: expected {{ value: N }} with a whole number of at least {least}, got {value!r}")
    return value
