"""What running a torch graph leaves behind: does it write into an argument, does it keep something for the next call.

Every in-place operator is followed back, through operators that give views, to where its memory comes from: an
argument, the module, or a tensor made on the way. What cannot be followed (lists, branches) counts as both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_INPUT, _STATE, _UNKNOWN = "input", "state", "unknown"
# They give back their input when they have nothing to do, and do not say so in their schema.
_MAYBE_VIEWS = frozenset(
    {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"}
)


@dataclass(frozen=True, slots=True)
class Effects:
    """What a call does beside answering."""

    writes_inputs: bool = False
    keeps_state: bool = False


def nodes_of(block: Any) -> Iterator[Any]:
    """All nodes of a TorchScript graph, those of inner blocks too."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def inlined(torch: Any, module: Any, method: str) -> Any:
    """A copy of a TorchScript method's graph with everything that it calls inlined."""
    graph = module._c._get_method(method).graph.copy()
    torch._C._jit_pass_inline(graph)
    return graph


def script_effects(torch: Any, module: Any, method: str) -> Effects:
    """The effects of a TorchScript method. In doubt it writes and keeps."""
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
    name = value.debugName()
    if name in seen:
        return
    seen.add(name)
    node = value.node()
    kind = node.kind()
    if kind == "prim::Param":
        into.add(_STATE if name == this else _INPUT if name in arguments else _UNKNOWN)
    elif kind in ("prim::GetAttr", "prim::Constant"):
        into.add(_STATE)
    elif kind in _MAYBE_VIEWS:
        _script_origins(torch, next(iter(node.inputs())), this, arguments, into, seen)
    else:
        try:
            schema = torch._C.parse_schema(node.schema())
        except RuntimeError:
            into.add(_UNKNOWN)
            return
        number = [output.debugName() for output in node.outputs()].index(name)
        told = schema.returns[number].alias_info if number < len(schema.returns) else None
        if told is None:
            return  # made by this operator
        sources = [v for v, a in zip(node.inputs(), schema.arguments, strict=False) if a.alias_info is not None]
        if not sources or "*" in told.before_set:
            into.add(_UNKNOWN)
        for source in sources:
            _script_origins(torch, source, this, arguments, into, seen)


def program_effects(program: Any) -> Effects:
    """The effects of a torch.export program, whether its graph still mutates or says so in its signature."""
    signature = program.graph_signature
    told = {spec.kind.name for spec in signature.output_specs}
    user = {spec.arg.name for spec in signature.input_specs if spec.kind.name == "USER_INPUT"}
    origins: set[str] = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
        for argument, value in zip(schema.arguments, node.args, strict=False) if schema is not None else ():
            if argument.alias_info is not None and argument.alias_info.is_write:
                _program_origins(value, user, origins, set())
    return Effects(
        writes_inputs=bool(origins & {_INPUT, _UNKNOWN}) or "USER_INPUT_MUTATION" in told,
        keeps_state=bool(origins & {_STATE, _UNKNOWN}) or bool(told & {"BUFFER_MUTATION", "PARAMETER_MUTATION"}),
    )


def _program_origins(value: Any, user: set[str], into: set[str], seen: set[str]) -> None:
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
        return  # made by this operator
    for argument, source in zip(schema.arguments, value.args, strict=False):
        if argument.alias_info is not None or maybe_view:
            _program_origins(source, user, into, seen)
