"""The walk over a torch.export program. Shapes are followed anew; what the file says of them is not relied upon."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inferd.backends.api import Independence, Signature
from inferd.backends.independence.sizes import NotUnderstood, Refusal
from inferd.backends.independence.values import CONST, Cause, constant, mixed
from inferd.backends.torch.independence.call import Number, leaves
from inferd.backends.torch.independence.interpreter import Interpreter, Schema, Stopped
from inferd.backends.torch.independence.memory import TensorRef, spoil
from inferd.backends.torch.independence.proof import analyse
from inferd.backends.torch.independence.scalars import FUNCTIONS, compute
from inferd.backends.torch.io import Plan, TensorArgument

_MOST_DEPTH = 16
# Operators that run a graph as it is, by the place of that graph among their arguments.
_RUNS_A_GRAPH = {
    "wrap_with_set_grad_enabled": 1,
    "wrap_with_autocast": 4,
    "wrap": 0,
    "hints_wrapper": 0,
}
_UNFOLLOWED = {
    "cond": "chooses a branch by a value",
    "while_loop": "is a loop",
    "map_impl": "is a loop over rows",
    "scan": "is a loop",
    "associative_scan": "is a loop",
}
_NAMES = {
    "sym_max": "max",
    "sym_min": "min",
    "sym_int": "int",
    "sym_float": "float",
    "sym_not": "not_",
    "sym_sum": "sum",
}


class _Graph:
    """One graph while it is walked: the values of its nodes by name."""

    def __init__(self, interpreter: Interpreter, module: Any, schemas: dict[Any, Schema], depth: int = 0) -> None:
        self._interpreter = interpreter
        self._module = module
        self._schemas = schemas
        self._depth = depth
        self.values: dict[str, Any] = {}

    def walk(self, graph: Any, inputs: Iterator[Any]) -> list[Any]:
        """The values of the graph's output node, flat."""
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node.name] = next(inputs)
            elif node.op == "output":
                return list(leaves([self._argument(argument) for argument in node.args]))
            else:
                self.values[node.name] = self._node(node)
        return []

    def _argument(self, argument: Any) -> Any:
        name = getattr(argument, "name", None)
        if name is not None and hasattr(argument, "op"):
            return self.values[name]
        if isinstance(argument, list | tuple):
            return [self._argument(part) for part in argument]
        if isinstance(argument, dict):
            return {key: self._argument(part) for key, part in argument.items()}
        if isinstance(argument, slice):
            raise NotUnderstood("has a slice as argument")
        return argument

    def _node(self, node: Any) -> Any:
        if node.op == "get_attr":
            found = self._module
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return self._interpreter.constant(found) if hasattr(found, "untyped_storage") else found
        if node.op != "call_function":
            # Of modules, programs call only the checks of their inputs.
            return None if node.target == "_guards_fn" else self._unknown(node, str(node.target))
        target = node.target
        if target is operator.getitem:
            return self._part(node)
        schema = getattr(target, "_schema", None)
        if schema is not None:
            if target not in self._schemas:
                self._schemas[target] = Schema.of(schema)
            found = self._schemas[target]
            return self._interpreter.apply(found, self._bound(found, node), node.name)
        name = str(getattr(target, "__name__", target))
        if type(target).__module__.startswith("torch") and hasattr(target, "namespace"):
            return self._higher(node, name)
        plain = _NAMES.get(name, name)
        if plain in FUNCTIONS and (name in _NAMES or getattr(target, "__module__", "") in ("_operator", "math")):
            self._interpreter.step()
            return compute(plain, self._argument(node.args), node.name)
        return self._unknown(node, name)

    def _bound(self, schema: Schema, node: Any) -> Mapping[str, Any]:
        """The arguments by name, with defaults filled in."""
        given = self._argument(node.args)
        names = [parameter.name for parameter in schema.parameters]
        if len(given) > len(names):
            raise Stopped(f"node {node.name!r} has more arguments than its operator")
        arguments = dict(zip(names, given, strict=False))
        for parameter in schema.parameters:
            if parameter.name in node.kwargs:
                arguments[parameter.name] = self._argument(node.kwargs[parameter.name])
            elif parameter.name not in arguments:
                arguments[parameter.name] = parameter.default
        return arguments

    def _part(self, node: Any) -> Any:
        whole, place = self._argument(node.args)
        if isinstance(whole, Number):
            return whole.tensor() if whole.value.cause is not None else whole
        if isinstance(whole, list | tuple) and isinstance(place, int) and -len(whole) <= place < len(whole):
            return whole[place]
        return self._unknown(node, "getitem")

    def _higher(self, node: Any, name: str) -> Any:
        """An operator that takes graphs."""
        place = _RUNS_A_GRAPH.get(name)
        arguments = [self._argument(argument) for argument in node.args]
        graph = None if place is None or place >= len(arguments) else getattr(arguments[place], "graph", None)
        if graph is None or node.kwargs or self._depth >= _MOST_DEPTH:
            return self._unknown(node, name)
        given = arguments[place + 1 :] if place is not None else []
        if name == "hints_wrapper":
            given = list(given[0]) if given else []
        inner = _Graph(self._interpreter, arguments[place or 0], self._schemas, self._depth + 1)
        try:
            return inner.walk(graph, iter(given))
        except (StopIteration, RuntimeError):
            return self._unknown(node, name)

    def _unknown(self, node: Any, name: str) -> Any:
        """The result of what is not followed. It may write into everything that it is given."""
        self._interpreter.step()
        reason = _UNFOLLOWED.get(name, "is no operator that the analysis knows")
        given = list(leaves([self._argument(list(node.args)), self._argument(dict(node.kwargs))]))
        chooses = name == "cond" and given and not (isinstance(given[0], bool) or _same_for_all(given[0]))
        understood = (name != "cond" and name in _UNFOLLOWED) or chooses
        cause = Cause(name, node.name, f"{reason} of the batch" if chooses else reason, bool(understood and chooses))
        for leaf in given:
            if isinstance(leaf, TensorRef):
                spoil(leaf.memory, cause)
        return Number(mixed(cause))


