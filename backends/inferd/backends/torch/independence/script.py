"""The walk over a TorchScript method, with all calls inlined: what Python does around tensors is carried out.

Attributes of the module are read as they are. A branch is followed if its condition is known, a loop if its number of
turns is. A branch that always raises is left out: a model that fails mixes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferd.backends.api import Independence, Signature
from inferd.backends.independence.operators import merged
from inferd.backends.independence.sizes import Refusal, Size
from inferd.backends.independence.values import CONST, Cause, constant, mixed
from inferd.backends.torch.effects import inlined
from inferd.backends.torch.independence.call import Number, Unused, leaves
from inferd.backends.torch.independence.interpreter import Interpreter, Schema, Stopped
from inferd.backends.torch.independence.memory import TensorRef, joined_memory, spoil
from inferd.backends.torch.independence.proof import analyse
from inferd.backends.torch.independence.scalars import compute
from inferd.backends.torch.independence.script_values import MOST_TURNS, PLAIN, PYTHON, Raised, shown
from inferd.backends.torch.io import Plan

_MOST_DEPTH = 64
_UNUSED = Unused()


class _Object:
    """A plain value that the analysis does not look into: a device, a generator."""


def analyse_method(torch: Any, module: Any, method: str, plan: Plan, signature: Signature) -> Independence:
    """Whether the rows of the outputs are independent. Never raises for what the method holds."""
    graph = inlined(torch, module, method)
    schema = getattr(module, method).schema

    def run(interpreter: Interpreter, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        given = [module, *arguments]
        for argument in schema.arguments[len(given) :]:
            if argument.name in keywords:
                given.append(keywords[argument.name])
            elif argument.has_default_value():
                given.append(_plain(argument.default_value, interpreter))
            else:
                raise Stopped(f"argument {argument.name!r} has no value")
        results = _Method(torch, interpreter).run(graph, given)
        return results[0] if len(results) == 1 else tuple(results)

    return analyse(signature, plan, run)


def _plain(value: Any, interpreter: Interpreter) -> Any:
    return interpreter.constant(value) if hasattr(value, "untyped_storage") else value


class _Method:
    """One walk over a method's graph."""

    def __init__(self, torch: Any, interpreter: Interpreter) -> None:
        self._torch = torch
        self._interpreter = interpreter
        self._schemas: dict[str, Schema | None] = {}
        self._attributes: dict[tuple[int, str], Any] = {}
        self._values: dict[str, Any] = {}
        self._depth = 0

    def run(self, graph: Any, inputs: Sequence[Any]) -> list[Any]:
        """The values of the graph's outputs. Raises Stopped."""
        for value, given in zip(graph.inputs(), inputs, strict=True):
            self._values[value.debugName()] = given
        try:
            self._walk(graph)
            return [self._values[value.debugName()] for value in graph.outputs()]
        except Raised:
            raise Stopped("the method raises an error for all inputs") from None
        except KeyError as error:
            raise Stopped(f"no earlier node makes {str(error)[:60]}") from None

    def _walk(self, block: Any) -> None:
        for node in block.nodes():
            self._interpreter.step()
            results = self._node(node)
            outputs = list(node.outputs())
            if len(outputs) == 1:
                self._values[outputs[0].debugName()] = tuple(results) if isinstance(results, _Single) else results
            else:
                for number, output in enumerate(outputs):
                    self._values[output.debugName()] = _part_of(results, number)

    def _node(self, node: Any) -> Any:
        kind = node.kind()
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(self, node)
        arguments = [self._values[value.debugName()] for value in node.inputs()]
        try:
            if kind in PYTHON:
                found = PYTHON[kind](self._interpreter, node, arguments)
                if found is not NotImplemented:
                    return found
            schema = self._schema(node)
            if schema is not None:
                return self._call(schema, arguments, shown(node))
        except (Refusal, TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError) as error:
            return self._unknown(node, arguments, self._interpreter.failed(kind, shown(node), error))
        return self._unknown(node, arguments)

    def _schema(self, node: Any) -> Schema | None:
        text = node.schema()
        if text not in self._schemas:
            try:
                self._schemas[text] = Schema.of(self._torch._C.parse_schema(text))
            except RuntimeError:
                self._schemas[text] = None
        return self._schemas[text]

    def _call(self, schema: Schema, arguments: Sequence[Any], node: str) -> Any:
        bound = {parameter.name: value for parameter, value in zip(schema.parameters, arguments, strict=True)}
        plain = PLAIN.get(schema.name.removeprefix("aten::"))
        if plain is not None and not any(isinstance(leaf, TensorRef) for leaf in leaves(list(arguments))):
            names = [p.name for p in schema.parameters]
            if names and len(names) <= 2:
                return compute(plain, arguments, node)
        if any(p.written and not isinstance(bound[p.name], TensorRef) for p in schema.parameters):
            raise Stopped(f"{schema.name} changes a list in a way that is not followed, at node {node!r}")
        return self._interpreter.apply(schema, bound, node)

    def _unknown(self, node: Any, arguments: Sequence[Any], cause: Cause | None = None) -> Any:
        """The result of what is not followed. It may write into everything that it is given."""
        if cause is None:
            text = "is no operator that the analysis knows"
            cause = Cause(node.kind(), shown(node), text, understood=False)
        may_write = self._schema(node) is None or "!" in node.schema()
        if may_write and any(isinstance(argument, list | dict) for argument in arguments):
            raise Stopped(f"{cause.operator} changes a list in a way that is not followed, at node {cause.node!r}")
        for leaf in leaves(list(arguments)):
            if isinstance(leaf, TensorRef):
                spoil(leaf.memory, cause)
        found = [_of_type(output.type().kind(), cause) for output in node.outputs()]
        return found[0] if len(found) == 1 else tuple(found)

    # --- control flow -------------------------------------------------------------------------------------------------

    def _if(self, node: Any) -> Any:
        condition = self._values[next(node.inputs()).debugName()]
        blocks = list(node.blocks())
        chosen = _truth(condition)
        if chosen is not None:
            return self._block(blocks[0 if chosen else 1])
        left = [block for block in blocks if not _always_raises(block)]
        if not left:
            raise Raised
        if len(left) == 1:
            return self._block(left[0])
        value = condition.value if isinstance(condition, Number | TensorRef) else constant([])
        cause = value.cause
        if cause is None and value.kind is not CONST:
            cause = Cause("prim::If", shown(node), "chooses a branch by the rows", understood=True)
        changes = any(_changes(self, block) for block in left)
        if cause is None and not changes:
            try:
                first, second = (self._results(self._block(block)) for block in left)
                found = [self._either(a, b, node) for a, b in zip(first, second, strict=True)]
                return found[0] if len(found) == 1 else tuple(found)
            except Raised:
                pass
        if cause is None:
            text = "chooses a branch by a value that is not known"
            cause = Cause("prim::If", shown(node), text, understood=False)
        if changes:
            raise Stopped(f"{cause.operator} {cause.reason}, at node {cause.node!r}")
        found = [_of_type(output.type().kind(), cause) for output in node.outputs()]
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def _results(found: Any) -> list[Any]:
        return list(found) if isinstance(found, tuple) and not isinstance(found, _Single) else [found]

    def _block(self, block: Any) -> Any:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise Stopped("the graph nests too deeply")
        try:
            self._walk(block)
        finally:
            self._depth -= 1
        found = [self._values[value.debugName()] for value in block.outputs()]
        if len(found) == 1:
            return _Single(found[0]) if isinstance(found[0], tuple) else found[0]
        return tuple(found)

    def _either(self, a: Any, b: Any, node: Any) -> Any:
        """One of two results, by a condition that is the same for all rows."""
        if a is b or isinstance(b, Unused):
            return a
        if isinstance(a, Unused):
            return b
        if isinstance(a, TensorRef) and isinstance(b, TensorRef):
            memory = joined_memory([a.memory, b.memory])
            try:
                value = next((mixed(v.cause) for v in (a.value, b.value) if v.cause), None) or merged(a.value, b.value)
            except Refusal as refusal:
                value = mixed(self._interpreter.failed("prim::If", shown(node), refusal))
            return TensorRef(value, a.dtype if a.dtype == b.dtype else None, memory)
        if type(a) is tuple and type(b) is tuple and len(a) == len(b):
            return tuple([self._either(x, y, node) for x, y in zip(a, b, strict=True)])
        if isinstance(a, list | dict) or isinstance(b, list | dict):
            # Which list a later write goes to is not known.
            text = "has branches that give different lists"
            return Number(mixed(Cause("prim::If", shown(node), text, understood=False)))
        if isinstance(a, bool | int | float | str) and type(a) is type(b) and a == b:
            return a
        tensors = [leaf for leaf in leaves([a, b]) if isinstance(leaf, TensorRef)]
        known = [leaf for leaf in leaves([a, b]) if isinstance(leaf, Number) and leaf.value.cause is not None]
        batched = any(isinstance(leaf, Size) and leaf.batched for leaf in leaves([a, b]))
        if known:
            return known[0]
        if tensors or batched:
            text = "has branches that give different things"
            return Number(mixed(Cause("prim::If", shown(node), text, understood=False)))
        return Number(constant([]))

    def _loop(self, node: Any) -> Any:
        inputs = [self._values[value.debugName()] for value in node.inputs()]
        (block,) = node.blocks()
        most, condition, carried = inputs[0], inputs[1], inputs[2:]
        names = [value.debugName() for value in block.inputs()]
        turn = 0
        while True:
            going = _truth(condition)
            if isinstance(most, Size) or not isinstance(most, int) or going is None:
                return self._unfollowed_loop(node, block, most, condition, carried)
            if not going or turn >= most:
                return carried[0] if len(carried) == 1 else tuple(carried)
            if turn >= MOST_TURNS:
                raise Stopped(f"a loop has more than {MOST_TURNS} turns")
            self._interpreter.step()
            self._values.update(zip(names, [turn, *carried], strict=True))
            self._walk(block)
            condition, *carried = [self._values[value.debugName()] for value in block.outputs()]
            turn += 1

    def _unfollowed_loop(self, node: Any, block: Any, most: Any, condition: Any, carried: Sequence[Any]) -> Any:
        if isinstance(most, Size) and most.batched:
            cause = Cause("prim::Loop", shown(node), "is a loop over the number of rows", understood=True)
        else:
            value = next((v.value for v in (most, condition) if isinstance(v, Number)), None)
            text = "is a loop whose number of turns is not known"
            known = None if value is None else value.cause
            cause = known or Cause("prim::Loop", shown(node), text, understood=False)
        if _changes(self, block):
            raise Stopped(f"{cause.operator} {cause.reason}, at node {cause.node!r}")
        for leaf in leaves(list(carried)):
            if isinstance(leaf, TensorRef):
                spoil(leaf.memory, cause)
        found = [_of_type(output.type().kind(), cause) for output in node.outputs()]
        return found[0] if len(found) == 1 else tuple(found)

    # --- values -------------------------------------------------------------------------------------------------------

    def _constant(self, node: Any) -> Any:
        if not node.hasAttribute("value"):
            return None
        value = node.output().toIValue()
        if isinstance(value, self._torch.Tensor):
            return self._interpreter.constant(value)
        return self._frozen(value)

    def _frozen(self, value: Any) -> Any:
        """A constant of the graph; lists and dictionaries in it become our own."""
        if isinstance(value, self._torch.Tensor):
            return self._interpreter.constant(value)
        if isinstance(value, list | tuple):
            return type(value)([self._frozen(part) for part in value]) if type(value) in (list, tuple) else _Object()
        if isinstance(value, dict):
            return {key: self._frozen(part) for key, part in value.items()}
        return value

    def _attribute(self, node: Any) -> Any:
        owner = self._values[next(node.inputs()).debugName()]
        name = node.s("name")
        key = id(owner), name
        if key not in self._attributes:
            found = getattr(owner, name)
            # Kept with its owner: the same attribute is the same memory, and the owner's identity stays its own.
            self._attributes[key] = owner, self._frozen(found)
        return self._attributes[key][1]

    def _set_attribute(self, node: Any) -> Any:
        raise Stopped(f"the method writes the attribute {node.s('name')!r}")

    def _raise(self, node: Any) -> Any:
        raise Raised

    def _method(self, node: Any) -> Any:
        """A call that is not inlined: some of a module that is chosen by its interface, or of a method with several
        forms."""
        owner, *arguments = [self._values[value.debugName()] for value in node.inputs()]
        compiled = getattr(owner, "_c", None)
        if compiled is None or self._depth >= _MOST_DEPTH:
            return self._unknown(node, arguments)
        graph = compiled._get_method(node.s("name")).graph.copy()
        self._torch._C._jit_pass_inline(graph)
        outer, self._values = self._values, {}
        self._depth += 1
        try:
            for value, given in zip(graph.inputs(), [owner, *arguments], strict=True):
                self._values[value.debugName()] = given
            self._walk(graph)
            found = [self._values[value.debugName()] for value in graph.outputs()]
        finally:
            self._values = outer
            self._depth -= 1
        return found[0] if len(found) == 1 else tuple(found)


