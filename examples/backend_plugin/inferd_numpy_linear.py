"""A backend for inferd in one file: `model.npz` holds `weight` [inputs, outputs] and optionally `bias` [outputs].

The model answers y = x @ weight + bias. The backend uses nothing of the server except `inferd.backends.api`, which
documents every method below.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from inferd.backends.api import (
    DEFAULT_SIGNATURE,
    Array,
    BackendError,
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.wire.dtypes import DType

OPTIONS = ("scale",)


class LinearBackend:
    name = "numpy_linear"
    platforms = ("numpy_linear",)
    artefacts = ("model.npz",)  # optional: error messages say that the backend looks for these names

    def find(self, directory: Path) -> Path | None:
        artefact = directory / "model.npz"
        return artefact if artefact.is_file() else None

    def complete(self, artefact: Path) -> str | None:
        # The directory of a zip file is at its end: while the file is being copied, there is none.
        return (
            None if zipfile.is_zipfile(artefact) else "model.npz has no readable directory: is it still being copied?"
        )

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def devices(self) -> Sequence[str]:
        return ("cpu",)

    def open(self, request: OpenRequest) -> LinearModel:
        unknown = sorted(request.options.keys() - set(OPTIONS))
        if unknown:
            raise LoadError(
                f"unknown option {unknown[0]!r} of the numpy_linear backend; known are: {', '.join(OPTIONS)}"
            )
        try:
            scale = float(request.options.get("scale", 1.0))
            with np.load(request.artefact, allow_pickle=False) as arrays:  # loading a pickle can run any code
                weight = arrays["weight"].astype(np.float32) * np.float32(scale)
                bias = arrays["bias"].astype(np.float32) if "bias" in arrays else np.zeros(weight.shape[1:], np.float32)
        except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise LoadError(f"model.npz must hold arrays 'weight' and perhaps 'bias': {error}") from None
        if weight.ndim != 2 or bias.shape != weight.shape[1:]:
            raise LoadError(
                f"expected weight [inputs, outputs] and bias [outputs], got {weight.shape} and {bias.shape}"
            )
        return LinearModel(weight, bias)


class LinearModel:
    """An opened model. Its arrays are in memory: from now on the file may change or vanish."""

    def __init__(self, weight: Array, bias: Array) -> None:
        self._weight, self._bias = weight, bias
        x = TensorSpec("x", DType.FP32, (-1, weight.shape[0]))
        y = TensorSpec("y", DType.FP32, (-1, weight.shape[1]))
        self.signatures = (Signature(DEFAULT_SIGNATURE, (x,), (y,)),)
        # numpy reads arrays of any alignment, and a matrix product writes only its result. A run waits for nothing but
        # the processor, and several threads may multiply at the same time.
        self.traits = Traits(may_write_inputs=False, alignment=1, bounded=True, concurrent=True)

    def instance(self, placement: Placement) -> LinearInstance:
        if placement.device != "cpu":
            raise LoadError(f"unknown device {placement.device!r}: numpy runs on the cpu")
        return LinearInstance(self._weight, self._bias, self.signatures[0])

    def close(self) -> None:
        del self._weight, self._bias


class LinearInstance:
    def __init__(self, weight: Array, bias: Array, signature: Signature) -> None:
        self._weight, self._bias, self._signature = weight, bias, signature

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        if signature != self._signature.name:
            raise InvalidInput(f"unknown signature {signature!r}; there is {self._signature.name!r}")
        if inputs.keys() != {"x"}:
            raise InvalidInput(f"expected the input 'x', got {', '.join(inputs) or 'none'}")
        for name in outputs or ():
            if name != "y":
                raise InvalidInput(f"unknown output {name!r}; there is 'y'")
        x = inputs["x"]
        width = self._weight.shape[0]
        if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != width:
            raise InvalidInput(f"input 'x': expected FP32 [-1, {width}], got {x.dtype} {list(x.shape)}")
        try:
            with np.errstate(all="ignore"):  # NaN inputs give NaN outputs: that needs no warning in the server's log
                return {"y": x @ self._weight + self._bias}
        except MemoryError:
            raise BackendError("out of memory") from None

    def close(self) -> None:
        del self._weight, self._bias
