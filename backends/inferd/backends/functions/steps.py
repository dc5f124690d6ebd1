"""Python steps: `steps.py` beside a model of any backend, with `before` and `after` around it.

    requests ──► before(**inputs) ──► the model ──► after(**outputs) ──► answers

Both are optional; what is not there passes the arrays on. `before` returns the model's inputs. `after` takes what it
names of the model's outputs, of what `before` returned, and of the request's inputs, in this order; it returns the
answer. The three run on the same thread, in the process that holds the model, and come and go with it.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from inferd.backends.api import (
    Array,
    Backend,
    BackendError,
    BrokenContract,
    Independence,
    Instance,
    InvalidInput,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.backends.checks import SignatureTable, narrowed
from inferd.backends.functions.function import Function, call_load, declared_idempotent, function_of
from inferd.backends.functions.results import arrays_of
from inferd.backends.functions.source import Source

STEPS_FILE: Final = "steps.py"
BEFORE: Final = "before"
AFTER: Final = "after"


def open_with_steps(backend: Backend, request: OpenRequest) -> Model:
    """Opens a version, with its steps around it if `request.steps` names their file. Raises LoadError."""
    if request.steps is None:
        return backend.open(request)
    source = Source(request.steps, request, (request.artefact, *backend.files(request.artefact)))
    try:
        inner = backend.open(replace(request, signatures=request.inner, steps=None, inner=()))
        try:
            return SteppedModel(source, inner, request)
        except BaseException:
            inner.close()
            raise
    except BaseException:
        source.close()
        raise


@dataclass(frozen=True, slots=True)
class _Steps:
    """The functions of one executed file."""

    before: Function | None
    after: Function | None


class SteppedModel:
    """A model with its steps. Thread-safe until closed."""

    def __init__(self, source: Source, inner: Model, request: OpenRequest) -> None:
        """Executes the file. Raises LoadError."""
        self._source = source
        self._inner = inner
        self._isolated = request.isolated
        self._first: list[types.ModuleType] = [source.executed()]
        module = self._first[0]
        own = inner.signatures[0]
        if not module.__dict__.keys() & {BEFORE, AFTER}:
            raise LoadError(f"{source.name} has neither a function {BEFORE} nor a function {AFTER}")
        if len(request.signatures) > 1:
            raise LoadError(f"{source.name}: expected one declared signature, got {len(request.signatures)}")
        self._signature = _outer(source, module, own, request.signatures[0] if request.signatures else None)
        _steps(source, module, own, self._signature)
        traits = inner.traits
        left = f"; the model's other signatures are not served: {_names(inner.signatures[1:])}"
        self._note = f"runs Python code: {source.name}{left if len(inner.signatures) > 1 else ''}"
        self._repeatable = traits.repeatable and declared_idempotent(source, module)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return (self._signature,)

    @property
    def traits(self) -> Traits:
        inner = self._inner.traits
        return Traits(
            may_write_inputs=True,
            alignment=64,
            max_batch=inner.max_batch,
            stateful=inner.stateful,
            repeatable=self._repeatable,
            notes=(self._note, *inner.notes),
        )

    def instance(self, placement: Placement) -> Instance:
        inner = self._inner.instance(placement)
        try:
            try:
                module = self._first.pop()
            except IndexError:
                module = self._source.executed()
            try:
                own = self._inner.signatures[0]
                steps = _steps(self._source, module, own, self._signature)
                call_load(self._source, module)
            except BaseException:
                self._source.forget(module)
                raise
        except BaseException:
            inner.close()
            raise
        copies = not self._isolated
        signatures = (self._signature, own)
        return SteppedInstance(self._source, module, steps, inner, signatures, self._inner.traits, copies=copies)

    def independence(self, signature: Signature) -> Independence:
        """See Analysable: nothing is known of code."""
        return Independence(False, reason=f"Python code ({self._source.name}) is not analysed", understood=False)

    def close(self) -> None:
        self._first.clear()
        try:
            self._inner.close()
        finally:
            self._source.close()


class SteppedInstance:
    """An instance of the model with one executed file of steps. Not thread-safe."""

    def __init__(
        self,
        source: Source,
        module: types.ModuleType,
        steps: _Steps,
        inner: Instance,
        signatures: tuple[Signature, Signature],
        traits: Traits,
        *,
        copies: bool,
    ) -> None:
        """`signatures`: of the whole, and of the model. `traits`: of the model. `copies`: what `after` returns is
        copied, because the code may keep it."""
        self._writes = traits.may_write_inputs
        self._alignment = traits.alignment
        self._source = source
        self._module = module
        self._steps = steps
        self._inner = inner
        self._whole, self._own = signatures
        self._copies = copies
        self._table = SignatureTable((self._whole,))
        self._model_inputs = frozenset(spec.name for spec in self._own.inputs)
        self._wanted = _wanted(steps.after, self._own)

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        check = self._table[signature]
        check.inputs(inputs)
        wanted = check.wanted(outputs)
        before, after = self._steps.before, self._steps.after
        given: Mapping[str, Array] = inputs
        passed: Mapping[str, Array] = {}
        if before is not None:
            returned = before(inputs)
            given = arrays_of(before.where, returned, self._own.inputs, own=self._writes)
            given = {name: _aligned(array, self._alignment) for name, array in given.items()}
            passed = self._beside(before, returned)
        if after is None:
            return self._model(before, given, outputs)
        made = self._model(before, given, self._wanted)
        known = {**inputs, **given, **passed, **made}
        arguments = made | {name: known[name] for name in after.takes if name in known}
        for name in after.needs:
            if name not in arguments:
                raise BrokenContract(
                    f"{after.where} takes {name!r}, but {before.where if before else 'the request'} gave none"
                )
        specs: Sequence[TensorSpec] = self._whole.outputs
        if outputs is not None:
            specs = tuple(spec for spec in specs if spec.name in wanted)
        return arrays_of(after.where, after(arguments), specs, own=self._copies)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._source.forget(self._module)

    def _model(
        self, before: Function | None, inputs: Mapping[str, Array], wanted: Sequence[str] | None
    ) -> dict[str, Array]:
        try:
            return self._inner.run(self._own.name, inputs, wanted)
        except InvalidInput as error:
            if before is None:
                raise
            raise BackendError(f"the model refuses what {before.where} returned: {error}") from None

    def _beside(self, before: Function, returned: Mapping[str, Array]) -> Mapping[str, Array]:
        """What `before` returned for `after`, beside the model's inputs."""
        passed = {name: value for name, value in returned.items() if name not in self._model_inputs}
        after = self._steps.after
        for name in passed:
            if after is None or name not in after.takes:
                takes = ", ".join(self._model_inputs)
                raise BrokenContract(f"{before.where} returned {name!r}; the model takes {takes}")
        return passed


