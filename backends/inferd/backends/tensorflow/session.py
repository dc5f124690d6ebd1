"""A SavedModel in a TensorFlow 1 session: how TensorFlow Serving runs it, Keras 2 and TensorFlow 1 models included.

All instances on one device share a session: the weights are there once, and a session runs from many threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from inferd.backends.api import Array, BackendError, Placement
from inferd.backends.tensorflow.graph import Served

# Callables per signature for chosen outputs, beside the one for all: a client that asks for ever new sets gets all
# computed and some dropped.
_MOST_CALLABLES = 16


class Runner(Protocol):
    """A loaded SavedModel on one device. Thread-safe."""

    note: str

    def run(self, served: Served, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Any]: ...

    def close(self) -> None: ...


class SessionRunner:
    """The SavedModel loaded by the TensorFlow 1 loader."""

    note = ""

    def __init__(self, tf: Any, directory: Path, tags: Sequence[str], placement: Placement, intra_threads: int) -> None:
        self._graph = tf.Graph()
        gpu = gpu_number(placement.device)
        v1 = tf.compat.v1
        config = v1.ConfigProto(
            intra_op_parallelism_threads=intra_threads,
            inter_op_parallelism_threads=placement.threads,
            use_per_session_threads=True,
            # Operators without a kernel for the GPU run on the CPU; the variables' place is checked after the load.
            allow_soft_placement=True,
            device_count={"GPU": 0} if gpu is None else {},
            gpu_options=v1.GPUOptions(allow_growth=True),
        )
        self._session = v1.Session(graph=self._graph, config=config)
        try:
            # Past the decorator that logs a deprecation: this loader is chosen on purpose.
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
        """TensorFlow's names of the devices that the session really has."""
        return tuple(device.name for device in self._session.list_devices())

    def run(self, served: Served, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Any]:
        name = served.signature.name
        call = self._callables.get((name, *wanted))
        if call is None:
            wanted, call = self._make(served, wanted)
        inputs = served.fed(inputs)
        values = call(*[inputs[spec.name] for spec in served.signature.inputs])
        return dict(zip(wanted, values, strict=True))

    def close(self) -> None:
        with self._lock:
            self._callables.clear()
            self._session.close()
            # Functions and finalizers refer to the graph in circles; the definition is the large part.
            self._graph = None

    def _make(self, served: Served, wanted: Sequence[str]) -> tuple[Sequence[str], Callable[..., Any]]:
        """A callable for these outputs, or for all once there are many; with the outputs that it gives, in order."""
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
    """The SavedModel loaded by tf.saved_model.load: the way out for one that the session's loader refuses."""

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
