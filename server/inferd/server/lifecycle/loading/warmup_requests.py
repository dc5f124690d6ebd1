"""The requests that a model answers before it takes traffic: from its settings, and recorded beside the version."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.backends.api import Array, LoadError, Signature
from inferd.backends.files import FileRule
from inferd.server.config.model_schema import SampleInput, WarmupSample
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.qualification.seeded import seeded_floats, seeded_integers
from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.tensors import MAX_RANK, WireError, decode

FOLDER = "warmup"  # in the model's directory, as in Triton
_MAX_BYTES = 2**30  # of one file, and of all requests in the settings together
_REFERENCE = 8  # bytes of a text's place in an array


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One request. `name` says where it comes from, for errors; `signature`: "" for the default one; `runs`: how often
    it is run."""

    name: str
    inputs: Mapping[str, Array]
    signature: str = ""
    runs: int = 1


Recorded = Callable[[Path, FileRule], Iterable[WarmupRequest]]
"""Takes a version's directory and the rule by which its files may be read, and gives the requests that are recorded
there. Raises LoadError."""


def warmup_requests(request: LoadRequest, recorded: Recorded | None) -> Iterator[WarmupRequest]:
    """All warm-up requests of one load. Raises LoadError for one that cannot be read."""
    directory, rule = request.version.model_directory, request.version.rule
    size = 0
    for number, sample in enumerate(request.config.warmup.samples, 1):
        size += _size(sample, number)
        if size > _MAX_BYTES:
            raise LoadError(f"the warm-up requests take {size} bytes and more: expected at most {_MAX_BYTES} together")
        yield _sample(sample, number, directory, rule)
    if recorded is not None:
        yield from recorded(request.version.path, rule)


def checked(
    requests: Iterable[WarmupRequest],
    id: ServableId,  # noqa: A002
    signatures: Mapping[str, Signature],
) -> Iterator[tuple[str, str, Mapping[str, Array], int]]:
    """The requests in the scheduler's form: name, signature, inputs, runs. Raises LoadError for one that does not fit
    the model."""
    default = next(iter(signatures))
    for request in requests:
        signature = signatures.get(request.signature or default)
        if signature is None:
            known = ", ".join(map(repr, signatures))
            raise LoadError(f"warm-up request {request.name!r}: no signature {request.signature!r}; there is {known}")
        try:
            check_request(id, signature, request.inputs, ())
        except InvalidRequest as error:
            raise LoadError(f"warm-up request {request.name!r}: {error}") from None
        yield request.name, signature.name, request.inputs, request.runs


def _name(sample: WarmupSample, number: int) -> str:
    return sample.name or f"sample {number}"


def _size(sample: WarmupSample, number: int) -> int:
    """The bytes of a request's inputs. Raises LoadError for a shape that no array can have."""
    size = 0
    for key, given in sample.inputs.items():
        if len(given.shape) > MAX_RANK:
            where = f"warm-up request {_name(sample, number)!r}: input {key!r}"
            raise LoadError(f"{where}: expected at most {MAX_RANK} dimensions, got {len(given.shape)}")
        size += math.prod(given.shape) * max(1, dtype_named(given.dtype).itemsize or _REFERENCE)
    return size


def _sample(sample: WarmupSample, number: int, directory: Path, rule: FileRule) -> WarmupRequest:
    name = _name(sample, number)
    inputs = {key: _values(name, key, given, directory, rule) for key, given in sample.inputs.items()}
    return WarmupRequest(name, inputs, runs=sample.runs)


def _values(name: str, key: str, given: SampleInput, directory: Path, rule: FileRule) -> Array:
    dtype = dtype_named(given.dtype)
    if given.file is not None:
        return _from_file(name, key, given, dtype, directory, rule)
    if dtype is DType.STRING:
        out = np.empty(given.shape, dtype=object)
        out[...] = b"" if given.fill == "zero" else b"warmup"
        return out
    if given.fill == "zero":
        return np.zeros(given.shape, dtype.numpy)
    # Small whole numbers for all integer types: the model may use them as indices.
    small = dtype.numpy.kind in "biu"
    values = seeded_integers(2, given.shape) if small else seeded_floats(given.shape)
    return values.astype(dtype.numpy)


def _from_file(name: str, key: str, given: SampleInput, dtype: DType, directory: Path, rule: FileRule) -> Array:
    assert given.file is not None
    where = f"warm-up request {name!r}: file {FOLDER}/{given.file} of input {key!r}"
    if Path(given.file).is_absolute() or ".." in Path(given.file).parts:
        raise LoadError(f"{where}: expected a name inside {FOLDER}/")
    try:
        data = rule.read(directory / FOLDER / given.file, _MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise LoadError(f"{where} cannot be read: {reason}") from None
    try:
        return decode(key, dtype, given.shape, data)
    except WireError as error:
        raise LoadError(f"{where}: {error}") from None
