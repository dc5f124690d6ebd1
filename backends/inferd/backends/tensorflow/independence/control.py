"""Calls of functions, branches and loops.

A loop is followed with what holds for every pass: its variables must be of the same kind, shape and layout before and
after its body. Then they are so after any number of passes, and a condition that is the same for all rows makes this
number the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from inferd.backends.independence.operators import merged
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Refusal
from inferd.backends.independence.values import CONST, MIXED, ROWS, SIZE, Cause, Value, constant, mixed
from inferd.backends.tensorflow.independence.items import Handle, Item, TensorList, cause_of
from inferd.backends.tensorflow.independence.lists import same_layout
from inferd.backends.tensorflow.independence.node import Node

Call = Callable[[str, Sequence[Item]], list[Item]]
_MOST_PASSES = 6

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BRANCHES = ("If", "StatelessIf")
CASES = ("Case", "StatelessCase")
LOOPS = ("While", "StatelessWhile")
CONTROL = (*CALLS, *BRANCHES, *CASES, *LOOPS)


def controlled(node: Node, call: Call) -> list[Item] | None:
    """The results of a node that calls functions, None if it does not. `call(name, items)` walks a function."""
    if node.operator in CALLS:
        return call(node.function("f"), node.items)
    if node.operator in BRANCHES:
        return _chosen(node, ["then_branch", "else_branch"], call)
    if node.operator in CASES:
        return _case(node, call)
    if node.operator in LOOPS:
        return _loop(node, call)
    return None


def same_for_all(condition: Value, words: str) -> None:
    """Raises Refusal or Caused unless the condition is the same for all rows and for any number of them."""
    if condition.kind is MIXED and condition.cause is not None:
        raise Caused(condition.cause)
    if condition.kind is SIZE:
        raise MixesRows(f"{words} by the number of rows")
    if condition.kind is not CONST:
        raise MixesRows(f"{words} by the rows")


class Caused(Exception):
    """The results of the node are MIXED for the reason of one of its inputs."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.reason)
        self.cause = cause


def _chosen(node: Node, branches: Sequence[str], call: Call) -> list[Item]:
    condition = node.x
    same_for_all(condition, "chooses a branch")
    if condition.known is not None and condition.known.dtype == bool and condition.known.size == 1:
        branches = [branches[0 if condition.known.reshape(-1)[0] else 1]]
    results = _merged([call(node.function(branch), node.items[1:]) for branch in branches])
    _refuse_fixed(node, results)
    return results


def _case(node: Node, call: Call) -> list[Item]:
    same_for_all(node.x, "chooses a branch")
    functions = node.proto.attribute("branches").list.func
    if not functions or any(function.attr for function in functions):
        raise NotUnderstood("has branches that are not understood")
    results = _merged([call(function.name, node.items[1:]) for function in functions])
    _refuse_fixed(node, results)
    return results


def _merged(results: Sequence[list[Item]]) -> list[Item]:
    first, *others = results
    for other in others:
        if len(other) != len(first):
            raise NotUnderstood("has branches with different numbers of results")
        first = [either(a, b) for a, b in zip(first, other, strict=True)]
    return first


def either(a: Item, b: Item) -> Item:
    """One of two items, chosen by a condition that is the same for all rows."""
    for item in (a, b):
        cause = cause_of(item)
        if cause is not None:
            return mixed(cause)
    if isinstance(a, Handle) and a == b:
        return a
    if isinstance(a, Value) and isinstance(b, Value):
        return merged(a, b)
    raise NotUnderstood("has branches with results that are no tensors")


def _refuse_fixed(node: Node, items: Sequence[Item]) -> None:
    """Raises NotUnderstood if the file gives a variable a fixed size where it depends on the number of rows: the
    runtime may put the fixed number in its place."""
    value = node.proto.attribute("output_shapes")
    shapes = [] if value is None else value.list.shape
    if shapes and len(shapes) != len(items):
        raise NotUnderstood("has shapes for another number of variables")
    for shape, item in zip(shapes, items, strict=False):
        if isinstance(item, Value) and item.laid_out and item.shape is not None and not shape.unknown_rank:
            sizes = [dim.size for dim in shape.dim]
            if len(sizes) != len(item.shape) or sizes[item.axis] >= 0:
                raise NotUnderstood(f"has a variable that is said to have the shape {sizes}")


def _loop(node: Node, call: Call) -> list[Item]:
    state = list(node.items)
    _refuse_fixed(node, state)
    for _ in range(_MOST_PASSES):
        (condition,) = call(node.function("cond"), state)
        if not isinstance(condition, Value):
            raise NotUnderstood("has a condition that is no tensor")
        same_for_all(condition, "repeats")
        after = call(node.function("body"), state)
        if len(after) != len(state):
            raise NotUnderstood("has a body that gives another number of variables")
        joined = [_joined(node, a, b) for a, b in zip(state, after, strict=True)]
        if all(_same(a, b) for a, b in zip(state, joined, strict=True)):
            return state
        state = joined
    raise NotUnderstood("is a loop whose variables change their shape")


def _joined(node: Node, before: Item, after: Item) -> Item:
    """An item that stands for both, or a MIXED."""
    try:
        return _for_both(before, after)
    except Refusal as refusal:
        return mixed(Cause(node.operator, node.proto.name, str(refusal), refusal.understood))


def _for_both(before: Item, after: Item) -> Item:
    for item in (before, after):
        cause = cause_of(item)
        if cause is not None:
            return mixed(cause)
    if isinstance(before, Handle) and before == after:
        return before
    if isinstance(before, TensorList) and isinstance(after, TensorList):
        length = before.length if before.length == after.length else None
        if before.element is None or after.element is None:
            return TensorList(before.element or after.element, length)
        return TensorList(same_layout(before.element, after.element), length)
    if not isinstance(before, Value) or not isinstance(after, Value):
        raise NotUnderstood("has a variable that is no tensor")
    if before.kind is CONST and after.kind is CONST:
        if _equal_elements(before, after):
            return before
        same = before.shape is not None and before.shape == after.shape
        return constant(before.shape if same else None)
    if before.kind is SIZE or after.kind is SIZE:
        if before.kind is after.kind and _equal_elements(before, after):
            return before
        raise MixesRows("counts by the number of rows")
    if before.kind is not after.kind or before.kind is not ROWS:
        raise MixesRows("has a variable that becomes a value of the rows in the loop")
    if before.layout != after.layout or before.shape != after.shape:
        raise NotUnderstood("is a loop whose variables change their shape")
    return replace(before, known=None)


def _equal_elements(a: Value, b: Value) -> bool:
    if a.known is None or b.known is None or a.known.shape != b.known.shape:
        return a.known is None and b.known is None and a.shape == b.shape
    return bool(a.known.dtype.kind == b.known.dtype.kind and a.known.tolist() == b.known.tolist())


def _same(a: Item, b: Item) -> bool:
    if isinstance(a, Value) and isinstance(b, Value):
        return a.kind is b.kind and a.shape == b.shape and (a.known is None) == (b.known is None)
    if isinstance(a, TensorList) and isinstance(b, TensorList):
        if a.length != b.length or (a.element is None) != (b.element is None):
            return False
        return a.element is None or b.element is None or _same(a.element, b.element)
    return isinstance(a, Handle) and isinstance(b, Handle) and a == b
