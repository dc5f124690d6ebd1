"""The example plug-in in the conformance suite. It can serve linear models only."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, Cannot

from inferd.backends.api import Backend, Signature
from inferd.wire.dtypes import DType

SOURCE = Path(__file__).parents[2] / "examples" / "backend_plugin" / "inferd_numpy_linear.py"


def plugin() -> Any:
    """The plug-in's module, loaded from its source file: it need not be installed."""
    name = "inferd_numpy_linear"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SOURCE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class PluginCase(BackendCase):
    id = "plugin"
    module = "numpy"
    dtypes = ()

    def backend(self) -> Backend:
        backend: Backend = plugin().LinearBackend()
        return backend

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        if model == "linear":
            np.savez(directory / "model.npz", weight=WEIGHTS, bias=BIAS)
        elif model == "wide":
            np.savez(directory / "model.npz", weight=2 * np.eye(WIDE, dtype=np.float32))
        else:
            raise Cannot(model)
        return ()


CASES: list[BackendCase] = [PluginCase()]
