"""Finds out without TensorFlow whether a SavedModel is complete: from names, headers and sizes.

    saved_model.pb                       protobuf: must parse to its end at the top level and hold a graph
    variables/variables.index            a table; it must end with a footer that holds a magic number
    variables/variables.data-0000i-of-N  every shard i < N must exist

The usual incomplete state is a copy that has written only saved_model.pb so far. TensorFlow loads such a model, which
then answers wrongly or never.
"""

from __future__ import annotations

import re
from pathlib import Path

from inferd.backends.files import regular_file

PB = "saved_model.pb"
PBTXT = "saved_model.pbtxt"
_TABLE_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_FOOTER = 48
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")
_VARIABLE_OPS = (b"VarHandleOp", b"VariableV2", b"VarIsInitializedOp")
_META_GRAPHS = 2
_MOST_FIELDS = 10_000  # a SavedModel has a version and a few graphs; a file of empty fields would take hours to read
_CHUNK = 2**20


def missing(directory: Path) -> str | None:
    """None if the SavedModel's files exist and are whole, as far as names, headers and sizes show; else what is
    wrong."""
    try:
        return _graph_lacks(directory) or _variables_lack(directory)
    except OSError as error:
        return f"{directory.name} cannot be read: {error.strerror or error}"


def _graph_lacks(directory: Path) -> str | None:
    if (directory / PBTXT).is_file() and not (directory / PB).is_file():
        return None
    path = directory / PB
    if not path.is_file():
        return f"{PB} is missing"
    size = path.stat().st_size
    graphs = fields = 0
    with open(regular_file(path), "rb") as file:
        while (at := file.tell()) < size:
            fields += 1
            if fields > _MOST_FIELDS:
                return f"{PB} has more than {_MOST_FIELDS} parts: no SavedModel"
            field = _field(file.read(20))
            if field is None:
                return f"{PB} is cut short or no protobuf at byte {at} of {size}"
            number, header, content = field
            if at + header + content > size:
                return f"{PB} is cut short: {at + header + content} bytes are announced, {size} are there"
            graphs += number == _META_GRAPHS
            file.seek(at + header + content)
    return None if graphs else f"{PB} holds no graph: it is empty or cut short"


def _field(data: bytes) -> tuple[int, int, int] | None:
    """(number, bytes of the header, bytes of the content) of the protobuf field at the start of `data`; None if there
    is no valid field."""
    tag = _varint(data, 0)
    if tag is None or not tag[0] >> 3:
        return None
    wire_type, at = tag[0] & 7, tag[1]
    if wire_type == 0:
        value = _varint(data, at)
        return None if value is None else (tag[0] >> 3, value[1], 0)
    if wire_type == 2:
        length = _varint(data, at)
        return None if length is None else (tag[0] >> 3, length[1], length[0])
    return {1: (tag[0] >> 3, at, 8), 5: (tag[0] >> 3, at, 4)}.get(wire_type)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return None
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    return None


def _variables_lack(directory: Path) -> str | None:
    variables = directory / "variables"
    index = variables / "variables.index"
    if not index.is_file():
        shards = sorted(p.name for p in variables.glob("variables.data-*")) if variables.is_dir() else []
        if shards:
            return f"variables/variables.index is missing beside {shards[0]}"
        if variables.is_dir() and any(variables.iterdir()):
            return "variables/variables.index is missing"
        return "variables/ is missing, and the graph has variables" if _has_variables(directory / PB) else None
    with open(regular_file(index), "rb") as file:
        size = index.stat().st_size
        file.seek(max(0, size - _FOOTER))
        if size < _FOOTER or not file.read().endswith(_TABLE_MAGIC):
            return "variables/variables.index is cut short"
    found = [match for p in variables.iterdir() if (match := _SHARD.fullmatch(p.name))]
    if not found:
        return "variables/variables.data-* is missing"
    counts = {int(match[2]) for match in found}
    if len(counts) > 1:
        return f"variables/ holds shards of two checkpoints: of {' and of '.join(map(str, sorted(counts)))}"
    (count,) = counts
    absent = sorted(set(range(count)) - {int(match[1]) for match in found})
    if absent:
        return f"variables/variables.data-{absent[0]:05}-of-{count:05} is missing"
    return None


def _has_variables(path: Path) -> bool:
    """Whether a graph names an operator that makes a variable. Reads in pieces: a file that may still be written to
    must not be memory-mapped."""
    if not path.is_file():
        return False
    longest = max(map(len, _VARIABLE_OPS)) - 1
    tail = b""
    with open(regular_file(path), "rb") as file:
        while chunk := file.read(_CHUNK):
            text = tail + chunk
            if any(op in text for op in _VARIABLE_OPS):
                return True
            tail = text[-longest:]
    return False
