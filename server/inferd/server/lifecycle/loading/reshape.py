"""Triton's `reshape`: requests have one shape, the model itself another of the same size.

    requests    [-1, 4, 4]  →  run  →  [-1, 1]
    the model   [-1, 16]               [-1]

Everything outside the model (request check, queue, batches, probe) sees the shapes of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inferd.backends.api import (
    NOT_ANALYSED,
    Array,
    BrokenContract,
    Independence,
    Instance,
    InvalidInput,
    LoadError,
    Model,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.server.config.model_schema import DeclaredSignature, Tensor
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.declared import declared_signatures

Shape = tuple[int, ...]


def own_signatures(config: ModelConfig) -> tuple[Signature, ...]:
    """The declared signatures in the model's own shapes. Raises LoadError for a reshape that is impossible."""
    found = []
    for given, signature in zip(config.signatures, declared_signatures(config), strict=True):
        inputs = tuple(map(_own, given.inputs, signature.inputs))
        outputs = tuple(map(_own, given.outputs, signature.outputs))
        found.append(replace(signature, inputs=inputs, outputs=outputs))
    return tuple(found)


def reshaped(model: Model, config: ModelConfig) -> Model:
    """The model with the shapes of requests; the model itself when no declared tensor is reshaped."""
    plans = {given.name: _ReshapePlan(given) for given in config.signatures}
    return _ReshapedModel(model, plans) if any(plan.inputs or plan.outputs for plan in plans.values()) else model


def _own(given: Tensor, spec: TensorSpec) -> TensorSpec:
    if given.reshape is None:
        return spec
    if given.shape is None:
        raise LoadError(f"reshape of {given.name!r} needs the shape that requests have")
    outer, own = given.shape, given.reshape
    if outer.count(-1) != own.count(-1) or (-1 in outer and _fixed(outer) != _fixed(own)) or _size(outer) != _size(own):
        raise LoadError(
            f"reshape of {given.name!r}: expected as many values and open sizes in both shapes, "
            f"got {list(outer)} and {list(own)}"
        )
    return replace(spec, shape=own)


def _size(shape: Shape) -> int:
    size = 1
    for dim in shape:
        size *= dim if dim != -1 else 1
    return size


def _fixed(shape: Shape) -> list[int]:
    """The numbers of values between the open sizes: a reshape must not move values across an open size."""
    sizes = [1]
    for dim in shape:
        if dim == -1:
            sizes.append(1)
        else:
            sizes[-1] *= dim
    return sizes


class _ReshapePlan:
    """The reshaped tensors of one signature: by name, the shape of requests and the model's own."""

    def __init__(self, given: DeclaredSignature) -> None:
        self.inputs = _pairs(given.inputs)
        self.outputs = _pairs(given.outputs)


def _pairs(tensors: Sequence[Tensor]) -> dict[str, tuple[Shape, Shape]]:
    return {t.name: (t.shape, t.reshape) for t in tensors if t.shape is not None and t.reshape is not None}


class _ReshapedModel:
    """A Model whose signatures and instances have the shapes of requests."""

    def __init__(self, model: Model, plans: Mapping[str, _ReshapePlan]) -> None:
        self._model = model
        self._plans = plans

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return tuple(self._outside(signature) for signature in self._model.signatures)

    @property
    def traits(self) -> Traits:
        return self._model.traits

    def instance(self, placement: Placement) -> Instance:
        return _ReshapedInstance(self._model.instance(placement), self._plans)

    def independence(self, signature: Signature) -> Independence | None:
        """See Analysable. A reshape keeps the batch axis where both shapes have it first."""
        analyse = getattr(self._model, "independence", None)
        if analyse is None:
            return NOT_ANALYSED
        inner = next(own for own in self._model.signatures if own.name == signature.name)
        outer = {spec.name: spec.shape for spec in (*signature.inputs, *signature.outputs)}
        for spec in (*inner.inputs, *inner.outputs):
            if (outer[spec.name] or ())[:1] != (spec.shape or ())[:1]:
                return Independence(False, reason=f"{spec.name!r} is reshaped without its batch axis", understood=False)
        finding: Independence | None = analyse(inner)
        if finding is not None and any(name in self._plans[signature.name].inputs for name in _named(finding)):
            return Independence(False, reason="sizes that must be equal are reshaped", understood=False)
        return finding

    def close(self) -> None:
        self._model.close()

    def _outside(self, signature: Signature) -> Signature:
        plan = self._plans.get(signature.name)
        if plan is None:
            return signature
        return replace(
            signature,
            inputs=tuple(_with(spec, plan.inputs) for spec in signature.inputs),
            outputs=tuple(_with(spec, plan.outputs) for spec in signature.outputs),
        )


def _named(finding: Independence) -> list[str]:
    """The inputs of which the proof takes dimensions as equal."""
    return [name for group in finding.equal for name, _ in group]


def _with(spec: TensorSpec, pairs: Mapping[str, tuple[Shape, Shape]]) -> TensorSpec:
    return replace(spec, shape=pairs[spec.name][0]) if spec.name in pairs else spec


class _ReshapedInstance:
    """An Instance that reshapes its inputs and outputs. Reshaping a contiguous array copies nothing."""

    def __init__(self, instance: Instance, plans: Mapping[str, _ReshapePlan]) -> None:
        self._instance = instance
        self._plans = plans

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        plan = self._plans.get(signature)
        if plan is None:
            return self._instance.run(signature, inputs, outputs)
        inner = {n: _change(n, a, *plan.inputs[n]) if n in plan.inputs else a for n, a in inputs.items()}
        made = self._instance.run(signature, inner, outputs)
        for name, (outer, own) in plan.outputs.items():
            if name in made:
                try:
                    made[name] = _change(name, made[name], own, outer)
                except InvalidInput as error:
                    raise BrokenContract(f"output {error}") from None
        return made

    def close(self) -> None:
        self._instance.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)


def _change(name: str, array: Array, now: Shape, then: Shape) -> Array:
    """The array, of shape `now`, in the shape `then`: open sizes are taken over in their order."""
    if len(array.shape) != len(now):
        raise InvalidInput(f"{name!r}: expected shape {list(now)}, got {list(array.shape)}")
    sizes = iter([size for size, dim in zip(array.shape, now, strict=True) if dim == -1])
    try:
        return array.reshape([next(sizes) if dim == -1 else dim for dim in then])
    except ValueError:
        raise InvalidInput(f"{name!r}: expected shape {list(now)}, got {list(array.shape)}") from None
