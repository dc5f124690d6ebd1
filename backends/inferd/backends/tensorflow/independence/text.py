"""Examples and texts: parsing, and rows that are cut into parts of different number (words, tokens).

The parts of all rows are one tensor, as long as there are parts in the batch. It may be followed as long as each part
is treated alone, until the parts of each row are brought together again: into rows of fixed width, or into counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from inferd.backends.independence import operators as rules
from inferd.backends.independence.elements import known
from inferd.backends.independence.sizes import MixesRows, N, NotUnderstood, size_of
from inferd.backends.independence.slices import All, Pick
from inferd.backends.independence.values import (
    CONST,
    Cause,
    Value,
    by_row,
    data,
    fixed,
    like,
    mixed,
    rows,
    shaped,
)
from inferd.backends.tensorflow.independence.bounds import sliced_axes
from inferd.backends.tensorflow.independence.elementwise import ONE_BY_ONE
from inferd.backends.tensorflow.independence.items import Item, Ragged, Role
from inferd.backends.tensorflow.independence.node import WHOLE, Node, new_table
from inferd.backends.tensorflow.independence.state import find

TABLE = new_table()
LONGEST = "makes all rows as wide as the longest"


# --- examples


def _dense(value: Value, default: Value, shape: Sequence[int]) -> Value:
    fixed(default, "a default value")
    if any(size < 0 for size in shape):
        raise MixesRows(LONGEST)
    return like(value, [shaped(value)[0], *map(size_of, shape)])


@TABLE.add("ParseExample", "ParseExampleV2")
def parse_example(node: Node) -> list[Item]:
    """Dense features of fixed shape are rows; sparse and ragged ones list what is in all rows."""
    serialised = by_row(node.x, "the examples")
    if len(shaped(serialised)) != 1:
        raise NotUnderstood("parses examples that are no vector")
    value = node.proto.attribute("dense_shapes")
    shapes = [] if value is None else value.list.shape
    if any(shape.unknown_rank for shape in shapes):
        raise MixesRows(LONGEST)
    defaults = [node.input(len(node.items) - len(shapes) + i) for i in range(len(shapes))]
    for value in node.given[1 : len(node.items) - len(shapes)]:
        fixed(value, "a key")
    sparse = node.integer("num_sparse" if node.operator == "ParseExampleV2" else "Nsparse")
    cause = Cause(node.operator, node.proto.name, "lists the sparse features of the whole batch", understood=True)
    results: list[Item] = [mixed(cause)] * node.outputs
    for i, (shape, default) in enumerate(zip(shapes, defaults, strict=True)):
        try:
            results[3 * sparse + i] = _dense(serialised, default, [int(dim.size) for dim in shape.dim])
        except MixesRows as refusal:
            results[3 * sparse + i] = mixed(Cause(node.operator, node.proto.name, str(refusal), understood=True))
    return results


@TABLE.add("DecodeCSV")
def decode_csv(node: Node) -> list[Value]:
    for value in node.given[1:]:
        fixed(value, "a default value")
    return [rules.elementwise([node.x])] * node.outputs


# --- rows of different length


def _listed(node: Node) -> Value:
    """What operators see of a list of all rows' parts that do not follow it."""
    return mixed(Cause(node.operator, node.proto.name, "lists the parts of all rows", understood=True))


@TABLE.add("StringSplit", "StringSplitV2")
def string_split(node: Node) -> list[Item]:
    fixed(node.input(1), "a separator")
    value = by_row(node.x, "the texts")
    if len(shaped(value)) != 1:
        raise NotUnderstood("splits texts that are no vector")
    listed, source = _listed(node), node.number_of_list()
    # The second element of the shape is the number of words in the longest row.
    shape = Ragged(Role.SHAPE, source, mixed(Cause(node.operator, node.proto.name, LONGEST, understood=True)))
    return [Ragged(Role.PLACES, source, listed), Ragged(Role.PARTS, source, listed), shape]


def followed(node: Node) -> list[Item] | None:
    """The results of an operator on rows of different length, None if this operator does not follow them."""
    if not any(isinstance(item, Ragged) for item in node.items):
        return None
    rule = _FOLLOWED.get(node.operator)
    if rule is not None:
        result = rule(node)
        if result is not None:
            return [result]
    if node.operator in ONE_BY_ONE or node.operator in _FINDS:
        result = _each_part(node)
        if result is not None:
            return [result]
    return None


_FINDS = ("LookupTableFind", "LookupTableFindV2")


def _each_part(node: Node) -> Item | None:
    """An operator on each part alone: the other operands are single constants, or belong to the same parts."""
    parts = [item for item in node.items if isinstance(item, Ragged)]
    first = parts[0]
    if any(part.role is not Role.PARTS or part.source != first.source for part in parts):
        return None
    if node.operator in _FINDS:
        if node.item(1) is not first:
            return None
        find(replace(node, items=[node.item(0), rows([N], 0), node.item(2)]))
        return first
    for item in node.items:
        if isinstance(item, Ragged):
            continue
        if not isinstance(item, Value) or item.kind is not CONST or item.shape != ():
            return None
    return first


