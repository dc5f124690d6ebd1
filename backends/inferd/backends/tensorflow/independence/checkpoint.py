"""The shapes that a SavedModel's checkpoint holds for its variables.

TensorFlow's session restores a variable with whatever shape the checkpoint has; the graph may say another one. Which
name of the checkpoint belongs to which variable is read from the graph's restore operator. What cannot be followed is
left out, and is to be asked of the session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.backends.tensorflow.independence.program import Body, Edge, GraphNode, GraphProgram, Unreadable

_INIT_OPS = ("saved_model_main_op", "legacy_init_op")
_INIT_SIGNATURE = "__saved_model_init_op"
_ASSIGNS = ("Assign", "AssignVariableOp")


def stored_shapes(program: GraphProgram, meta_graph: Any, directory: Path) -> dict[str, list[int]]:
    """Shapes in the checkpoint by the variables' nodes in the graph, as far as they can be followed. Empty if anything
    but the restore operator gives variables their values."""
    from tensorflow.python.framework.errors_impl import OpError
    from tensorflow.python.training.py_checkpoint_reader import NewCheckpointReader

    try:
        if any(node.operator in _ASSIGNS for node in _reached(program, _initialisers(meta_graph))):
            return {}
        names = dict(_restored(program, meta_graph.saver_def.restore_op_name))
        shapes: Mapping[str, Any] = {}
        if names:
            shapes = NewCheckpointReader(str(directory / "variables" / "variables")).get_variable_to_shape_map()
    except (Unreadable, OpError, ValueError, RuntimeError):
        return {}
    return {variable: [int(size) for size in shapes[name]] for variable, name in names.items() if name in shapes}


def _initialisers(meta_graph: Any) -> list[str]:
    """The nodes that run after the variables are restored."""
    found = [name for key in _INIT_OPS for name in meta_graph.collection_def[key].node_list.value]
    if _INIT_SIGNATURE in meta_graph.signature_def:
        found += [info.name for info in meta_graph.signature_def[_INIT_SIGNATURE].outputs.values()]
    return [name.partition(":")[0] for name in found]


def _reached(program: GraphProgram, starts: list[str]) -> Iterator[GraphNode]:
    """All nodes on which some nodes of the graph depend, with those of the functions that they call."""
    waiting = [(program.main, name) for name in starts]
    seen: set[tuple[int, str]] = set()
    while waiting:
        body, name = waiting.pop()
        if (id(body), name) in seen or name not in body.nodes:
            continue
        seen.add((id(body), name))
        node = body.nodes[name]
        yield node
        waiting += [(body, source) for source, _ in node.inputs] + [(body, source) for source in node.controls]
        for attribute in node.functions:
            value = node.attribute(attribute)
            functions = [value.func] if value.WhichOneof("value") == "func" else value.list.func
            for function in functions:
                inner = program.function(function.name)
                waiting += [(inner, inside) for inside in inner.nodes]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A body, and what its arguments are in the graph."""

    body: Body
    arguments: Mapping[str, Edge]


def _restored(program: GraphProgram, operator: str) -> Iterator[tuple[str, str]]:
    """The variables that the restore operator assigns, each with its name in the checkpoint."""
    restore = program.main.nodes.get(operator.partition(":")[0])
    if restore is None:
        return
    if restore.functions == ["f"]:
        body = program.function(restore.attribute("f").func.name)
        arguments = {name: edge for (name, _), edge in zip(body.arguments, restore.inputs, strict=True)}
        yield from _assigned(_Frame(body, arguments), list(body.nodes.values()))
    else:
        yield from _assigned(_Frame(program.main, {}), list(_reached(program, [restore.name])))


def _assigned(frame: _Frame, nodes: list[GraphNode]) -> Iterator[tuple[str, str]]:
    counts: dict[str, int] = {}
    found: dict[str, str] = {}
    for node in nodes:
        if node.operator not in _ASSIGNS:
            continue
        (target, _), value = node.inputs[:2]
        variable = frame.arguments[target][0] if target in frame.arguments else target
        counts[variable] = counts.get(variable, 0) + 1
        name = _name_in_checkpoint(frame, value)
        if name is not None:
            found[variable] = name
    for variable, name in found.items():
        if counts[variable] == 1:
            yield variable, name


def _name_in_checkpoint(frame: _Frame, edge: Edge) -> str | None:
    """The name whose value an edge carries, None if it is not a whole tensor of the checkpoint."""
    node = frame.body.nodes.get(edge[0])
    while node is not None and node.operator == "Identity":
        edge = node.inputs[0]
        node = frame.body.nodes.get(edge[0])
    if node is None or node.operator != "RestoreV2":
        return None
    names, slices = (_texts(frame.body.nodes.get(source)) for source, _ in node.inputs[1:3])
    if edge[1] >= len(names) or edge[1] >= len(slices) or slices[edge[1]]:
        return None
    return names[edge[1]]


def _texts(node: GraphNode | None) -> list[str]:
    from tensorflow.python.framework.tensor_util import MakeNdarray

    if node is None or node.operator != "Const":
        return []
    return [item.decode() for item in MakeNdarray(node.attribute("value").tensor).reshape(-1).tolist()]