def _same_for_all(argument: Any) -> bool:
    return isinstance(argument, TensorRef | Number) and argument.value.kind is CONST


def outputs_of_program(program: Any, inputs: Sequence[Any], interpreter: Interpreter) -> list[Any]:
    """What is known of the program's outputs, in the order in which it returns them.

    `inputs` are the program's own inputs in their order: a TensorRef, a plain value, or a Size or Number for a number
    that is not known. Raises Stopped.
    """
    signature = program.graph_signature
    given = iter(inputs)
    placed: list[Any] = []
    for spec in signature.input_specs:
        kind = spec.kind.name
        if kind == "USER_INPUT":
            placed.append(next(given))
        elif kind in {"PARAMETER", "BUFFER"}:
            held = program.state_dict if spec.target in program.state_dict else program.constants
            placed.append(interpreter.constant(held[spec.target]))
        elif kind == "CONSTANT_TENSOR":
            placed.append(interpreter.constant(program.constants[spec.target]))
        else:
            placed.append(Number(constant([])))
    if any(spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION") for spec in signature.output_specs):
        raise Stopped("the program writes to its own tensors")
    graph = _Graph(interpreter, program.graph_module, {})
    try:
        returned = graph.walk(program.graph, iter(placed))
    except Refusal as refusal:
        raise Stopped(str(refusal)) from None
    except (KeyError, StopIteration, RuntimeError) as error:
        raise Stopped(f"the graph cannot be followed ({type(error).__name__})") from None
    specs = signature.output_specs
    if len(returned) != len(specs):
        raise Stopped("the graph has other outputs than the program")
    return [value for value, spec in zip(returned, specs, strict=True) if spec.kind.name == "USER_OUTPUT"]


def analyse_program(torch: Any, program: Any, plan: Plan, signature: Signature) -> Independence:
    """Whether the rows of the outputs are independent. Never raises for what the program holds."""

    def run(interpreter: Interpreter, arguments: Sequence[Any], _keywords: Mapping[str, Any]) -> Any:
        found = outputs_of_program(program, arguments, interpreter)
        return torch.utils._pytree.tree_unflatten(found, program.call_spec.out_spec)

    return analyse(signature, plan, run, _open_dimensions(program, plan))


def _open_dimensions(program: Any, plan: Plan) -> Mapping[str, Sequence[str | None]]:
    """The exporter's names of open dimensions, by input."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    users = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    found = {}
    for argument, user in zip(plan.arguments, users, strict=True):
        shape = getattr(values.get(user.name), "shape", None)
        if isinstance(argument, TensorArgument) and shape is not None:
            found[argument.name] = [None if type(size) is int else str(size) for size in shape]
    return found
