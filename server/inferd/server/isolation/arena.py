"""Shared memory for tensors: anonymous, passed by descriptor, of fixed size.

    Outbox   the writing side: creates arenas, and larger ones when needed
    Inbox    the reading side: maps the arenas that it receives
    Stages   arenas in which the scheduler joins the inputs of a batch, which saves a copy

An arena is sealed against shrinking: otherwise a peer could truncate it, and reading it would kill the reader (SIGBUS).
It has no name and uses no space in /dev/shm, which has 64 MB in a container.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
ALIGNMENT = 64  # a cache line, and the widest vector load
_MAP_FIXED = 0x10  # Linux; the module mmap has no name for it
_SMALLEST = 64 * 2**10
_KEPT = 256 * 2**20  # bytes; a larger arena is used once, because a kept one is never freed


class ArenaError(Exception):
    """The received memory or tensor description cannot be read safely."""


class Arena:
    """Mapped memory. It is unmapped when nothing refers to it or to a view of it any more."""

    __slots__ = ("bytes", "memory", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        """Maps the descriptor. The caller still has to close it."""
        self.size = size
        self.memory = mmap.mmap(descriptor, size)
        self.bytes: Bytes = np.frombuffer(self.memory, np.uint8)

    def make_private(self) -> None:
        """Replaces the shared memory by a private copy at the same address. For a process that was forked: from now on
        neither process sees what the other one writes."""
        content = self.bytes.copy()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = self.bytes.ctypes.data
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        if libc.mmap(address, self.size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != address:
            raise OSError(ctypes.get_errno(), "memory of a forked process cannot be made private")
        self.bytes[:] = content


class Outbox:
    """The writing side of one direction of one instance. Not thread-safe."""

    def __init__(self) -> None:
        self._arena: Arena | None = None

    def reserve(self, nbytes: int) -> tuple[Arena, int | None]:
        """An arena of at least `nbytes` bytes, whose content may be overwritten. If it is new, its descriptor is
        returned, too: the caller sends it with the next message and then closes it."""
        arena = self._arena
        if arena is not None and nbytes <= arena.size:
            return arena, None
        descriptor, arena = _make(nbytes)
        self._arena = arena
        return arena, descriptor

    def end(self) -> None:
        """Call it when the message has been answered. Frees an arena that is too large to be kept."""
        if self._arena is not None and self._arena.size > _KEPT:
            self._arena = None

    def make_private(self) -> None:
        """See Arena.make_private."""
        if self._arena is not None:
            self._arena.make_private()

    def forget(self) -> None:
        """Call it when the peer is replaced or gone: the next arena is a new one."""
        self._arena = None


class Stages:
    """Arenas that are lent to a caller, who fills them. An arena is freed with the caller's last reference to it. Not
    thread-safe.

    Each arena has a number from 1 on, by which the reader knows it. A number is used again when its arena is freed.
    """

    def __init__(self) -> None:
        self._lent: dict[int, tuple[int, weakref.ref[Bytes]]] = {}  # by the id() of the lent array
        self._unsent: dict[int, int] = {}  # number → descriptor

    def lend(self, nbytes: int) -> Bytes:
        """Lends at least `nbytes` bytes of shared memory."""
        for identity in [identity for identity, (_, lent) in self._lent.items() if lent() is None]:
            number, _ = self._lent.pop(identity)
            if number in self._unsent:
                os.close(self._unsent.pop(number))
        numbers = {number for number, _ in self._lent.values()}
        number = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
        descriptor, arena = _make(max(1, nbytes))
        self._lent[id(arena.bytes)] = number, weakref.ref(arena.bytes)
        self._unsent[number] = descriptor
        return arena.bytes

    def find(self, array: np.ndarray[Any, Any]) -> tuple[int, int] | None:
        """The number and the offset (bytes) of an array in a stage; None if the array is not in a stage."""
        base = array.base
        if base is None:
            return None
        number, lent = self._lent.get(id(base), (0, None))
        stage = lent() if lent is not None else None
        if stage is None or stage is not base or not array.flags.c_contiguous:
            return None
        return number, array.__array_interface__["data"][0] - stage.__array_interface__["data"][0]

    def unsent(self, number: int) -> int | None:
        """The descriptor of a stage that the reader has not mapped (any more), else None. The caller sends it and
        closes it."""
        descriptor = self._unsent.get(number)
        if descriptor is not None and os.fstat(descriptor).st_size > _KEPT:
            return os.dup(descriptor)  # the reader unmaps it after each run
        return self._unsent.pop(number, None)

    def close(self) -> None:
        """Forgets all stages and closes their descriptors."""
        for descriptor in self._unsent.values():
            os.close(descriptor)
        self._unsent.clear()
        self._lent.clear()


class Inbox:
    """The reading side of one direction of one instance. Not thread-safe."""

    def __init__(self) -> None:
        self._arenas: dict[int, Arena] = {}

    def arena(self, number: int = 0) -> Arena:
        """The arena last received with this number. Raises ArenaError if there is none."""
        arena = self._arenas.get(number)
        if arena is None:
            raise ArenaError(f"tensors in shared memory {number}, which never came")
        return arena

    def adopt(self, descriptor: int, number: int = 0) -> None:
        """Maps a received arena and closes its descriptor, whether mapping succeeds or not. Raises ArenaError."""
        try:
            size = os.fstat(descriptor).st_size
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ArenaError("shared memory that may shrink")
            self._arenas[number] = Arena(descriptor, size)
        except (OSError, ValueError) as error:
            raise ArenaError(f"shared memory that cannot be mapped: {error}") from None
        finally:
            os.close(descriptor)

    def make_private(self) -> None:
        """See Arena.make_private."""
        for arena in self._arenas.values():
            arena.make_private()

    def end(self) -> None:
        """Call it when the message has been answered. Unmaps arenas that are too large to be kept."""
        for number in [number for number, arena in self._arenas.items() if arena.size > _KEPT]:
            del self._arenas[number]


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to the alignment of tensors in an arena."""
    return (nbytes + ALIGNMENT - 1) & -ALIGNMENT


def _make(nbytes: int) -> tuple[int, Arena]:
    size = max(_SMALLEST, 1 << (nbytes - 1).bit_length()) if nbytes <= _KEPT else aligned(nbytes)
    descriptor = os.memfd_create("inferd-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor, Arena(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
