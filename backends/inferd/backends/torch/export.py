"""torch.export programs (`model.pt2`): graphs that describe inputs, element types, shapes and the range of rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from inferd.backends.api import (
    DEFAULT_SIGNATURE,
    Independence,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.backends.checks import SignatureTable, agree
from inferd.backends.torch.device import instance_type
from inferd.backends.torch.effects import program_effects
from inferd.backends.torch.errors import reason
from inferd.backends.torch.exported_archive import load_program, private_copy
from inferd.backends.torch.instance import TorchInstance, dtype_text, use_device, verify_device
from inferd.backends.torch.io import (
    Argument,
    ConstantArgument,
    Plan,
    ScalarArgument,
    TensorArgument,
    dtype_from_torch,
)
from inferd.backends.torch.options import TorchOptions
from inferd.backends.torch.structure import (
    Output,
    index_in,
    numbered_aliases,
    paths_of_tree,
    place_outputs,
    published_names,
)
from inferd.wire.dtypes import DType

_CONSTANTS = {bool: DType.BOOL, int: DType.INT64, float: DType.FP64, str: DType.STRING}
_SCALARS = {"SymInt": (int, DType.INT64), "SymFloat": (float, DType.FP64), "SymBool": (bool, DType.BOOL)}


class ExportedModel:
    """An opened torch.export program, on the CPU. Thread-safe until closed.

    A program that keeps state is never run itself: each instance runs a copy.
    """

    def __init__(
        self, torch: Any, request: OpenRequest, options: TorchOptions, loading: AbstractContextManager[Any]
    ) -> None:
        """`loading`: the lock that is held while torch.export.load runs, which is not for two threads at once."""
        self._torch = torch
        self._options = options
        self._loading = loading
        name = request.artefact.name
        data = request.read(request.artefact)
        try:
            with loading:
                self._program: Any = load_program(torch, data, name, request.allow)
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(f"torch {torch.__version__} cannot load {name}: {reason(error)[1]}") from None
        if len(request.signatures) > 1:
            raise LoadError("a torch.export program has one signature: declare one at most")
        declared = request.signatures[0] if request.signatures else None
        signature, plan, largest, notes = _read(self._program, declared)
        effects = program_effects(self._program)
        self._signatures = (signature,)
        self._plans = {signature.name: plan}
        self._checks = SignatureTable(self._signatures)
        self._traits = Traits(
            may_write_inputs=effects.writes_inputs,
            bounded=True,
            concurrent=not effects.keeps_state,
            overlaps=2,
            max_batch=largest,
            stateful=effects.keeps_state,
            notes=notes,
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def independence(self, signature: Signature) -> Independence | None:
        """See Analysable."""
        from inferd.backends.torch.independence.program import analyse_program

        return analyse_program(self._torch, self._program, self._plans[signature.name], signature)

    def instance(self, placement: Placement) -> TorchInstance:
        torch = self._torch
        use_device(torch, placement.device)
        self._options.check(torch, placement.device)
        program = self._program
        if placement.device != "cpu":
            from torch.export.passes import move_to_device_pass

            # module.to() is not enough: the graph names devices too. The pass changes the program that it is given.
            program = move_to_device_pass(self._private_copy(), placement.device)
        elif self._traits.stateful:
            program = self._private_copy()
        module = program.module()
        self._options.lay_out(torch, module)
        tensors = [*module.parameters(), *module.buffers(), *_constants(torch, module)]
        if placement.device != "cpu":
            verify_device(placement.device, tensors)

        def call(*args: Any, **kwargs: Any) -> Any:
            # The call without torch.fx's wrapper, which would print every failing call to standard error.
            return torch.nn.Module.__call__(module, *args, **kwargs)

        return instance_type(placement)(
            torch,
            placement,
            self._checks,
            self._plans,
            dict.fromkeys(self._plans, call),
            owned=[t.untyped_storage().data_ptr() for t in tensors],
            copy_all=self._traits.stateful,
            options=self._options,
        )

    def _private_copy(self) -> Any:
        with self._loading:
            return private_copy(self._torch, self._program)

    def close(self) -> None:
        self._program = None


def _read(program: Any, declared: Signature | None) -> tuple[Signature, Plan, int | None, tuple[str, ...]]:
    """The signature, the plan, the largest number of rows that all inputs accept (None: no limit), and notes for the
    operator. Raises LoadError."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    wanted = {} if declared is None else {spec.name: spec for spec in declared.inputs}
    arguments: list[Argument] = []
    inputs: list[TensorSpec] = []
    batches: list[Any] = []
    for number, spec in enumerate(s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"):
        if type(spec.arg).__name__ == "ConstantArgument":
            arguments.append(ConstantArgument(spec.arg.value))
            continue
        value = values.get(spec.arg.name)
        found = _spec(spec.arg.name, value, "input")
        found = _declared_input(found, number, wanted)
        scalar = _SCALARS.get(type(value).__name__)
        arguments.append(TensorArgument(found.name) if scalar is None else ScalarArgument(found.name, scalar[0]))
        inputs.append(found)
        if isinstance(found.shape, tuple) and found.shape and value is not None:
            batches.append(value.shape[0])
    if wanted:
        raise LoadError(
            f"input {', '.join(map(repr, wanted))} is declared, but the inputs are {', '.join(s.name for s in inputs)}"
        )
    outputs, places, notes = _outputs(program, declared)
    aliases = numbered_aliases(places) if declared is None or not declared.outputs else ()
    smallest, largest = _rows(program, batches)
    name = DEFAULT_SIGNATURE if declared is None else declared.name
    plan = Plan(tuple(arguments), places, aliases, arrange=arrange_by(program.call_spec.in_spec))
    if smallest > 1:
        notes = (*notes, f"exported for batches of {smallest} rows or more")
    signature = Signature(name, tuple(inputs), outputs, aliases=tuple(alias.name for alias in aliases))
    return signature, plan, largest, notes


def _spec(name: str, value: Any, role: str) -> TensorSpec:
    """The spec of an input or output from its example value in the graph. Raises LoadError."""
    scalar = _SCALARS.get(type(value).__name__)
    if scalar is not None:
        return TensorSpec(name, scalar[1], ())
    if type(value) in _CONSTANTS:
        return TensorSpec(name, _CONSTANTS[type(value)], ())
    torch_dtype = getattr(value, "dtype", None)
    dtype = dtype_from_torch(torch_dtype)
    if dtype is None:
        what = "is no tensor" if torch_dtype is None else f"has the element type {dtype_text(torch_dtype)}"
        raise LoadError(f"{role} {name!r} of the program {what}, which inferd cannot serve")
    return TensorSpec(name, dtype, tuple(d if type(d) is int else -1 for d in value.shape))


def _declared_input(found: TensorSpec, number: int, wanted: dict[str, TensorSpec]) -> TensorSpec:
    """An input, narrowed by its declaration, which is found by name or by number (NAME__i) and removed from `wanted`.
    Raises LoadError."""
    name = found.name
    if name not in wanted:
        name = next((n for n in wanted if index_in(n) == number), "")
    if name not in wanted:
        if wanted:
            raise LoadError(f"input {found.name!r} of the program is not declared; declared are {', '.join(wanted)}")
        return found
    return agree("input", wanted.pop(name), found)


def _outputs(
    program: Any, declared: Signature | None
) -> tuple[tuple[TensorSpec, ...], tuple[Output, ...], tuple[str, ...]]:
    """The outputs with their places, and notes about those that cannot be served. `structure` says how they are named.
    Raises LoadError."""
    node = next(n for n in program.graph.nodes if n.op == "output")
    of_user = [s.arg for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n is not node}
    paths = paths_of_tree(program.call_spec.out_spec)
    if len(paths) != len(of_user):
        raise LoadError(f"the program has {len(of_user)} outputs, but its result has places for {len(paths)}")
    found: dict[int, TensorSpec] = {}
    refused: dict[int, str] = {}
    for number, (name, argument) in enumerate(zip(published_names(paths), of_user, strict=True)):
        value = argument.value if type(argument).__name__ == "ConstantArgument" else values.get(argument.name)
        try:
            found[number] = _spec(name, value, "output")
        except LoadError as error:
            refused[number] = str(error)
    if declared is None or not declared.outputs:
        if not found:
            raise LoadError("; ".join(refused.values()) or "the program has no outputs")
        outputs = tuple(Output(spec.name, paths[i], spec.dtype, i) for i, spec in found.items())
        return tuple(found.values()), outputs, tuple(f"left out: {text}" for text in refused.values())
    placed = place_outputs(declared.outputs, paths, "the program")
    agreed = []
    for output, spec in zip(placed, declared.outputs, strict=True):
        assert output.leaf is not None
        if output.leaf in refused:
            raise LoadError(f"output {output.name!r} is declared, but {refused[output.leaf]}")
        agreed.append(agree("output", spec, found[output.leaf]))
    return tuple(agreed), placed, ()


def _rows(program: Any, batches: Sequence[Any]) -> tuple[int, int | None]:
    """The smallest and the largest number of rows, if dimension 0 of all inputs is the same symbol; else (1, None)."""
    symbols = {str(d): d for d in batches}
    if len(symbols) != 1:
        return 1, None
    (size,) = symbols.values()
    if type(size) is int:
        return 1, None
    limits = program.range_constraints.get(size.node.expr)
    if limits is None:
        return 1, None
    return _whole(limits.lower, 1), _whole(limits.upper, None)


def _whole(bound: Any, otherwise: Any) -> Any:
    # For "no limit", torch has an infinity of its own; some versions write a huge number.
    if not getattr(bound, "is_Integer", False):
        return otherwise
    return otherwise if int(bound) >= 2**31 else int(bound)


def arrange_by(in_spec: Any) -> Any:
    """None if the arguments are plain and positional; else a function that turns a flat list of arguments into the
    nested (args, kwargs) of the program. `in_spec` is torch's TreeSpec of the call."""
    args, kwargs = _children(in_spec)
    if not _children(kwargs) and all(not _children(c) and _is_leaf(c) for c in _children(args)):
        return None
    from torch.utils import _pytree

    def arrange(leaves: list[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        nested = _pytree.tree_unflatten(leaves, in_spec)
        return nested[0], nested[1]

    return arrange


def _children(spec: Any) -> list[Any]:
    # Newer versions of torch have a method children() in place of the attribute children_specs.
    children = getattr(spec, "children", None)
    return list(children() if callable(children) else spec.children_specs)


def _is_leaf(spec: Any) -> bool:
    return bool(spec.is_leaf())


def _constants(torch: Any, module: Any) -> list[Any]:
    """Tensors that the module holds as plain attributes, neither parameters nor buffers."""
    return [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
