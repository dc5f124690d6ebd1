"""The branches of TensorFlow 1: a Switch sends its data to one of two sides, a Merge takes what arrives."""

from __future__ import annotations

from inferd.backends.independence.sizes import NotUnderstood
from inferd.backends.independence.values import constant
from inferd.backends.tensorflow.independence.control import either, same_for_all
from inferd.backends.tensorflow.independence.items import DEAD, Item
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()


@TABLE.add("Switch")
def switch(node: Node) -> list[Item]:
    condition = node.input(1)
    same_for_all(condition, "chooses a branch")
    data = node.item(0)
    if condition.known is not None and condition.known.dtype == bool and condition.known.size == 1:
        return [DEAD, data] if condition.known.reshape(-1)[0] else [data, DEAD]
    return [data, data]


@TABLE.add("Merge")
def merge(node: Node) -> list[Item]:
    alive = [item for item in node.items if item is not DEAD]
    if not alive:
        return [DEAD] * node.outputs
    result: Item = alive[0]
    for other in alive[1:]:
        result = either(result, other)
    return [result, constant([])]


def dead(node: Node) -> list[Item] | None:
    """The results of a node on a side that is never taken, None for all others."""
    if node.operator == "Merge" or not any(item is DEAD for item in node.items):
        return None
    if node.proto.functions:
        raise NotUnderstood("calls a function on a side that is never taken")
    return [DEAD] * node.outputs
