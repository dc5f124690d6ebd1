"""Makes the signature of a TorchScript method, and the plan for calling it, from its schema and the declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import LoadError, Signature, TensorSpec
from inferd.backends.torch.io import (
    Argument,
    DictArgument,
    ListArgument,
    Plan,
    ScalarArgument,
    ScalarListArgument,
    TensorArgument,
    dtype_from_torch,
    needs_declaration,
)
from inferd.backends.torch.script_result import example_path, place_script_outputs, script_type
from inferd.backends.torch.structure import (
    Output,
    index_in,
    numbered_aliases,
    paths_of_value,
    published_names,
    value_at,
)
from inferd.wire.dtypes import DType

_INTEGERS = frozenset(
    {
        DType.INT8,
        DType.INT16,
        DType.INT32,
        DType.INT64,
        DType.UINT8,
        DType.UINT16,
        DType.UINT32,
        DType.UINT64,
        DType.BOOL,
    }
)
_FLOATS = frozenset({DType.FP16, DType.FP32, DType.FP64, DType.BF16})
# TorchScript's types of Python values: the Python type, the element type if none is declared, the element types that
# may be declared.
_SCALARS: Mapping[str, tuple[type, DType, frozenset[DType]]] = {
    "IntType": (int, DType.INT64, _INTEGERS),
    "FloatType": (float, DType.FP64, _FLOATS | _INTEGERS),
    "NumberType": (float, DType.FP64, _FLOATS | _INTEGERS),
    "BoolType": (bool, DType.BOOL, _INTEGERS),
    "StringType": (str, DType.STRING, frozenset({DType.STRING})),
}


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs that the module accepts, in order, and the module's result for them."""

    inputs: tuple[Any, ...]
    result: Any


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One argument of a method.

    type_kind   torch's name for its type, without Optional: "TensorType", "IntType", ...
    text        its full type as messages show it
    optional    it may be left out or be None
    elements    torch's name for the type of a list's elements, or of a dictionary's values; "" for other types
    """

    name: str
    type_kind: str
    text: str
    optional: bool
    default: Any
    elements: str = ""


def plan_method(
    name: str, schema: Any, declared: Signature | None, example: Example | None
) -> tuple[Signature, Plan, list[str]]:
    """The signature, the plan, and remarks for the operator.

    `name` is the signature's name, `schema` the method's schema. `example` stands in for missing declarations. Raises
    LoadError; the message says what to declare.
    """
    parameters = [_parameter(argument) for argument in schema.arguments[1:]]
    returns = schema.returns[0].type if len(schema.returns) == 1 else None
    remarks: list[str] = []
    if declared is None:
        inputs, arguments = _infer_inputs(parameters, example, remarks)
        keywords: tuple[tuple[str, Argument], ...] = ()
    else:
        inputs = declared.inputs
        arguments, keywords, inputs = _bind(parameters, inputs, remarks)
    if declared is not None and declared.outputs:
        if returns is None:
            raise LoadError(f"the method {name!r} returns nothing that TorchScript describes: it cannot be served")
        placed = place_script_outputs(declared.outputs, script_type(returns))
        outputs = declared.outputs
    else:
        outputs, placed = _infer_outputs(returns, example, [s.name for s in inputs], remarks)
    aliases = numbered_aliases(placed) if declared is None or not declared.outputs else ()
    signature = Signature(name, inputs, outputs, aliases=tuple(alias.name for alias in aliases))
    return signature, Plan(arguments, placed, aliases, keywords), remarks


def _parameter(argument: Any) -> _Parameter:
    type_ = argument.type
    optional = type_.kind() == "OptionalType"
    if optional:
        type_ = type_.getElementType()
    has_default = argument.has_default_value()
    default = argument.default_value if has_default else None
    elements = ""
    if type_.kind() == "ListType":
        elements = type_.getElementType().kind()
    elif type_.kind() == "DictType" and type_.getKeyType().kind() == "StringType":
        elements = type_.getValueType().kind()
    return _Parameter(argument.name, type_.kind(), str(argument.type), optional or has_default, default, elements)


def _is_tensors(parameter: _Parameter, container: str) -> bool:
    return parameter.type_kind == container and parameter.elements == "TensorType"


def _infer_inputs(
    parameters: Sequence[_Parameter], example: Example | None, remarks: list[str]
) -> tuple[tuple[TensorSpec, ...], tuple[Argument, ...]]:
    specs: list[TensorSpec] = []
    arguments: list[Argument] = []
    guessed = []
    for i, parameter in enumerate(parameters):
        if parameter.type_kind in _SCALARS:
            python_type, dtype, _ = _SCALARS[parameter.type_kind]
            specs.append(TensorSpec(parameter.name, dtype, (), optional=parameter.optional))
            arguments.append(ScalarArgument(parameter.name, python_type, parameter.default))
        elif parameter.type_kind == "ListType" and parameter.elements in _SCALARS:
            python_type, dtype, _ = _SCALARS[parameter.elements]
            specs.append(TensorSpec(parameter.name, dtype, (-1,), optional=parameter.optional))
            arguments.append(ScalarListArgument(parameter.name, python_type, parameter.default))
        elif parameter.type_kind == "TensorType":
            dtype, shape = DType.FP32, None
            if example is not None and i < len(example.inputs):
                traced = example.inputs[i]
                dtype = dtype_from_torch(traced.dtype) or DType.FP32
                shape = _open_batch(tuple(traced.shape))
            else:
                guessed.append(parameter.name)
            specs.append(TensorSpec(parameter.name, dtype, shape, optional=parameter.optional))
            arguments.append(TensorArgument(parameter.name))
        elif parameter.optional:
            break  # this argument and those after it keep their defaults
        else:
            raise needs_declaration(
                f"argument {parameter.name!r} is a {parameter.text}, whose inputs TorchScript does not tell",
                [f"{parameter.name}__0"] if parameter.type_kind == "ListType" else ["first key", "second key"],
                ["output__0"],
            )
    if guessed:
        remarks.append(
            f"no element types or shapes are declared: {', '.join(guessed)} taken as FP32 of any shape; "
            "'signatures:' in model.yaml says better"
        )
    elif example is not None:
        remarks.append("element types and shapes are those the module was traced with; dimension 0 taken as variable")
    return tuple(specs), tuple(arguments)


def _bind(
    parameters: Sequence[_Parameter], inputs: Sequence[TensorSpec], remarks: list[str]
) -> tuple[tuple[Argument, ...], tuple[tuple[str, Argument], ...], tuple[TensorSpec, ...]]:
    """Assigns the declared inputs to the method's parameters, and returns positional arguments, keyword arguments and
    the inputs. Raises LoadError.

    An input is assigned by its name or by its number (NAME__i). A method with one parameter that is a dictionary or a
    list of tensors gets all inputs in it. If no name fits, the inputs are assigned in their order, as Triton does.
    """
    names = tuple(s.name for s in inputs)
    by_name = {p.name: p for p in parameters}
    if len(parameters) == 1 and not set(names) <= set(by_name):
        if _is_tensors(parameters[0], "DictType"):
            return (DictArgument(names),), (), tuple(inputs)
        if _is_tensors(parameters[0], "ListType"):
            return (ListArgument(names),), (), tuple(inputs)
    meant = [_named(spec.name, parameters, by_name) for spec in inputs]
    if inputs and len(inputs) <= len(parameters) and not any(meant):
        meant = list(parameters[: len(inputs)])
        pairs = ", ".join(
            f"{spec.name!r} is {p.name!r}" for spec, p in zip(inputs, meant, strict=True) if p is not None
        )
        remarks.append(f"inputs are taken in the order in which they are declared: {pairs}")
    bound: dict[str, TensorSpec] = {}
    for spec, parameter in zip(inputs, meant, strict=True):
        if parameter is None:
            raise LoadError(f"input {spec.name!r} is declared, but the arguments are {', '.join(by_name) or 'none'}")
        if parameter.name in bound:
            raise LoadError(f"inputs {bound[parameter.name].name!r} and {spec.name!r} are both {parameter.name!r}")
        bound[parameter.name] = spec
    positional: list[Argument] = []
    keywords: list[tuple[str, Argument]] = []
    specs: dict[str, TensorSpec] = {}
    skipped = False
    for parameter in parameters:
        found = bound.get(parameter.name)
        if found is None:
            if not parameter.optional:
                raise LoadError(
                    f"argument {parameter.name!r} ({parameter.text}) is not declared; add it to the signature's inputs"
                )
            skipped = True
            continue
        argument, specs[found.name] = _argument(parameter, found)
        if skipped:
            keywords.append((parameter.name, argument))
        else:
            positional.append(argument)
    return tuple(positional), tuple(keywords), tuple(specs[name] for name in names)


def _named(name: str, parameters: Sequence[_Parameter], by_name: Mapping[str, _Parameter]) -> _Parameter | None:
    """The parameter to which a declared input's name or number refers; None if there is none."""
    number = index_in(name)
    if name in by_name or number is None:
        return by_name.get(name)
    return parameters[number] if number < len(parameters) else None


