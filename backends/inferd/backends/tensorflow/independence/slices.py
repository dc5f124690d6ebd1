"""What a StridedSlice does to each axis: its bounds and its five masks, written out."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.backends.independence.elements import sizes_of
from inferd.backends.independence.sizes import ONE, NotUnderstood, Size
from inferd.backends.independence.values import shaped
from inferd.backends.tensorflow.independence.node import Node


@dataclass(frozen=True, slots=True)
class All:
    """The axis as it is."""


@dataclass(frozen=True, slots=True)
class New:
    """A new axis of size 1."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One place of the axis, which goes."""

    index: Size


@dataclass(frozen=True, slots=True)
class Take:
    """Some places of the axis. `start` and `end` are None where the slice goes to the end of the axis."""

    start: Size | None
    end: Size | None
    step: Size


Step = All | New | Pick | Take


def sliced_axes(node: Node, rank: int) -> list[Step]:
    """What is done to each axis of a tensor of `rank` axes, with New for each axis that is added."""
    begin = node.input(1)
    if len(shaped(begin)) != 1:
        raise NotUnderstood("has bounds that are no vector")
    begins, ends, steps = sizes_of(begin), node.sizes(2), node.sizes(3)
    if len(ends) != len(begins) or len(steps) != len(begins):
        raise NotUnderstood("has bounds of different length")
    masks = {name: node.integer(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if masks["ellipsis"] & (masks["ellipsis"] - 1):
        raise NotUnderstood("has several ellipses")

    def has(name: str, i: int) -> bool:
        return bool(masks[name] >> i & 1)

    used = sum(not has("ellipsis", i) and not has("new_axis", i) for i in range(len(begins)))
    if used > rank:
        raise NotUnderstood("has bounds for more axes than there are")
    result: list[Step] = []
    for i in range(len(begins)):
        if has("ellipsis", i):
            result += [All()] * (rank - used)
        elif has("new_axis", i):
            result.append(New())
        elif has("shrink_axis", i):
            result.append(Pick(begins[i]))
        elif steps[i].number is None or steps[i].number == 0:
            raise NotUnderstood("takes every n-th place, with an n that is not known")
        elif has("begin", i) and has("end", i) and steps[i] == ONE:
            result.append(All())
        else:
            result.append(Take(None if has("begin", i) else begins[i], None if has("end", i) else ends[i], steps[i]))
    if not masks["ellipsis"] & ((1 << len(begins)) - 1):
        result += [All()] * (rank - used)
    return result
