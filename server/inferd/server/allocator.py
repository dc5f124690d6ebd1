"""The heap of this process: how glibc is told what to keep, and to give memory back to the system.

glibc returns a large block at once and gets it back from the kernel page by page, which is half of the work of a
request with a large tensor. So large blocks are kept, and what is not used any more is given back when there is nothing
to do (`lifecycle/resources/heap.py`, `isolation/worker.py`). glibc can give back all of its first heap only, and of
those that it makes for further threads not the end: up to 64 MiB of each would stay. So there are only two. With a
single one the front end and the models' threads would wait for each other.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 2
_KEPT_BLOCK: Final = 32 * 2**20  # bytes; the largest value that glibc takes. Larger blocks are returned at once
_KEPT_TOP: Final = 256 * 2**20  # bytes at the end of the heap
_ENVIRONMENT: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def _libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim  # noqa: B018  # musl and others have no such function
        libc.mallopt  # noqa: B018
    except (OSError, AttributeError):
        return None
    return libc


def set_up_heap() -> None:
    """Makes the process use two heaps, which keep large blocks for the next request. To be called before there is a
    second thread. Does nothing without glibc, and where the environment has settings of its own for the allocator."""
    libc = _libc()
    if libc is None or any(name in os.environ for name in _ENVIRONMENT):
        return
    libc.mallopt(_M_ARENA_MAX, _HEAPS)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_TOP)


def trim() -> None:
    """Gives all unused memory of the heap back to the system. Takes a few milliseconds for each 100 MB; allocations of
    other threads wait meanwhile."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def resident_bytes() -> int:
    """The resident memory of the process in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
