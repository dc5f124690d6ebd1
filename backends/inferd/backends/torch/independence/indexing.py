"""Operators that pick elements by indices, and that write to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.operators import aligned, broadcast
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, product
from inferd.backends.independence.values import (
    CONST,
    INDEX,
    ROWS,
    Value,
    apart,
    axis_of,
    constant,
    data,
    fixed,
    like,
    shaped,
)
from inferd.backends.torch.independence.call import AtenTable, Call
from inferd.backends.torch.independence.memory import TensorRef

TABLE = AtenTable()
_POSITIONS = ("int64", "int32")


@TABLE.add("embedding")
def embedding(call: Call) -> Value:
    weight = call.tensor("weight")
    fixed(weight, "a table")
    if len(shaped(weight)) != 2:
        raise NotUnderstood("has a table that is no matrix")
    return layout.gathered(weight, data(call.tensor("indices")), 0)


@TABLE.add("index_select")
def index_select(call: Call) -> Value:
    index = call.tensor("index")
    if len(shaped(index)) != 1:
        raise NotUnderstood("has an index that is no vector")
    return layout.gathered(call.x, index, call.integer("dim"))


@TABLE.add("gather take_along_dim")
def gather(call: Call) -> Value:
    if not call.has("dim"):
        raise MixesRows("picks from all elements of the batch")
    index = call.tensor("index" if "index" in call.arguments else "indices")
    if call.operator == "take_along_dim":  # broadcasts
        shape = broadcast([shaped(index), shaped(call.x)])
        if tuple(shape) != shaped(index) or len(shaped(index)) != len(shaped(call.x)):
            raise NotUnderstood("broadcasts its index")
    if index.kind is CONST and data(call.x).kind is ROWS:
        raise MixesRows("picks elements across the batch axis")
    return layout.gathered_elements(call.x, index, call.integer("dim"))


def _indices(call: Call) -> list[TensorRef | None]:
    found = call.arguments.get("indices")
    if not isinstance(found, list | tuple):
        raise NotUnderstood("has no indices")
    if not all(item is None or isinstance(item, TensorRef) for item in found):
        raise NotUnderstood("has an index that is no tensor")
    return list(found)


def _picked(x: Value, indices: Sequence[TensorRef | None]) -> Value:
    """x[i, j, ...]: the indices are broadcast against each other. Those of neighbouring axes leave their result in
    place."""
    places = [i for i, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    shape = shaped(x)
    if not places or len(indices) > len(shape):
        raise NotUnderstood("has no index, or more than its input has axes")
    for index in given:
        if index.value.cause is None and index.dtype not in _POSITIONS:
            if index.dtype in ("bool", "uint8"):
                raise MixesRows("lists the elements for which a condition holds")
            raise NotUnderstood("has indices whose element type is not known")
    first, last = places[0], places[-1]
    if last - first + 1 != len(places):
        raise NotUnderstood("has indices of axes that are not neighbours")
    values = [index.value for index in given]
    by_number = values[0].kind is INDEX
    if by_number:
        # x[arange(rows), k]: each row picks of itself.
        if x.kind is not ROWS or first != 0 or x.axis != 0 or not x.plain or not values[0].plain:
            raise MixesRows("uses the position of a row in the batch as data")
        values = [replace(values[0], kind=ROWS), *values[1:]]
    elif data(x).kind is ROWS and x.axis in places:
        raise MixesRows("picks rows of the batch")
    leading = aligned(values)
    picked = broadcast([shaped(value) for value in values])
    result = [*shape[:first], *picked, *shape[last + 1 :]]
    if leading is None:
        return like(x, result, x.axis if x.axis < first else x.axis - len(places) + len(picked))
    if x.kind is ROWS and not by_number:
        raise MixesRows("picks from all rows by a row's own data")
    return like(leading, result, first + leading.layout[0] + len(picked))


@TABLE.add("index _unsafe_index")
def index(call: Call) -> Value:
    return _picked(call.x, _indices(call))


@TABLE.add("index_put _unsafe_index_put")
def index_put(call: Call) -> Value:
    x, values = data(call.x), data(call.tensor("values"))
    indices = _indices(call)
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == "bool":
        mask = indices[0].value
        if product(shaped(values)) != 1 or values.kind is not CONST:
            raise MixesRows("writes a list of values where a condition holds")
        if len(shaped(mask)) > len(shaped(x)):
            raise NotUnderstood("has a condition of higher rank than its input")
        wide = layout.reshaped(data(mask), [*shaped(mask), *[product([])] * (len(shaped(x)) - len(shaped(mask)))])
        return rules.elementwise([x, wide])
    if any(item is not None and item.value.kind is not CONST for item in indices):
        raise MixesRows("writes to places that depend on the rows")
    target = _picked(x, indices)
    if len(shaped(values)) > len(shaped(target)):
        raise NotUnderstood("writes values of higher rank than their places")
    written = rules.elementwise([target, values])
    if written.kind is not x.kind or (x.kind is ROWS and written.layout != target.layout):
        raise MixesRows("writes elements across the batch axis")
    if written.shape != target.shape:
        raise NotUnderstood("writes values of another shape than their places")
    return like(x, shaped(x))


@TABLE.add("scatter scatter_add scatter_reduce")
def scatter(call: Call) -> Value:
    x, where = data(call.x), data(call.tensor("index"))
    axis = axis_of(x, call.integer("dim"))
    others = [data(value) for value in call.others if value is not where]
    new = [value for value in others if shaped(value)]  # numbers have no rows
    for value in others:
        if not shaped(value):
            fixed(value, "a number")
    if all(value.kind is CONST for value in (x, where, *new)):
        return constant(shaped(x))
    same = all(value.kind is ROWS and value.layout == x.layout for value in (x, where, *new))
    if not same or len(shaped(where)) != len(shaped(x)) or axis == x.axis:
        raise MixesRows("writes elements across the batch axis")
    if any(len(shaped(value)) != len(shaped(x)) for value in new):
        raise NotUnderstood("writes values of another rank")
    return like(x, shaped(x))


@TABLE.add("slice_scatter select_scatter")
def slice_scatter(call: Call) -> Value:
    x, source = data(call.x), data(call.tensor("src"))
    axis = axis_of(x, call.integer("dim"))
    apart(x, [axis], "writes")
    if call.operator == "select_scatter":
        shape = list(shaped(source))
        shape.insert(axis, product([]))
        source = like(source, shape, source.axis + (axis <= source.axis) if source.laid_out else None)
    if source.kind is not x.kind or len(shaped(source)) != len(shaped(x)):
        raise MixesRows("writes elements across the batch axis")
    if x.kind is ROWS and source.layout != x.layout:
        raise MixesRows("writes elements across the batch axis")
    return like(x, shaped(x))


@TABLE.add("index_fill")
def index_fill(call: Call) -> Value:
    axis = axis_of(call.x, call.integer("dim"))
    for value in call.others:
        fixed(value, "an index")
    return rules.along(call.x, [axis], "writes")


@TABLE.add("bucketize searchsorted")
def bucketize(call: Call) -> Value:
    borders = call.tensor("boundaries" if call.operator == "bucketize" else "sorted_sequence")
    fixed(borders, "borders")
    if call.has("sorter"):
        raise NotUnderstood("has borders that are not sorted")
    if len(shaped(borders)) != 1:
        raise NotUnderstood("has borders for each row")
    return rules.elementwise([value for value in call.operands if value is not borders])
