"""From a MetaGraphDef to the finding. The walker is imported when the first model is analysed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferd.backends.api import Independence, Signature
from inferd.backends.tensorflow.graph import Served

_Axes = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class VariableValues:
    """Where the shapes of variables' values are found: a graph may say other ones.

    directory   of the SavedModel
    session     the shapes of variables in a session, by their nodes in the graph. Slow for large graphs
    """

    directory: Path
    session: Callable[[Sequence[str]], Sequence[list[int]]]

    def shapes(self, program: Any, meta_graph: Any, variables: Sequence[str]) -> dict[str, list[int]]:
        """The shapes by the variables' nodes: from the checkpoint as far as possible, else from the session."""
        from tensorflow.python.framework.errors_impl import OpError

        from inferd.backends.tensorflow.independence.checkpoint import stored_shapes
        from inferd.backends.tensorflow.independence.program import Unreadable

        found = stored_shapes(program, meta_graph, self.directory) if variables else {}
        others = [name for name in variables if name not in found]
        if others:
            try:
                found.update(zip(others, self.session(others), strict=True))
            except OpError as error:
                raise Unreadable(f"a variable has no value: {error.message}") from None
        return found


def analyse_signature(meta_graph: Any, served: Served, values: VariableValues | None = None) -> Independence:
    """Whether the rows of the outputs of a served signature are independent. Never raises for what the graph holds.

    Without `values` the variables are taken to have the shapes that the graph says.
    """
    first = _analyse(meta_graph, served, {}, values)
    if first.proven:
        return first
    equal = _axes_that_may_be_equal(served.signature)
    if equal:
        again = _analyse(meta_graph, served, equal, values)
        if again.proven:
            return replace(again, equal=tuple(tuple(group) for group in equal.values()))
    return first


def _batched(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and shape[:1] == (-1,)


def _axes_that_may_be_equal(signature: Signature) -> dict[int, _Axes]:
    """Open dimensions at the same place of several batched inputs. TensorFlow gives dimensions no names; ids and masks
    of a text have the same length, so this is tried where the proof fails otherwise."""
    groups: dict[int, list[tuple[str, int]]] = {}
    for spec in signature.inputs:
        if _batched(spec.shape):
            for axis, size in enumerate(spec.shape or ()):
                if axis and size < 0:
                    groups.setdefault(axis, []).append((spec.name, axis))
    return {axis: group for axis, group in groups.items() if len(group) > 1}


def _analyse(
    meta_graph: Any, served: Served, equal: Mapping[int, _Axes], values: VariableValues | None
) -> Independence:
    from tensorflow.python.framework import op_def_registry

    from inferd.backends.independence.sizes import N, Refusal, Size, size_of
    from inferd.backends.independence.values import Value, conclusion, constant, mixed, rows
    from inferd.backends.tensorflow.independence.items import AtLeast, Item, Ragged, cause_of
    from inferd.backends.tensorflow.independence.program import Edge, GraphProgram, Unreadable, outer_edge
    from inferd.backends.tensorflow.independence.walker import Stopped, Walk

    def as_value(item: Item) -> Value:
        if isinstance(item, (Ragged, AtLeast)):
            return item.value
        cause = cause_of(item)
        return item if isinstance(item, Value) else constant(None) if cause is None else mixed(cause)

    try:
        program = GraphProgram(meta_graph.graph_def, op_def_registry.get)
        walk = Walk(program)
        shared: dict[int, Size] = {axis: walk.fresh() for axis in equal}
        inputs: dict[Edge, Item] = {}
        for spec, feed in zip(served.signature.inputs, served.feeds, strict=True):
            edge = outer_edge(feed)
            if edge in inputs:
                raise Unreadable(f"two inputs of the signature are {feed!r} in the graph")
            if spec.shape is None:
                inputs[edge] = constant(None)
                continue
            batched = _batched(spec.shape)
            if batched and spec.optional:
                # A request that leaves it out is given the default, which has rows of its own.
                raise Unreadable(f"input {spec.name!r} has a batch axis and a default value")
            sizes = [
                size_of(size) if size >= 0 else shared[axis] if batched and axis in shared else walk.fresh()
                for axis, size in enumerate(spec.shape)
            ]
            _refuse_fixed(program, edge, spec.name, spec.shape)
            inputs[edge] = rows([N, *sizes[1:]], 0) if batched else constant(sizes)
        wanted = [outer_edge(fetch) for fetch in served.fetches]
        found = walk.outputs(inputs, wanted)
        if values is not None:
            actual = values.shapes(program, meta_graph, list(walk.variables))
            for name, expected in walk.variables.items():
                if [size.number for size in expected] != actual[name]:
                    raise Unreadable(f"variable {name!r} has the shape {actual[name]}, in the graph {list(expected)}")
        names = [spec.name for spec in served.signature.outputs]
        return conclusion({name: as_value(item) for name, item in zip(names, found, strict=True)})
    except Stopped as stopped:
        cause = stopped.cause
        return Independence(False, "", cause.operator, cause.node, cause.reason, cause.understood)
    except Unreadable as error:
        return Independence(False, reason=str(error), understood=False)
    except Refusal as refusal:
        return Independence(False, reason=str(refusal), understood=refusal.understood)
    except RecursionError:
        return Independence(False, reason="the graph nests too deeply", understood=False)


def _refuse_fixed(program: Any, edge: Any, name: str, shape: Sequence[int]) -> None:
    """Raises Unreadable if the graph gives an input fixed sizes where the signature leaves them open: the runtime may
    put the fixed numbers in their place."""
    from inferd.backends.tensorflow.independence.program import Unreadable

    node = program.main.nodes.get(edge[0])
    if node is None:
        raise Unreadable(f"input {name!r} is not in the graph")
    if node.operator not in ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2"):
        return
    given = node.attribute("shape")
    if given is None or given.shape.unknown_rank or not (given.shape.dim or node.operator != "Placeholder"):
        return
    sizes = [dim.size for dim in given.shape.dim]
    if len(sizes) != len(shape) or any(a >= 0 > b for a, b in zip(sizes, shape, strict=True)):
        raise Unreadable(f"the graph gives input {name!r} the shape {sizes}, the signature {list(shape)}")
