"""What a model's settings declare of its inputs and outputs, in the backends' types: signatures and sample rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inferd.backends.api import Array, LoadError, Signature, TensorSpec
from inferd.server.config.schema import DeclaredSignature, ModelConfig, Tensor
from inferd.wire.dtypes import DType, dtype_named
from inferd.wire.numbers import narrowed


def declared_signatures(config: ModelConfig) -> tuple[Signature, ...]:
    """The declared signatures, the default one first."""
    return tuple(map(signature_of, config.signatures))


def signature_of(declared: DeclaredSignature) -> Signature:
    """One declared signature."""
    return Signature(declared.name, tuple(map(_spec, declared.inputs)), tuple(map(_spec, declared.outputs)))


def declared_samples(config: ModelConfig) -> dict[str, Mapping[str, Array]]:
    """The declared samples by signature and input. The scheduler checks whether they fit. Raises LoadError for a sample
    that is no tensor."""
    samples: dict[str, Mapping[str, Array]] = {}
    for declared in config.signatures:
        rows = {tensor.name: _sample(declared.name, tensor) for tensor in declared.inputs if tensor.sample is not None}
        if rows:
            samples[declared.name] = rows
    return samples


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.name, dtype_named(tensor.dtype), tensor.shape, tensor.optional)


def _sample(signature: str, tensor: Tensor) -> Array:
    dtype = dtype_named(tensor.dtype)
    try:
        return _texts(tensor.sample) if dtype is DType.STRING else _numbers(tensor.sample, dtype)
    except (ValueError, TypeError, OverflowError, ImportError) as error:
        raise LoadError(
            f"sample of input {tensor.name!r} of signature {signature!r}: "
            f"expected {tensor.dtype} values in lists: {error}"
        ) from None


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
