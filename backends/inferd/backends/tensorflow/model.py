"""An opened SavedModel: a private copy of its files, its signatures, and the runners that its instances share."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import (
    Array,
    BackendError,
    IncompleteArtefact,
    Independence,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    Traits,
)
from inferd.backends.checks import SignatureTable
from inferd.backends.files import FileRule, Found, OpenRoot
from inferd.backends.tensorflow.errors import reason, translated
from inferd.backends.tensorflow.files import PB, PBTXT
from inferd.backends.tensorflow.graph import Served, read_facts, read_signatures
from inferd.backends.tensorflow.independence.proof import VariableValues, analyse_signature
from inferd.backends.tensorflow.session import EagerRunner, Runner, SessionRunner, gpu_number

_PARTS = ("variables", "assets", "assets.extra")
# With these errors of the session loader, the second loader would fail too.
_FATAL = ("NotFoundError", "DataLossError", "ResourceExhaustedError", "OutOfRangeError")


class SavedModel:
    """An opened version. Thread-safe."""

    def __init__(self, tf: Any, request: OpenRequest, compute_threads: Callable[[int], int]) -> None:
        """`compute_threads(wanted)` returns the size of TensorFlow's thread pool for single operators. The pool belongs
        to the process: its first session sets the size for all, and `Placement.threads` then decides only how many
        operators of a run execute at the same time."""
        self._tf = tf
        self._compute_threads = compute_threads
        self._lock = threading.Lock()
        self._shared: dict[str, tuple[Runner, int]] = {}
        # A private copy, because instances are made later too, when the version's files may be gone.
        private = tempfile.mkdtemp(prefix="inferd-savedmodel-")
        self._remove_copy = weakref.finalize(self, shutil.rmtree, private, ignore_errors=True)
        self._copy = Path(private) / "model"
        try:
            _copy(request.artefact, self._copy, request.rule)
            meta_graph = _meta_graph(self._copy, request.options.get("tags"))
            self._tags = tuple(meta_graph.meta_info_def.tags)
            served, notes = read_signatures(_data_types(), meta_graph, _value, request.signatures)
            facts = read_facts(meta_graph.graph_def, served)
        except BaseException:
            self._remove_copy()
            raise
        self._served = {s.signature.name: s for s in served}
        self._signatures = tuple(s.signature for s in served)
        self._checks = SignatureTable(self._signatures)
        self._stateful, self._bounded = facts.writes, not facts.waits
        self._notes = notes

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        with self._lock:
            notes = self._notes
        return Traits(bounded=self._bounded, concurrent=True, stateful=self._stateful, notes=notes)

    def instance(self, placement: Placement) -> SavedModelInstance:
        tf = self._tf
        use_device(tf, placement.device)
        with self._lock:
            runner, users = self._shared.get(placement.device) or (self._load(placement), 0)
            self._shared[placement.device] = (runner, users + 1)
        return SavedModelInstance(runner, self._served, self._checks, placement, self._release)

    def independence(self, signature: Signature) -> Independence:
        """See Analysable. The graph is that of the private copy from which sessions load."""
        with self._lock:
            runner = next((runner for runner, _ in self._shared.values()), None)
        if isinstance(runner, EagerRunner):  # it calls functions that the file names elsewhere
            return Independence(False, reason="the graph is not the one that runs (see notes)", understood=False)
        try:
            meta_graph = _meta_graph(self._copy, self._tags)
        except LoadError as error:
            return Independence(False, reason=str(error), understood=False)
        values = VariableValues(self._copy, runner.variable_shapes) if isinstance(runner, SessionRunner) else None
        return analyse_signature(meta_graph, self._served[signature.name], values)

    def close(self) -> None:
        with self._lock:
            for runner, _ in self._shared.values():
                runner.close()
            self._shared.clear()
        self._remove_copy()

    def _load(self, placement: Placement) -> Runner:
        threads = self._compute_threads(placement.threads)
        if threads != placement.threads:
            self._remark(f"TensorFlow's threads belong to the process: {threads}, as its first model set them")
        try:
            session = SessionRunner(self._tf, self._copy, self._tags, placement, threads)
        except Exception as error:
            if type(error).__name__ in _FATAL:
                raise LoadError(f"TensorFlow {self._tf.__version__} cannot load the model: {reason(error)}") from None
            return self._load_eagerly(placement, error)
        gpu = gpu_number(placement.device)
        if gpu is not None and not any(name.endswith(f"GPU:{gpu}") for name in session.devices()):
            session.close()
            raise LoadError(f"the model is placed on {placement.device}, but the session has {session.devices()}")
        return session

    def _load_eagerly(self, placement: Placement, first: Exception) -> Runner:
        try:
            runner = EagerRunner(self._tf, self._copy, self._tags, placement, reason(first))
        except Exception as second:
            text = f"TensorFlow {self._tf.__version__} cannot load the model: {reason(first)}"
            if reason(second) != reason(first):
                text += f"; tf.saved_model.load: {reason(second)}"
            raise LoadError(text) from None
        self._remark(runner.note)
        return runner

    def _remark(self, note: str) -> None:
        if note not in self._notes:
            self._notes = (*self._notes, note)

    def _release(self, device: str) -> None:
        with self._lock:
            runner, users = self._shared.get(device, (None, 0))
            if runner is None:
                return
            if users > 1:
                self._shared[device] = (runner, users - 1)
                return
            del self._shared[device]
            runner.close()


class SavedModelInstance:
    """An executable SavedModel on one device. Thread-safe. The last instance that closes frees the shared runner."""

    def __init__(
        self,
        runner: Runner,
        served: Mapping[str, Served],
        checks: SignatureTable,
        placement: Placement,
        release: Callable[[str], None],
    ) -> None:
        self._runner: Runner | None = runner
        self._served = served
        self._checks = checks
        self._device = placement.device
        self._release = release

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        check = self._checks[signature]
        check.inputs(inputs)
        wanted = check.wanted(outputs)
        runner = self._runner
        if runner is None:
            raise BackendError("the instance is closed")
        try:
            values = runner.run(self._served[signature], inputs, wanted)
        except BackendError:
            raise
        except Exception as error:
            sizes_open = check.leaves_sizes_open(inputs)
            strings = any(array.dtype.hasobject for array in inputs.values())
            raise translated(error, self._device, sizes_open=sizes_open, strings=strings) from None
        return {name: _array(values[name]) for name in wanted}

    def close(self) -> None:
        if self._runner is not None:
            self._runner = None
            self._release(self._device)


def use_device(tf: Any, device: str) -> None:
    """Raises LoadError if TensorFlow does not see this device."""
    if device == "cpu":
        return
    device_type, _, number = device.partition(":")
    if device_type != "cuda" or not number.isdigit():
        raise LoadError(f"unknown device {device!r}; TensorFlow models run on cpu or cuda:N")
    gpus = tf.config.list_physical_devices("GPU")
    if int(number) >= len(gpus):
        built = "" if tf.test.is_built_with_cuda() else " and is built for the CPU only"
        raise LoadError(
            f"the model is placed on {device}, but TensorFlow {tf.__version__} sees {len(gpus)} GPUs{built}"
        )


def _copy(source: Path, target: Path, rule: FileRule) -> None:
    """Copies the files of a SavedModel by the rule by which they may be read. Raises IncompleteArtefact."""
    target.mkdir()
    try:
        with rule.opened() as root:
            for name in (PB, PBTXT):
                with suppress(FileNotFoundError), root.find(source / name) as file:
                    _copy_file(file, target / name)
            for name in _PARTS:
                with suppress(FileNotFoundError), root.find(source / name) as part:
                    if part.is_directory:
                        _copy_directory(root, part, target / name)
    except (OSError, shutil.Error) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise IncompleteArtefact(f"the SavedModel cannot be copied to a private directory: {reason}") from None


def _copy_directory(root: OpenRoot, source: Found, target: Path) -> None:
    target.mkdir()
    top = source.open_directory()
    try:
        for entry in root.walk(top, source.shown):
            if entry.same_as is not None:
                (target / entry.path).symlink_to(target / entry.same_as)
            elif entry.found is None:
                raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", entry.path)
            elif entry.found.is_directory:
                (target / entry.path).mkdir()
            else:
                _copy_file(entry.found, target / entry.path)
    finally:
        os.close(top)


def _copy_file(source: Found, target: Path) -> None:
    with open(source.open(), "rb") as content, target.open("xb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)


def _data_types() -> Any:
    from tensorflow.core.framework import types_pb2

    return types_pb2.DataType


def _value(tensor: Any) -> Array:
    from tensorflow.python.framework.tensor_util import MakeNdarray

    return np.asarray(MakeNdarray(tensor))


def _meta_graph(directory: Path, tags: Sequence[str] | None) -> Any:
    """The MetaGraphDef with these tags; without tags the one with the tag "serve", or the only one. Raises
    LoadError."""
    from tensorflow.core.protobuf import saved_model_pb2

    parsed: Any = saved_model_pb2.SavedModel()
    try:
        if (directory / PB).is_file():
            parsed.ParseFromString((directory / PB).read_bytes())
        else:
            from tensorflow.python.saved_model.loader_impl import parse_saved_model

            parsed = parse_saved_model(str(directory))
    except Exception as error:
        raise LoadError(f"{PB} cannot be parsed: {reason(error)}") from None
    graphs: dict[tuple[str, ...], Any] = {}
    for graph in parsed.meta_graphs:
        graphs.setdefault(tuple(sorted(graph.meta_info_def.tags)), graph)  # of several, TensorFlow loads the first
    found = graphs.get(tuple(sorted(tags or ("serve",))))
    if found is None and not tags and len(graphs) == 1:
        (found,) = graphs.values()
    if found is None:
        there = "; ".join(", ".join(t) or "(none)" for t in graphs) or "none"
        wanted = ", ".join(tags or ("serve",))
        raise LoadError(f"the SavedModel has no graph with the tags {wanted}; it has {there} (option 'tags')")
    return found


def _array(value: Any) -> Array:
    """A session's value as an array. For outputs of rank 0, sessions return bare values."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.ndim else value
    if isinstance(value, bytes):
        array = np.empty((), object)
        array[()] = value
        return array
    return np.asarray(value)
