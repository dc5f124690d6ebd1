"""Strided slices, as TensorFlow and LiteRT have them: bounds and five masks, written out for each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.backends.independence.layout import TO_THE_END, slice_length
from inferd.backends.independence.sizes import ONE, MixesRows, NotUnderstood, Size, computed, size_of
from inferd.backends.independence.values import INDEX, Value, data, like, shaped


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


def sliced_axes(
    begins: Sequence[Size], ends: Sequence[Size], steps: Sequence[Size], masks: Mapping[str, int], rank: int
) -> list[Step]:
    """What is done to each axis of a tensor of `rank` axes, with New for each axis that is added. `masks`: "begin",
    "end", "ellipsis", "new_axis" and "shrink_axis"."""
    if len(ends) != len(begins) or len(steps) != len(begins):
        raise NotUnderstood("has bounds of different length")
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


def strided_slice(value: Value, steps: Sequence[Step]) -> Value:
    """The places that the steps take of each axis. Raises MixesRows unless all rows are taken."""
    if value.kind is not INDEX:
        data(value)
    shape = shaped(value)
    result: list[Size] = []
    place, at = 0, 0
    for step in steps:
        if isinstance(step, New):
            result.append(ONE)
            continue
        size, own = shape[at], value.laid_out and at == value.axis
        at += 1
        if own:
            place = len(result)
        if isinstance(step, All):
            result.append(size)
        elif isinstance(step, Pick):
            if own:
                raise MixesRows("takes one row of the batch")
            if step.index.batched:
                raise MixesRows("takes a place by the number of rows")
        else:
            start, end = step.start, step.end
            if step.step == ONE and (start is None or start == 0) and (end is None or end == size):
                result.append(size)
                continue
            if own:
                raise MixesRows("takes some rows of the batch")
            if (start is not None and start.batched) or (end is not None and end.batched) or step.step.batched:
                raise MixesRows("takes as many elements as there are rows")
            result.append(_taken(size, start, end, step.step))
    return like(value, result, place)


def _taken(size: Size, start: Size | None, end: Size | None, step: Size) -> Size:
    """The number of elements that a slice takes."""
    if (step.number or 0) > 0:
        first = size_of(0) if start is None else start
        last = size_of(TO_THE_END) if end is None else end
        return slice_length(size, first, last, step)
    if start is None and end is None and step == -1:
        return size
    before, after = (None if bound is None else bound.number for bound in (start, end))
    bounds_known = (start is None or before is not None) and (end is None or after is not None)
    if size.number is not None and step.number is not None and bounds_known:
        return size_of(len(range(size.number)[slice(before, after, step.number)]))
    return computed("strided", size, str(start), str(end), str(step), least=0)