def _outer(source: Source, module: types.ModuleType, own: Signature, declared: Signature | None) -> Signature:
    """The signature of the whole: declared where a step stands, else the model's own."""
    replaced = {BEFORE: BEFORE in module.__dict__, AFTER: AFTER in module.__dict__}
    for step, what, given in (
        (BEFORE, "inputs", declared.inputs if declared is not None else ()),
        (AFTER, "outputs", declared.outputs if declared is not None else ()),
    ):
        if replaced[step] and not given:
            raise LoadError(
                f"{source.name} has {step}, so model.yaml must declare the {what} of the whole, such as "
                f"signatures: [{{{what}: [{{name: text, dtype: STRING, shape: [-1]}}]}}]"
            )
    if declared is None:
        return own
    inputs = declared.inputs if replaced[BEFORE] else narrowed("input", own.inputs, declared.inputs)
    outputs = declared.outputs if replaced[AFTER] else narrowed("output", own.outputs, declared.outputs)
    aliases = () if replaced[AFTER] else own.aliases
    return Signature(declared.name, inputs, outputs, own.method_name, aliases)


def _steps(source: Source, module: types.ModuleType, own: Signature, whole: Signature) -> _Steps:
    """The functions of an executed file. Raises LoadError for arguments that nobody gives."""
    before = function_of(source, module, BEFORE)
    after = function_of(source, module, AFTER)
    if before is not None:
        optional = [spec.name for spec in whole.inputs if spec.optional]
        before.check([spec.name for spec in whole.inputs], optional, "the declared inputs")
    if after is not None:
        outputs = [spec.name for spec in own.outputs]
        known = {*outputs, *(spec.name for spec in (*own.inputs, *whole.inputs))}
        if before is None and (strange := [name for name in after.needs if name not in known]):
            raise LoadError(f"{after.where} takes {strange[0]!r}, but the model's outputs are {', '.join(outputs)}")
        if not after.takes_all and not set(after.takes) & set(outputs):
            raise LoadError(f"{after.where} takes none of the model's outputs, which are {', '.join(outputs)}")
    return _Steps(before, after)


def _wanted(after: Function | None, own: Signature) -> tuple[str, ...] | None:
    """The outputs of the model that `after` takes; None: all."""
    if after is None or after.takes_all:
        return None
    names = [spec.name for spec in own.outputs]
    return tuple(name for name in after.takes if name in names or name in own.aliases)


def _aligned(array: Array, alignment: int) -> Array:
    """The array itself, or a copy in memory that is aligned as the model needs it."""
    if array.dtype == object or not array.ctypes.data % alignment:
        return array
    memory = np.empty(array.nbytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    aligned: Array = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


def _names(signatures: Sequence[Signature]) -> str:
    return ", ".join(signature.name for signature in signatures)
