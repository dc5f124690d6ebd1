"""Turns the inputs that callers pass into named arrays.

Arrays are sent as they are: the caller has chosen their element type, so it is never changed. Lists and plain Python
values have no element type, and a single value without a mapping has no name; these are taken from the model's
signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from inferd.client._shared.errors import InvalidInput
from inferd.client._shared.models import ModelMetadata, TensorSpec
from inferd.client._shared.prediction import Array
from inferd.wire.dtypes import DType


def plain_arrays(inputs: object) -> dict[str, Array] | None:
    """The inputs if they need no signature, that is, if they are a mapping of names to arrays; else None. This is the
    fast path."""
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
    """The inputs with the names and element types of the signature. If `metadata` is None (the server has none), lists
    get numpy's element types.

    Raises InvalidInput for lists of unequal lengths, for values that the element type cannot hold, and for a value
    without a name if the model has several inputs.
    """
    if inputs is None:
        raise InvalidInput("inputs is None; expected a mapping of name to array, or the array of the only input")
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
    if value is None or isinstance(value, Mapping | Set | type):
        what = "None" if value is None else f"a {type(value).__name__}"
        raise InvalidInput(
            f"input {name!r} is {what}; expected an array, a list or a number (leave out what is optional)"
        )
    wanted = spec.dtype if spec is not None else None
    try:
        # numpy's fixed-width string types drop trailing zero bytes and mix str with bytes; objects keep the values.
        found = np.array(value, dtype=object) if wanted is DType.STRING else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"input {name!r}: the list is no array: {error}") from None
    if wanted is None:
        if found.dtype.kind == "O":
            if found.shape:
                raise InvalidInput(f"input {name!r}: the list holds {_elements_word(found)}; expected numbers or text")
            raise InvalidInput(f"input {name!r}: {type(value).__name__} is no array, list or number")
        return found
    return _as_type(name, value, found, wanted)


def _as_type(name: str, value: object, found: Array, wanted: DType) -> Array:
    if wanted is DType.STRING:
        return _strings(name, found)
    try:
        target = wanted.numpy
    except ImportError as error:
        raise InvalidInput(f"input {name!r}: {error}") from None
    if found.size == 0:
        return found.astype(target) if found.dtype.kind != "O" else np.zeros(found.shape, target)
    # bool < integers < floats: to convert upwards is always meant. To convert downwards would silently change values.
    if found.dtype.kind == "O" or (found.dtype.kind == "f" and target.kind in "iu"):
        found = _exact(value, found)
    whole = found.dtype.kind in "iu" or _holds_integers(found)
    if not (
        found.dtype.kind == "b" or (target.kind != "b" and whole) or (target.kind in "fV" and found.dtype.kind == "f")
    ):
        raise InvalidInput(f"input {name!r}: the model takes {wanted.name}, the list holds {_elements_word(found)}")
    if target.kind in "iu":
        limits = np.iinfo(target)
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(f"input {name!r}: {low if low < limits.min else high} does not fit into {wanted.name}")
        return found.astype(target)
    return _floats(name, found, wanted, target)


def _exact(value: object, found: Array) -> Array:
    """The values as Python integers, if they are integers. No integer type of numpy holds both 2^63 and -1, so numpy
    turns such a list into floats."""
    objects = np.array(value, dtype=object)
    return objects if _holds_integers(objects) else found


def _holds_integers(array: Array) -> bool:
    return array.dtype.kind == "O" and all(isinstance(item, int | np.integer) for item in array.ravel().tolist())


def _floats(name: str, found: Array, wanted: DType, target: np.dtype[Any]) -> Array:
    try:
        with np.errstate(over="ignore"):
            numbers = found.astype(np.float64) if found.dtype.kind == "O" else found
            made = numbers.astype(target)
    except OverflowError:
        raise InvalidInput(f"input {name!r}: {max(found.ravel(), key=abs)} does not fit into {wanted.name}") from None
    lost = np.isfinite(numbers) & ~np.isfinite(made)
    if lost.any():
        raise InvalidInput(f"input {name!r}: {numbers[lost][0]} does not fit into {wanted.name}")
    return made


def _strings(name: str, found: Array) -> Array:
    flat: list[Any] = found.ravel().tolist()
    if any(isinstance(item, list | tuple) for item in flat):
        raise InvalidInput(f"input {name!r}: the list is no array: its rows differ in length")
    wrong = {_item_word(item) for item in flat if not isinstance(item, str | bytes)}
    if wrong:
        raise InvalidInput(f"input {name!r}: the model takes STRING, the list holds {', '.join(sorted(wrong))}")
    return found


def _item_word(item: object) -> str:
    if item is None:
        return "None"
    return _WORDS.get(np.asarray(item).dtype.kind, f"{type(item).__name__} values")


_WORDS = {  # by numpy's dtype.kind, as messages name the elements
    "b": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "floats",
    "U": "text",
    "S": "bytes",
    "c": "complex",
}


def _elements_word(array: Array) -> str:
    if _holds_integers(array):
        return "integers"
    if array.dtype.kind != "O":
        return _WORDS.get(array.dtype.kind, f"{array.dtype} values")
    items = array.ravel().tolist()
    wrong = next((item for item in items if not isinstance(item, bool | int | float | np.number)), items[0])
    return _item_word(wrong)
