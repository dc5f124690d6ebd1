"""Runs a SavedModel in a TensorFlow 1 session, as TensorFlow Serving does; Keras 2 and TensorFlow 1 models work too.

All instances on one device share one session: the weights are in memory once, and many threads can run a session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from inferd.backends.api import Array, BackendError, Placement
from inferd.backends.tensorflow.graph import Served

# Most callables of a session. Each computes one signature's chosen outputs. For further choices all outputs are
# computed and the unwanted ones dropped, so clients cannot make ever new callables.
_MOST_CALLABLES = 16


class Runner(Protocol):
    """A loaded SavedModel on one device. Thread-safe.

    note   a remark for the operator, "" for none
    """

    note: str

    def run(self, served: Served, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Any]:
        """The wanted outputs by name, as arrays or bare values; others may be among them. Raises BackendError when
        closed, and TensorFlow's exceptions."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...


class SessionRunner:
    """The SavedModel loaded by the TensorFlow 1 loader."""

    note = ""

    def __init__(self, tf: Any, directory: Path, tags: Sequence[str], placement: Placement, intra_threads: int) -> None:
        self._tf = tf
        self._graph = tf.Graph()
        gpu = gpu_number(placement.device)
        v1 = tf.compat.v1
        config = v1.ConfigProto(
            intra_op_parallelism_threads=intra_threads,
            inter_op_parallelism_threads=placement.threads,
            use_per_session_threads=True,
            # Operators without a GPU kernel run on the CPU. After the load it is checked that the session has the GPU.
            allow_soft_placement=True,
            device_count={"GPU": 0} if gpu is None else {},
            gpu_options=v1.GPUOptions(allow_growth=True),
        )
        self._session = v1.Session(graph=self._graph, config=config)
        try:
            # The function without its decorator, which would log a deprecation: this loader is chosen on purpose.
            load = getattr(v1.saved_model.loader.load, "__wrapped__", v1.saved_model.loader.load)
            device = "/CPU:0" if gpu is None else f"/GPU:{gpu}"
            with self._graph.as_default(), self._session.as_default(), tf.device(device):
                load(self._session, list(tags), str(directory))
        except BaseException:
            self._session.close()
            raise
        self._lock = threading.Lock()
        self._callables: dict[tuple[str, ...], Callable[..., Any]] = {}

    def devices(self) -> tuple[str, ...]:
        """TensorFlow's names for the devices of the session."""
        return tuple(device.name for device in self._session.list_devices())

    def run(self, served: Served, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Any]:
        name = served.signature.name
        call = self._callables.get((name, *wanted))
        if call is None:
            wanted, call = self._make(served, wanted)
        inputs = served.fed(inputs)
        values = call(*[inputs[spec.name] for spec in served.signature.inputs])
        return dict(zip(wanted, values, strict=True))

    def variable_shapes(self, names: Sequence[str]) -> list[list[int]]:
        """The shapes of the values of variables, by the names of their nodes in the graph."""
        raw = self._tf.raw_ops
        with self._lock:
            if self._graph is None:
                raise BackendError("the instance is closed")
            with self._graph.as_default(), self._tf.device("/CPU:0"):
                variables = [self._graph.get_tensor_by_name(f"{name}:0") for name in names]
                shapes = [
                    raw.VariableShape(input=variable)
                    if variable.dtype == self._tf.resource
                    else raw.Shape(input=variable)
                    for variable in variables
                ]
            found = self._session.run(shapes)
        return [[int(size) for size in shape] for shape in found]

    def close(self) -> None:
        with self._lock:
            self._callables.clear()
            self._session.close()
            # Functions and finalizers keep reference cycles to the graph, whose definition takes most of the memory.
            self._graph = None

    def _make(self, served: Served, wanted: Sequence[str]) -> tuple[Sequence[str], Callable[..., Any]]:
        """A callable, and the names of the outputs that it returns, in order: the wanted ones, or all outputs once
        there are many callables."""
        every = tuple(spec.name for spec in served.signature.outputs)
        with self._lock:
            if self._graph is None:
                raise BackendError("the instance is closed")
            if len(self._callables) >= _MOST_CALLABLES:
                wanted = every
            key = (served.signature.name, *wanted)
            call = self._callables.get(key)
            if call is None:
                fetch = dict(zip(every, served.fetches, strict=True))
                tensor = self._graph.get_tensor_by_name
                call = self._session.make_callable(
                    [tensor(fetch[name]) for name in wanted], feed_list=[tensor(name) for name in served.feeds]
                )
                self._callables[key] = call
            return wanted, call


class EagerRunner:
    """The SavedModel loaded by tf.saved_model.load: for models that the session's loader refuses."""

    def __init__(self, tf: Any, directory: Path, tags: Sequence[str], placement: Placement, reason: str) -> None:
        self.note = f"loaded with tf.saved_model.load, because the session loader failed: {reason}"
        self._tf = tf
        gpu = gpu_number(placement.device)
        self._device = "/CPU:0" if gpu is None else f"/GPU:{gpu}"
        with tf.device(self._device):
            self._loaded: Any = tf.saved_model.load(str(directory), tags=list(tags))

    def run(self, served: Served, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Any]:
        loaded = self._loaded
        if loaded is None:
            raise BackendError("the instance is closed")
        inputs = served.fed(inputs)
        with self._tf.device(self._device):
            function = loaded.signatures[served.signature.name]
            result = function(**{spec.name: self._tf.constant(inputs[spec.name]) for spec in served.signature.inputs})
        return {name: result[name].numpy() for name in wanted}

    def close(self) -> None:
        self._loaded = None


def gpu_number(device: str) -> int | None:
    """1 for "cuda:1", None for "cpu"."""
    return None if device == "cpu" else int(device.partition(":")[2])
