"""Loop and Scan: their bodies are walked until what is carried from one turn to the next stays the same.

That is a proof by induction. What is carried into the first turn has a certain layout: the same for all rows, or rows
on a certain axis. If the body gives the same layout from it, every turn does. What differs from turn to turn, such as a
counter, is forgotten before the next walk. The number of turns must be the same for all rows and any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size
from inferd.backends.independence.values import ROWS, SIZE, Value, axis_of, constant, data, like, mixed, shaped
from inferd.backends.onnx.independence.graph import OnnxGraph
from inferd.backends.onnx.independence.node import Node

_MOST_WALKS = 4


def loop(node: Node) -> list[Value]:
    """The outputs of a Loop: what is carried, and what every turn adds to, stacked on a new first axis."""
    body = _body(node)
    for index, role in ((0, "loops as often as"), (1, "loops while")):
        given = node.optional(index)
        if given is not None:
            _same_for_all(given, f"{role} the rows or their number say")
    counter, condition = constant(()), constant(())
    initial = [value for value in node.inputs[2:] if value is not None]
    if len(initial) != len(node.inputs) - 2:
        raise NotUnderstood("carries nothing in a place")
    carried, results = _settled(node, body, [counter, condition], initial, [], skip=1)
    if results[0].cause is not None:
        return [mixed(results[0].cause)] * node.outputs
    _same_for_all(results[0], "loops while the rows or their number say")
    turns = node.width(node.proto.shown, "turns", least=0)
    added = results[1 + len(carried) :]
    return [*carried, *(_stacked(node, value, 0, turns, i) for i, value in enumerate(added))]


def scan(node: Node) -> list[Value]:
    """The outputs of a Scan: the states, and what every turn adds to, stacked on an axis."""
    body = _body(node)
    count = node.integer("num_scan_inputs", 0)
    states = len(node.given) - count
    if node.opset < 9 or count < 1 or states < 0 or len(node.given) != len(node.inputs):
        raise NotUnderstood("has inputs that are not understood")
    axes = node.integers("scan_input_axes") or [0] * count
    if len(axes) != count:
        raise NotUnderstood("has axes for other inputs than it has")
    slices, turns = [], None
    for value, given in zip(node.given[states:], axes, strict=True):
        axis = axis_of(data(value), given)
        if value.kind is ROWS and axis == value.axis:
            raise MixesRows("goes through the rows one after the other")
        turns = turns or shaped(value)[axis]
        shape = [size for i, size in enumerate(shaped(value)) if i != axis]
        slices.append(like(value, shape, value.axis - (axis < value.axis)))
    assert turns is not None
    carried, results = _settled(node, body, [], node.given[:states], slices, skip=0)
    added = results[states:]
    places = node.integers("scan_output_axes") or [0] * len(added)
    if len(places) != len(added):
        raise NotUnderstood("has axes for other outputs than it has")
    stacked = [
        _stacked(node, value, place, turns, i) for i, (value, place) in enumerate(zip(added, places, strict=True))
    ]
    return [*carried, *stacked]


def _body(node: Node) -> OnnxGraph:
    body = node.attributes.get("body")
    if not isinstance(body, OnnxGraph):
        raise NotUnderstood("has no body")
    return body


def _same_for_all(value: Value, otherwise: str) -> None:
    if value.kind in (SIZE, ROWS):
        raise MixesRows(otherwise)
    data(value)


def _settled(
    node: Node, body: OnnxGraph, before: Sequence[Value], carried: Sequence[Value], after: Sequence[Value], skip: int
) -> tuple[list[Value], list[Value]]:
    """What is carried from turn to turn, and the results of a turn. `before`, `after`: the body's inputs around it;
    `skip`: the body's outputs before what is carried."""
    carried = list(carried)
    for _ in range(_MOST_WALKS):
        results = node.branch(body, [*before, *carried, *after])
        if len(results) < skip + max(len(carried), node.outputs):
            raise NotUnderstood("has a body with another number of outputs")
        turned = [_widened(one, other) for one, other in zip(carried, results[skip:], strict=False)]
        if all(new is old for new, old in zip(turned, carried, strict=True)):
            return carried, results
        carried = turned
    raise NotUnderstood("carries what changes from turn to turn in a way that cannot be followed")


def _widened(before: Value, after: Value) -> Value:
    """What covers both: `before` itself if it does."""
    if before.cause is not None or after is before:
        return before
    if after.cause is not None:
        return mixed(after.cause)
    if before.shape is None or after.shape is None or before.shape != after.shape:
        raise NotUnderstood("carries a tensor whose shape changes")
    if before.kind is SIZE or after.kind is SIZE:
        known, other = before.known, after.known
        if before.kind is after.kind and known is not None and other is not None and np.array_equal(known, other):
            return before
        raise MixesRows("carries the number of rows, changed by every turn")
    if data(before).kind is not data(after).kind or (before.kind is ROWS and before.layout != after.layout):
        raise NotUnderstood("carries rows that move, or come in later turns only")
    return before if before.known is None else constant(before.shape)


def _stacked(node: Node, value: Value, place: int, turns: Size, number: int) -> Value:
    """The results of all turns, stacked on a new axis. Sizes that a turn has computed may not be named outside."""
    if value.cause is not None:
        return mixed(value.cause)
    data(value)
    shape = [
        size if size.batched or size.number is not None else node.width(node.proto.shown, number, i, least=0)
        for i, size in enumerate(shaped(value))
    ]
    at = place if place >= 0 else place + len(shape) + 1
    if not 0 <= at <= len(shape):
        raise NotUnderstood("stacks its outputs on an axis that is not there")
    axis = value.axis + (at <= value.axis)
    return like(value, [*shape[:at], turns, *shape[at:]], axis if value.laid_out else None)
