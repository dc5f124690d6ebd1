"""The types of what callers pass as inputs, for type checkers and for readers. At run time the values are checked by
`inputs`, whose errors name what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from inferd.client._shared.prediction import Array


class SupportsArray(Protocol):
    """Anything that NumPy can convert, such as a torch tensor or a pandas column."""

    def __array__(self) -> Any: ...


InputValue: TypeAlias = Array | SupportsArray | np.generic | bool | int | float | str | bytes | Sequence["InputValue"]
"""The value of one input. An array is sent with its own element type; lists and plain values get that of the model's
signature. Lists may be nested; all rows have the same length."""

Inputs: TypeAlias = Mapping[str, InputValue] | InputValue
"""The inputs of one request: a mapping of names to values, or the value alone for a model with one input."""