class _Single(tuple[Any, ...]):
    """A tuple that is one result, not several."""

    def __new__(cls, value: tuple[Any, ...]) -> _Single:
        return super().__new__(cls, value)


def _part_of(results: Any, number: int) -> Any:
    return results[number] if isinstance(results, list | tuple) and number < len(results) else results


def _of_type(kind: str, cause: Cause) -> Any:
    """A result of what is not followed. It may lie in the memory of anything: a write to it ends the analysis."""
    return TensorRef(mixed(cause), own=False) if kind == "TensorType" else Number(mixed(cause))


def _truth(condition: Any) -> bool | None:
    return bool(condition) if isinstance(condition, bool | int) else None


def _always_raises(block: Any) -> bool:
    """Whether every way through a block ends in an exception."""
    for node in block.nodes():
        if node.kind() == "prim::RaiseException":
            return True
        if node.kind() == "prim::If" and all(_always_raises(inner) for inner in node.blocks()):
            return True
    return False


def _changes(method: _Method, block: Any) -> bool:
    """Whether a block may change something that was there before it: a tensor, a list, an attribute."""
    for node in block.nodes():
        if any(_changes(method, inner) for inner in node.blocks()):
            return True
        if node.kind() in ("prim::SetAttr", "prim::CallMethod") or "!" in node.schema():
            return True
        if node.kind() not in _SPECIAL and node.kind() not in PYTHON and method._schema(node) is None:
            return True
    return False


_SPECIAL: dict[str, Callable[[_Method, Any], Any]] = {
    "prim::Constant": _Method._constant,
    "prim::GetAttr": _Method._attribute,
    "prim::SetAttr": _Method._set_attribute,
    "prim::If": _Method._if,
    "prim::Loop": _Method._loop,
    "prim::RaiseException": _Method._raise,
    "prim::CallMethod": _Method._method,
    "prim::Uninitialized": lambda _method, _node: _UNUSED,
}
