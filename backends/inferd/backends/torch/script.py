"""TorchScript (`model.pt`): a module with its code, loaded into memory. Its methods are served as signatures.

The file has the names and Python types of the arguments, but no element types or shapes. They come from the declared
signature; without one, from the example inputs that torch.jit.trace stores in the file; without these, FP32 of any
shape is assumed.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from inferd.backends.api import DEFAULT_SIGNATURE, Independence, LoadError, OpenRequest, Placement, Signature, Traits
from inferd.backends.checks import SignatureTable
from inferd.backends.torch.archive import Archive
from inferd.backends.torch.device import instance_type
from inferd.backends.torch.effects import Effects, inlined, nodes_of, script_effects
from inferd.backends.torch.errors import reason
from inferd.backends.torch.instance import TorchInstance, use_device, verify_device
from inferd.backends.torch.io import Plan
from inferd.backends.torch.options import TorchOptions
from inferd.backends.torch.script_content import check_script
from inferd.backends.torch.script_plan import Example, plan_method


class ScriptModel:
    """An opened TorchScript module, on the CPU. Thread-safe until closed.

    A module that keeps state is never run itself: each instance runs a copy.
    """

    def __init__(self, torch: Any, request: OpenRequest, archive: Archive, options: TorchOptions) -> None:
        self._torch = torch
        self._options = options
        # Read into memory, not memory-mapped: the file may be truncated or replaced while its weights are in use.
        data = request.read(request.artefact)
        check_script(torch, data, request.artefact.name, request.allow, isolated=request.isolated)
        module = _load(torch, io.BytesIO(data), request.artefact.name, "cpu")
        training = any(getattr(m, "training", False) is True for m in module.modules())
        module.eval()
        if options.freeze:
            module = _frozen(torch, module)
        options.lay_out(torch, module)
        methods = _methods(module)
        served = _served(request.signatures, methods)
        effects = _effects(torch, module, [methods[name] for name in served])
        stateful = any(e.keeps_state for e in effects)
        notes = ["the module was saved in training mode and is served in evaluation mode"] if training else []

        signatures: list[Signature] = []
        self._plans: dict[str, Plan] = {}
        self._methods: dict[str, str] = {}
        for name, declared in served.items():
            example = None
            if archive.has_traced_inputs and methods[name] == "forward" and (declared is None or not declared.outputs):
                example = _traced_example(torch, data, module, stateful)
            signature, plan, remarks = plan_method(name, getattr(module, methods[name]).schema, declared, example)
            signatures.append(signature)
            self._plans[name] = plan
            self._methods[name] = methods[name]
            notes.extend(remarks)
        self._module: Any = module
        self._signatures = tuple(signatures)
        self._checks = SignatureTable(signatures)
        self._traits = Traits(
            may_write_inputs=any(e.writes_inputs for e in effects),
            bounded=True,
            concurrent=not stateful,
            overlaps=2,
            stateful=stateful,
            notes=tuple(notes),
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def independence(self, signature: Signature) -> Independence | None:
        """See Analysable."""
        from inferd.backends.torch.independence.script import analyse_method

        name = signature.name
        return analyse_method(self._torch, self._module, self._methods[name], self._plans[name], signature)

    def instance(self, placement: Placement) -> TorchInstance:
        torch = self._torch
        use_device(torch, placement.device)
        self._options.check(torch, placement.device)
        module = self._module
        if placement.device != "cpu":
            # Saved and loaded again: constants inside the code change the device only when they are loaded.
            buffer = io.BytesIO()
            torch.jit.save(module, buffer)
            buffer.seek(0)
            module = _load(torch, buffer, "the module", placement.device)
            verify_device(placement.device, [*module.parameters(), *module.buffers()])
        elif self._traits.stateful:
            module = copy.deepcopy(module)
        return instance_type(placement)(
            torch,
            placement,
            self._checks,
            self._plans,
            {name: getattr(module, method) for name, method in self._methods.items()},
            owned=[t.untyped_storage().data_ptr() for t in _tensors(torch, module, self._methods.values())],
            copy_all=self._traits.stateful,
            options=self._options,
        )

    def close(self) -> None:
        self._module = None


def _load(torch: Any, file: io.BytesIO, name: str, device: str) -> Any:
    try:
        return torch.jit.load(file, map_location=device)
    except Exception as error:
        raise LoadError(f"torch {torch.__version__} cannot load {name}: {reason(error)[1]}") from None


def _effects(torch: Any, module: Any, methods: Sequence[str]) -> list[Effects]:
    """The side effects of the methods in evaluation mode. What a module does in training mode only, as the counter of
    BatchNorm, does not count: in doubt, a frozen copy is judged, whose code for training is gone."""
    found = [script_effects(torch, module, method) for method in methods]
    if not any(effects.keeps_state or effects.writes_inputs for effects in found):
        return found
    try:
        others = [method for method in methods if method != "forward"]
        frozen = torch.jit.freeze(module, preserved_attrs=others, optimize_numerics=False)
        return [script_effects(torch, frozen, method) for method in methods]
    except Exception:  # some modules cannot be frozen: then all of their code counts
        return found


def _frozen(torch: Any, module: Any) -> Any:
    try:
        return torch.jit.freeze(module)
    except Exception as error:
        raise LoadError(f"'freeze' does not work with this module: {reason(error)[1]}") from None


def _methods(module: Any) -> dict[str, str]:
    """The module's methods by signature name: DEFAULT_SIGNATURE is `forward`, the others have their own names."""
    names = [name for name in module._c._method_names() if not name.startswith("_")]
    found = {DEFAULT_SIGNATURE: "forward"} if "forward" in names else {}
    return found | {name: name for name in names}


