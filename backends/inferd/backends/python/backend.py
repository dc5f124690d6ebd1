"""The Python backend: `model.py`, plain functions on named arrays.

    def load(directory): ...                          # optional, once for each instance
    def predict(**inputs): return {"y": ...}          # other signatures: a function of the signature's name

It is code, so it is opened only where `repository.allow` names python, by default in a worker process. `signatures` in
model.yaml says what it takes and gives.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from inferd.backends.api import (
    Array,
    Independence,
    Instance,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    Traits,
)
from inferd.backends.checks import SignatureTable, check_options
from inferd.backends.functions.function import Function, call_load, declared_idempotent, function_of
from inferd.backends.functions.results import arrays_of
from inferd.backends.functions.source import KIND, Source

ARTEFACT: Final = "model.py"
PREDICT: Final = "predict"
_EXAMPLE = (
    "signatures: [{inputs: [{name: x, dtype: FP32, shape: [-1, 4]}], outputs: [{name: y, dtype: FP32, shape: [-1]}]}]"
)


class PythonBackend:
    """Opens models in Python code. Thread-safe."""

    name = "python"
    platforms = ("python",)
    artefacts = (ARTEFACT,)
    code = KIND

    def find(self, directory: Path) -> Path | None:
        artefact = directory / ARTEFACT
        return artefact if artefact.is_file() else None

    def complete(self, artefact: Path) -> str | None:
        return None if artefact.is_file() else f"{ARTEFACT} is missing"

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def devices(self) -> Sequence[str]:
        return ("cpu",)

    def open(self, request: OpenRequest) -> Model:
        """Reads and executes the file. Raises LoadError: also, before anything of it runs, if code is not allowed."""
        check_options(self.name, request.options, {})
        source = Source(request.artefact, request)
        try:
            return PythonModel(source, request)
        except BaseException:
            source.close()
            raise


class PythonModel:
    """An executed `model.py`. Thread-safe until closed."""

    def __init__(self, source: Source, request: OpenRequest) -> None:
        self._source = source
        self._isolated = request.isolated
        # The first instance takes this module, so that what the file does when it is executed is done once.
        self._first: list[types.ModuleType] = [source.executed()]
        module = self._first[0]
        if not request.signatures:
            takes = function_of(source, module, PREDICT)
            said = f"; {PREDICT} takes {', '.join(takes.takes)}" if takes is not None and takes.takes else ""
            raise LoadError(
                f"{source.name} needs signatures in model.yaml, which say what it takes and gives, such as "
                f"{_EXAMPLE}{said}"
            )
        self._signatures = request.signatures
        self._table = SignatureTable(request.signatures)
        _functions(source, module, request.signatures)
        self._traits = Traits(
            may_write_inputs=True,
            alignment=64,
            repeatable=declared_idempotent(source, module),
            notes=(f"runs Python code: {source.name}",),
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> Instance:
        if placement.device != "cpu":
            raise LoadError(f"unknown device {placement.device!r}: the server runs Python code on the cpu")
        try:
            module = self._first.pop()
        except IndexError:
            module = self._source.executed()
        try:
            functions = _functions(self._source, module, self._signatures)
            call_load(self._source, module)
        except BaseException:
            self._source.forget(module)
            raise
        return PythonInstance(self._source, module, functions, self._signatures, self._table, own=not self._isolated)

    def independence(self, signature: Signature) -> Independence:
        """See Analysable: nothing is known of code."""
        return Independence(False, reason=f"Python code ({self._source.name}) is not analysed", understood=False)

    def close(self) -> None:
        self._first.clear()
        self._source.close()


class PythonInstance:
    """One executed module. Not thread-safe."""

    def __init__(
        self,
        source: Source,
        module: types.ModuleType,
        functions: Mapping[str, Function],
        signatures: Sequence[Signature],
        table: SignatureTable,
        *,
        own: bool,
    ) -> None:
        """`own`: outputs are copied, because the code may keep what it returns."""
        self._source = source
        self._module = module
        self._functions = functions
        self._outputs = {signature.name: signature.outputs for signature in signatures}
        self._table = table
        self._own = own

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        check = self._table[signature]
        check.inputs(inputs)
        wanted = check.wanted(outputs)
        function = self._functions[signature]
        specs = self._outputs[signature]
        if outputs is not None:
            specs = tuple(spec for spec in specs if spec.name in wanted)
        return arrays_of(function.where, function(inputs), specs, own=self._own)

    def close(self) -> None:
        self._source.forget(self._module)


def _functions(source: Source, module: types.ModuleType, signatures: Sequence[Signature]) -> dict[str, Function]:
    """The function of each signature. Raises LoadError."""
    found = {}
    for number, signature in enumerate(signatures):
        name = signature.name if number else PREDICT
        function = function_of(source, module, name)
        if function is None:
            raise LoadError(f"{source.name} has no function {name}, which signature {signature.name!r} needs")
        optional = [spec.name for spec in signature.inputs if spec.optional]
        function.check([spec.name for spec in signature.inputs], optional, "the inputs of the signature")
        found[signature.name] = function
    return found
