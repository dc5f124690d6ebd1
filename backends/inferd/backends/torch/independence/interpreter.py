"""Applies operators to what is known of tensors. Used for the graphs of torch.export and of TorchScript alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inferd.backends.independence.budget import AnalysisBudget
from inferd.backends.independence.elements import known
from inferd.backends.independence.operators import broadcast
from inferd.backends.independence.sizes import (
    MixesRows,
    NotUnderstood,
    Refusal,
    Size,
    product,
    size_of,
)
from inferd.backends.independence.values import CONST, SIZE, Cause, Shape, Value, constant, mixed, shaped
from inferd.backends.torch.independence.call import SMALL, Call, Number, constants, element, leaves
from inferd.backends.torch.independence.elementwise import ARITHMETIC, CASTS, CONDITIONS, ELEMENTWISE, IDENTITY
from inferd.backends.torch.independence.memory import Memory, TensorRef, joined_memory, spoil, write
from inferd.backends.torch.independence.operators import CHECKS, HIDDEN_WRITES, MIXING, VIEWS, entry
from inferd.backends.torch.independence.scalars import compute

MOST_SECONDS = 20.0
_ANALYSIS_ERRORS = (TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError, StopIteration)


class Stopped(Exception):
    """The analysis as a whole cannot go on. The message says why."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument in an operator's schema. `aliases`: a result may lie in its memory. `written`: the call writes it."""

    name: str
    default: Any
    aliases: bool
    written: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """What the analysis needs of an operator's schema.

    name        with its namespace: "aten::add_"
    results     for each result, whether it may lie in the memory of an argument
    kinds       for each result its type in torch's words: "Tensor", "List[Tensor]"
    """

    name: str
    overload: str
    parameters: tuple[Parameter, ...]
    results: tuple[bool, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, schema: Any) -> Schema:
        """From torch's FunctionSchema."""
        parameters = tuple(
            Parameter(
                a.name,
                a.default_value,
                a.alias_info is not None,
                a.alias_info is not None and bool(a.alias_info.is_write),
            )
            for a in schema.arguments
        )
        results = tuple(r.alias_info is not None for r in schema.returns)
        return cls(schema.name, schema.overload_name, parameters, results, tuple(str(r.type) for r in schema.returns))

    @property
    def operator(self) -> str:
        """The name in the table."""
        name = self.name.removeprefix("aten::")
        in_place = name.endswith("_") and not name.endswith("__") and self.parameters and self.parameters[0].written
        return name[:-1] if in_place else name


