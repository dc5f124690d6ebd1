"""Operators that call subgraphs: IF and WHILE."""

from __future__ import annotations

import numpy as np

from inferd.backends.independence.operators import merged
from inferd.backends.independence.sizes import MixesRows, NotUnderstood
from inferd.backends.independence.values import ROWS, SIZE, Value, constant, data, mixed
from inferd.backends.litert.independence.node import Node, new_table

TABLE = new_table()
_MOST_WALKS = 4


@TABLE.add("IF")
def if_(node: Node) -> list[Value]:
    condition, branches = node.x, [node.integer("then_subgraph_index"), node.integer("else_subgraph_index")]
    if condition.known is not None and condition.known.dtype == bool and condition.known.size == 1:
        branches = [branches[0 if condition.known.reshape(-1)[0] else 1]]
    else:
        _same_for_all(condition, "chooses a branch by the rows or their number")
    results = [node.called(number, node.given[1:]) for number in branches]
    if any(len(result) != node.outputs for result in results):
        raise NotUnderstood("has branches with another number of outputs")
    return results[0] if len(results) == 1 else [_either(a, b) for a, b in zip(*results, strict=True)]


@TABLE.add("WHILE")
def while_(node: Node) -> list[Value]:
    """The body is walked until what is carried from one turn to the next keeps its layout: a proof by induction. What
    differs from turn to turn, such as a counter, is forgotten before the next walk."""
    condition, body = node.integer("cond_subgraph_index"), node.integer("body_subgraph_index")
    carried = node.given
    for _ in range(_MOST_WALKS):
        (again,) = node.called(condition, carried)
        if again.cause is not None:
            return [mixed(again.cause)] * node.outputs
        _same_for_all(again, "loops while the rows or their number say")
        results = node.called(body, carried)
        if len(results) != len(carried) or len(results) != node.outputs:
            raise NotUnderstood("has a body with another number of outputs")
        turned = [_widened(one, other) for one, other in zip(carried, results, strict=True)]
        if all(new is old for new, old in zip(turned, carried, strict=True)):
            return carried
        carried = turned
    raise NotUnderstood("carries what changes from turn to turn in a way that cannot be followed")


def _same_for_all(value: Value, otherwise: str) -> None:
    if value.kind in (SIZE, ROWS):
        raise MixesRows(otherwise)
    data(value)


def _either(a: Value, b: Value) -> Value:
    for value in (a, b):
        if value.cause is not None:
            return mixed(value.cause)
    return merged(a, b)


def _widened(before: Value, after: Value) -> Value:
    """What covers both: `before` itself if it does."""
    if before.cause is not None or after is before:
        return before
    if after.cause is not None:
        return mixed(after.cause)
    if before.shape is None or after.shape is None or before.shape != after.shape:
        raise NotUnderstood("carries a tensor whose shape changes")
    known, other = before.known, after.known
    same = known is not None and other is not None and np.array_equal(known, other)
    if before.kind is SIZE or after.kind is SIZE:
        if before.kind is after.kind and same:
            return before
        raise MixesRows("carries the number of rows, changed by every turn")
    if data(before).kind is not data(after).kind or (before.kind is ROWS and before.layout != after.layout):
        raise NotUnderstood("carries rows that move, or come in later turns only")
    return before if before.known is None or same else constant(before.shape)
