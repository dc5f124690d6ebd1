"""The graph of an ensemble's steps: the step that produces each tensor, and the tensors that each step needs. Pure.

`build_step_graph` checks the graph: it has no cycle, and every tensor that a step reads is an input or is produced.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class StepGraphError(Exception):
    """The steps do not form a valid ensemble. The message is for operators."""


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step of an ensemble.

    version           None: the model's default version
    inputs, outputs   pairs of the name in the model's signature and the name of the ensemble's tensor
    subject           names the step in messages
    """

    model: str
    version: int | None
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    subject: str

    @property
    def place(self) -> str:
        """Names the step without its model, for callers who may not know of the model."""
        return self.subject.partition(" (")[0]


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A checked graph. Immutable.

    stages      the steps in topological order; other fields refer to them by index
    needs       for each stage: the number of tensors that it reads
    consumers   by tensor name: the stages that read it, each once
    producers   by tensor name: the stage that produces it; inputs of the ensemble are not in it
    unused      tensors that no stage reads and that are no output of the ensemble
    """

    stages: tuple[GraphStep, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    needs: tuple[int, ...]
    consumers: Mapping[str, tuple[int, ...]]
    producers: Mapping[str, int]
    unused: tuple[str, ...] = ()

    def only(self, wanted: Iterable[str]) -> frozenset[int]:
        """The stages that are needed for these outputs."""
        needed: set[int] = set()
        waiting = [self.producers[name] for name in wanted if name in self.producers]
        while waiting:
            stage = waiting.pop()
            if stage not in needed:
                needed.add(stage)
                waiting.extend(self.producers[t] for _, t in self.stages[stage].inputs if t in self.producers)
        return frozenset(needed)


def build_step_graph(inputs: Sequence[str], outputs: Sequence[str], stages: Sequence[GraphStep]) -> StepGraph:
    """Makes the graph of an ensemble with these inputs, outputs and steps. Raises StepGraphError."""
    if not inputs or not outputs:
        raise StepGraphError("an ensemble declares its inputs and outputs, and at least one of each")
    producers = _producers(inputs, stages)
    _check_sources(inputs, outputs, stages, producers)
    order = _order(stages, producers)
    stages = [stages[index] for index in order]
    producers = _producers(inputs, stages)
    reads = [{tensor for _, tensor in stage.inputs} for stage in stages]
    names = [*inputs, *producers]
    consumers = {name: tuple(i for i, read in enumerate(reads) if name in read) for name in names}
    idle = [name for name in inputs if not consumers[name]]
    if idle:
        raise StepGraphError(f"no step uses the input {_listed(idle)}")
    return StepGraph(
        tuple(stages),
        tuple(inputs),
        tuple(outputs),
        tuple(len(read) for read in reads),
        consumers,
        producers,
        tuple(name for name in producers if not consumers[name] and name not in outputs),
    )


def _producers(inputs: Sequence[str], stages: Sequence[GraphStep]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, stage in enumerate(stages):
        for _, tensor in stage.outputs:
            if tensor in inputs:
                raise StepGraphError(f"{stage.subject} gives {tensor!r}, which is an input of the ensemble: rename one")
            if tensor in found:
                raise StepGraphError(f"{tensor!r} is given by {stages[found[tensor]].subject} and by {stage.subject}")
            found[tensor] = index
    return found


def _check_sources(
    inputs: Sequence[str], outputs: Sequence[str], stages: Sequence[GraphStep], producers: Mapping[str, int]
) -> None:
    known = dict.fromkeys((*inputs, *producers))
    for stage in stages:
        for name, tensor in stage.inputs:
            if tensor not in known:
                raise StepGraphError(
                    f"{stage.subject}: its input {name!r} gets {tensor!r}, which is no input of the ensemble and comes "
                    f"from no step{_near(tensor, known)}"
                )
    for name in outputs:
        if name not in producers:
            raise StepGraphError(f"no step gives the output {name!r}{_near(name, producers)}")


def _order(stages: Sequence[GraphStep], producers: Mapping[str, int]) -> list[int]:
    """Indices of the stages in topological order; stages that are free at the same time keep their order."""
    before = [{producers[t] for _, t in stage.inputs if t in producers} for stage in stages]
    order: list[int] = []
    done: set[int] = set()
    while len(order) < len(stages):
        free = next((i for i in range(len(stages)) if i not in done and before[i] <= done), None)
        if free is None:
            cycle = _cycle(before, set(range(len(stages))) - done)
            names = " → ".join(stages[index].subject for index in cycle)
            raise StepGraphError(f"the steps wait for each other in a circle: {names}")
        order.append(free)
        done.add(free)
    return order


def _cycle(before: Sequence[set[int]], remaining: set[int]) -> list[int]:
    walk = [min(remaining)]
    while True:
        earlier = min(before[walk[-1]] & remaining)
        if earlier in walk:
            return [*walk[walk.index(earlier) :], earlier][::-1]
        walk.append(earlier)


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {_listed(names) or 'none'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
