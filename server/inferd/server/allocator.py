"""The heap of this process: how glibc is told what to keep, and to give memory back to the system.

glibc returns a large block at once and gets it back from the kernel page by page, which is half of the work of a
request with a large tensor. So large blocks are kept, and what is not used any more is given back when there is nothing
to do (`lifecycle/resources/heap.py`, `isolation/worker.py`).

glibc gives back unused memory anywhere in a heap when asked, but of further heaps than the first not the end, which it
gives back only when a block is freed and the end is long. So the end that is kept is short, shorter while much is in
flight, there are few heaps, and blocks are freed for that purpose (`trim_ends`). With two heaps, the front end and the
core's threads would wait for each other.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 4
_KEPT_BLOCK: Final = 32 * 2**20  # bytes; the largest value that glibc takes. Larger blocks are returned at once
KEPT_END: Final = 32 * 2**20  # bytes at the end of each heap
KEPT_END_OF_MUCH: Final = 2**20  # the same while much is in flight
_FREED_BLOCK: Final = 128 * 2**10  # bytes; glibc looks at the end of a heap after blocks of 64 KiB and more
_PATIENCE: Final = 10.0  # seconds in which new threads must have started
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
    """Limits the number of heaps, and makes them keep large blocks for the next request. Does nothing without glibc,
    and where the environment has settings of its own for the allocator."""
    libc = _libc()
    if libc is None or any(name in os.environ for name in _ENVIRONMENT):
        return
    libc.mallopt(_M_ARENA_MAX, _HEAPS)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
    libc.mallopt(_M_TRIM_THRESHOLD, KEPT_END)


def keep_end(nbytes: int) -> None:
    """Makes each heap give back its end when a block is freed and the end is longer than `nbytes`. Does nothing where
    `set_up_heap` does nothing."""
    libc = _libc()
    if libc is not None and not any(name in os.environ for name in _ENVIRONMENT):
        libc.mallopt(_M_TRIM_THRESHOLD, nbytes)


def trim() -> None:
    """Gives all unused memory of the heap back to the system. Takes a few milliseconds for each 100 MB; allocations of
    other threads wait meanwhile."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def trim_ends(kept: int) -> None:
    """Gives the unused ends of all heaps back to the system. Afterwards each heap keeps `kept` bytes, as with
    `keep_end`. Does nothing where `set_up_heap` does nothing.

    A thread of a heap has to free a block for it. glibc gives new threads the heaps in turn, first those that have no
    thread. So there are twice as many threads as heaps, at the same time.
    """
    libc = _libc()
    if libc is None or any(name in os.environ for name in _ENVIRONMENT):
        return
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    together = threading.Barrier(2 * _HEAPS)

    def free_a_block() -> None:
        block = libc.malloc(_FREED_BLOCK)
        with suppress(threading.BrokenBarrierError):
            together.wait(_PATIENCE)
        libc.free(block)

    libc.mallopt(_M_TRIM_THRESHOLD, _FREED_BLOCK)
    try:
        threads = [threading.Thread(target=free_a_block, name="inferd-trim") for _ in range(2 * _HEAPS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, kept)


def resident_bytes() -> int:
    """The resident memory of the process in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
