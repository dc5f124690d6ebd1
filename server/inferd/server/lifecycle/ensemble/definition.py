"""Ensembles, models made of other models: what their settings must say, and what keeps one from being served.

An ensemble is served only while every model in it is served and fits. `obstacle` says what is in the way at one moment;
the reconciler asks it whenever one of these models changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inferd.backends.api import LoadError, Signature, TensorSpec
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.declared import declared_signatures
from inferd.server.lifecycle.published_state import ServingMap
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.request_check import describe
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import State
from inferd.server.scheduling.ensemble.scheduler import EnsembleScheduler
from inferd.server.scheduling.ensemble.step_graph import GraphStep, StepGraph, StepGraphError, build_step_graph

BACKEND = "ensemble"
_SEE_CHECK = ": `inferd check` says where"

Found = Mapping[tuple[str, int | None], Signature]
"""The default signature of the servable on which a step runs, by the step's model and version (None: the default
one)."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an ensemble cannot be served now. `passing`: it waits for a model that is about to be served."""

    reason: str
    passing: bool = False


def step_graph_of(config: ModelConfig) -> tuple[Signature, StepGraph]:
    """An ensemble's signature and the graph of its steps, from its settings. Raises LoadError."""
    declared = declared_signatures(config)
    if len(declared) != 1:
        raise LoadError(f"an ensemble declares its inputs and outputs in one signature, got {len(declared)}")
    signature = declared[0]
    stages = [
        GraphStep(
            step.model,
            step.version,
            tuple(step.inputs.items()),
            tuple(step.outputs.items()),
            f"step {number} (model {step.target})",
        )
        for number, step in enumerate(config.ensemble, 1)
    ]
    names = [[spec.name for spec in specs] for specs in (signature.inputs, signature.outputs)]
    try:
        return signature, build_step_graph(names[0], names[1], stages)
    except StepGraphError as error:
        raise LoadError(str(error)) from None


def misfit(signature: Signature, wiring: StepGraph, found: Found, *, named: bool = True) -> str:
    """Where the signatures of the steps' models and of the ensemble do not fit together, in words; "" where they do.
    `named`: the words may tell of the steps' models."""
    specs = {spec.name: spec for spec in signature.inputs}
    for stage in wiring.stages:
        model = found[stage.model, stage.version]
        problem = _inputs(stage, model, specs) or _outputs(stage, model, specs)
        if problem:
            return f"{stage.subject}: {problem}" if named else f"{stage.place} does not fit its model{_SEE_CHECK}"
    for spec in signature.outputs:
        made = specs[spec.name]
        if not _agree(made, spec):
            if not named:
                return f"output {spec.name!r} is not what its step gives{_SEE_CHECK}"
            return (
                f"output {spec.name!r} is declared as {describe(spec)}, "
                f"{wiring.stages[wiring.producers[spec.name]].subject} gives {describe(made)}"
            )
    return ""


def _inputs(stage: GraphStep, model: Signature, specs: Mapping[str, TensorSpec]) -> str:
    known = {spec.name: spec for spec in model.inputs}
    fed = dict(stage.inputs)
    for name, tensor in stage.inputs:
        if name not in known:
            return f"the model has no input {name!r}; it has {_listed(known)}"
        if not _agree(specs[tensor], known[name]):
            return f"input {name!r} takes {describe(known[name])}, {tensor!r} is {describe(specs[tensor])}"
        if specs[tensor].optional and not known[name].optional:
            return f"input {name!r} is required, {tensor!r} may be left out"
    lacking = [spec.name for spec in model.inputs if not spec.optional and spec.name not in fed]
    return f"nothing is given to the model's input {_listed(lacking)}" if lacking else ""


def _outputs(stage: GraphStep, model: Signature, specs: dict[str, TensorSpec]) -> str:
    known = {spec.name: spec for spec in model.outputs}
    for name, tensor in stage.outputs:
        if name not in known:
            return f"the model has no output {name!r}; it has {_listed(known)}"
        specs[tensor] = TensorSpec(tensor, known[name].dtype, known[name].shape)
    return ""


