"""What callers pass as inputs, to named arrays.

Arrays travel as they are: their element type is the caller's word and is never changed. Lists and plain Python values
have no element type, and a lone array no name; both take them from the model's signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType

from ._errors import InvalidInput
from ._models import ModelMetadata, TensorSpec
from ._prediction import Array


def plain_arrays(inputs: object) -> dict[str, Array] | None:
    """The inputs when they need no signature: a mapping of arrays only. None otherwise. This is the fast way."""
    if not isinstance(inputs, Mapping):
        return None
    arrays: dict[str, Array] = {}
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, np.generic) or (hasattr(value, "__array__") and not isinstance(value, type)):
            arrays[name] = np.asarray(value)
        else:
            return None
    return arrays


def described_arrays(inputs: object, metadata: ModelMetadata | None, signature_name: str | None) -> dict[str, Array]:
    """The inputs with what the signature says of them; `metadata` None: the server has none, numpy's types stay.

    Raises InvalidInput for ragged lists, values that the element type cannot hold, a lone value for several inputs.
    """
    signature = metadata.signature(signature_name) if metadata is not None else None
    specs = {spec.name: spec for spec in signature.inputs} if signature is not None else {}
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(metadata, specs): inputs}
    return {name: _array(name, value, specs.get(name)) for name, value in inputs.items()}


def _only_input(metadata: ModelMetadata | None, specs: Mapping[str, TensorSpec]) -> str:
    required = [spec.name for spec in specs.values() if not spec.optional] or list(specs)
    if len(required) == 1:
        return required[0]
    if metadata is None:
        raise InvalidInput(
            "inputs: expected a mapping of name to array; this server does not say what the input is called"
        )
    raise InvalidInput(
        f"inputs: expected a mapping of name to array, because {metadata.name!r} takes {len(required)} inputs: "
        f"{', '.join(required)}"
    )


def _array(name: str, value: object, spec: TensorSpec | None) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return np.asarray(value)
    try:
        found = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"input {name!r}: the list is no array: {error}") from None
    wanted = spec.dtype if spec is not None else None
    if wanted is None:
        if found.dtype.kind == "O":
            raise InvalidInput(f"input {name!r}: {type(value).__name__} is no array, list or number")
        return found
    return _as_type(name, value, found, wanted)


def _as_type(name: str, value: object, found: Array, wanted: DType) -> Array:
    if wanted is DType.STRING:
        return _strings(name, value, found)
    try:
        target = wanted.numpy
    except ImportError as error:
        raise InvalidInput(f"input {name!r}: {error}") from None
    if found.size == 0:
        return found.astype(target) if found.dtype.kind != "O" else np.zeros(found.shape, target)
    # bool < integers < floats: upwards is always meant; downwards would silently change what the caller wrote.
    rank = {"b": 0, "i": 1, "u": 1, "f": 2}
    have, want = rank.get(found.dtype.kind), rank.get(target.kind, 2)
    if have is None or have > want:
        raise InvalidInput(f"input {name!r}: the model takes {wanted.name}, the list holds {_kind(found)}")
    if want == 1:
        limits = np.iinfo(target)
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(f"input {name!r}: {low if low < limits.min else high} does not fit into {wanted.name}")
    with np.errstate(over="ignore"):
        return found.astype(target)


def _strings(name: str, value: object, found: Array) -> Array:
    if found.size == 0:
        return np.zeros(found.shape, object)
    if found.dtype.kind == "O":
        flat: list[Any] = found.ravel().tolist()
        wrong = {type(item).__name__ for item in flat if not isinstance(item, str | bytes)}
        if not wrong:
            return found
        raise InvalidInput(f"input {name!r}: the model takes STRING, the list holds {', '.join(sorted(wrong))}")
    if found.dtype.kind not in "SU":
        raise InvalidInput(f"input {name!r}: the model takes STRING, the list holds {_kind(found)}")
    # numpy's fixed-width types drop trailing zero bytes and mix str into bytes; object arrays keep what was written.
    return np.array(value, dtype=object)


def _kind(array: Array) -> str:
    names = {
        "b": "booleans",
        "i": "integers",
        "u": "integers",
        "f": "floats",
        "U": "text",
        "S": "bytes",
        "c": "complex",
    }
    return names.get(array.dtype.kind, f"{type(array.ravel()[0]).__name__} values")
