"""What the analysis knows about one tensor.

    CONST   the same for all rows and all numbers of rows: weights, inputs without a batch axis
    SIZE    elements that are known, some of which are computed from the number of rows: a shape, not data
    ROWS    one axis has outer * N * inner elements. Counted in blocks, block i of the axis is a function of row i, the
            same for all i and N. `inner`: [N, T, H] flattened to [N*T, H]. `outer`: [T, N, H] flattened to [T*N, H]. No
            other axis depends on N
    INDEX   laid out as ROWS, but the elements are the row's number i. It may select row i; any other use mixes rows
    PICK    laid out as ROWS; along the last axis the first component is the row's number, the others are ordinary data
    MIXED   may depend on other rows or on their number, or is not understood; `cause` says why

The functions that make values refuse whatever breaks these rules: they are the only way to a value with rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from inferd.backends.api import Independence
from inferd.backends.independence.sizes import ONE, MixesRows, N, NotUnderstood, Size

Known = np.ndarray[Any, Any]
Shape = tuple[Size, ...]


class Kind(Enum):
    CONST = auto()
    SIZE = auto()
    ROWS = auto()
    INDEX = auto()
    PICK = auto()
    MIXED = auto()


CONST, SIZE, ROWS, INDEX, PICK, MIXED = Kind
_LAID_OUT = (ROWS, INDEX, PICK)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a value is MIXED: the first operator that made it so, the node's name, the reason."""

    operator: str
    node: str
    reason: str
    understood: bool


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor.

    shape          None if the rank is not known
    axis           of ROWS, INDEX and PICK: the axis of the rows
    outer, inner   that axis has outer * N * inner elements
    known          the elements, if they are known: whole numbers as int or Size, booleans, or floats
    cause          of MIXED
    """

    kind: Kind
    shape: Shape | None = None
    axis: int = 0
    outer: Size = ONE
    inner: Size = ONE
    known: Known | None = None
    cause: Cause | None = None

    @property
    def laid_out(self) -> bool:
        """Whether one of its axes is that of the rows."""
        return self.kind in _LAID_OUT

    @property
    def layout(self) -> tuple[int, Size, Size]:
        """Where the rows are. The axis is counted from the last one, as broadcasting does."""
        return self.axis - len(self.shape or ()), self.outer, self.inner

    @property
    def plain(self) -> bool:
        """Whether the axis of the rows has one element for each row."""
        return self.outer == ONE and self.inner == ONE


def constant(shape: Sequence[Size] | None, known: Known | None = None) -> Value:
    """A CONST. Raises MixesRows if its shape depends on the number of rows."""
    if shape is not None and any(size.batched for size in shape):
        raise MixesRows("makes a constant of as many elements as there are rows")
    return Value(CONST, None if shape is None else tuple(shape), known=known)


def rows(shape: Sequence[Size], axis: int, outer: Size = ONE, inner: Size = ONE, kind: Kind = ROWS) -> Value:
    """A ROWS, INDEX or PICK. Raises MixesRows if the shape does not have the rows where `axis` says."""
    if not 0 <= axis < len(shape) or shape[axis] != outer * N * inner:
        raise MixesRows("gives the batch axis another size than the number of rows")
    if any(size.batched for i, size in enumerate(shape) if i != axis) or outer.batched or inner.batched:
        raise MixesRows("makes more than one dimension depend on the number of rows")
    return Value(kind, tuple(shape), axis, outer, inner)


def like(value: Value, shape: Sequence[Size], axis: int | None = None) -> Value:
    """Another tensor with the rows of `value`, whose blocks are as large as before. A CONST stays one."""
    if value.kind is CONST:
        return constant(shape)
    if not value.laid_out:
        data(value)
    return rows(shape, value.axis if axis is None else axis, value.outer, value.inner, value.kind)


def filled(shape: Sequence[Size]) -> Value:
    """A tensor whose rows are all alike."""
    batched = [i for i, size in enumerate(shape) if size.batched]
    if not batched:
        return constant(shape)
    inner = shape[batched[0]].over(N)
    if inner is None:
        raise MixesRows("computes a dimension from the number of rows")
    return rows(shape, batched[0], ONE, inner)


def mixed(cause: Cause, shape: Shape | None = None) -> Value:
    """A MIXED. Its shape may still be known."""
    return Value(MIXED, shape, cause=cause)


def data(value: Value) -> Value:
    """The value, as operand of an operator that uses its elements. Raises MixesRows if they are the number of rows or
    of a row."""
    if value.kind is SIZE:
        raise MixesRows("uses the number of rows as data")
    if value.kind in (INDEX, PICK):
        raise MixesRows("uses the position of a row in the batch as data")
    if value.kind is MIXED:
        raise NotUnderstood("uses a value that may mix rows")
    return value


def fixed(value: Value | None, role: str) -> None:
    """Raises MixesRows unless the operand is left out or the same for all rows: weights, scales."""
    if value is not None and data(value).kind is not CONST:
        raise MixesRows(f"has {role} that depends on the rows")


def shaped(value: Value) -> Shape:
    """The shape. Raises NotUnderstood if the rank is not known."""
    if value.shape is None:
        raise NotUnderstood("reads a tensor of unknown rank")
    return value.shape


def axis_of(value: Value, axis: int, extra: int = 0) -> int:
    """The axis counted from the first one, in a tensor with `extra` more axes than `value`."""
    rank = len(shaped(value)) + extra
    if not -rank <= axis < rank:
        raise NotUnderstood(f"has axis {axis}, which is out of range")
    return axis % rank


def apart(value: Value, axes: Sequence[int], action: str) -> None:
    """Raises MixesRows if the rows are on one of `axes`, along which elements meet or move."""
    data(value)
    if value.kind is ROWS and value.axis in [axis_of(value, axis) for axis in axes]:
        raise MixesRows(f"{action} over the batch axis")


def by_row(value: Value, role: str) -> Value:
    """The value. Raises MixesRows unless its first axis is that of the rows, with one element for each."""
    if data(value).kind is not ROWS or value.axis or not value.plain:
        raise MixesRows(f"has {role} without the batch axis first")
    return value


def conclusion(outputs: Mapping[str, Value]) -> Independence:
    """Whether all outputs have the rows on axis 0; else the first reason why not."""
    for name, value in outputs.items():
        if value.cause is not None:
            cause = value.cause
            return Independence(False, name, cause.operator, cause.node, cause.reason, cause.understood)
        if value.kind is not ROWS or value.axis or not value.plain:
            return Independence(False, name, reason="does not carry the batch axis first")
    return Independence(bool(outputs), reason="" if outputs else "the model has no output")
