"""The interface between the conformance suite and a framework: a `BackendCase` writes tiny real artefacts.

The file `tests/backends/case_<framework>.py` has a list `CASES`; its cases import the framework only inside methods.
Each case can write the models below, whose answers the suite (`tests/backends/test_conformance*.py`) knows. N is the
batch axis.

    linear      x FP32 [N, 4]                      -> y = x @ WEIGHTS + BIAS          FP32 [N, 3]
    identity    x <dtype> [N, 2]                   -> y = x                           <dtype> [N, 2]
    scalar      x FP32 [N, 3], factor FP32 []      -> y = x * factor                  FP32 [N, 3]
    two         b FP32 [N, 2], a FP32 [N, 2]       -> sum = a + b, difference = b - a, in this order
    picky       x FP32 [N, 2]                      -> y = x as [2, 2]; its run fails unless N is 2
    wide        x FP32 [N, 1024]                   -> y = 2 x, through a 1024 x 1024 matrix in the artefact

The artefact describes its element types and shapes as far as its format can; the case declares the rest.
"""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import Backend, Instance, Model, OpenRequest, Placement, Signature, TensorSpec
from inferd.wire.dtypes import DType

WEIGHTS = (np.arange(12, dtype=np.float32).reshape(4, 3) - 5) / 4
BIAS = np.array([0.5, -1.0, 2.0], np.float32)
WIDE = 1024
BACKEND_TESTS = Path(__file__).parents[1] / "backends"
ONE_ROW = np.array([[1, -2, 0.5, 3]], np.float32)


class Cannot(Exception):
    """The framework cannot express this model: the test is skipped, with the message as the reason."""


class BackendCase(abc.ABC):
    """One framework, or one artefact format of a framework.

    id       the name in test ids
    module   import name of the framework; without it, the tests are skipped
    dtypes   element types for which `identity` can be written
    heavy    importing the framework takes seconds
    """

    id: str
    module: str
    dtypes: Sequence[DType] = (DType.FP32,)
    heavy: bool = False

    @abc.abstractmethod
    def backend(self) -> Backend:
        """A new backend object. Must not import the framework."""

    @abc.abstractmethod
    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        """Writes `model` (a name of the table above) into an existing version directory. Returns the signatures that
        must be declared when it is opened, () if the artefact describes itself. Raises Cannot."""

    def threads_of(self, instance: Instance) -> int | None:
        """The number of CPU threads that the instance really uses; None if the framework does not say."""
        return None

    def refusals(self) -> Mapping[str, str]:
        """Artefacts that are recognised and refused: a word that the error must contain, by file name."""
        return {}


def signature_of(model: str, dtype: DType = DType.FP32) -> Signature:
    """The full signature of a model of the table, for cases that must declare it."""
    f = DType.FP32
    inputs, outputs = {
        "linear": ((TensorSpec("x", f, (-1, 4)),), (TensorSpec("y", f, (-1, 3)),)),
        "identity": ((TensorSpec("x", dtype, (-1, 2)),), (TensorSpec("y", dtype, (-1, 2)),)),
        "scalar": ((TensorSpec("x", f, (-1, 3)), TensorSpec("factor", f, ())), (TensorSpec("y", f, (-1, 3)),)),
        "two": (
            (TensorSpec("b", f, (-1, 2)), TensorSpec("a", f, (-1, 2))),
            (TensorSpec("sum", f, (-1, 2)), TensorSpec("difference", f, (-1, 2))),
        ),
        "picky": ((TensorSpec("x", f, (-1, 2)),), (TensorSpec("y", f, (2, 2)),)),
        "wide": ((TensorSpec("x", f, (-1, WIDE)),), (TensorSpec("y", f, (-1, WIDE)),)),
    }[model]
    return Signature("serving_default", inputs, outputs)


@dataclass(frozen=True)
class Opened:
    """An opened model, its backend and its files."""

    backend: Backend
    model: Model
    directory: Path
    artefact: Path

    @property
    def signature(self) -> Signature:
        return self.model.signatures[0]


def request_for(
    backend: Backend, directory: Path, declared: tuple[Signature, ...] = (), options: Mapping[str, Any] | None = None
) -> OpenRequest:
    artefact = backend.find(directory)
    assert artefact is not None, f"{backend.name} finds nothing in {sorted(p.name for p in directory.iterdir())}"
    return OpenRequest("m", 1, directory, artefact, declared, dict(options or {}))


@contextmanager
def opened(
    case: BackendCase,
    model: str,
    directory: Path,
    dtype: DType = DType.FP32,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Opened]:
    """Writes a model, finds it and opens it. It is closed at the end of the `with` block."""
    directory.mkdir(parents=True, exist_ok=True)
    declared = case.write(model, directory, dtype)
    backend = case.backend()
    request = request_for(backend, directory, declared, options)
    assert backend.complete(request.artefact) is None
    found = backend.open(request)
    try:
        yield Opened(backend, found, directory, request.artefact)
    finally:
        found.close()


@contextmanager
def running(found: Opened, placement: Placement | None = None) -> Iterator[Instance]:
    """An instance of an opened model. It is closed at the end of the `with` block."""
    instance = found.model.instance(placement or Placement())
    try:
        yield instance
    finally:
        instance.close()


@contextmanager
def in_service(model: Model, placement: Placement | None = None) -> Iterator[tuple[Model, Instance]]:
    """A model with one instance. Both are closed at the end of the `with` block."""
    with closing(model), closing(model.instance(placement or Placement())) as instance:
        yield model, instance


def sample(dtype: DType, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    """Seeded values from the whole range of the element type, including its extremes. STRING: an object array of
    bytes."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    if dtype is DType.STRING:
        words = [b"", b"plain", "ünï → ☃".encode(), b"zero\x00inside", b"x" * 300]
        flat = np.empty(count, object)
        flat[:] = [words[i % len(words)] for i in range(count)]
        return flat.reshape(shape)
    if dtype is DType.BOOL:
        return (rng.random(shape) < 0.5).astype(np.bool_)
    if dtype in (DType.FP16, DType.FP32, DType.FP64, DType.BF16):
        return np.asarray(rng.standard_normal(shape) * 10).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    flat = rng.integers(info.min, info.max, count, dtype=dtype.numpy, endpoint=True)
    flat[: min(2, count)] = [info.min, info.max][: min(2, count)]
    return flat.reshape(shape)


def request_view(array: np.ndarray[Any, Any], alignment: int) -> np.ndarray[Any, Any]:
    """A read-only copy that is aligned to `alignment` bytes, but not to more, as an array of a decoded request."""
    if array.dtype == object:
        array = array.copy()
    else:
        memory = np.empty(array.nbytes + 4 * alignment, np.uint8)
        offset = -memory.ctypes.data % (2 * alignment) + alignment
        memory[offset : offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        array = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    array.flags.writeable = False
    return array


def expected_linear(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x @ WEIGHTS + BIAS


def name_of(found: Opened) -> str:
    return found.signature.name


def assert_fit_for_clients(error: BaseException) -> None:
    text = str(error)
    assert text.strip()
    assert "Traceback" not in text
    assert 'File "' not in text


def load_module(stem: str) -> Any:
    """Loads a module of `tests/backends` by the stem of its file name, because test folders are not packages."""
    spec = importlib.util.spec_from_file_location(f"inferd_tests_{stem}", BACKEND_TESTS / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_cases() -> list[BackendCase]:
    """The cases of all `tests/backends/case_*.py`."""
    stems = sorted(path.stem for path in BACKEND_TESTS.glob("case_*.py"))
    return [case for stem in stems for case in load_module(stem).CASES]
