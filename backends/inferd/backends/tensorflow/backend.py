"""The TensorFlow backend: a SavedModel, either the version directory itself or `model.savedmodel/` in it (Triton)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd.backends.api import IncompleteArtefact, LoadError, MissingFramework, Model, OpenRequest
from inferd.backends.checks import check_options
from inferd.backends.foreign_formats import by_name
from inferd.backends.import_order import import_framework
from inferd.backends.quiet import be_quiet
from inferd.backends.tensorflow import files as tensorflow_files
from inferd.backends.tensorflow.files import PB, PBTXT

_TRITON_LAYOUT = "model.savedmodel"
_REFUSED = (".h5", ".hdf5", ".keras", ".graphdef")


class TensorFlowBackend:
    """Opens SavedModels. Thread-safe; imports TensorFlow only in `open` and `devices`.

    TensorFlow keeps the current graph, session and device for each thread, so versions may be loaded at the same time,
    by both loaders. A session's callables are made under the lock of its runner. The thread pool for single operators
    belongs to the process: the first session sets its size (`compute_threads`).

    Options of a model:

    tags              the tags of the graph to serve; default ["serve"], or the only graph that there is
    compute_threads   size of TensorFlow's thread pool for single operators; default: the model's share of the CPU
                      budget. The pool belongs to the process: only its first TensorFlow model can set the size
    """

    name = "tensorflow"
    platforms = ("tensorflow_savedmodel", "savedmodel")
    artefacts = (PB, f"{_TRITON_LAYOUT}/")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool_threads: int | None = None

    def find(self, directory: Path) -> Path | None:
        inner = directory / _TRITON_LAYOUT
        flat = any((directory / name).is_file() for name in (PB, PBTXT))
        if inner.is_dir():
            if flat:
                raise LoadError(f"two SavedModels in one version, {PB} and {_TRITON_LAYOUT}/: remove one")
            if not any((inner / name).is_file() for name in (PB, PBTXT)):
                raise IncompleteArtefact(f"{_TRITON_LAYOUT}/{PB} is missing")
            return inner
        if flat:
            return directory
        if (directory / "variables").is_dir() and any((directory / "variables").glob("variables.*")):
            raise IncompleteArtefact(f"{PB} is missing beside variables/")
        refused = by_name(path.name for path in directory.iterdir() if path.suffix in _REFUSED)
        if refused:
            raise LoadError(refused)
        return None

    def complete(self, artefact: Path) -> str | None:
        return tensorflow_files.missing(artefact)

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def open(self, request: OpenRequest) -> Model:
        check_options(self.name, request.options, {"tags": list, "compute_threads": int})
        lacking = tensorflow_files.missing(request.artefact)
        if lacking is not None:
            raise IncompleteArtefact(lacking)
        tf = _tensorflow()
        from inferd.backends.tensorflow.model import SavedModel

        fixed = request.options.get("compute_threads")
        return SavedModel(tf, request, lambda wanted: self._compute_threads(fixed or wanted))

    def devices(self) -> Sequence[str]:
        gpus = _tensorflow().config.list_physical_devices("GPU")
        return (*(f"cuda:{i}" for i in range(len(gpus))), "cpu")

    def _compute_threads(self, wanted: int) -> int:
        """The size of the process's thread pool: that of the first call, whatever later calls want."""
        with self._lock:
            if self._pool_threads is None:
                self._pool_threads = wanted
            return self._pool_threads


def _tensorflow() -> Any:
    be_quiet()
    try:
        return import_framework("tensorflow")
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise MissingFramework("TensorFlow", "tensorflow") from None
        raise LoadError(f"TensorFlow cannot be imported: {error}") from None
    except (ImportError, OSError, TypeError) as error:
        # TypeError: protobuf refuses a second definition of TensorFlow's messages in one process.
        raise LoadError(f"TensorFlow cannot be imported: {error}") from None