def _places(node: Node) -> Item | None:
    """The numbers of the rows, or the number of rows."""
    item = node.item(0)
    if not isinstance(item, Ragged):
        return None
    if item.role is Role.PLACES:
        steps = sliced_axes(node, 2)
        if len(steps) == 2 and isinstance(steps[0], All) and isinstance(steps[1], Pick) and steps[1].index == 0:
            return Ragged(Role.ROW_IDS, item.source, item.value)
    if item.role is Role.SHAPE:
        steps = sliced_axes(node, 1)
        if len(steps) == 1 and isinstance(steps[0], Pick) and steps[0].index == 0:
            return known(np.array(N, dtype=object))
    return None


def _shape(node: Node) -> Item | None:
    """The shape of a tensor that has something for each row."""
    item = node.item(0)
    if isinstance(item, Ragged) and item.role in (Role.COUNTS, Role.ENDS, Role.SPLITS):
        return known(np.array([N + 1 if item.role is Role.SPLITS else N], dtype=object))
    return None


def _cast(node: Node) -> Item | None:
    item = node.item(0)
    if isinstance(item, Ragged) and (item.role is Role.PARTS or node.data_type("DstT") in WHOLE):
        return item
    return None


def _reshape(node: Node) -> Item | None:
    item = node.item(0)
    flat = isinstance(item, Ragged) and item.role in (Role.ROW_IDS, Role.PARTS)
    return item if flat and node.sizes(1) == [size_of(-1)] else None


def _count(node: Node) -> Item | None:
    """How many parts each row has: how often its number occurs among the numbers of the parts' rows."""
    item, weights = node.item(0), node.input(2)
    if not isinstance(item, Ragged) or item.role is not Role.ROW_IDS or node.boolean("binary_output"):
        return None
    if weights.kind is not CONST or weights.shape != (size_of(0),) or node.sizes(1) != [N]:
        return None
    return Ragged(Role.COUNTS, item.source, rows([N], 0))


def _ends(node: Node) -> Item | None:
    item = node.item(0)
    if not isinstance(item, Ragged) or item.role is not Role.COUNTS:
        return None
    if node.number(1) != 0 or node.boolean("exclusive") or node.boolean("reverse"):
        return None
    return Ragged(Role.ENDS, item.source, _listed(node))


def _splits(node: Node) -> Item | None:
    if len(node.items) != 3 or node.number(-1) not in (0, -1):
        return None
    zero, ends = node.item(0), node.item(1)
    if not isinstance(ends, Ragged) or ends.role is not Role.ENDS or not isinstance(zero, Value):
        return None
    if zero.known is None or zero.known.tolist() != [0]:
        return None
    return Ragged(Role.SPLITS, ends.source, ends.value)


def _dense_rows(node: Node) -> Item | None:
    """The parts of each row side by side, cut or filled up to a width."""
    if len(node.items) < 4:
        return None
    parts = node.item(1)
    if not isinstance(parts, Ragged) or parts.role is not Role.PARTS:
        return None
    fixed(node.input(2), "a value to fill up with")
    if shaped(node.input(2)):
        raise NotUnderstood("fills up with what is no single value")
    kinds, tensors = node.strings("row_partition_types"), node.items[3:]
    if kinds == ["FIRST_DIM_SIZE", "VALUE_ROWIDS"] and len(tensors) == 2:
        if node.sizes(3) != [N] or not _is(tensors[1], Role.ROW_IDS, parts):
            raise NotUnderstood("brings together parts of other rows")
    elif kinds != ["ROW_SPLITS"] or len(tensors) != 1 or not _is(tensors[0], Role.SPLITS, parts):
        raise NotUnderstood("brings together parts of other rows")
    target = node.sizes(0)
    if shaped(node.input(0)) == () and target == [size_of(-1)]:
        raise MixesRows(LONGEST)
    if len(target) != 2:
        raise NotUnderstood("makes rows of a shape that is not understood")
    if target[0] not in (size_of(-1), N):
        raise MixesRows("gives the batch axis another size than the number of rows")
    width = target[1]
    if width.batched:
        raise MixesRows("makes as many elements as there are rows")
    if width.number is None or width.number < 0:
        raise MixesRows(LONGEST)
    return rows([N, width], 0)


def _is(item: Item, role: Role, parts: Ragged) -> bool:
    return isinstance(item, Ragged) and item.role is role and item.source == parts.source


def _bincount(node: Node) -> Item | None:
    """How often each number occurs among the parts of each row."""
    splits, parts, weights = node.item(0), node.item(1), node.input(3)
    if not isinstance(parts, Ragged) or parts.role is not Role.PARTS:
        return None
    if not _is(splits, Role.SPLITS, parts):
        raise NotUnderstood("brings together parts of other rows")
    if data(weights).kind is not CONST or weights.shape != (size_of(0),):
        raise NotUnderstood("has weights that are not followed")
    width = node.size(2)
    if width.batched:
        raise MixesRows("counts up to the number of rows")
    return rows([N, width], 0)


_FOLLOWED: dict[str, Callable[[Node], Item | None]] = {
    "StridedSlice": _places,
    "Shape": _shape,
    "Cast": _cast,
    "Reshape": _reshape,
    "DenseBincount": _count,
    "Cumsum": _ends,
    "ConcatV2": _splits,
    "RaggedTensorToTensor": _dense_rows,
    "RaggedBincount": _bincount,
}