def _agree(one: TensorSpec, other: TensorSpec) -> bool:
    if one.dtype is not other.dtype:
        return False
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a == b or -1 in (a, b) for a, b in zip(one.shape, other.shape, strict=True)
    )


def obstacle(
    model: ModelState,
    served: Servable | None,
    models: Mapping[str, ModelState],
    serving: ServingMap,
    *,
    named: bool = True,
) -> Obstacle | None:
    """What keeps an ensemble from being served, None for nothing. The manager's thread only.

    `served`: the ensemble as it is loaded, whose steps may differ from those in its settings now; None: not loaded.
    `named`: the reason may name and describe the steps' models: everybody who sees the ensemble may know of them.
    """
    assert model.config is not None
    if served is not None and isinstance(served.scheduler, EnsembleScheduler):
        signature, wiring = served.scheduler.signature, served.scheduler.wiring
    else:
        try:
            signature, wiring = step_graph_of(model.config)
        except LoadError as error:
            return Obstacle(str(error))
    circle = _circle(model.name, models)
    if circle:
        held = f": {' → '.join(circle)}" if named else _SEE_CHECK
        return Obstacle(f"ensembles hold each other in a circle{held}")
    found: dict[tuple[str, int | None], Signature] = {}
    passing: Obstacle | None = None
    for stage in wiring.stages:
        entry = serving.get(stage.model)
        servable = None
        if entry is not None:
            servable = entry.default if stage.version is None else entry.versions.get(stage.version)
        if servable is not None:
            found[stage.model, stage.version] = servable.signatures[servable.default_signature]
            continue
        missing = _missing(stage, models.get(stage.model))
        if not named:
            missing = Obstacle(f"{stage.place} is not available", passing=missing.passing)
        if not missing.passing:
            return missing
        passing = passing or missing
    if passing is not None:
        return passing
    problem = misfit(signature, wiring, found, named=named)
    return Obstacle(problem) if problem else None


def _missing(stage: GraphStep, model: ModelState | None) -> Obstacle:
    if model is None or (model.disk is None and not model.versions):
        return Obstacle(f"{stage.subject}: there is no such model in the repository")
    versions = [
        version for number, version in model.versions.items() if stage.version is None or number == stage.version
    ]
    if not versions:
        return Obstacle(f"{stage.subject}: it has no such version; there is {_numbers(model.versions)}")
    if any(version.state is State.LOADING for version in versions):
        return Obstacle(f"{stage.subject} is loading", passing=True)
    waiting = [v for v in versions if v.state in (None, State.START) and not v.error and not v.failure]
    if any(v.state is State.START or (v.disk is not None and v.disk.held) for v in waiting):
        return Obstacle(f"{stage.subject} is not loaded yet", passing=True)
    errors = [model.disk.problem if model.disk is not None else "", *(v.error for v in versions)]
    reason = next((error for error in errors if error), "")
    return Obstacle(f"{stage.subject} is not available{f': {reason}' if reason else ''}")


def _circle(name: str, models: Mapping[str, ModelState]) -> list[str]:
    """The path from an ensemble through others back to itself, empty when there is none."""
    seen: set[str] = set()

    def walk(path: list[str]) -> list[str]:
        for below in composing(models.get(path[-1])):
            if below == name:
                return [*path, name]
            if below not in seen:
                seen.add(below)
                way = walk([*path, below])
                if way:
                    return way
        return []

    return walk([name])


def composing(model: ModelState | None) -> tuple[str, ...]:
    """The models that an ensemble is made of, none for any other model."""
    return models_of(model.config) if model is not None and model.config is not None else ()


def held_by(model: ModelState) -> frozenset[str]:
    """The models that an ensemble is made of, as it is loaded and as its settings say now."""
    loaded = {step.model for served in model.available().values() for step in served.ensemble}
    return frozenset(loaded.union(composing(model)))


def models_of(config: ModelConfig) -> tuple[str, ...]:
    """The models of an ensemble's steps, each once."""
    return tuple(dict.fromkeys(step.model for step in config.ensemble))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers, reverse=True))) or "none"
