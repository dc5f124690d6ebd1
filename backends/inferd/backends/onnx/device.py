"""ONNX Runtime on a CUDA device: inputs copied ahead, outputs bound on the device, and CUDA graphs where shapes repeat.

    DeviceInstance   inputs become tensors of the device before `run`, outputs are made there and copied back once
    GraphInstance    runs of one set of shapes are captured once and replayed: memory on the device stays where it is

Not run on a GPU so far: covered with the CPU in the device's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array, Signature
from inferd.backends.onnx.session import OnnxInstance, runtime

_GRAPHS = 16  # sets of shapes with a graph: each keeps its memory on the device as long as the session lives
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"


class UploadedInputs(dict[str, Any]):
    """Inputs as tensors of the device, by name."""


class DeviceInstance(OnnxInstance):
    """A session on a device. `run` may be called from several threads at once, and `upload` beside it."""

    def __init__(self, session: Any, signature: Signature, device: str) -> None:
        """`device`: "cuda:N"; "cpu" stands in for one."""
        super().__init__(session, signature)
        self._kind, _, number = device.partition(":")
        self._number = int(number or 0)

    def staging(self, nbytes: int) -> Array:
        """Page-locked memory where this onnxruntime gives it out, else ordinary memory."""
        ort = runtime()
        try:
            pinned = ort.OrtMemoryInfo(
                "CudaPinned", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, self._number, ort.OrtMemType.CPU_OUTPUT
            )
            value = ort.OrtValue.ortvalue_from_shape_and_type((nbytes,), np.uint8, memory_info=pinned)
            array: Array = value.numpy()
            if array.ctypes.data == value.data_ptr():
                return array
        except Exception:  # pybind raises classes of its own; older versions do not know the argument
            pass
        return np.empty(nbytes, np.uint8)

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Copies to the device on the calling thread."""
        if self._translated:
            return inputs
        self._check.inputs(inputs)
        make = runtime().OrtValue.ortvalue_from_numpy
        return UploadedInputs({name: make(array, self._kind, self._number) for name, array in inputs.items()})

    def _execute(self, session: Any, wanted: list[str], inputs: Mapping[str, Any]) -> list[Array]:
        if not isinstance(inputs, UploadedInputs):
            return self._execute(session, wanted, self.upload(self._signature.name, inputs))
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in wanted:
            binding.bind_output(name, self._kind, self._number)
        session.run_with_iobinding(binding, self._quiet)
        outputs: list[Array] = binding.copy_outputs_to_cpu()
        return outputs

    def _explain(self, inputs: Mapping[str, Any]) -> None:
        if not isinstance(inputs, UploadedInputs):  # those were checked
            super()._explain(inputs)


class _Graph:
    """The memory of one set of shapes, and the options that name its graph."""

    def __init__(self, number: int, inputs: dict[str, Any], outputs: list[Any], binding: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.binding = binding
        self.options = _options(str(number))


class GraphInstance(DeviceInstance):
    """As DeviceInstance, with a graph for each of the first sets of shapes; others run without. Not thread-safe."""

    def __init__(self, session: Any, signature: Signature, device: str) -> None:
        super().__init__(session, signature, device)
        self._graphs: dict[Any, _Graph] = {}
        self._quiet = _options(_NO_GRAPH)

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Nothing ahead: the graph's own memory is in use until the run before has ended."""
        return inputs

    def close(self) -> None:
        self._graphs.clear()
        super().close()

    @property
    def graphs(self) -> int:
        """Sets of shapes that have one."""
        return len(self._graphs)

    def _execute(self, session: Any, wanted: list[str], inputs: Mapping[str, Any]) -> list[Array]:
        key = (tuple(wanted), tuple((name, array.shape) for name, array in inputs.items()))
        graph = self._graphs.get(key)
        if graph is None:
            self._check.inputs(inputs)
            outputs = super()._execute(session, wanted, UploadedInputs(super().upload(self._signature.name, inputs)))
            if len(self._graphs) < _GRAPHS:  # the shapes of the outputs are known now
                self._graphs[key] = self._graph(session, wanted, inputs, outputs)
            return outputs
        for name, array in inputs.items():
            graph.inputs[name].update_inplace(array)
        session.run_with_iobinding(graph.binding, graph.options)
        return [_own(value) for value in graph.outputs]

    def _graph(self, session: Any, wanted: list[str], inputs: Mapping[str, Array], outputs: Sequence[Array]) -> _Graph:
        make = runtime().OrtValue.ortvalue_from_shape_and_type
        places = {name: make(array.shape, array.dtype.type, self._kind, self._number) for name, array in inputs.items()}
        results = [make(array.shape, array.dtype.type, self._kind, self._number) for array in outputs]
        binding = session.io_binding()
        for name, value in places.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(wanted, results, strict=True):
            binding.bind_ortvalue_output(name, value)
        return _Graph(len(self._graphs) + 1, places, results, binding)


def _options(graph: str) -> Any:
    options = runtime().RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry(_GRAPH_ID, graph)
    return options


def _own(value: Any) -> Array:
    """An output as an array that no later run changes."""
    array: Array = value.numpy()
    return array.copy() if array.ctypes.data == value.data_ptr() else array
