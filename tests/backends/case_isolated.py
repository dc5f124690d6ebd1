"""The conformance cases with isolation: each version runs in a worker process.

By default there is one ONNX case with a few element types. With `INFERD_TEST_ISOLATED=all` (`make isolation`) all cases
are run; they take long, because each version imports its framework.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.backends import BackendCase, load_module

from inferd.backends.api import Backend, Model, OpenRequest, Signature
from inferd.server.isolation.process import WorkerLimits
from inferd.server.isolation.proxy import IsolatedBackend
from inferd.wire.dtypes import DType

ALL = os.environ.get("INFERD_TEST_ISOLATED") == "all"
FEW = (DType.BOOL, DType.STRING, DType.BF16)


class OneProcessEach:
    """A backend that opens each version behind a proxy with a worker process, as the loader does."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name = inner.name
        self.platforms = inner.platforms
        self.find = inner.find
        self.complete = inner.complete
        self.files = inner.files

    def _proxy(self) -> IsolatedBackend:
        cls = type(self._inner)
        return IsolatedBackend(
            self._inner, f"{cls.__module__}:{cls.__qualname__}", "m:1", WorkerLimits(), {"model": "m"}
        )

    def devices(self) -> Sequence[str]:
        proxy = self._proxy()
        try:
            return proxy.devices()
        finally:
            proxy.close()

    def open(self, request: OpenRequest) -> Model:
        proxy = self._proxy()
        try:
            return proxy.open(request)
        except BaseException:
            proxy.close()
            raise


class IsolatedCase(BackendCase):
    """Another case, with its versions in worker processes."""

    def __init__(self, inner: BackendCase) -> None:
        self._inner = inner
        self.id = f"isolated-{inner.id}"
        self.module = inner.module
        self.dtypes = inner.dtypes if ALL else FEW
        self.heavy = inner.heavy

    def backend(self) -> Backend:
        return OneProcessEach(self._inner.backend())

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        return self._inner.write(model, directory, dtype)

    def refusals(self) -> Mapping[str, str]:
        return self._inner.refusals()


STEMS = ("case_onnx", "case_torch", "case_tensorflow", "case_litert") if ALL else ("case_onnx",)
CASES: list[BackendCase] = [IsolatedCase(case) for stem in STEMS for case in load_module(stem).CASES]
CASES = CASES if ALL else CASES[:1]
