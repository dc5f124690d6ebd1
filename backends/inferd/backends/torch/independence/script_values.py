"""What Python does around tensors in TorchScript: lists, dictionaries, numbers, conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, size_of
from inferd.backends.independence.values import CONST, Cause, constant, mixed, shaped
from inferd.backends.torch.independence.call import Number, as_size, leaves
from inferd.backends.torch.independence.interpreter import Interpreter, read_number, single
from inferd.backends.torch.independence.memory import TensorRef
from inferd.backends.torch.independence.scalars import FUNCTIONS, compute

MOST_TURNS = 4096  # of a loop
# Carries out one node. NotImplemented: the node is an operator on tensors.
Handler = Callable[[Interpreter, Any, list[Any]], Any]


class Raised(Exception):
    """The graph raises an exception here, whatever its inputs are."""


def shown(node: Any) -> str:
    """A name for people: the first output, and the line of the source if it is known."""
    output = next(iter(node.outputs()), None)
    name = output.debugName() if output is not None else node.kind()
    place = node.sourceRange().strip().splitlines()
    code = [line for line in place if "HERE" in line]
    line = place[place.index(code[0]) - 1].strip() if code and place.index(code[0]) else ""
    return f"%{name}: {line}" if line else f"%{name}"


# Functions on plain values, by the name of the operator.
PLAIN = {
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


def _get_item(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    holder, place = arguments
    if isinstance(holder, Number):
        return holder.tensor() if _node.output().type().kind() == "TensorType" else holder
    if isinstance(holder, dict) or (isinstance(holder, list | tuple) and isinstance(place, int)):
        return holder[place]
    return NotImplemented


def _unpack(_interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
    (whole,) = arguments
    count = sum(1 for _ in node.outputs())
    if isinstance(whole, Number) and whole.value.cause is not None:
        found = [whole.tensor() if output.type().kind() == "TensorType" else whole for output in node.outputs()]
    elif isinstance(whole, list | tuple) and len(whole) == count:
        found = list(whole)
    elif isinstance(whole, list | tuple):
        raise Raised
    else:
        raise NotUnderstood("takes apart a list that is not known")
    return found[0] if count == 1 else tuple(found)


def _dictionary(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def _append(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    _items(arguments[0]).append(arguments[1])
    return arguments[0]


def _extend(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    if len(_items(arguments[0])) + len(_items(arguments[1])) > MOST_TURNS:
        raise NotUnderstood("makes a list that is too long")
    arguments[0].extend(arguments[1])
    return None


def _insert(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    if not isinstance(arguments[1], int):
        raise NotUnderstood("changes a list at a place that is not known")
    _items(arguments[0]).insert(arguments[1], arguments[2])
    return None


def _pop(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    if isinstance(arguments[0], list) and all(isinstance(place, int) for place in arguments[1:]):
        return arguments[0].pop(*arguments[1:])
    return NotImplemented


def _set_item(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    holder, place, value = arguments
    if (isinstance(holder, list) and isinstance(place, int)) or isinstance(holder, dict):
        holder[place] = value
        return holder
    return NotImplemented


def _length(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    (holder,) = arguments
    if isinstance(holder, list | tuple | dict | str):
        return len(holder)
    if isinstance(holder, TensorRef):
        size = shaped(holder.value)[0]
        return size if size.number is None else size.number
    return NotImplemented


def _list_slice(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    holder = arguments[0]
    if isinstance(holder, list | tuple | str) and all(part is None or isinstance(part, int) for part in arguments[1:]):
        return holder[slice(*arguments[1:])]
    return NotImplemented


def _copied(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    return list(arguments[0]) if isinstance(arguments[0], list | tuple) else NotImplemented


def _is(same: bool) -> Handler:
    def handler(_interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
        a, b = arguments
        if isinstance(a, Number) or isinstance(b, Number):
            return _unknown_like(node, [value for value in arguments if isinstance(value, Number)])
        if a is None or b is None:
            return (a is b) is same
        return NotImplemented

    return handler


def _as_tensor(interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    """A number as a tensor: torch.jit.trace keeps sizes in this form."""
    return single(arguments[0])


def _new_tensor(interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
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


def _to_number(interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
    """int(x), float(x), bool(x) of a tensor or of a plain value."""
    (given,) = arguments
    name = node.kind().removeprefix("aten::")
    if isinstance(given, TensorRef):
        found = read_number(interpreter, given)
        if name.startswith("Float") and not isinstance(found, Number):
            return _unknown_like(node, [found])
        if name in ("Bool", "is_nonzero"):
            return _unknown_like(node, [found]) if not isinstance(found, bool | int | Number) else _truthful(found)
        return found
    plain = {"Int": "int", "Float": "float", "Bool": "bool"}.get(name)
    return compute(plain, [given], shown(node)) if plain is not None else NotImplemented


def _truthful(found: Any) -> Any:
    return found if isinstance(found, Number) else bool(found)


def _dtype(interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
    numbers = {"uint8": 0, "int32": 3, "int64": 4, "float32": 6, "float64": 7, "bool": 11}
    tensor = arguments[0]
    known = numbers.get(tensor.dtype or "") if isinstance(tensor, TensorRef) else None
    return Number(constant([])) if known is None else known


def _floating(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    dtype = arguments[0].dtype if isinstance(arguments[0], TensorRef) else None
    return Number(constant([])) if dtype is None else dtype.startswith(("float", "bfloat"))


def _range(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    count = as_size(arguments[0], "range").number
    if count is None or count > MOST_TURNS:
        raise NotUnderstood("counts to a number that is not known")
    return list(range(count))


def _same(_interpreter: Interpreter, _node: Any, arguments: list[Any]) -> Any:
    return arguments[0]


def _text(_interpreter: Interpreter, node: Any, arguments: list[Any]) -> Any:
    """A text made of values. It is not followed: almost all are messages of errors."""
    return _unknown_like(node, arguments)


def _unknown_like(node: Any, arguments: Sequence[Any]) -> Number:
    """A plain value that is not known, made of others: the same for all rows if they are."""
    for leaf in leaves(list(arguments)):
        if isinstance(leaf, TensorRef | Number) and leaf.value.kind is not CONST:
            text = "uses the rows as a plain value"
            cause = leaf.value.cause or Cause(node.kind(), shown(node), text, understood=True)
            return Number(mixed(cause))
        if isinstance(leaf, Size) and leaf.batched:
            text = "uses the number of rows as data"
            return Number(mixed(Cause(node.kind(), shown(node), text, understood=True)))
    return Number(constant([]))


def _plain_property(_interpreter: Interpreter, _node: Any, _arguments: list[Any]) -> Any:
    """A property that is the same for all rows and numbers of rows."""
    return Number(constant([]))


def _not_nested(_interpreter: Interpreter, _node: Any, _arguments: list[Any]) -> Any:
    return False  # nothing that makes nested or sparse tensors is in the tables


PYTHON: dict[str, Handler] = {
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
    "prim::min": lambda _m, node, arguments: compute("min", arguments, shown(node)),
    "prim::max": lambda _m, node, arguments: compute("max", arguments, shown(node)),
}
