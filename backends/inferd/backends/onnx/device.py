"""ONNX Runtime on a CUDA device: inputs are copied ahead, outputs are bound on the device, CUDA graphs are replayed.

    DeviceInstance   inputs become device tensors before `run`; outputs are made on the device and copied back once
    GraphInstance    the run of one set of shapes is captured once and replayed: its device memory stays in place

The tests run this code with the CPU in place of the device; it has not been run on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array, Signature
from inferd.backends.onnx.session import OnnxInstance, runtime

_GRAPHS = 16  # most sets of shapes with a graph: each keeps its device memory as long as the session lives
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"


class UploadedInputs(dict[str, Any]):
    """Inputs as device tensors (OrtValue), by name."""


class DeviceInstance(OnnxInstance):
    """A session on a device. Several threads may call `run` and `upload` at the same time."""

    def __init__(self, session: Any, signature: Signature, device: str) -> None:
        """`device`: "cuda:N"; or "cpu" in tests."""
        super().__init__(session, signature)
        self._device_type, _, number = device.partition(":")
        self._number = int(number or 0)

    def staging(self, nbytes: int) -> Array:
        """Page-locked memory if this version of onnxruntime can allocate it, else ordinary memory."""
        ort = runtime()
        try:
            pinned = ort.OrtMemoryInfo(
                "CudaPinned", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, self._number, ort.OrtMemType.CPU_OUTPUT
            )
            value = ort.OrtValue.ortvalue_from_shape_and_type((nbytes,), np.uint8, memory_info=pinned)
            array: Array = value.numpy()
            if array.ctypes.data == value.data_ptr():
                return array
        except Exception:  # pybind raises its own classes; older versions do not know the argument
            pass
        return np.empty(nbytes, np.uint8)

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Copies the inputs to the device, on the calling thread. STRING and BF16 inputs stay on the host."""
        if self._translated:
            return inputs
        self._check.inputs(inputs)
        make = runtime().OrtValue.ortvalue_from_numpy
        return UploadedInputs({name: make(array, self._device_type, self._number) for name, array in inputs.items()})

    def _execute(self, session: Any, wanted: list[str], inputs: Mapping[str, Any]) -> list[Array]:
        if not isinstance(inputs, UploadedInputs):
            return self._execute(session, wanted, self.upload(self._signature.name, inputs))
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in wanted:
            binding.bind_output(name, self._device_type, self._number)
        session.run_with_iobinding(binding, self._quiet)
        outputs: list[Array] = binding.copy_outputs_to_cpu()
        return outputs

    def _explain(self, inputs: Mapping[str, Any]) -> None:
        if not isinstance(inputs, UploadedInputs):  # uploaded inputs are checked already
            super()._explain(inputs)


class _Graph:
    """A captured graph: the device memory of one set of shapes, and the run options that name the graph."""

    def __init__(self, number: int, inputs: dict[str, Any], outputs: list[Any], binding: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.binding = binding
        self.options = _options(str(number))


class GraphInstance(DeviceInstance):
    """A DeviceInstance with a CUDA graph for each of the first 16 sets of shapes; other shapes run without a graph.
    Not thread-safe."""

    def __init__(self, session: Any, signature: Signature, device: str) -> None:
        super().__init__(session, signature, device)
        self._graphs: dict[Any, _Graph] = {}
        self._quiet = _options(_NO_GRAPH)

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Returns the inputs unchanged: the graph's memory is in use until the current run has ended."""
        return inputs

    def close(self) -> None:
        self._graphs.clear()
        super().close()

    @property
    def graphs(self) -> int:
        """Number of captured graphs."""
        return len(self._graphs)

    def _execute(self, session: Any, wanted: list[str], inputs: Mapping[str, Any]) -> list[Array]:
        key = (tuple(wanted), tuple((name, array.shape) for name, array in inputs.items()))
        graph = self._graphs.get(key)
        if graph is None:
            self._check.inputs(inputs)
            outputs = super()._execute(session, wanted, UploadedInputs(super().upload(self._signature.name, inputs)))
            if len(self._graphs) < _GRAPHS:  # now the shapes of the outputs are known
                self._graphs[key] = self._capture(session, wanted, inputs, outputs)
            return outputs
        for name, array in inputs.items():
            graph.inputs[name].update_inplace(array)
        session.run_with_iobinding(graph.binding, graph.options)
        return [_own(value) for value in graph.outputs]

    def _capture(
        self, session: Any, wanted: list[str], inputs: Mapping[str, Array], outputs: Sequence[Array]
    ) -> _Graph:
        def make(array: Array) -> Any:
            make_value = runtime().OrtValue.ortvalue_from_shape_and_type
            return make_value(array.shape, array.dtype.type, self._device_type, self._number)

        device_inputs = {name: make(array) for name, array in inputs.items()}
        device_outputs = [make(array) for array in outputs]
        binding = session.io_binding()
        for name, value in device_inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(wanted, device_outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        return _Graph(len(self._graphs) + 1, device_inputs, device_outputs, binding)


def _options(graph: str) -> Any:
    options = runtime().RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry(_GRAPH_ID, graph)
    return options


def _own(value: Any) -> Array:
    """An output as an array whose memory no later run changes."""
    array: Array = value.numpy()
    return array.copy() if array.ctypes.data == value.data_ptr() else array
