"""The requests that a model answers before it takes traffic: from its settings, and recorded beside the version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.backends.api import Array, LoadError, Signature
from inferd.server.config.model_schema import SampleInput, WarmupSample
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.qualification.seeded import seeded_floats, seeded_integers
from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.tensors import WireError, decode

FOLDER = "warmup"  # in the model's directory, as in Triton
_MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One request. `name` says where it comes from, for errors; `signature`: "" for the default one; `runs`: how often
    it is run."""

    name: str
    inputs: Mapping[str, Array]
    signature: str = ""
    runs: int = 1


Recorded = Callable[[Path], Iterable[WarmupRequest]]
"""Takes a version's directory and gives the requests that are recorded there. Raises LoadError."""


def warmup_requests(request: LoadRequest, recorded: Recorded | None) -> Iterator[WarmupRequest]:
    """All warm-up requests of one load. Raises LoadError for one that cannot be read."""
    directory = request.version.path.parent
    for number, sample in enumerate(request.config.warmup.samples, 1):
        yield _sample(sample, number, directory)
    if recorded is not None:
        yield from recorded(request.version.path)


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


def _sample(sample: WarmupSample, number: int, directory: Path) -> WarmupRequest:
    name = sample.name or f"sample {number}"
    inputs = {key: _values(name, key, given, directory) for key, given in sample.inputs.items()}
    return WarmupRequest(name, inputs, runs=sample.runs)


def _values(name: str, key: str, given: SampleInput, directory: Path) -> Array:
    dtype = dtype_named(given.dtype)
    if given.file is not None:
        return _from_file(name, key, given, dtype, directory)
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


def _from_file(name: str, key: str, given: SampleInput, dtype: DType, directory: Path) -> Array:
    assert given.file is not None
    where = f"warm-up request {name!r}: file {FOLDER}/{given.file} of input {key!r}"
    if Path(given.file).is_absolute() or ".." in Path(given.file).parts:
        raise LoadError(f"{where}: expected a name inside {FOLDER}/")
    try:
        with open(directory / FOLDER / given.file, "rb") as source:
            data = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LoadError(f"{where} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise LoadError(f"{where} is larger than {_MAX_BYTES} bytes")
    try:
        return decode(key, dtype, given.shape, data)
    except WireError as error:
        raise LoadError(f"{where}: {error}") from None
