"""Sample rows: arrays by input name, in a file that people and other programs write.

    .npz   arrays by name; `expected` is no input: labels, or outputs, that a gate compares with
    .npy   one array, for a model with one input
    .csv   columns by their names in the first line, for models with an input for each column

Files are read without pickle: they can hold numbers, truth values and texts.
"""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array, Signature, TensorSpec
from inferd.server.publishing.errors import PublishError
from inferd.wire.dtypes import DType

EXPECTED: Final = "expected"
"""The name of the labels or outputs in a file of sample rows."""
ONLY: Final = "input"
"""The name of an array without one: the content of a .npy file."""
MOST_BYTES: Final = 4 * 2**30  # of one sample in memory
_MOST_CSV: Final = 512 * 2**20


@dataclass(frozen=True, slots=True)
class SampleRows:
    """inputs     arrays by name, as the file has them
    expected   labels or outputs, None: the file has none
    """

    inputs: Mapping[str, Array]
    expected: Array | None = None

    @property
    def rows(self) -> int:
        """Rows of the first input."""
        return next((len(array) for array in self.inputs.values() if array.ndim), 0)


def read_rows(path: Path) -> SampleRows:
    """Reads a file of sample rows. Raises PublishError."""
    try:
        arrays = _read(path)
    except FileNotFoundError:
        raise PublishError(f"{path} does not exist; expected sample rows in a .npz, .npy or .csv file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, MemoryError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if "allow_pickle" in reason:
            reason = "it holds Python objects; store texts as numpy texts (array.astype(str)) and numbers as numbers"
        raise PublishError(f"{path} cannot be read as sample rows: {reason}") from None
    expected = arrays.pop(EXPECTED, None)
    if not arrays:
        raise PublishError(f"{path} holds no input; expected arrays by input name")
    return SampleRows(arrays, expected)


def write_rows(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name to a .npz file that `read_rows` reads. Raises OSError."""
    np.savez(path, allow_pickle=False, **{name: _plain(array) for name, array in arrays.items()})


def fit_rows(signature: Signature, sample: SampleRows) -> dict[str, Array]:
    """The inputs of a signature from sample rows: names, element types and shapes are checked. A single array fits a
    single input, whatever its name; [n] fits [-1, 1]. Raises PublishError."""
    specs = {spec.name: spec for spec in signature.inputs}
    inputs = dict(sample.inputs)
    needed = [spec.name for spec in signature.inputs if not spec.optional]
    if len(inputs) == 1 and len(needed) == 1 and not inputs.keys() & specs.keys():
        inputs = {needed[0]: next(iter(inputs.values()))}
    unknown = [name for name in inputs if name not in specs]
    if unknown:
        raise PublishError(f"the sample has no fitting inputs: it holds {_list(inputs)}, the model has {_list(specs)}")
    missing = [name for name in needed if name not in inputs]
    if missing:
        raise PublishError(f"the sample lacks {_list(missing)}: the model's inputs are {_list(specs)}")
    return {name: _fit(specs[name], array) for name, array in inputs.items()}


def _list(names: Any) -> str:
    every = [repr(name[:60]) for name in names]
    return ", ".join(every[:10]) + (f" and {len(every) - 10} more" if len(every) > 10 else "")


def _read(path: Path) -> dict[str, Array]:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"its arrays have {size} bytes, more than {MOST_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if suffix == ".npy":
        return {ONLY: np.load(path, allow_pickle=False)}
    if suffix == ".csv":
        return _csv(path)
    raise ValueError("its name does not end in .npz, .npy or .csv")


def _csv(path: Path) -> dict[str, Array]:
    if os.stat(path).st_size > _MOST_CSV:
        raise ValueError(f"it is larger than {_MOST_CSV} bytes; give a .npz file")
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file))
    if len(lines) < 2:
        raise ValueError("expected names in the first line, and rows below")
    names, rows = lines[0], [line for line in lines[1:] if line]
    for line in rows:
        if len(line) != len(names):
            raise ValueError(f"a row has {len(line)} values, the first line names {len(names)} columns")
    return {name: _column([line[i] for line in rows]) for i, name in enumerate(names)}


def _column(values: list[str]) -> Array:
    for kind in (np.int64, np.float64):
        try:
            return np.array(["nan" if value == "" and kind is np.float64 else value for value in values]).astype(kind)
        except ValueError:
            continue
    return np.array(values)


def _fit(spec: TensorSpec, array: Array) -> Array:
    if spec.dtype is DType.STRING:
        value = texts(array)
    else:
        if array.dtype.kind not in "biufV" and array.dtype != spec.dtype.numpy:
            raise PublishError(f"sample for input {spec.name!r}: expected {spec.dtype.name}, got {array.dtype}")
        value = np.ascontiguousarray(array.astype(spec.dtype.numpy, copy=False))
        if spec.dtype.numpy.kind in "biu" and not np.array_equal(value, array):
            raise PublishError(f"sample for input {spec.name!r}: not all of its numbers fit {spec.dtype.name}")
    if spec.shape is None:
        return value
    if value.ndim == len(spec.shape) - 1 and spec.shape[-1] in (1, -1) and spec.shape[:1] == (-1,):
        value = value[..., np.newaxis]  # a column of a table: [n] for [-1, 1]
    if value.ndim != len(spec.shape) or any(
        want not in (-1, got) for want, got in zip(spec.shape[1:], value.shape[1:], strict=True)
    ):
        raise PublishError(
            f"sample for input {spec.name!r}: expected shape {list(spec.shape)}, got {list(array.shape)}"
        )
    return value


def texts(array: Array) -> Array:
    """An array of texts or bytes as STRING inputs are given: objects of `bytes`."""
    out = np.empty(array.size, object)
    out[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return out.reshape(array.shape)


def _plain(array: Array) -> Array:
    """The array without Python objects."""
    if array.dtype != object:
        return array.astype(np.float32) if array.dtype.kind == "V" else array
    items = [item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item) for item in array.flat]
    return np.array([item.encode("utf-8", "backslashreplace").decode() for item in items], dtype=str).reshape(
        array.shape
    )
