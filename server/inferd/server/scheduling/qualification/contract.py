"""What warm-up finds out about a version's contract: does it answer as its signatures promise?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from inferd.backends.api import Array, BrokenContract, Signature
from inferd.wire.dtypes import dtype_of


@dataclass(frozen=True, slots=True)
class SeededRefusal:
    """Seeded data that a model failed on. It may ask for other data, or be broken: only other versions can tell.

    signature   name of the signature
    reason      the first failure
    data        gives the inputs that were tried, again
    """

    signature: str
    reason: str
    data: Callable[[], Iterator[dict[str, Array]]]


def check_contract(signature: Signature, outputs: Mapping[str, Array]) -> None:
    """Raises BrokenContract for an output that is missing, or has another element type or rank than the signature says.
    Where the signature leaves the shape open, its element type may be an assumption: the backend checks it then."""
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            given = ", ".join(outputs) or "none"
            raise BrokenContract(f"output {spec.name!r} is missing: expected {_names(signature)}, got {given}")
        if spec.shape is None:
            continue
        try:
            dtype = dtype_of(array)
            came = dtype.name
        except TypeError:
            dtype, came = None, str(array.dtype)
        if dtype is not spec.dtype:
            raise BrokenContract(f"output {spec.name!r}: expected {spec.dtype.name}, got {came}")
        if array.ndim != len(spec.shape):
            raise BrokenContract(
                f"output {spec.name!r}: expected shape {list(spec.shape)}, got {list(array.shape)}, "
                f"which has {array.ndim} dimensions"
            )


def _names(signature: Signature) -> str:
    return ", ".join(spec.name for spec in signature.outputs)
