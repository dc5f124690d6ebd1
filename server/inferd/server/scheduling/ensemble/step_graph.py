"""How the steps of an ensemble hang together: which tensor comes from where, what a step waits for. Pure.

A StepGraph is checked when it is made: it has no circle, and every tensor that is used comes from somewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class StepGraphError(Exception):
    """The steps do not make an ensemble; the message is for operators."""


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step. `inputs` and `outputs` are pairs of the model's own name and the ensemble's tensor; `subject` names the
    step in messages."""

    model: str
    version: int | None
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    subject: str


@dataclass(frozen=True, slots=True)
class StepGraph:
    """Stages in an order in which they could run one after another.

    needs       by stage: how many tensors it waits for
    consumers   by tensor: the stages that read it, each once
    producers   by tensor that a stage makes: that stage
    unused      tensors that no stage reads and that are no output
    """

    stages: tuple[GraphStep, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    needs: tuple[int, ...]
    consumers: Mapping[str, tuple[int, ...]]
    producers: Mapping[str, int]
    unused: tuple[str, ...] = ()

    def only(self, wanted: Iterable[str]) -> frozenset[int]:
        """The stages without which these outputs cannot be made."""
        needed: set[int] = set()
        waiting = [self.producers[name] for name in wanted if name in self.producers]
        while waiting:
            stage = waiting.pop()
            if stage not in needed:
                needed.add(stage)
                waiting.extend(self.producers[t] for _, t in self.stages[stage].inputs if t in self.producers)
        return frozenset(needed)


def build_step_graph(inputs: Sequence[str], outputs: Sequence[str], stages: Sequence[GraphStep]) -> StepGraph:
    """Checks the steps of an ensemble that takes `inputs` and gives `outputs`. Raises StepGraphError."""
    if not inputs or not outputs:
        raise StepGraphError("an ensemble declares its inputs and outputs, and at least one of each")
    producers = _producers(inputs, stages)
    _everything_comes_from_somewhere(inputs, outputs, stages, producers)
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


def _everything_comes_from_somewhere(
    inputs: Sequence[str], outputs: Sequence[str], stages: Sequence[GraphStep], producers: Mapping[str, int]
) -> None:
    known = [*inputs, *producers]
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
    """Indices in an order in which every stage comes after those that it reads from, early ones first."""
    before = [{producers[t] for _, t in stage.inputs if t in producers} for stage in stages]
    order: list[int] = []
    while len(order) < len(stages):
        free = next((i for i in range(len(stages)) if i not in order and before[i] <= set(order)), None)
        if free is None:
            round_trip = _circle(before, set(range(len(stages))) - set(order))
            names = " → ".join(stages[index].subject for index in round_trip)
            raise StepGraphError(f"the steps wait for each other in a circle: {names}")
        order.append(free)
    return order


def _circle(before: Sequence[set[int]], left: set[int]) -> list[int]:
    walk = [min(left)]
    while True:
        earlier = min(before[walk[-1]] & left)
        if earlier in walk:
            return [*walk[walk.index(earlier) :], earlier][::-1]
        walk.append(earlier)


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {_listed(names) or 'none'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
