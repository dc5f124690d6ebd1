"""The order in which frameworks must be imported. This module is the only place that knows it.

The newest releases from PyPI end the process (SIGSEGV) when TensorFlow is imported before triton: both bring LLVM, and
triton then binds to the symbols of TensorFlow's. PyPI's torch requires triton and imports it late, with the first
torch.export program. `make test-unpinned` shows that the order below is safe; docs/decisions/import-order.md has the
measurements.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

EARLIER = {"tensorflow": ("triton",)}
"""Framework → modules that are imported before it, where they are installed."""


def import_framework(name: str) -> ModuleType:
    """Imports the framework with this module name, and before it what has to come first. Thread-safe: Python's import
    locks make other threads wait. Raises what the import of the framework raises; a module that has to come first and
    cannot be imported is passed over, because then nobody else can load it either."""
    for earlier in EARLIER.get(name, ()):
        if importlib.util.find_spec(earlier) is not None:
            try:
                importlib.import_module(earlier)
            except Exception:
                continue  # see above; what matters is the process
    return importlib.import_module(name)
