"""What loads and unloads leave behind in the process: garbage in cycles, and freed pages of the heap.

A framework adds hundreds of thousands of objects that live as long as the process. A full collection that visits them
stops every thread for a fifth of a second; frozen objects are not visited. Models are loaded after the freeze, so that
what they leave behind can be collected.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable

_MANY_MODULES = 50  # an import of at least this many is that of a framework
_YOUNG = (
    10_000  # objects between two collections of young objects: a batch makes a thousand, which reference counts free
)
_NEVER = 1_000_000_000
_PATIENCE = 1.0  # seconds that a collection waits for a moment without requests, looking every _GAP
_GAP = 0.5e-3
_IDLE = 10.0  # seconds between full collections while no request is in flight
_AT_MOST = 3600.0  # seconds without one on a server that is never idle


class ProcessMemory:
    """Collects garbage and returns memory to the system around loads and unloads. Thread-safe; a process needs one.

    A full collection stops every thread. It waits for a moment without requests (`busy` tells), at most a second:
    memory has to be returned on a server that is never idle, too, and frozen objects keep the collection short.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._lock = threading.Lock()
        self._never = threading.Event()
        self._modules = 0
        self._trim = _malloc_trim()

    def settle_imports(self) -> None:
        """Freezes the objects of a framework that has just been imported, and returns what the import itself took. Does
        nothing when none was imported."""
        with self._lock:
            modules = len(sys.modules)
            if modules - self._modules < _MANY_MODULES:
                return
            self._modules = modules
            self._collect()
            gc.freeze()
            self._trim()

    def after_unload(self) -> None:
        """Collects what an unloaded model left in cycles, and returns freed pages to the system."""
        with self._lock:
            self._collect()
            self._trim()

    def _collect(self) -> None:
        end = time.monotonic() + _PATIENCE
        while self._busy() and time.monotonic() < end:
            self._never.wait(_GAP)
        gc.collect()


class IdleCollector:
    """Runs full collections, which stop every thread, while no request is in flight. For one thread, which calls `tend`
    every few seconds. Objects made by serving are freed by reference counts; cycles come from failures, operators'
    requests and frameworks."""

    def __init__(self, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._busy = busy
        self._clock = clock
        self._last = clock()

    def start(self) -> None:
        """From now on the interpreter itself collects young objects only, and those rarely."""
        gc.set_threshold(_YOUNG, 20, _NEVER)

    def tend(self) -> None:
        """Collects when a collection is due."""
        since = self._clock() - self._last
        if since < _IDLE or (self._busy() and since < _AT_MOST):
            return
        self._last = self._clock()
        if any(gc.get_count()[1:]):  # otherwise hardly anything is new
            gc.collect()

    def stop(self) -> None:
        """The interpreter collects by its own rules again."""
        gc.set_threshold(700, 10, 10)


def _malloc_trim() -> Callable[[], None]:
    """glibc's malloc_trim; elsewhere a function that does nothing (musl and macOS have none)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)
