"""What the graphs of this folder's tests are made of.

A case is (label, function, inputs): see `support.tf_graphs.graph`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from support.tf_graphs import INITIALISERS, tf

Case = tuple[str, Callable[..., Any], str]
TABLE, IMAGE, SEQUENCE, INTS, WORDS, BOOLS, SQUARE = (
    "x: float[n,5]",
    "x: float[n,8,8,2]",
    "x: float[t,n,3]",
    "x: int[n,4]",
    "x: string[n]",
    "x: bool[n,4]",
    "x: float[n,4]",
)
CUBE = "x: float[n,4,6]"
rng = np.random.default_rng(0)


@dataclass
class Cases:
    """Graphs in which rows stay apart and graphs in which they meet."""

    honest: list[Case] = field(default_factory=list)
    mixing: list[Case] = field(default_factory=list)

    def add_honest(self, label: str, function: Callable[..., Any], inputs: str = CUBE) -> None:
        self.honest.append((f"{label} {len(self.honest)}", function, inputs))

    def add_mixing(self, label: str, function: Callable[..., Any], inputs: str = CUBE) -> None:
        self.mixing.append((f"{label} {len(self.mixing)}", function, inputs))


def op(name: str, *inputs: Any, **attributes: Any) -> Any:
    """An operator by its name in the graph, with its inputs in order. Several outputs are a named tuple."""
    function = getattr(tf.raw_ops, name)
    names = list(inspect.signature(function).parameters)
    return function(**dict(zip(names, inputs, strict=False)), **attributes)


def w(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


def top(x: Any) -> Any:
    """The largest of all rows, in each place."""
    return tf.reduce_max(x, 0, keepdims=True)


def turned(x: Any) -> Any:
    return tf.transpose(x, [1, 0])


def swapped(x: Any, function: Callable[[Any], Any]) -> Any:
    """A function with the rows on the second axis."""
    order = [1, 0, *range(2, x.shape.rank)]
    return tf.transpose(function(tf.transpose(x, order)), order)


def last(x: Any, function: Callable[[Any], Any]) -> Any:
    """A function with the rows on the last axis."""
    rank = x.shape.rank
    order, back = [*range(1, rank), 0], [rank - 1, *range(rank - 1)]
    return tf.transpose(function(tf.transpose(x, order)), back)


def count(x: Any) -> Any:
    """The number of rows."""
    return tf.shape(x)[0]


def as_float(x: Any) -> Any:
    return x if x.dtype == tf.float32 else tf.cast(x, tf.float32)


def first(node: Any) -> Any:
    """An operator that runs once, before the graph does."""
    tf.compat.v1.add_to_collection(INITIALISERS, node)


def handle(*shape: int | None) -> Any:
    """A variable with a value."""
    made = op(
        "VarHandleOp", shape=shape, dtype=tf.float32, shared_name=f"v{len(tf.compat.v1.get_collection(INITIALISERS))}"
    )
    first(op("AssignVariableOp", made, w(*(size or 3 for size in shape))))
    return made


def stored(*shape: int | None) -> Any:
    return op("ReadVariableOp", handle(*shape), dtype=tf.float32)


def after(node: Any, result: Any) -> Any:
    """A result that waits for an operator."""
    with tf.control_dependencies([node]):
        return tf.identity(result)
