"""An executable torch model on a CUDA device. Inputs can be copied to the device ahead, on a separate stream.

The tests run this code with a fake torch.cuda; it has not been run on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferd.backends.api import Array, Placement
from inferd.backends.torch.instance import TorchInstance


class UploadedArguments(dict[str, Any]):
    """Inputs that are being copied to the device, by name: tensors, and arrays for inputs that are read on the host.

    arrived   the CUDA event after which the tensors may be read and the source memory may be written to
    """

    __slots__ = ("arrived",)

    arrived: Any


class DeviceTorchInstance(TorchInstance):
    """A TorchInstance that can copy ahead. One thread may call `upload` while another is in `run`."""

    def __init__(self, torch: Any, placement: Placement, *args: Any, **options: Any) -> None:
        super().__init__(torch, placement, *args, **options)
        self._copies = torch.cuda.Stream(placement.device)
        make, tensor = self._tensor, torch.Tensor
        self._tensor = lambda value: value if isinstance(value, tensor) else make(value)
        self._make = make

    def staging(self, nbytes: int) -> Array:
        """Page-locked memory, which the device can read without the processor."""
        array: Array = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        return array

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> UploadedArguments:
        """Starts to copy the inputs on the instance's second stream."""
        self._checks[signature].inputs(inputs)
        torch = self._torch
        uploaded = UploadedArguments()
        try:
            with torch.inference_mode(), torch.cuda.stream(self._copies):
                for name, array in inputs.items():
                    # An input of one element may be a Python number to the model; numbers are read on the host.
                    uploaded[name] = array if array.size == 1 or array.dtype.hasobject else self._make(array)
                uploaded.arrived = torch.cuda.Event()
                uploaded.arrived.record(self._copies)
        except Exception as error:
            self._copies.synchronize()
            raise self._translated(error, signature, inputs) from None
        return uploaded

    def run(self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        if not isinstance(inputs, UploadedArguments):
            return super().run(signature, inputs, outputs)
        torch = self._torch
        current = torch.cuda.current_stream(self._device)
        current.wait_event(inputs.arrived)
        for value in inputs.values():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(current)  # else torch could reuse its memory while this stream reads it
        try:
            return self._compute(signature, inputs, outputs)
        finally:
            inputs.arrived.synchronize()


def instance_type(placement: Placement) -> type[TorchInstance]:
    """The class of instances for the placement's device."""
    return TorchInstance if placement.device == "cpu" else DeviceTorchInstance
