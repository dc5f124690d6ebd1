"""What loads and unloads leave behind in the process: garbage collector generations and freed heap pages.

A framework adds hundreds of thousands of objects that live for ever. Frozen, they are not walked by later collections,
which would stop every thread for a fifth of a second. Models are loaded after the freeze, so that what they leave stays
collectable.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable

_MANY_MODULES = 50  # an import of this many is a framework's


class Memory:
    """Keeps the process's memory tidy around loads. Thread-safe. One per process is enough."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modules = 0
        self._trim = _malloc_trim()

    def settle_imports(self) -> None:
        """Freezes what an import has just brought in; does nothing when there was none."""
        with self._lock:
            modules = len(sys.modules)
            if modules - self._modules < _MANY_MODULES:
                return
            self._modules = modules
            gc.collect()
            gc.freeze()

    def after_unload(self) -> None:
        """Collects what an unloaded model left in cycles and gives freed pages back to the system."""
        with self._lock:
            gc.collect()
            if self._trim is not None:
                self._trim()


def _malloc_trim() -> Callable[[], None] | None:
    """glibc's malloc_trim, None elsewhere (musl and macOS have none, jemalloc keeps its own books)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)
