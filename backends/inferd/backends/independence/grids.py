"""Space cut into interleaved grids that lie in front of the batch: how dilated convolutions are made."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, computed, size_of
from inferd.backends.independence.values import ROWS, Value, constant, data, rows, shaped


def space_to_batch(value: Value, blocks: Sequence[int], pads: Sequence[Size]) -> Value:
    """Cuts space into interleaved grids and lays them in front of the batch: [N, ...] to [grids * N, ...]. `pads`: two
    for each block."""
    data(value)
    shape = list(shaped(value))
    if len(pads) != 2 * len(blocks) or len(shape) <= len(blocks):
        raise NotUnderstood("has blocks for other axes than there are")
    many = 1
    for i, block in enumerate(blocks):
        padded = shape[i + 1] + pads[2 * i] + pads[2 * i + 1]
        part = padded.over(size_of(block)) if block >= 1 else None
        shape[i + 1] = computed("grid", padded, block) if part is None else part
        many *= block
    if value.kind is not ROWS:
        return constant([shape[0] * many, *shape[1:]])
    if value.axis and value.axis <= len(blocks):
        raise MixesRows("moves elements over the batch axis")
    if value.axis:
        raise NotUnderstood("moves elements to the first axis, which is not that of the rows")
    return rows([shape[0] * many, *shape[1:]], 0, value.outer * many, value.inner)


def batch_to_space(value: Value, blocks: Sequence[int], crops: Sequence[Size]) -> Value:
    """The inverse of space_to_batch."""
    data(value)
    shape = list(shaped(value))
    if len(crops) != 2 * len(blocks) or len(shape) <= len(blocks) or min([1, *blocks]) < 1:
        raise NotUnderstood("has blocks for other axes than there are")
    many = 1
    for i, block in enumerate(blocks):
        shape[i + 1] = shape[i + 1] * block - crops[2 * i] - crops[2 * i + 1]
        many *= block
    first = shape[0].over(size_of(many))
    if value.kind is not ROWS:
        if first is None:
            raise NotUnderstood("moves elements from the first axis in a way that is not understood")
        return constant([first, *shape[1:]])
    outer = value.outer.over(size_of(many)) if value.axis == 0 else None
    if first is None or outer is None:
        raise MixesRows("takes elements from several rows")
    return rows([first, *shape[1:]], 0, outer, value.inner)
