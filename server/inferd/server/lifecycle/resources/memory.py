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
import time
from collections.abc import Callable

_MANY_MODULES = 50  # an import of this many is a framework's
_YOUNG = 10_000  # objects between two looks at the young ones: a batch makes a thousand, and frees them by itself
_NEVER = 1_000_000_000
_PATIENCE = 1.0  # seconds that a collection waits for a moment without requests, looking every _GAP
_GAP = 0.5e-3
_IDLE = 10.0  # seconds between full collections while nothing is in flight
_AT_MOST = 3600.0  # seconds without one on a server that is never idle


class ProcessMemory:
    """Keeps the process's memory tidy around loads. Thread-safe. One per process is enough.

    A full collection stops every thread. So it waits for a moment without requests (`busy`), but not for long: the
    memory of what was unloaded has to come back on a server that is never idle, too, and what is frozen makes it short.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._lock = threading.Lock()
        self._never = threading.Event()
        self._modules = 0
        self._trim = _malloc_trim()

    def settle_imports(self) -> None:
        """Freezes what an import has just brought in and gives back what it took for itself; does nothing when there
        was none."""
        with self._lock:
            modules = len(sys.modules)
            if modules - self._modules < _MANY_MODULES:
                return
            self._modules = modules
            self._collect()
            gc.freeze()
            self._trim()

    def after_unload(self) -> None:
        """Collects what an unloaded model left in cycles and gives freed pages back to the system."""
        with self._lock:
            self._collect()
            self._trim()

    def _collect(self) -> None:
        end = time.monotonic() + _PATIENCE
        while self._busy() and time.monotonic() < end:
            self._never.wait(_GAP)
        gc.collect()


class IdleCollector:
    """Full collections, which stop every thread, while no request is in flight: `tend` is called now and then, by one
    thread. What serving makes is freed by reference counts; cycles come from failures, operators and frameworks.
    """

    def __init__(self, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._busy = busy
        self._clock = clock
        self._last = clock()

    def start(self) -> None:
        """From now on the interpreter collects young objects only, and those seldom."""
        gc.set_threshold(_YOUNG, 20, _NEVER)

    def tend(self) -> None:
        """Collects if it is due."""
        since = self._clock() - self._last
        if since < _IDLE or (self._busy() and since < _AT_MOST):
            return
        self._last = self._clock()
        if any(gc.get_count()[1:]):  # else there is next to nothing new
            gc.collect()

    def stop(self) -> None:
        """The interpreter's own habits again."""
        gc.set_threshold(700, 10, 10)


def _malloc_trim() -> Callable[[], None]:
    """glibc's malloc_trim, nothing elsewhere (musl and macOS have none, jemalloc keeps its own books)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)
