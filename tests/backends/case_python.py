"""Conformance cases of Python code: the models of the table as `model.py`, and with a `steps.py` around ONNX."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, load_module, signature_of

from inferd.backends.api import Backend, Model, OpenRequest, Signature
from inferd.backends.functions.steps import STEPS_FILE, open_with_steps
from inferd.backends.python.backend import PythonBackend
from inferd.wire.dtypes import DType

ALL = tuple(DType)
_HEAD = "import base64\nimport numpy as np\n"


def _constant(name: str, array: np.ndarray) -> str:
    data = base64.b64encode(array.tobytes()).decode()
    return f"{name} = np.frombuffer(base64.b64decode({data!r}), {array.dtype.name!r}).reshape({array.shape})\n"


MODELS = {
    "linear": _constant("W", WEIGHTS)
    + _constant("B", BIAS)
    + "def predict(x):\n    with np.errstate(all='ignore'):\n        return {'y': x @ W + B}\n",
    "identity": "def predict(x):\n    return {'y': x}\n",
    "scalar": "def predict(x, factor):\n    return {'y': x * factor}\n",
    "two": "def predict(b, a):\n    return {'sum': a + b, 'difference': b - a}\n",
    "picky": "def predict(x):\n    if len(x) != 2:\n        raise RuntimeError('two rows')\n    return {'y': x}\n",
    "wide": "def load(directory):\n    global W\n    W = np.load(directory / 'weights.npy')\n"
    "def predict(x):\n    return {'y': x @ W}\n",
}


class Allowed:
    """The Python backend, which runs code everywhere."""

    def __init__(self) -> None:
        self._inner = PythonBackend()
        self.name = self._inner.name
        self.platforms = self._inner.platforms
        self.find = self._inner.find
        self.complete = self._inner.complete
        self.files = self._inner.files
        self.devices = self._inner.devices

    def open(self, request: OpenRequest) -> Model:
        return self._inner.open(replace(request, allow=frozenset({"python"})))


class PythonCase(BackendCase):
    id = "python"
    module = "numpy"
    dtypes = ALL

    def backend(self) -> Backend:
        return Allowed()

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        (directory / "model.py").write_text(_HEAD + MODELS[model])
        if model == "wide":
            np.save(directory / "weights.npy", 2 * np.eye(WIDE, dtype=np.float32))
        return (signature_of(model, dtype),)


class Stepped:
    """A backend whose versions are opened with the steps that lie beside them."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name = inner.name
        self.platforms = inner.platforms
        self.find = inner.find
        self.complete = inner.complete
        self.devices = inner.devices

    def files(self, artefact: Path) -> Sequence[Path]:
        return self._inner.files(artefact)

    def open(self, request: OpenRequest) -> Model:
        steps = request.directory / STEPS_FILE
        return open_with_steps(self._inner, replace(request, allow=frozenset({"python"}), steps=steps))


class SteppedCase(BackendCase):
    """ONNX models with steps that pass everything on."""

    def __init__(self, inner: BackendCase) -> None:
        self._inner = inner
        self.id = f"steps-around-{inner.id}"
        self.module = inner.module
        self.dtypes = (DType.FP32, DType.STRING, DType.BOOL)

    def backend(self) -> Backend:
        return Stepped(self._inner.backend())

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        self._inner.write(model, directory, dtype)
        # A part of such a file is no Python: the suite cuts every file short.
        (directory / STEPS_FILE).write_text('exec("""def before(**a):\n    return a\nafter = before""")\n')
        return (signature_of(model, dtype),)


CASES: list[BackendCase] = [PythonCase(), SteppedCase(load_module("case_onnx").CASES[0])]
