"""The walk over a TorchScript method, with all calls inlined: what Python does around tensors is carried out.

Attributes of the module are read as they are. A branch is followed if its condition is known, a loop if its number of
turns is. A branch that always raises is left out: a model that fails mixes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferd.backends.api import Independence, Signature
from inferd.backends.independence.operators import merged
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Refusal, Size, size_of
from inferd.backends.independence.values import CONST, Cause, constant, mixed, shaped
from inferd.backends.torch.effects import inlined
from inferd.backends.torch.independence.call import Number, Unused, as_size, leaves
from inferd.backends.torch.independence.interpreter import Interpreter, Schema, Stopped, read_number, single
from inferd.backends.torch.independence.memory import TensorRef, joined_memory, spoil
from inferd.backends.torch.independence.proof import analyse
from inferd.backends.torch.independence.scalars import FUNCTIONS, compute
from inferd.backends.torch.io import Plan

_MOST_TURNS = 4096
_MOST_DEPTH = 64
_UNUSED = Unused()


class _Raised(Exception):
    """The graph raises an exception here, whatever its inputs are."""


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
        except _Raised:
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
            if kind in _PYTHON:
                found = _PYTHON[kind](self, node, arguments)
                if found is not NotImplemented:
                    return found
            schema = self._schema(node)
            if schema is not None:
                return self._call(schema, arguments, _shown(node))
        except (Refusal, TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError) as error:
            return self._unknown(node, arguments, self._interpreter.failed(kind, _shown(node), error))
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
        plain = _PLAIN.get(schema.name.removeprefix("aten::"))
        if plain is not None and not any(isinstance(leaf, TensorRef) for leaf in leaves(list(arguments))):
            names = [p.name for p in schema.parameters]
            if names and len(names) <= 2:
                return compute(plain, arguments, node)
        return self._interpreter.apply(schema, bound, node)

    def _unknown(self, node: Any, arguments: Sequence[Any], cause: Cause | None = None) -> Any:
        """The result of what is not followed. It may write into everything that it is given."""
        if cause is None:
            text = "is no operator that the analysis knows"
            cause = Cause(node.kind(), _shown(node), text, understood=False)
        for leaf in leaves(list(arguments)):
            if isinstance(leaf, TensorRef):
                spoil(leaf.memory, cause)
        _forget_lists(arguments, cause)
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
            raise _Raised
        if len(left) == 1:
            return self._block(left[0])
        value = condition.value if isinstance(condition, Number | TensorRef) else constant([])
        cause = value.cause
        if cause is None and value.kind is not CONST:
            cause = Cause("prim::If", _shown(node), "chooses a branch by the rows", understood=True)
        changes = any(_changes(self, block) for block in left)
        if cause is None and not changes:
            try:
                first, second = (self._results(self._block(block)) for block in left)
                found = [self._either(a, b, node) for a, b in zip(first, second, strict=True)]
                return found[0] if len(found) == 1 else tuple(found)
            except _Raised:
                pass
        if cause is None:
            text = "chooses a branch by a value that is not known"
            cause = Cause("prim::If", _shown(node), text, understood=False)
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
                value = mixed(self._interpreter.failed("prim::If", _shown(node), refusal))
            return TensorRef(value, a.dtype if a.dtype == b.dtype else None, memory)
        if isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
            return type(a)([self._either(x, y, node) for x, y in zip(a, b, strict=True)])
        if isinstance(a, bool | int | float | str) and type(a) is type(b) and a == b:
            return a
        tensors = [leaf for leaf in leaves([a, b]) if isinstance(leaf, TensorRef)]
        known = [leaf for leaf in leaves([a, b]) if isinstance(leaf, Number) and leaf.value.cause is not None]
        batched = any(isinstance(leaf, Size) and leaf.batched for leaf in leaves([a, b]))
        if known:
            return known[0]
        if tensors or batched:
            text = "has branches that give different things"
            return Number(mixed(Cause("prim::If", _shown(node), text, understood=False)))
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
            if turn >= _MOST_TURNS:
                raise Stopped(f"a loop has more than {_MOST_TURNS} turns")
            self._interpreter.step()
            self._values.update(zip(names, [turn, *carried], strict=True))
            self._walk(block)
            condition, *carried = [self._values[value.debugName()] for value in block.outputs()]
            turn += 1

    def _unfollowed_loop(self, node: Any, block: Any, most: Any, condition: Any, carried: Sequence[Any]) -> Any:
        if isinstance(most, Size) and most.batched:
            cause = Cause("prim::Loop", _shown(node), "is a loop over the number of rows", understood=True)
        else:
            value = next((v.value for v in (most, condition) if isinstance(v, Number)), None)
            text = "is a loop whose number of turns is not known"
            known = None if value is None else value.cause
            cause = known or Cause("prim::Loop", _shown(node), text, understood=False)
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
        raise _Raised

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


def _shown(node: Any) -> str:
    """A name for people: the first output, and the line of the source if it is known."""
    output = next(iter(node.outputs()), None)
    name = output.debugName() if output is not None else node.kind()
    place = node.sourceRange().strip().splitlines()
    code = [line for line in place if "HERE" in line]
    line = place[place.index(code[0]) - 1].strip() if code and place.index(code[0]) else ""
    return f"%{name}: {line}" if line else f"%{name}"


def _of_type(kind: str, cause: Cause) -> Any:
    return TensorRef(mixed(cause)) if kind == "TensorType" else Number(mixed(cause))


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
        if node.kind() not in _SPECIAL and node.kind() not in _PYTHON and method._schema(node) is None:
            return True
    return False


def _forget_lists(arguments: Sequence[Any], cause: Cause) -> None:
    """After a call that is not followed, the contents of the lists that it was given are not known."""
    for argument in arguments:
        if isinstance(argument, list):
            argument[:] = [
                TensorRef(mixed(cause)) if isinstance(a, TensorRef) else Number(mixed(cause)) for a in argument
            ]
        elif isinstance(argument, dict):
            for key in argument:
                argument[key] = Number(mixed(cause))


_Handler = Callable[[_Method, Any, list[Any]], Any]
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
# Functions on plain values, by the name of the operator.
_PLAIN = {
    **{name: name for name in FUNCTIONS if name not in ("is_", "is_not", "str", "sum", "contains")},
    "__not__": "not_",
    "__and__": "and_",
    "__or__": "or_",
    "__xor__": "xor",
    "__contains__": "contains",
}


def _items(argument: Any) -> list[Any]:
    if not isinstance(argument, list):
        raise NotUnderstood("changes a list that is not known")
    return argument


def _get_item(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    holder, place = arguments
    if isinstance(holder, Number):
        return holder.tensor() if _node.output().type().kind() == "TensorType" else holder
    if isinstance(holder, dict) or (isinstance(holder, list | tuple) and isinstance(place, int)):
        return holder[place]
    return NotImplemented


def _unpack(_method: _Method, node: Any, arguments: list[Any]) -> Any:
    (whole,) = arguments
    count = sum(1 for _ in node.outputs())
    if isinstance(whole, Number) and whole.value.cause is not None:
        found = [whole.tensor() if output.type().kind() == "TensorType" else whole for output in node.outputs()]
    elif isinstance(whole, list | tuple) and len(whole) == count:
        found = list(whole)
    elif isinstance(whole, list | tuple):
        raise _Raised
    else:
        raise NotUnderstood("takes apart a list that is not known")
    return found[0] if count == 1 else tuple(found)


def _dictionary(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def _append(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    _items(arguments[0]).append(arguments[1])
    return arguments[0]


def _extend(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    _items(arguments[0]).extend(_items(arguments[1]))
    return None


def _insert(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    if not isinstance(arguments[1], int):
        raise NotUnderstood("changes a list at a place that is not known")
    _items(arguments[0]).insert(arguments[1], arguments[2])
    return None


def _pop(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    if isinstance(arguments[0], list) and all(isinstance(place, int) for place in arguments[1:]):
        return arguments[0].pop(*arguments[1:])
    return NotImplemented


def _set_item(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    holder, place, value = arguments
    if (isinstance(holder, list) and isinstance(place, int)) or isinstance(holder, dict):
        holder[place] = value
        return holder
    return NotImplemented


def _length(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    (holder,) = arguments
    if isinstance(holder, list | tuple | dict | str):
        return len(holder)
    if isinstance(holder, TensorRef):
        size = shaped(holder.value)[0]
        return size if size.number is None else size.number
    return NotImplemented


def _list_slice(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    holder = arguments[0]
    if isinstance(holder, list | tuple | str) and all(part is None or isinstance(part, int) for part in arguments[1:]):
        return holder[slice(*arguments[1:])]
    return NotImplemented


def _copied(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    return list(arguments[0]) if isinstance(arguments[0], list | tuple) else NotImplemented


def _is(same: bool) -> _Handler:
    def handler(_method: _Method, node: Any, arguments: list[Any]) -> Any:
        a, b = arguments
        if isinstance(a, Number) or isinstance(b, Number):
            return _unknown_like(node, [value for value in arguments if isinstance(value, Number)])
        if a is None or b is None:
            return (a is b) is same
        return NotImplemented

    return handler


def _as_tensor(method: _Method, _node: Any, arguments: list[Any]) -> Any:
    """A number as a tensor: torch.jit.trace keeps sizes in this form."""
    return single(arguments[0])


def _new_tensor(method: _Method, node: Any, arguments: list[Any]) -> Any:
    """torch.tensor(...) of plain values."""
    given = arguments[0]
    parts = list(leaves(given))
    if any(isinstance(part, TensorRef) for part in parts):
        return NotImplemented
    unknown = [part.value for part in parts if isinstance(part, Number)]
    if any(value.cause is not None for value in unknown):
        return TensorRef(next(value for value in unknown if value.cause is not None))
    if any(isinstance(part, Size) and part.batched for part in parts):
        if isinstance(given, Size) and len(arguments) > 1 and arguments[1] in (None, 4):
            return single(given)
        raise MixesRows("takes the number of rows as data")
    if isinstance(given, int | Size) and not isinstance(given, bool) and arguments[1:2] in ([], [None], [4]):
        return single(given)
    shape: list[Size] = []
    while isinstance(given, list | tuple):
        shape.append(size_of(len(given)))
        given = given[0] if given else None
    return TensorRef(constant(shape))


def _to_number(method: _Method, node: Any, arguments: list[Any]) -> Any:
    """int(x), float(x), bool(x) of a tensor or of a plain value."""
    (given,) = arguments
    name = node.kind().removeprefix("aten::")
    if isinstance(given, TensorRef):
        found = read_number(method._interpreter, given)
        if name.startswith("Float") and not isinstance(found, Number):
            return _unknown_like(node, [found])
        if name in ("Bool", "is_nonzero"):
            return _unknown_like(node, [found]) if not isinstance(found, bool | int | Number) else _truthful(found)
        return found
    plain = {"Int": "int", "Float": "float", "Bool": "bool"}.get(name)
    return compute(plain, [given], _shown(node)) if plain is not None else NotImplemented


def _truthful(found: Any) -> Any:
    return found if isinstance(found, Number) else bool(found)


def _dtype(method: _Method, node: Any, arguments: list[Any]) -> Any:
    numbers = {"uint8": 0, "int32": 3, "int64": 4, "float32": 6, "float64": 7, "bool": 11}
    tensor = arguments[0]
    known = numbers.get(tensor.dtype or "") if isinstance(tensor, TensorRef) else None
    return Number(constant([])) if known is None else known


def _floating(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    dtype = arguments[0].dtype if isinstance(arguments[0], TensorRef) else None
    return Number(constant([])) if dtype is None else dtype.startswith(("float", "bfloat"))


def _range(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    count = as_size(arguments[0], "range").number
    if count is None or count > _MOST_TURNS:
        raise NotUnderstood("counts to a number that is not known")
    return list(range(count))


def _same(_method: _Method, _node: Any, arguments: list[Any]) -> Any:
    return arguments[0]


def _text(_method: _Method, node: Any, arguments: list[Any]) -> Any:
    """A text made of values. It is not followed: almost all are messages of errors."""
    return _unknown_like(node, arguments)


def _unknown_like(node: Any, arguments: Sequence[Any]) -> Number:
    """A plain value that is not known, made of others: the same for all rows if they are."""
    for leaf in leaves(list(arguments)):
        if isinstance(leaf, TensorRef | Number) and leaf.value.kind is not CONST:
            text = "uses the rows as a plain value"
            cause = leaf.value.cause or Cause(node.kind(), _shown(node), text, understood=True)
            return Number(mixed(cause))
        if isinstance(leaf, Size) and leaf.batched:
            text = "uses the number of rows as data"
            return Number(mixed(Cause(node.kind(), _shown(node), text, understood=True)))
    return Number(constant([]))


def _plain_property(_method: _Method, _node: Any, _arguments: list[Any]) -> Any:
    """A property that is the same for all rows and numbers of rows."""
    return Number(constant([]))


def _not_nested(_method: _Method, _node: Any, _arguments: list[Any]) -> Any:
    return False  # nothing that makes nested or sparse tensors is in the tables


_PYTHON: dict[str, _Handler] = {
    "prim::ListConstruct": lambda _m, _n, arguments: list(arguments),
    "prim::TupleConstruct": lambda _m, _n, arguments: tuple(arguments),
    "prim::DictConstruct": _dictionary,
    "prim::ListUnpack": _unpack,
    "prim::TupleUnpack": _unpack,
    "prim::TupleIndex": _get_item,
    "prim::NumToTensor": _as_tensor,
    "prim::unchecked_cast": _same,
    "prim::unchecked_unwrap_optional": _same,
    "aten::_unwrap_optional": _same,
    "prim::data": _same,
    "prim::dtype": _dtype,
    "prim::device": _plain_property,
    "prim::layout": _plain_property,
    "prim::type": _plain_property,
    "prim::requires_grad": _plain_property,
    "prim::is_cuda": _plain_property,
    "prim::is_nested": _not_nested,
    "prim::is_sparse": _not_nested,
    "prim::is_quantized": _plain_property,
    "aten::is_autocast_enabled": _plain_property,
    "aten::is_autocast_cpu_enabled": _plain_property,
    "aten::is_grad_enabled": _plain_property,
    "aten::is_floating_point": _floating,
    "aten::is_complex": _plain_property,
    "aten::__getitem__": _get_item,
    "aten::append": _append,
    "aten::extend": _extend,
    "aten::insert": _insert,
    "aten::pop": _pop,
    "aten::_set_item": _set_item,
    "aten::len": _length,
    "aten::slice": _list_slice,
    "aten::list": _copied,
    "aten::copy": _copied,
    "aten::__is__": _is(same=True),
    "aten::__isnot__": _is(same=False),
    "aten::Int": _to_number,
    "aten::Float": _to_number,
    "aten::Bool": _to_number,
    "aten::IntImplicit": _to_number,
    "aten::FloatImplicit": _to_number,
    "aten::ScalarImplicit": _to_number,
    "aten::is_nonzero": _to_number,
    "aten::tensor": _new_tensor,
    "aten::as_tensor": _new_tensor,
    "aten::format": _text,
    "aten::str": _text,
    "prim::Print": lambda _m, _n, _a: None,
    "aten::warn": lambda _m, _n, _a: None,
    "prim::rangelist": _range,
    "prim::min": lambda _m, node, arguments: compute("min", arguments, _shown(node)),
    "prim::max": lambda _m, node, arguments: compute("max", arguments, _shown(node)),
}
