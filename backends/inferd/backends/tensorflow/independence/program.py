"""The graph of a SavedModel and its functions, in the form in which they are walked.

Read from the MetaGraphDef that TensorFlow's loader gets, with TensorFlow's protobuf classes and its register of
operators: names of outputs and defaults of attributes come from there. What two readers could read differently is
refused with Unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_NODES = 200_000
_OWN_EDGE = 0

Edge = tuple[str, int]  # name of a node or argument, number of its output


class Unreadable(Exception):
    """The graph cannot be followed. The message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphNode:
    """One node.

    name, operator   as in the graph
    inputs           in order
    controls         names of nodes that run before this one
    given            attributes as in the graph: AttrValue by name
    defaults         of the attributes that are left out
    outputs          number of outputs
    effects          the operator reads or changes something that lives longer than a run, or the world outside
    """

    name: str
    operator: str
    inputs: tuple[Edge, ...]
    controls: tuple[str, ...]
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    outputs: int
    effects: bool

    def attribute(self, name: str) -> Any:
        """An attribute or its default, None if there is neither."""
        value = self.given[name] if name in self.given else self.defaults.get(name)
        if value is not None and value.WhichOneof("value") == "placeholder":
            raise Unreadable(f"the attribute {name!r} of {self.name!r} is left to the function's caller")
        return value

    @property
    def functions(self) -> list[str]:
        """Names of the attributes that hold functions."""
        return [
            name
            for name, value in self.given.items()
            if value.WhichOneof("value") == "func" or (value.WhichOneof("value") == "list" and value.list.func)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The nodes of the graph or of a function.

    arguments   names of a function's arguments, with the sizes that the file gives them (None where it does not)
    results     a function's results, in order
    effects     names of nodes that run although no result needs them
    """

    nodes: Mapping[str, GraphNode]
    arguments: Sequence[tuple[str, Sequence[int] | None]] = ()
    results: Sequence[Edge] = ()
    effects: Sequence[str] = ()


class GraphProgram:
    """The graph of a MetaGraphDef and its functions. Functions are read when they are asked for. Not thread-safe."""

    def __init__(self, graph_def: Any, operator: Callable[[str], Any]) -> None:
        """`operator(name)` is TensorFlow's OpDef, None if there is none. Raises Unreadable."""
        self._operator = operator
        self._library: dict[str, Any] = {}
        for function in graph_def.library.function:
            name = function.signature.name
            if name in self._library:
                raise Unreadable(f"two functions are called {name!r}")
            if operator(name) is not None:
                raise Unreadable(f"a function of the model replaces the operator {name!r}")
            self._library[name] = function
        self._implementations = _implementations(self._library.values())
        self._read = 0
        self._bodies: dict[str, Body] = {}
        self.main = Body(self._nodes(graph_def.node, None))

    def function(self, name: str) -> Body:
        """A function of the library. Raises Unreadable if there is none."""
        body = self._bodies.get(name)
        if body is None:
            body = self._bodies[name] = self._function(name)
        return body

    def called(self, operator: str) -> bool:
        """Whether the operator is a function of the library: graphs of TensorFlow 1 call functions in this way."""
        return operator in self._library

    def _function(self, name: str) -> Body:
        function = self._library.get(name)
        if function is None:
            raise Unreadable(f"there is no function {name!r}")
        if function.attr["api_implements"].s if "api_implements" in function.attr else b"":
            group = self._implementations[function.attr["api_implements"].s]
            if group > 1:  # the runtime puts another one in its place, which may be another function
                raise Unreadable(f"the function {name!r} has {group} implementations, one for each kind of device")
        signature = function.signature
        arguments = [
            (argument.name, _annotated(function.arg_attr[i]) if i in function.arg_attr else None)
            for i, argument in enumerate(signature.input_arg)
        ]
        for argument in (*signature.input_arg, *signature.output_arg):
            if argument.number_attr or argument.type_list_attr:
                raise Unreadable(f"the function {name!r} has arguments whose number is not fixed")
        nodes = self._nodes(function.node_def, [argument for argument, _ in arguments])
        positions = self._positions(function.node_def)
        results = []
        for result in signature.output_arg:
            if result.name not in function.ret:
                raise Unreadable(f"the function {name!r} does not say what its result {result.name!r} is")
            results.append(_inner_edge(function.ret[result.name], positions, dict(arguments)))
        effects = [node for node in function.control_ret.values() if node in nodes]
        effects += [node.name for node in nodes.values() if node.effects]
        return Body(nodes, arguments, results, list(dict.fromkeys(effects)))

    def _definition(self, node: Any) -> Any:
        if node.op in self._library:
            return self._library[node.op].signature
        definition = self._operator(node.op)
        if definition is None:
            raise Unreadable(f"TensorFlow does not know the operator {node.op!r}")
        return definition

    def _nodes(self, protos: Sequence[Any], arguments: Sequence[str] | None) -> dict[str, GraphNode]:
        """The nodes by name. `arguments`: of the function, None for the graph itself."""
        self._read += len(protos)
        if self._read > _MOST_NODES:
            raise Unreadable(f"the graph has more than {_MOST_NODES} nodes")
        positions = None if arguments is None else self._positions(protos)
        nodes: dict[str, GraphNode] = {}
        names = set(arguments or ())
        for proto in protos:
            if proto.name in nodes or proto.name in names:
                raise Unreadable(f"two nodes are called {proto.name!r}")
            definition = self._definition(proto)
            edges: list[Edge] = []
            controls = []
            for text in proto.input:
                if text.startswith("^"):
                    controls.append(text[1:])
                elif positions is None:
                    edges.append(outer_edge(text))
                else:
                    edges.append(_inner_edge(text, positions, names))
            count = sum(_count(proto, definition, output) for output in definition.output_arg)
            nodes[proto.name] = GraphNode(
                proto.name,
                proto.op,
                tuple(edges),
                tuple(controls),
                dict(proto.attr),
                {attr.name: attr.default_value for attr in definition.attr if attr.HasField("default_value")},
                count,
                definition.is_stateful or any(argument.is_ref for argument in definition.input_arg),
            )
        return nodes

    def _positions(self, protos: Sequence[Any]) -> dict[str, dict[str, tuple[int, int]]]:
        """For each node, by name of an output: the number of its first tensor, and how many it has."""
        found = {}
        for proto in protos:
            definition, start, outputs = self._definition(proto), 0, {}
            for output in definition.output_arg:
                count = _count(proto, definition, output)
                outputs[output.name] = (start, count)
                start += count
            found[proto.name] = outputs
        return found


def _implementations(functions: Iterable[Any]) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for function in functions:
        if "api_implements" in function.attr:
            name = function.attr["api_implements"].s
            counts[name] = counts.get(name, 0) + 1
    return counts


def _annotated(attributes: Any) -> Sequence[int] | None:
    """The sizes that a function's file gives an argument, -1 for a dimension of any size."""
    if "_output_shapes" not in attributes.attr:
        return None
    shapes = attributes.attr["_output_shapes"].list.shape
    if len(shapes) != 1 or shapes[0].unknown_rank:
        return None
    return [dim.size for dim in shapes[0].dim]


def _count(proto: Any, definition: Any, output: Any) -> int:
    """How many tensors a named output has."""
    if output.number_attr:
        attribute, kind = output.number_attr, "i"
    elif output.type_list_attr:
        attribute, kind = output.type_list_attr, "list"
    else:
        return 1
    if attribute in proto.attr:
        value = proto.attr[attribute]
    else:
        value = next((a.default_value for a in definition.attr if a.name == attribute), None)
    if value is None or value.WhichOneof("value") != kind:
        raise Unreadable(f"{proto.name!r} does not say how many outputs it has")
    count = value.i if kind == "i" else len(value.list.type)
    if not 0 <= count <= _MOST_NODES:
        raise Unreadable(f"{proto.name!r} has {count} outputs")
    return int(count)


def outer_edge(text: str) -> Edge:
    """An edge of the graph itself: "node" or "node:1"."""
    name, colon, index = text.rpartition(":")
    if not colon:
        return text, _OWN_EDGE
    if not index.isdigit():
        raise Unreadable(f"{text!r} names no output of a node")
    return name, int(index)


def _inner_edge(text: str, positions: Mapping[str, Mapping[str, tuple[int, int]]], arguments: Any) -> Edge:
    """An edge of a function: "argument", or "node:output:0"."""
    parts = text.split(":")
    if len(parts) == 1 and text in arguments:
        return text, _OWN_EDGE
    if len(parts) == 3 and parts[0] in positions and parts[1] in positions[parts[0]] and parts[2].isdigit():
        start, count = positions[parts[0]][parts[1]]
        if int(parts[2]) < count:
            return parts[0], start + int(parts[2])
    raise Unreadable(f"{text!r} names no output of a node")
