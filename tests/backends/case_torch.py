"""Torch artefacts for the conformance suite: TorchScript, torch.export, and AOTInductor if there is a compiler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, Cannot, signature_of

from inferd.backends.api import Backend, Instance, Signature
from inferd.wire.dtypes import DType

DTYPES = tuple(d for d in DType if d is not DType.STRING)


def module_for(model: str) -> Any:
    """The table's model as a torch.nn.Module."""
    import torch

    class Matrix(torch.nn.Module):
        def __init__(self, weights: Any, bias: Any) -> None:
            super().__init__()
            self.register_buffer("weights", torch.from_numpy(weights.copy()))
            self.register_buffer("bias", torch.from_numpy(bias.copy()))

        def forward(self, x):  # type: ignore[no-untyped-def]
            return x @ self.weights + self.bias

    class Identity(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x

    class Scalar(torch.nn.Module):
        def forward(self, x, factor):  # type: ignore[no-untyped-def]
            return x * factor

    class Two(torch.nn.Module):
        def forward(self, b, a):  # type: ignore[no-untyped-def]
            return a + b, b - a

    class Picky(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x.reshape(2, 2)

    makers = {
        "linear": lambda: Matrix(WEIGHTS, BIAS),
        "identity": Identity,
        "scalar": Scalar,
        "two": Two,
        "picky": Picky,
        "wide": lambda: Matrix(2 * np.eye(WIDE, dtype=np.float32), np.zeros(WIDE, np.float32)),
    }
    if model not in makers:
        raise Cannot(model)
    return makers[model]().eval()


class TorchScriptCase(BackendCase):
    id = "torchscript"
    module = "torch"
    dtypes = DTYPES
    heavy = True

    def backend(self) -> Backend:
        from inferd.backends.torch.backend import TorchBackend

        return TorchBackend()

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(module_for(model)), str(directory / "model.pt"))
        return (signature_of(model, dtype),)

    def threads_of(self, instance: Instance) -> int | None:
        return instance.threads  # type: ignore[attr-defined,no-any-return]

    def refusals(self) -> Mapping[str, str]:
        return {"model.pt": "torch.jit.save", "model.pth": "torch.jit.save"}


class ExportedCase(TorchScriptCase):
    """torch.export programs. They have no names of outputs. torch.export itself refuses `picky`."""

    id = "torch-export"

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        if model == "picky":
            raise Cannot("torch.export finds out that it takes two rows only")
        self.save(model, directory, dtype)
        return (signature_of(model, dtype),)

    def save(self, model: str, directory: Path, dtype: DType) -> None:
        import torch

        torch.export.save(export(model, dtype), directory / "model.pt2")


def export(model: str, dtype: DType) -> Any:
    import torch

    batch = torch.export.Dim("batch", min=0)
    arguments = []
    shapes: list[Any] = []
    for spec in signature_of(model, dtype).inputs:
        assert spec.shape is not None
        kind = torch.bfloat16 if dtype is DType.BF16 else torch.from_numpy(np.zeros(1, spec.dtype.numpy)).dtype
        arguments.append(torch.zeros([3 if d < 0 else d for d in spec.shape], dtype=kind))
        shapes.append({0: batch} if spec.shape else None)
    return torch.export.export(module_for(model), tuple(arguments), dynamic_shapes=tuple(shapes))


CASES: list[BackendCase] = [TorchScriptCase(), ExportedCase()]
