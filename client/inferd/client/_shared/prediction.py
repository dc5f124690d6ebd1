"""The answer to one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_FEW, _SHORT = 16, 200
"""How many elements, and how many characters of them, a prediction shows of an output."""


class Prediction(Mapping[str, Array]):
    """The outputs of one request by name, in the order of `outputs=`, else in that of the signature.

    Numeric outputs are read-only views of the received message; `.copy()` makes an array that can be written to. STRING
    outputs are object arrays of `bytes`. Immutable, thread-safe. An unknown name raises KeyError, which lists the
    outputs.

    model       the model that answered
    version     the version that answered
    signature   the signature that answered
    request_id  the id that the request carried
    """

    __slots__ = ("_outputs", "model", "request_id", "signature", "version")

    def __init__(
        self, model: str, version: int, signature: str, outputs: Mapping[str, Array], request_id: str = ""
    ) -> None:
        self.model = model
        self.version = version
        self.signature = signature
        self.request_id = request_id
        self._outputs = outputs

    def __getitem__(self, name: str) -> Array:
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(
                f"no output {name!r}; {self.model!r} answered {', '.join(self._outputs) or 'nothing'}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __contains__(self, name: object) -> bool:
        return name in self._outputs

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {_shown(array)}" for name, array in self._outputs.items())
        return f"<Prediction of {self.model}:{self.version} {{{outputs}}}>"


def _shown(array: Array) -> str:
    """Element type and shape, and the values if there are few."""
    text = f"{array.dtype}{list(array.shape)}"
    if array.size > _FEW:
        return text
    values = np.array2string(array, separator=", ", precision=4, threshold=_FEW, max_line_width=1000)
    return f"{text} = {' '.join(values.split())}" if len(values) <= _SHORT else text
