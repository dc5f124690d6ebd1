"""Shared memory for tensors: anonymous, passed by descriptor, and of one size for ever.

    Outbox   the side that writes: makes arenas, larger ones as need be
    Inbox    the side that reads: maps those that come
    Stages   arenas that the scheduler puts batches together in, so that nothing is copied once more

An arena is sealed against shrinking, or a peer could cut it short and so kill whoever reads. It has no name and takes
no room in /dev/shm, which has 64 MB in a container.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
ALIGNMENT = 64  # a cache line, and the widest vector load
_SMALLEST = 64 * 2**10
_KEPT = 256 * 2**20  # a larger arena is used once: it would sit there for ever


class ArenaError(Exception):
    """What came is no arena that can be read safely."""


class Arena:
    """Mapped memory; it is unmapped when nobody refers to it or to a view of it any more."""

    __slots__ = ("bytes", "memory", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        """Maps the descriptor, which stays the caller's to close."""
        self.size = size
        self.memory = mmap.mmap(descriptor, size)
        self.bytes: Bytes = np.frombuffer(self.memory, np.uint8)


class Outbox:
    """One direction of one instance, the writing side. Not thread-safe."""

    def __init__(self) -> None:
        self._arena: Arena | None = None

    def room(self, nbytes: int) -> tuple[Arena, int | None]:
        """An arena of at least that many bytes. With a descriptor when it is a new one: it goes with the next message,
        and is to be closed then. What was written before is void."""
        arena = self._arena
        if arena is not None and nbytes <= arena.size:
            return arena, None
        descriptor, arena = _make(nbytes)
        self._arena = arena
        return arena, descriptor

    def end(self) -> None:
        """The message has been answered: what is too large to be kept goes. The reader maps another one next time."""
        if self._arena is not None and self._arena.size > _KEPT:
            self._arena = None

    def forget(self) -> None:
        """The peer is another one: it has mapped nothing yet."""
        self._arena = None


class Stages:
    """Arenas lent to somebody who fills them, for as long as he keeps them. Not thread-safe.

    Each has a number from 1 on, under which the reader knows it; a number is used again when its arena is gone.
    """

    def __init__(self) -> None:
        self._lent: dict[int, tuple[int, weakref.ref[Bytes]]] = {}  # by the identity of the array lent
        self._unsent: dict[int, int] = {}  # descriptors by number

    def lend(self, nbytes: int) -> Bytes:
        """`nbytes` bytes of shared memory."""
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
        """Number and offset of an array that lies in a stage, None for one that lies elsewhere."""
        base = array.base
        if base is None:
            return None
        number, lent = self._lent.get(id(base), (0, None))
        stage = lent() if lent is not None else None
        if stage is None or stage is not base or not array.flags.c_contiguous:
            return None
        return number, array.__array_interface__["data"][0] - stage.__array_interface__["data"][0]

    def unsent(self, number: int) -> int | None:
        """The descriptor of a stage that the reader does not know yet, or not any more: to be sent, and closed."""
        descriptor = self._unsent.get(number)
        if descriptor is not None and os.fstat(descriptor).st_size > _KEPT:
            return os.dup(descriptor)  # the reader forgets it after each run
        return self._unsent.pop(number, None)

    def close(self) -> None:
        """Forgets everything."""
        for descriptor in self._unsent.values():
            os.close(descriptor)
        self._unsent.clear()
        self._lent.clear()


class Inbox:
    """One direction of one instance, the reading side. Not thread-safe."""

    def __init__(self) -> None:
        self._arenas: dict[int, Arena] = {}

    def arena(self, number: int = 0) -> Arena:
        """The arena that came last under this number. Raises ArenaError when none has."""
        arena = self._arenas.get(number)
        if arena is None:
            raise ArenaError(f"tensors in shared memory {number}, which never came")
        return arena

    def adopt(self, descriptor: int, number: int = 0) -> None:
        """Maps an arena and closes its descriptor. Raises ArenaError."""
        try:
            size = os.fstat(descriptor).st_size
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ArenaError("shared memory that may shrink")
            self._arenas[number] = Arena(descriptor, size)
        except (OSError, ValueError) as error:
            raise ArenaError(f"shared memory that cannot be mapped: {error}") from None
        finally:
            os.close(descriptor)

    def end(self) -> None:
        """As Outbox.end, for what nobody reads any more."""
        for number in [number for number, arena in self._arenas.items() if arena.size > _KEPT]:
            del self._arenas[number]


def aligned(nbytes: int) -> int:
    """The size of a tensor's place in an arena."""
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