class Interpreter:
    """One analysis: its budget, and the application of operators. Not thread-safe."""

    def __init__(self, until: float | None = None) -> None:
        """`until`: when the analysis must end, by time.monotonic; None: after 20 s."""
        budget = AnalysisBudget(MOST_SECONDS, Stopped, until)
        self.step: Final = budget.step
        self.fresh: Final = budget.fresh

    def constant(self, tensor: Any) -> TensorRef:
        """A tensor of the model: a weight, a buffer, a constant."""
        if getattr(tensor, "is_sparse", False) or getattr(tensor, "is_nested", False):
            return TensorRef(constant(None), own=False)
        shape = tuple(size_of(int(size)) for size in tensor.shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        elements = None
        if dtype in ("int64", "int32", "bool") and product(shape).number in range(1, SMALL + 1):
            elements = np.array(tensor.detach().cpu().tolist(), np.bool_ if dtype == "bool" else np.int64)
            elements = elements.reshape(tuple(tensor.shape))
        return TensorRef(Value(CONST, shape, known=elements), dtype, own=False)

    def failed(self, operator: str, node: str, error: Exception) -> Cause:
        """Why a node gives nothing that is known."""
        if isinstance(error, Refusal):
            return Cause(operator, node, str(error), error.understood)
        return Cause(operator, node, f"makes the analysis fail ({type(error).__name__})", understood=False)

    def apply(self, schema: Schema, arguments: Mapping[str, Any], node: str) -> Any:
        """The result of a call: a TensorRef, a plain value, a Number, or a list or tuple of these."""
        self.step()
        operator = schema.operator
        if operator in CHECKS:
            return None
        shown = schema.name
        if operator in _READS:
            try:
                return _READS[operator](self, operator, arguments)
            except (Refusal, *_ANALYSIS_ERRORS) as error:
                return Number(mixed(self.failed(shown, node, error)))
        written = [arguments[p.name] for p in schema.parameters if p.written and arguments.get(p.name) is not None]
        refused = None
        results: list[Value] = []
        try:
            results = self._values(schema, operator, arguments)
        except (Refusal, *_ANALYSIS_ERRORS) as error:
            refused = self.failed(shown, node, error)
        cause = refused or next((value.cause for value in results if value.cause is not None), None)
        if schema.parameters and written:
            return self._written(schema, arguments, written, results, cause, shown, node)
        if cause is not None and operator in HIDDEN_WRITES:
            raise Stopped(f"{shown} {cause.reason}, at node {node!r}")
        return self._wrapped(schema, operator, arguments, results, refused)

    def _written(
        self,
        schema: Schema,
        arguments: Mapping[str, Any],
        written: Sequence[Any],
        results: Sequence[Value],
        cause: Cause | None,
        shown: str,
        node: str,
    ) -> Any:
        """The result of an operator that writes into its first argument and returns it."""
        first = arguments[schema.parameters[0].name]
        targets = [leaf for leaf in leaves(list(written)) if isinstance(leaf, TensorRef)]
        unknown_target = any(isinstance(leaf, Number) for leaf in leaves(list(written)))
        if unknown_target or not all(target.memory.own for target in targets):
            # What one run leaves behind, the next one may read.
            text = "writes to a tensor of the model, one that all rows share, or one of unknown origin"
            raise Stopped(f"{shown} {text}, at node {node!r}")
        plain = schema.parameters[0].written and len(targets) == 1 and targets[0] is first and len(results) == 1
        if cause is None and not (plain and write(first, results[0])):
            cause = Cause(shown, node, "writes to memory in a way that is not followed", understood=False)
        if cause is not None:
            for target in targets:
                spoil(target.memory, cause)
        if schema.results == (True,) and isinstance(first, TensorRef) and targets and targets[0] is first:
            return first
        unknown = mixed(cause or Cause(shown, node, "returns what is not followed", understood=False))
        memory = targets[0].memory if targets else Memory(own=False)
        found = [TensorRef(unknown, memory=memory) for _ in schema.kinds]
        return found[0] if len(found) == 1 else tuple(found) if found else None

    def _values(self, schema: Schema, operator: str, arguments: Mapping[str, Any]) -> list[Value]:
        found = entry(operator)
        shape_of = found.shape_of if found is not None else frozenset()
        sizes = found.sizes if found is not None else frozenset()
        if operator in MIXING:
            operands = [leaf.value for leaf in leaves(list(arguments.values())) if isinstance(leaf, TensorRef | Number)]
            harmless = operands and all(v.kind is CONST for v in operands) and MIXING[operator] not in _NEVER
            harmless = harmless and not any("List" in kind for kind in schema.kinds)
            if harmless and not _counts_rows(arguments, frozenset()):
                return [constant(None)] * len(schema.kinds)
            raise MixesRows(MIXING[operator])
        for name, argument in arguments.items():
            if name in shape_of:
                continue
            for leaf in leaves(argument):
                if isinstance(leaf, TensorRef | Number) and leaf.value.cause is not None:
                    return [mixed(leaf.value.cause, self._mixed_shape(operator, arguments))] * len(schema.kinds)
        if _counts_rows(arguments, sizes):
            raise MixesRows("takes the number of rows as data")
        folded = _folded(schema, operator, arguments)
        if folded is not None:
            return [folded]
        call = Call(operator, schema.overload, arguments, len(schema.kinds), self.fresh)
        if found is None:
            return self._unknown(schema, call)
        results = found.transfer(call)
        return results if isinstance(results, list) else [results]

    @staticmethod
    def _unknown(schema: Schema, call: Call) -> list[Value]:
        """The results of an operator that is not in the tables: constant if all that it reads is constant."""
        plain = schema.name.startswith("aten::") and not any(parameter.written for parameter in schema.parameters)
        random = any(parameter.name == "generator" for parameter in schema.parameters)
        lists = any("List" in kind for kind in schema.kinds)
        if plain and not random and not lists and call.operands and constants(call.operands):
            return [constant(None)] * len(schema.kinds)
        raise NotUnderstood("is no operator that the analysis knows")

    @staticmethod
    def _mixed_shape(operator: str, arguments: Mapping[str, Any]) -> Shape | None:
        """The shape of a result whose elements are mixed, if it follows from the shapes of the arguments."""
        if operator not in _SAME_SHAPE:
            return None
        given = [leaf.value for leaf in leaves(list(arguments.values())) if isinstance(leaf, TensorRef)]
        if operator not in ELEMENTWISE:
            given = given[:1]
        try:
            return broadcast([shaped(value) for value in given])
        except Refusal:
            return None

    def _wrapped(
        self,
        schema: Schema,
        operator: str,
        arguments: Mapping[str, Any],
        results: Sequence[Value],
        refused: Cause | None,
    ) -> Any:
        """The values as results of the call's types, in the memory in which they may lie."""
        known_operator = entry(operator) is not None or operator in MIXING
        alone = operator == "einsum" and len(arguments.get("tensors") or ()) == 1
        maybe = operator in VIEWS or alone or not known_operator
        memories = [
            leaf.memory
            for number, parameter in enumerate(schema.parameters)
            if parameter.aliases or (maybe and (number == 0 or alone or not known_operator))
            for leaf in leaves(arguments.get(parameter.name))
            if isinstance(leaf, TensorRef) or (isinstance(leaf, Number) and leaf.memory is not None)
        ]

        def memory(number: int) -> Memory | None:
            shared = maybe or (number < len(schema.results) and schema.results[number])
            return joined_memory([m for m in memories if m is not None]) if shared and memories else None

        if len(schema.kinds) == 1 and schema.kinds[0] == "List[Tensor]":
            if refused is not None or any(value.cause is not None for value in results):
                cause = refused or next(value.cause for value in results if value.cause is not None)
                return Number(mixed(cause), memory(0))
            return [TensorRef(value, self._dtype(operator, arguments, 0), memory(0)) for value in results]
        found: list[Any] = []
        for number, kind in enumerate(schema.kinds):
            value = mixed(refused, self._mixed_shape(operator, arguments)) if refused is not None else None
            if value is None:
                missing = Cause(schema.name, "", "has an output that is not understood", understood=False)
                value = results[number] if number < len(results) else mixed(missing)
            if "Tensor" in kind and "List" not in kind:
                found.append(TensorRef(value, self._dtype(operator, arguments, number), memory(number)))
            else:
                found.append(_plain_result(schema, value))
        return found[0] if len(found) == 1 else tuple(found) if found else None

    def _dtype(self, operator: str, arguments: Mapping[str, Any], number: int) -> str | None:
        """The element type of a result, None if it is not known."""
        if operator in _CONDITIONS:
            return "bool"
        if operator in _NUMBERING and number == _NUMBERING[operator]:
            return "int64"
        given = dtype_name(arguments.get("dtype")) if "dtype" in arguments else None
        if given is not None or arguments.get("dtype") is not None:
            return given
        first = next(iter(arguments.values()), None)
        if operator == "arange":
            bounds = [arguments.get(name) for name in ("start", "end", "step")]
            return "int64" if all(b is None or _whole(b) for b in bounds) else None
        if operator in _KEEPING:
            named = operator not in ("to", "_to_copy") or not any(arguments.get(n) for n in ("other", "layout"))
            if operator in ("cat", "concat", "concatenate", "stack") and isinstance(first, list | tuple):
                kinds = {item.dtype for item in first if isinstance(item, TensorRef)}
                return kinds.pop() if len(kinds) == 1 else None
            if operator in {"embedding", "where"}:
                return None
            return first.dtype if named and isinstance(first, TensorRef) else None
        if operator in _LOGIC:
            kinds = {leaf.dtype for leaf in leaves(list(arguments.values())) if isinstance(leaf, TensorRef)}
            return "bool" if kinds == {"bool"} else None
        if operator in _ARITHMETIC or (operator == "div" and arguments.get("rounding_mode") is not None):
            leaves_of = list(leaves(list(arguments.values())))
            kinds = {leaf.dtype for leaf in leaves_of if isinstance(leaf, TensorRef)}
            if operator in ("where", "masked_fill"):
                kinds -= {"bool"}
            others = [leaf for leaf in leaves_of if not isinstance(leaf, TensorRef)]
            if len(kinds) == 1 and all(leaf is None or _whole(leaf) for leaf in others):
                kind = kinds.pop()
                return kind if kind in ("int64", "int32") else None
        return None


def _plain_result(schema: Schema, value: Value) -> Number:
    """A number, condition or list of them, computed from tensors."""
    if value.cause is None and value.kind is not CONST:
        return Number(mixed(Cause(schema.name, "", "reads the rows as a plain value", understood=True)))
    return Number(value if value.cause is not None else constant([]))


_NEVER = ("is random", "holds memory as it happens to be", "replaces memory")
_CONDITIONS = frozenset(CONDITIONS.split()) | {"all", "any"}
_LOGIC = frozenset(["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "__and__", "__or__", "__xor__"])
_ARITHMETIC = frozenset(ARITHMETIC.split())
_SAME_SHAPE = ELEMENTWISE | frozenset(f"{IDENTITY} {CASTS} dropout softmax log_softmax".split())
_NUMBERING = {
    "argmax": 0,
    "argmin": 0,
    "argsort": 0,
    "bucketize": 0,
    "searchsorted": 0,
    "one_hot": 0,
    "sort": 1,
    "topk": 1,
    "max": 1,
    "min": 1,
    "median": 1,
    "mode": 1,
    "kthvalue": 1,
}
_KEEPING_NAMES = """
    to _to_copy view reshape _unsafe_view flatten unflatten squeeze unsqueeze permute transpose t mT numpy_T expand
    expand_as broadcast_to repeat repeat_interleave split split_with_sizes chunk unbind select slice narrow index
    index_select gather take_along_dim cat concat concatenate stack flip roll constant_pad_nd zeros_like ones_like
    full_like unfold movedim copy fill zero tril triu view_as reshape_as
"""
_KEEPING = frozenset(f"{IDENTITY} {_KEEPING_NAMES}".split())
_DTYPES = {"0": "uint8", "2": "int16", "3": "int32", "4": "int64", "6": "float32", "7": "float64", "11": "bool"}


def dtype_name(dtype: Any) -> str | None:
    """An element type in torch's words, from a torch.dtype or from TorchScript's number; None if it is not known."""
    if dtype is None or isinstance(dtype, Number):
        return None
    text = str(dtype)
    return _DTYPES.get(text) if text.isdigit() else text.removeprefix("torch.")


def _whole(leaf: Any) -> bool:
    return isinstance(leaf, int | Size | str)


def _counts_rows(arguments: Mapping[str, Any], sizes: frozenset[str]) -> bool:
    """Whether a plain argument, other than those that are sizes, holds the number of rows."""
    return any(
        isinstance(leaf, Size) and leaf.batched
        for name, argument in arguments.items()
        if name not in sizes
        for leaf in leaves(argument)
    )


_FOLDED = {"add": "add", "sub": "sub", "mul": "mul", "floor_divide": "floordiv", "remainder": "remainder", "neg": "neg"}


def _folded(schema: Schema, operator: str, arguments: Mapping[str, Any]) -> Value | None:
    """The result of arithmetic on single numbers that are known, kept as tensors by torch.jit.trace. None if the
    operands are others."""
    name = _FOLDED.get(operator)
    if operator == "div" and arguments.get("rounding_mode") in ("floor", "trunc"):
        name = "floordiv"
    if name is None or arguments.get("alpha", 1) != 1 or schema.parameters[0].written:
        return None
    operands = [arguments[n] for n in ("self", "other") if n in arguments]
    numbers = []
    tensors = 0
    for operand in operands:
        number = operand
        if isinstance(operand, TensorRef):
            if operand.value.shape != () or operand.dtype != "int64":
                return None
            tensors += 1
            number = element(operand.value)
        if not isinstance(number, int | Size) or isinstance(number, bool):
            return None
        numbers.append(number)
    if not tensors:
        return None
    bounds = [size_of(number).least for number in numbers]
    if arguments.get("rounding_mode") == "trunc" and any(bound is None or bound < 0 for bound in bounds):
        return None
    result = compute(name, numbers, "")
    if isinstance(result, Number):
        if result.value.cause is not None:
            raise MixesRows("takes the number of rows as data")
        return None
    array = np.empty((), dtype=object)
    array[()] = result
    return known(array)


def _shape_of(_interpreter: Interpreter, operator: str, arguments: Mapping[str, Any]) -> Any:
    value = next(iter(arguments.values())).value
    shape = shaped(value)
    if operator in ("dim", "ndimension"):
        return len(shape)
    if operator in ("numel", "sym_numel"):
        return _number(product(shape))
    if operator == "len":
        return _number(shape[0])
    axis = arguments.get("dim")
    if axis is None:
        return [_number(size) for size in shape]
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        raise NotUnderstood("reads the size of an axis that is not known")
    return _number(shape[axis])


def _number(size: Size) -> int | Size:
    return size if size.number is None else size.number


def single(number: Any) -> TensorRef:
    """A tensor of rank 0 that holds a whole number, or another plain value."""
    if isinstance(number, Number):
        return TensorRef(number.value)
    if isinstance(number, int | Size) and not isinstance(number, bool):
        array = np.empty((), dtype=object)
        array[()] = number
        return TensorRef(known(array), "int64")
    return TensorRef(constant([]))


def _item(interpreter: Interpreter, _operator: str, arguments: Mapping[str, Any]) -> Any:
    return read_number(interpreter, next(iter(arguments.values())))


def read_number(interpreter: Interpreter, tensor: TensorRef) -> Any:
    """The number in a tensor of one element. Raises MixesRows if it depends on the rows."""
    value = tensor.value
    if value.cause is not None:
        return Number(value)
    found = element(value)
    if found is not None:
        if isinstance(found, bool) == (tensor.dtype == "bool") and isinstance(found, int | Size):
            return _number(found) if isinstance(found, Size) else found
        return Number(constant([]))
    if value.kind is SIZE:
        raise MixesRows("uses the number of rows as data")
    if value.kind is not CONST:
        raise MixesRows("reads a value of the batch as one number")
    if tensor.dtype in ("int64", "int32") and product(shaped(value)) == 1:
        return interpreter.fresh(None)
    return Number(constant([]))


_READS = {
    **dict.fromkeys(("size", "sym_size", "dim", "ndimension", "numel", "sym_numel"), _shape_of),
    **dict.fromkeys(("item", "_local_scalar_dense"), _item),
}
