"""Finds the side effects of a torch graph: does a run write into an argument, and does it keep state for later runs?

For every in-place operator, the tensor that it writes is followed back, through operators that return views, to the
origin of its memory: an argument, the module, or a tensor made during the run. If the origin cannot be found (lists,
branches), both answers are yes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_INPUT, _STATE, _UNKNOWN = "input", "state", "unknown"
# These operators return their input when they have nothing to do, but their schemas do not say so.
_MAYBE_VIEWS = frozenset(
    {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"}
)


@dataclass(frozen=True, slots=True)
class Effects:
    """The side effects of a run.

    writes_inputs   it may write into its arguments
    keeps_state     it may change the module, so later answers may differ
    """

    writes_inputs: bool = False
    keeps_state: bool = False


def nodes_of(block: Any) -> Iterator[Any]:
    """All nodes of a TorchScript graph, including those in nested blocks."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def inlined(torch: Any, module: Any, method: str) -> Any:
    """A copy of the graph of a TorchScript method, in which all calls are inlined."""
    graph = module._c._get_method(method).graph.copy()
    torch._C._jit_pass_inline(graph)
    return graph


def script_effects(torch: Any, module: Any, method: str) -> Effects:
    """The side effects of a TorchScript method. In doubt, both are assumed."""
    graph = inlined(torch, module, method)
    this, *arguments = (value.debugName() for value in graph.inputs())
    origins: set[str] = set()
    attributes_set = False
    for node in nodes_of(graph):
        if node.kind() == "prim::SetAttr":
            attributes_set = True
        elif "!" in node.schema():
            schema = torch._C.parse_schema(node.schema())
            for value, argument in zip(node.inputs(), schema.arguments, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    _script_origins(torch, value, this, frozenset(arguments), origins, set())
    if _UNKNOWN in origins:
        aliases = graph.alias_db()
        written = any(aliases.has_writers(value) for value in list(graph.inputs())[1:])
        return Effects(written or _INPUT in origins, keeps_state=True)
    return Effects(_INPUT in origins, attributes_set or _STATE in origins)


def _script_origins(
    torch: Any, value: Any, this: str, arguments: frozenset[str], into: set[str], seen: set[str]
) -> None:
    """Adds to `into` where the memory of a tensor comes from."""
    name = value.debugName()
    if name in seen:
        return
    seen.add(name)
    node = value.node()
    operator = node.kind()
    if operator == "prim::Param":
        into.add(_STATE if name == this else _INPUT if name in arguments else _UNKNOWN)
    elif operator in ("prim::GetAttr", "prim::Constant"):
        into.add(_STATE)
    elif operator in _MAYBE_VIEWS:
        _script_origins(torch, next(iter(node.inputs())), this, arguments, into, seen)
    else:
        try:
            schema = torch._C.parse_schema(node.schema())
        except RuntimeError:
            into.add(_UNKNOWN)
            return
        number = [output.debugName() for output in node.outputs()].index(name)
        alias = schema.returns[number].alias_info if number < len(schema.returns) else None
        if alias is None:
            return  # this operator made the tensor
        sources = [v for v, a in zip(node.inputs(), schema.arguments, strict=False) if a.alias_info is not None]
        if not sources or "*" in alias.before_set:
            into.add(_UNKNOWN)
        for source in sources:
            _script_origins(torch, source, this, arguments, into, seen)


def program_effects(program: Any) -> Effects:
    """The side effects of a torch.export program: in-place operators in its graph, and mutations that its signature
    lists."""
    signature = program.graph_signature
    mutations = {spec.kind.name for spec in signature.output_specs}
    user = {spec.arg.name for spec in signature.input_specs if spec.kind.name == "USER_INPUT"}
    origins: set[str] = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        for argument, value in zip(schema.arguments, node.args, strict=False) if schema is not None else ():
            if argument.alias_info is not None and argument.alias_info.is_write:
                _program_origins(value, user, origins, set())
    return Effects(
        writes_inputs=bool(origins & {_INPUT, _UNKNOWN}) or "USER_INPUT_MUTATION" in mutations,
        keeps_state=bool(origins & {_STATE, _UNKNOWN}) or bool(mutations & {"BUFFER_MUTATION", "PARAMETER_MUTATION"}),
    )


def _program_origins(value: Any, user: set[str], into: set[str], seen: set[str]) -> None:
    """Adds to `into` where the memory of a value comes from. `user`: names of the program's own inputs."""
    if isinstance(value, list | tuple):
        for part in value:
            _program_origins(part, user, into, seen)
        return
    name = getattr(value, "name", None)
    if name is None or name in seen:
        return
    seen.add(name)
    if value.op in ("placeholder", "get_attr"):
        into.add(_INPUT if name in user else _STATE)
        return
    schema = getattr(value.target, "_schema", None)
    if schema is None:
        into.add(_UNKNOWN)
        return
    maybe_view = schema.name in _MAYBE_VIEWS
    if not maybe_view and all(returned.alias_info is None for returned in schema.returns):
        return  # this operator made the tensor
    for argument, source in zip(schema.arguments, value.args, strict=False):
        if argument.alias_info is not None or maybe_view:
            _program_origins(source, user, into, seen)