def _argument(parameter: _Parameter, spec: TensorSpec) -> tuple[Argument, TensorSpec]:
    # The method decides what is optional, not the declaration: it fails without an argument that it needs.
    bound = TensorSpec(spec.name, spec.dtype, spec.shape, optional=parameter.optional)
    if parameter.type_kind in _SCALARS:
        python_type, _, fitting = _SCALARS[parameter.type_kind]
        if spec.dtype not in fitting:
            fit = ", ".join(d.name for d in sorted(fitting))
            raise LoadError(
                f"input {spec.name!r} is declared as {spec.dtype.name}, but the argument is {parameter.text}: {fit}"
            )
        return ScalarArgument(spec.name, python_type, parameter.default), bound
    if parameter.type_kind == "ListType" and parameter.elements in _SCALARS:
        python_type, _, fitting = _SCALARS[parameter.elements]
        if spec.dtype not in fitting:
            fit = ", ".join(d.name for d in sorted(fitting))
            raise LoadError(
                f"input {spec.name!r} is declared as {spec.dtype.name}, but the argument is {parameter.text}: {fit}"
            )
        if spec.shape is not None and len(spec.shape) != 1:
            raise LoadError(
                f"input {spec.name!r} is declared as {list(spec.shape)}, but the argument is {parameter.text}: [-1]"
            )
        return ScalarListArgument(spec.name, python_type, parameter.default), bound
    if parameter.type_kind != "TensorType":
        raise LoadError(f"argument {parameter.name!r} is a {parameter.text}, which inferd cannot fill")
    if spec.dtype is DType.STRING:
        raise LoadError(f"input {spec.name!r} is declared as STRING, but torch has no tensors of strings")
    return TensorArgument(spec.name), bound