def _served(declared: Sequence[Signature], methods: dict[str, str]) -> dict[str, Signature | None]:
    """The signatures to serve, by name, each with its declaration. Without declarations only `forward` is served: other
    methods may be helpers that are not meant for callers. Raises LoadError."""
    for signature in declared:
        if signature.name not in methods:
            names = ", ".join(sorted(set(methods) - {"forward"})) or "none"
            raise LoadError(
                f"signature {signature.name!r} is declared, but the module has no such method; it has {names}"
            )
    if declared:
        return {signature.name: signature for signature in declared}
    if DEFAULT_SIGNATURE not in methods:
        names = ", ".join(sorted(methods)) or "none"
        raise LoadError(f"the module has no forward method; declare signatures named after its methods: {names}")
    return {DEFAULT_SIGNATURE: None}


def _tensors(torch: Any, module: Any, methods: Iterable[str]) -> Iterator[Any]:
    """Every tensor that belongs to the module: parameters, buffers, attributes and constants in its code."""
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor):
                yield value
    for method in methods:
        for node in nodes_of(inlined(torch, module, method)):
            if node.kind() == "prim::Constant":
                value = node.output().toIValue()
                if isinstance(value, torch.Tensor):
                    yield value


def _traced_example(torch: Any, data: bytes, module: Any, stateful: bool) -> Example | None:
    """Zeros of the types and shapes with which the module was traced, and the module's result for them. None if the
    file does not say them or the run fails."""
    try:
        shaped = torch.jit.load(io.BytesIO(data), map_location="cpu", _restore_shapes=True)
        types = [value.type() for value in list(shaped.graph.inputs())[1:]]
        if not all(t.kind() == "TensorType" and t.sizes() is not None and t.dtype() is not None for t in types):
            return None
        inputs = [torch.zeros(t.sizes(), dtype=t.dtype()) for t in types]
        runner = copy.deepcopy(module) if stateful else module
        with torch.inference_mode():
            result = runner(*inputs)
    except Exception:  # the example only improves the signature; without it, element types and shapes are assumed
        return None
    return Example(tuple(inputs), result)
