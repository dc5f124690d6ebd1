"""What a model's settings declare of its inputs and outputs, in the backends' types: signatures and sample rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import Array, LoadError, Signature, TensorSpec
from inferd.server.config.schema import DeclaredSignature, ModelConfig, Tensor
from inferd.server.repository.disk import VersionOnDisk
from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.numbers import narrowed

_MAX_BYTES = 64 * 2**20  # of one file of a sample


def declared_signatures(config: ModelConfig) -> tuple[Signature, ...]:
    """The declared signatures, the default one first."""
    return tuple(map(signature_of, config.signatures))


def signature_of(declared: DeclaredSignature) -> Signature:
    """One declared signature."""
    return Signature(declared.name, tuple(map(_spec, declared.inputs)), tuple(map(_spec, declared.outputs)))


def declared_samples(config: ModelConfig, version: VersionOnDisk | None = None) -> dict[str, Mapping[str, Array]]:
    """The declared samples by signature and input. The scheduler checks whether they fit. `version`: of which model and
    by which rule files of samples are read. Raises LoadError for a sample that is no tensor, or whose file cannot be
    read."""
    samples: dict[str, Mapping[str, Array]] = {}
    for declared in config.signatures:
        rows = {}
        for tensor in declared.inputs:
            if tensor.sample is not None:
                where = f"sample of input {tensor.name!r} of signature {declared.name!r}"
                rows[tensor.name] = _sample(where, tensor, version)
        if rows:
            samples[declared.name] = rows
    return samples


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.name, dtype_named(tensor.dtype), tensor.shape, tensor.optional)


def _sample(where: str, tensor: Tensor, version: VersionOnDisk | None) -> Array:
    dtype = dtype_named(tensor.dtype)
    try:
        if dtype is DType.STRING:
            return _texts(_with_files(where, tensor.sample, version))
        return _numbers(tensor.sample, dtype)
    except (ValueError, TypeError, OverflowError, ImportError) as error:
        raise LoadError(f"{where}: expected {tensor.dtype} values in lists: {error}") from None


def _with_files(where: str, value: Any, version: VersionOnDisk | None) -> Any:
    """The value of a sample, with the content of a file in the place of each {file: NAME}."""
    if isinstance(value, list | tuple):
        return [_with_files(where, item, version) for item in value]
    if not isinstance(value, Mapping):
        return value
    name = value.get("file")
    if set(value) != {"file"} or not isinstance(name, str) or not name:
        raise ValueError(f"expected a text or {{file: NAME}}, got {str(value)[:100]}")
    if Path(name).is_absolute() or ".." in Path(name).parts or version is None:
        raise LoadError(f"{where}: expected a file in the model's directory, got {name[:200]!r}")
    try:
        return version.rule.read(version.model_directory / name, _MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise LoadError(f"{where}: {name} cannot be read: {reason}") from None


def _numbers(value: object, dtype: DType) -> Array:
    wide = np.asarray(value)
    if dtype is DType.BOOL or not wide.size:
        return np.asarray(value, dtype.numpy)
    if wide.dtype.kind not in "iuf":
        raise ValueError(f"got {wide.reshape(-1)[0].item()!r}")
    return narrowed(wide, dtype, "a number")


def _texts(value: object) -> Array:
    array = np.array(value, dtype=object)
    flat = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    if not all(isinstance(item, bytes) for item in flat):
        raise ValueError("expected texts, nested evenly")
    out = np.empty(array.size, dtype=object)
    out[:] = flat
    return out.reshape(array.shape)