def _infer_outputs(
    returns: Any, example: Example | None, inputs: Sequence[str], remarks: list[str]
) -> tuple[tuple[TensorSpec, ...], tuple[Output, ...]]:
    if example is not None:
        return _outputs_of(example)
    found = None if returns is None else script_type(returns)
    if found is None or not found.closed:
        text = "nothing that can be known" if found is None else found.text
        name = "output__0" if found is None else example_path(found) or "output__0"
        raise needs_declaration(f"the method returns {text}: its outputs have to be named", inputs, [name])
    leaves = found.leaves()
    specs = tuple(
        TensorSpec(f"output__{i}", DType.FP32, None)
        if leaf.dtype is None
        else TensorSpec(f"output__{i}", leaf.dtype, (-1,) * leaf.rank)
        for i, (_, leaf) in enumerate(leaves)
    )
    if any(leaf.dtype is None for _, leaf in leaves):
        remarks.append("no outputs are declared: named output__0 and so on, taken as FP32 of any shape")
    # The element types of tensors are assumptions, so runs do not check them.
    return specs, tuple(
        Output(spec.name, path, leaf=i) for i, (spec, (path, _)) in enumerate(zip(specs, leaves, strict=True))
    )


def _outputs_of(example: Example) -> tuple[tuple[TensorSpec, ...], tuple[Output, ...]]:
    """Names, element types and shapes from the result for the example. Dimension 0 is taken as the batch axis if it is
    as large as that of all inputs."""
    batches = {tensor.shape[0] for tensor in example.inputs if tensor.ndim}
    specs: list[TensorSpec] = []
    places: list[Output] = []
    fields = getattr(example.result, "_fields", None)
    paths = paths_of_value(example.result)
    names = published_names(paths)
    if fields is not None and len(paths) == len(fields):
        names = list(map(str, fields))
    for number, (name, path) in enumerate(zip(names, paths, strict=True)):
        value = value_at(example.result, path)
        dtype = dtype_from_torch(getattr(value, "dtype", None))
        if dtype is None:
            continue  # no tensor, or an element type that cannot be sent; the other outputs are served
        shape = tuple(value.shape)
        if shape and len(batches) == 1 and shape[0] in batches:
            shape = _open_batch(shape)
        specs.append(TensorSpec(name, dtype, shape))
        places.append(Output(name, path, leaf=number))
    return tuple(specs), tuple(places)


def _open_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (-1, *shape[1:]) if shape else shape
