"""AOTInductor packages (`model.pt2`): code compiled for one type of device, loaded with torch's own loader.

A package says how its arguments are nested and for which device it was compiled. It has no element types, shapes or
names, so a signature must be declared. The weights are in its shared library, which torch unpacks into a directory of
its own.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd.backends.api import LoadError, OpenRequest, Placement, Signature, Traits
from inferd.backends.checks import SignatureTable
from inferd.backends.torch.device import instance_type
from inferd.backends.torch.errors import reason
from inferd.backends.torch.export import arrange_by
from inferd.backends.torch.instance import TorchInstance, use_device
from inferd.backends.torch.io import Plan, TensorArgument, needs_declaration
from inferd.backends.torch.structure import Output, index_in, paths_of_tree, place_outputs, published_names


class AotiModel:
    """An opened package. A private copy of the file is kept until `close`, because torch loads packages only from
    files. Thread-safe until closed."""

    def __init__(self, torch: Any, request: OpenRequest) -> None:
        self._torch = torch
        if len(request.signatures) > 1:
            raise LoadError("an AOTInductor package has one signature: declare one at most")
        private = tempfile.mkdtemp(prefix="inferd-aoti-")
        self._remove_copy = weakref.finalize(self, shutil.rmtree, private, ignore_errors=True)
        self._package = Path(private) / "model.pt2"
        try:
            shutil.copyfile(request.artefact, self._package)
            metadata = _metadata(torch, self._package)
            self._compiled_for = str(metadata.get("AOTI_DEVICE_KEY", "cpu"))
            if self._can_load():
                in_spec, out_spec = _specs(self._load(-1 if self._compiled_for == "cpu" else 0))
            else:
                in_spec, out_spec = None, None
            declared = request.signatures[0] if request.signatures else None
            self._signatures, self._plans = _plan(declared, in_spec, out_spec)
        except BaseException:
            self._remove_copy()
            raise
        self._checks = SignatureTable(self._signatures)
        self._traits = Traits(
            bounded=True, concurrent=False, notes=(f"compiled ahead of time for {self._compiled_for}",)
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> TorchInstance:
        device_type, _, number = placement.device.partition(":")
        use_device(self._torch, placement.device)
        if device_type != self._compiled_for:
            raise LoadError(
                f"the package is compiled for {self._compiled_for}, and the model is placed on {placement.device}: "
                f"set instances.device, or compile it for {device_type}"
            )
        compiled = self._load(int(number) if number else -1)
        function = dict.fromkeys(self._plans, compiled)
        # The constants are in the library and their addresses are unknown, so every output is copied.
        return instance_type(placement)(self._torch, placement, self._checks, self._plans, function, copy_all=True)

    def close(self) -> None:
        self._remove_copy()

    def _can_load(self) -> bool:
        """Whether this machine has the device for which the package was compiled."""
        return self._compiled_for == "cpu" or bool(self._torch.cuda.is_available())

    def _load(self, index: int) -> Any:
        from torch._inductor import aoti_load_package

        try:
            return aoti_load_package(str(self._package), device_index=index)
        except Exception as error:
            raise LoadError(f"torch {self._torch.__version__} cannot load the package: {reason(error)[1]}") from None


def _metadata(torch: Any, package: Path) -> dict[str, str]:
    try:
        return dict(torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(str(package), "model"))
    except Exception as error:
        raise LoadError(f"torch {torch.__version__} cannot read the package: {reason(error)[1]}") from None


def _specs(compiled: Any) -> tuple[Any, Any]:
    """How the arguments and the results are nested, as torch's TreeSpecs."""
    from torch.utils import _pytree

    in_spec, out_spec = compiled.loader.get_call_spec()
    return _pytree.treespec_loads(in_spec), _pytree.treespec_loads(out_spec)


def _plan(declared: Signature | None, in_spec: Any, out_spec: Any) -> tuple[tuple[Signature, ...], dict[str, Plan]]:
    names = [f"input__{i}" for i in range(1 if in_spec is None else in_spec.num_leaves)]
    outputs = ["output__0"] if out_spec is None else published_names(paths_of_tree(out_spec))
    if declared is None or not declared.outputs:
        raise needs_declaration("an AOTInductor package tells no names, element types or shapes", names, outputs)
    inputs: Sequence[Any] = declared.inputs
    if all(index_in(s.name) is not None for s in inputs):
        inputs = sorted(inputs, key=lambda s: index_in(s.name) or 0)
    if in_spec is not None and len(inputs) != in_spec.num_leaves:
        raise LoadError(f"{len(inputs)} inputs are declared, but the package takes {in_spec.num_leaves}")
    if out_spec is None:  # the package cannot be loaded on this machine, and so tells nothing
        placed = tuple(Output(spec.name, (i,), spec.dtype, i) for i, spec in enumerate(declared.outputs))
    else:
        placed = place_outputs(declared.outputs, paths_of_tree(out_spec), "the package")
    plan = Plan(
        tuple(TensorArgument(s.name) for s in inputs),
        placed,
        arrange=None if in_spec is None else arrange_by(in_spec),
    )
    return (declared,), {declared.name: plan}
