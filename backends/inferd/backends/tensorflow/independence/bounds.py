"""The bounds of a StridedSlice."""

from __future__ import annotations

from inferd.backends.independence import slices
from inferd.backends.independence.elements import sizes_of
from inferd.backends.independence.sizes import NotUnderstood
from inferd.backends.independence.values import shaped
from inferd.backends.tensorflow.independence.node import Node

_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def sliced_axes(node: Node, rank: int) -> list[slices.Step]:
    """What is done to each axis of a tensor of `rank` axes."""
    begin = node.input(1)
    if len(shaped(begin)) != 1:
        raise NotUnderstood("has bounds that are no vector")
    masks = {name: node.integer(f"{name}_mask") for name in _MASKS}
    return slices.sliced_axes(sizes_of(begin), node.sizes(2), node.sizes(3), masks, rank)
