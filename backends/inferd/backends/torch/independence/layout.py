"""Operators that move elements, or make tensors, without computing on elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import (
    ONE,
    MixesRows,
    N,
    NotUnderstood,
    Size,
    at_most,
    product,
    size_of,
    smaller,
)
from inferd.backends.independence.values import (
    CONST,
    INDEX,
    ROWS,
    Value,
    apart,
    axis_of,
    constant,
    data,
    filled,
    fixed,
    like,
    rows,
    shaped,
)
from inferd.backends.torch.independence.call import AtenTable, Call, Number, as_size

TABLE = AtenTable()


@TABLE.add("view reshape _unsafe_view view_copy", sizes="size shape")
def reshape(call: Call) -> Value:
    target = call.sizes("shape" if "shape" in call.arguments else "size")
    if target is None or call.overload == "dtype":
        raise NotUnderstood("has no target shape")
    return layout.reshaped(call.x, layout.target_shape(call.x, target, zero=True))


@TABLE.add("view_as reshape_as", shape_of="other")
def reshape_as(call: Call) -> Value:
    return layout.reshaped(call.x, shaped(call.tensor("other")))


@TABLE.add("flatten")
def flatten(call: Call) -> Value:
    shape = shaped(call.x)
    if not shape:
        return layout.reshaped(call.x, [ONE])
    first, last = axis_of(call.x, call.integer("start_dim")), axis_of(call.x, call.integer("end_dim"))
    if first > last:
        raise NotUnderstood("flattens no axes")
    return layout.reshaped(call.x, [*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :]])


@TABLE.add("ravel")
def ravel(call: Call) -> Value:
    return layout.reshaped(call.x, [product(shaped(call.x))])


@TABLE.add("unflatten", sizes="sizes")
def unflatten(call: Call) -> Value:
    shape, parts = shaped(call.x), call.sizes("sizes")
    axis = axis_of(call.x, call.integer("dim"))
    if not parts:
        raise NotUnderstood("has no sizes")
    whole = replace(call.x, shape=(shape[axis],))  # of which the shape alone is read
    part = layout.target_shape(whole, parts, zero=True)
    return layout.reshaped(call.x, [*shape[:axis], *part, *shape[axis + 1 :]])


@TABLE.add("squeeze squeeze_copy")
def squeeze(call: Call) -> Value:
    shape = shaped(call.x)
    given = call.integers("dim")
    if call.x.kind not in (CONST, INDEX):
        data(call.x)
    axes = {axis_of(call.x, axis) for axis in given} if given is not None else set(range(len(shape)))
    gone = set()
    for axis in axes:
        if call.x.laid_out and axis == call.x.axis:
            raise MixesRows("drops the batch axis of a single row")
        if shape[axis] == 1:
            gone.add(axis)
        elif (shape[axis].least or 0) < 2:
            raise NotUnderstood("drops an axis whose size is not known")
    return layout.without_axes(call.x, gone)


@TABLE.add("unsqueeze unsqueeze_copy")
def unsqueeze(call: Call) -> Value:
    return layout.with_axes(call.x, {axis_of(call.x, call.integer("dim"), extra=1)})


@TABLE.add("permute permute_copy")
def permute(call: Call) -> Value:
    return layout.transposed(call.x, [axis_of(call.x, axis) for axis in call.integers("dims") or []])


@TABLE.add("transpose transpose_copy swapaxes swapdims")
def transpose(call: Call) -> Value:
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    order = list(range(len(shaped(call.x))))
    a, b = (axis_of(call.x, call.integer(name)) for name in names)
    order[a], order[b] = order[b], order[a]
    return layout.transposed(call.x, order)


@TABLE.add("t numpy_T mT t_copy")
def turn(call: Call) -> Value:
    order = list(range(len(shaped(call.x))))
    if call.operator == "mT":
        if len(order) < 2:
            raise NotUnderstood("turns what is no matrix")
        order[-2], order[-1] = order[-1], order[-2]
    else:
        if len(order) > 2 and call.operator != "numpy_T":
            raise NotUnderstood("turns what is no matrix")
        order.reverse()
    return layout.transposed(call.x, order)


@TABLE.add("movedim moveaxis")
def movedim(call: Call) -> Value:
    sources = [axis_of(call.x, axis) for axis in call.integers("source") or []]
    targets = [axis_of(call.x, axis) for axis in call.integers("destination") or []]
    rank = len(shaped(call.x))
    if len(sources) != len(targets) or len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise NotUnderstood("moves axes twice")
    others = iter([axis for axis in range(rank) if axis not in sources])
    placed = dict(zip(targets, sources, strict=True))
    return layout.transposed(call.x, [placed[i] if i in placed else next(others) for i in range(rank)])


def _expanded(value: Value, target: Sequence[Size]) -> Value:
    shape = shaped(value)
    missing = len(target) - len(shape)
    if missing < 0:
        raise NotUnderstood("expands to a shape of lower rank")
    sizes = list(target)
    for i, size in enumerate(sizes):
        if size == -1 and i >= missing:
            sizes[i] = shape[i - missing]
        elif (size.least is None or size.least < 0) and not (i >= missing and size == shape[i - missing]):
            raise NotUnderstood("expands to a size that is not known")  # -1 would mean something else
    return layout.expanded(value, sizes)


@TABLE.add("expand broadcast_to expand_copy", sizes="size")
def expand(call: Call) -> Value:
    target = call.sizes("size")
    if target is None:
        raise NotUnderstood("has no target shape")
    return _expanded(call.x, target)


@TABLE.add("expand_as", shape_of="other")
def expand_as(call: Call) -> Value:
    return _expanded(call.x, shaped(call.tensor("other")))


@TABLE.add("repeat tile", sizes="repeats dims")
def repeat(call: Call) -> Value:
    times = list(call.sizes("repeats" if "repeats" in call.arguments else "dims") or [])
    shape = list(shaped(data(call.x)))
    if call.operator == "tile":
        times = [ONE] * (len(shape) - len(times)) + times
    missing = len(times) - len(shape)
    if missing < 0 or any(size.least is None or size.least < 0 for size in times):
        raise NotUnderstood("repeats a number of times that is not known")
    shape = [ONE] * missing + shape
    if call.x.kind is CONST:
        if any(number.batched and size != 1 for number, size in zip(times, shape, strict=True)):
            raise MixesRows("repeats a constant once for each row")
        return filled([size * number for size, number in zip(shape, times, strict=True)])
    if times[call.x.axis + missing] != 1:
        raise MixesRows("repeats the batch axis")
    return like(call.x, [size * number for size, number in zip(shape, times, strict=True)], call.x.axis + missing)


@TABLE.add("repeat_interleave")
def repeat_interleave(call: Call) -> Value:
    if call.overload != "self_int" or not call.has("dim"):
        raise NotUnderstood("repeats elements as often as other data says")
    axis, times = axis_of(call.x, call.integer("dim")), call.size("repeats")
    if times.least is None or times.least < 0:
        raise NotUnderstood("repeats a number of times that is not known")
    return rules.resized(call.x, {axis: shaped(call.x)[axis] * times}, "repeats")


@TABLE.add("cat concat concatenate")
def cat(call: Call) -> Value:
    return layout.joined(call.tensors("tensors"), call.integer("dim"))


@TABLE.add("stack")
def stack(call: Call) -> Value:
    values = call.tensors("tensors")
    if not values:
        raise NotUnderstood("has no operand")
    axis = axis_of(values[0], call.integer("dim"), extra=1)
    wide = []
    for value in values:
        shape = list(shaped(data(value)))
        if len(shape) != len(shaped(values[0])):
            raise NotUnderstood("stacks tensors of different rank")
        shape.insert(axis, ONE)
        wide.append(like(value, shape, value.axis + (axis <= value.axis) if value.laid_out else None))
    return layout.joined(wide, axis)


def _parts(call: Call, axis: int, sizes: Sequence[Size]) -> list[Value]:
    return [rules.resized(call.x, {axis: size}, "splits") for size in sizes]


@TABLE.add("split split_with_sizes split_copy split_with_sizes_copy unsafe_split unsafe_split_with_sizes")
def split(call: Call) -> list[Value]:
    axis = axis_of(call.x, call.integer("dim"))
    name = next(n for n in ("split_size", "split_sizes") if n in call.arguments)
    given = call.arguments[name]
    if isinstance(given, list | tuple):
        sizes = [as_size(item, name) for item in given]
        if any(size.least is None or size.least < 0 for size in sizes):
            raise NotUnderstood("splits into parts that are not known")
        return _parts(call, axis, sizes)
    size, chunk = shaped(call.x)[axis].number, call.integer(name)
    if size is None or chunk < 1:
        apart(call.x, [axis], "splits")
        raise NotUnderstood("splits an axis whose size is not known")
    return _parts(call, axis, [size_of(min(chunk, size - at)) for at in range(0, size, chunk)])


@TABLE.add("chunk unsafe_chunk")
def chunk(call: Call) -> list[Value]:
    axis, count = axis_of(call.x, call.integer("dim")), call.integer("chunks")
    size = shaped(call.x)[axis]
    if count < 1:
        raise NotUnderstood("splits into no parts")
    if size.number is not None:
        each = max(1, -(-size.number // count))
        return _parts(call, axis, [size_of(min(each, size.number - at)) for at in range(0, size.number, each)])
    exact = size.over(size_of(count))
    if exact is None:
        apart(call.x, [axis], "splits")
        raise NotUnderstood("splits an axis whose size is not known")
    return _parts(call, axis, [exact] * count)


@TABLE.add("unbind unbind_copy")
def unbind(call: Call) -> list[Value]:
    axis = axis_of(call.x, call.integer("dim"))
    apart(call.x, [axis], "takes apart")
    count = shaped(call.x)[axis].number
    if count is None:
        raise NotUnderstood("takes apart an axis whose size is not known")
    return [_selected(call.x, axis)] * count


def _selected(value: Value, axis: int) -> Value:
    shape = [size for i, size in enumerate(shaped(value)) if i != axis]
    return like(value, shape, value.axis - (axis < value.axis))


@TABLE.add("select select_copy")
def select(call: Call) -> Value:
    axis = axis_of(call.x, call.integer("dim"))
    call.size("index")
    apart(call.x, [axis], "picks one element")
    return _selected(call.x, axis)


_NO_AXIS_IS_LONGER = 2**31


def _apart_from_rows(value: Value, axis: int) -> None:
    if value.kind is ROWS and axis == value.axis:
        raise MixesRows("takes some rows of the batch")


@TABLE.add("slice slice_copy narrow narrow_copy", sizes="start end length")
def slice_(call: Call) -> Value:
    axis = axis_of(call.x, call.integer("dim"))
    data(call.x)
    size = shaped(call.x)[axis]
    start = call.size("start") if call.has("start") else size_of(0)
    if call.operator.startswith("narrow"):
        length, step = call.size("length"), ONE
        if start == 0 and length == size:
            return call.x
        _apart_from_rows(call.x, axis)
        end: Size | None = None
    else:
        step = call.size("step")
        end = call.size("end") if call.has("end") else size
        if start == 0 and step == 1 and (end == size or (end.number or 0) >= _NO_AXIS_IS_LONGER):
            return call.x
        _apart_from_rows(call.x, axis)
        length = _taken(call, size, start, end, step)
    if any(bound is not None and bound.batched for bound in (start, end, step, length)):
        raise MixesRows("takes as many elements as there are rows")
    if length.least is None or length.least < 0:
        raise NotUnderstood("takes a number of elements that is not known")
    return rules.resized(call.x, {axis: length}, "takes a slice")


def _taken(call: Call, size: Size, start: Size, end: Size, step: Size) -> Size:
    """The number of elements that a slice takes."""
    numbers = size.number, start.number, end.number, step.number
    if numbers[0] is not None and numbers[1] is not None and numbers[2] is not None and numbers[3] is not None:
        if numbers[3] < 1:
            raise NotUnderstood("takes a slice backwards")
        return size_of(len(range(numbers[0])[slice(*numbers[1:])]))
    if step == 1:
        first, last = start.number, end.number
        to_the_end = end == size or (last or 0) >= _NO_AXIS_IS_LONGER
        found = None
        if first is not None and first >= 0 and to_the_end:
            found = size - first
        elif first is not None and first >= 0 and last is not None and last < 0:
            found = size + last - first
        elif first is not None and first < 0 and to_the_end and at_most(size_of(-first), size):
            found = size_of(-first)
        elif first == 0 and (end.least or 0) >= 1:
            found = smaller(size, end)
        if found is not None and (found.least is not None and found.least >= 0):
            return found
    return call.width(size, start, end, step, least=0)


@TABLE.add("unfold")
def unfold(call: Call) -> Value:
    axis, size, step = axis_of(call.x, call.integer("dimension")), call.integer("size"), call.integer("step")
    apart(call.x, [axis], "has a window")
    span = shaped(call.x)[axis] - size
    exact = span.over(size_of(step)) if step > 0 else None
    count = exact + 1 if exact is not None else call.width(shaped(call.x)[axis], size, step)
    shape = [count if i == axis else part for i, part in enumerate(shaped(call.x))]
    return like(call.x, [*shape, size_of(size)], call.x.axis)


@TABLE.add("zeros ones full new_zeros new_ones new_full", sizes="size", shape_of="self")
def full(call: Call) -> Value:
    fill = call.arguments.get("fill_value")
    if isinstance(fill, Number):
        fixed(fill.value, "the value")
    sizes = call.sizes("size")
    if sizes is None or any(size.least is None or size.least < 0 for size in sizes):
        raise NotUnderstood("has a shape that is not known")
    return filled(sizes)


@TABLE.add("zeros_like ones_like full_like", shape_of="self")
def full_like(call: Call) -> Value:
    fill = call.arguments.get("fill_value")
    if isinstance(fill, Number):
        fixed(fill.value, "the value")
    # What it is like need not have its rows on one axis: it counts only how many elements there are.
    return like(call.x, shaped(call.x)) if call.x.kind is ROWS else filled(shaped(call.x))


@TABLE.add("arange", sizes="end")
def arange(call: Call) -> Value:
    bounds = [call.arguments.get(name) for name in ("start", "end", "step")]
    if any(isinstance(bound, Size) and bound.batched for bound in bounds if bound is not bounds[1]):
        raise MixesRows("counts by the number of rows")
    if any(isinstance(bound, float) for bound in bounds):
        if isinstance(bounds[1], Size) and bounds[1].batched:
            raise MixesRows("counts by the number of rows")
        return constant([call.width(*map(str, bounds), least=0)])
    start = call.size("start") if call.has("start") else size_of(0)
    step = call.size("step") if call.has("step") else ONE
    end = call.size("end")
    if end.batched:
        if start == 0 and step == 1 and end == N and str(call.arguments.get("dtype")) in ("None", "4", "torch.int64"):
            return rows([N], 0, kind=INDEX)
        raise MixesRows("counts by the number of rows")
    size = end - start
    exact = step == 1 and (size.least or 0) >= 1
    return constant([size if exact else call.width(start, end, step, least=0)])


@TABLE.add("linspace")
def linspace(call: Call) -> Value:
    for value in call.operands:
        fixed(value, "a bound")
    steps = call.size("steps")
    if steps.least is None or steps.least < 0:
        raise NotUnderstood("has a number of steps that is not known")
    return constant([steps])


@TABLE.add("scalar_tensor")
def scalar_tensor(call: Call) -> Value:
    for value in call.operands:
        fixed(value, "the value")
    return constant([])


@TABLE.add("one_hot")
def one_hot(call: Call) -> Value:
    count = call.size("num_classes")
    if (count.least or 0) < 1:
        raise MixesRows("has as many classes as the largest element of the batch says")
    return like(data(call.x), [*shaped(call.x), count], call.x.axis)


@TABLE.add("meshgrid")
def meshgrid(call: Call) -> list[Value]:
    values = call.tensors("tensors")
    for value in values:
        fixed(value, "an axis")
        if len(shaped(value)) > 1:
            raise NotUnderstood("has an axis that is no vector")
    shape = [product(shaped(value)) for value in values]
    if call.arguments.get("indexing", "ij") != "ij" and len(shape) > 1:
        shape[0], shape[1] = shape[1], shape[0]
    return [constant(shape)] * len(values)


@TABLE.add("broadcast_tensors")
def broadcast_tensors(call: Call) -> list[Value]:
    values = call.tensors("tensors")
    shape = rules.broadcast([shaped(data(value)) for value in values])
    return [_expanded(value, shape) for value in values]
