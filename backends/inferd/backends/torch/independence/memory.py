"""Tensors as names see them: several may lie in the same memory, and a write through one changes the others.

A view shows elements of another tensor in the same memory. The operators' functions hold for all contents, so block i
of a view with rows lies in block i of the tensor that it is a view of. Therefore a write that puts data of row i into
block i, through any tensor of that memory, leaves true what is known of all the others.
"""

from __future__ import annotations

from dataclasses import replace

from inferd.backends.independence.values import CONST, MIXED, ROWS, Cause, Value, mixed


class Memory:
    """The tensors that may lie in one memory.

    own   it was made during the run, or belongs to an input with rows: it may be written. False for tensors of the
          model, for inputs that all rows share, and where it is not known what else lies there
    """

    __slots__ = ("_into", "holders", "own")

    def __init__(self, own: bool) -> None:
        self.own = own
        self.holders: list[TensorRef] = []
        self._into: Memory | None = None

    def root(self) -> Memory:
        """The memory with which this one has been joined since; itself if there is none."""
        found = self
        while found._into is not None:
            found = found._into
        return found

    def join(self, other: Memory) -> None:
        """From now on the tensors of both may lie in one memory, this one. Both must be roots."""
        self.own = self.own and other.own
        for holder in other.holders:
            holder.memory = self
        self.holders += other.holders
        other.holders = []
        other._into = self


class TensorRef:
    """A tensor during the analysis.

    value   what is known of it. A write may replace it
    dtype   the element type as torch names it ("int64"), None if it is not known
    memory  the memory in which it may lie
    """

    __slots__ = ("dtype", "memory", "value")

    def __init__(
        self, value: Value, dtype: str | None = None, memory: Memory | None = None, *, own: bool = True
    ) -> None:
        self.value = value
        self.dtype = dtype
        self.memory = Memory(own) if memory is None else memory.root()
        self.memory.holders.append(self)


def joined_memory(memories: list[Memory]) -> Memory:
    """One memory for tensors that may lie in any of several."""
    first = memories[0].root()
    for memory in memories[1:]:
        other = memory.root()
        if other is not first:
            first.join(other)
    return first


def write(target: TensorRef, new: Value) -> bool:
    """Replaces the elements of a tensor. False if that could move rows, or if the memory may not be written: nothing is
    changed then, and the caller has to `spoil` the memory."""
    old, memory = target.value, target.memory
    kinds = {holder.value.kind for holder in memory.holders if holder.value.kind is not MIXED}
    if not memory.own or len(kinds) != 1 or old.kind not in kinds or new.kind is not old.kind or new.shape != old.shape:
        return False
    if new.shape is None or old.kind not in (ROWS, CONST):
        return False
    if old.kind is ROWS and new.layout != old.layout:
        return False
    for holder in memory.holders:
        if holder.value.known is not None:
            holder.value = replace(holder.value, known=None)
    return True


def spoil(memory: Memory, cause: Cause) -> None:
    """Nothing is known any more of the elements in a memory."""
    for holder in memory.holders:
        if holder.value.kind is not MIXED:
            holder.value = mixed(cause, holder.value.shape)
