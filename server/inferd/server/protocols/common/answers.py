"""The answer to a request as values, for protocols that write it elsewhere than where the batch ends (REST)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.backends.api import Array
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.request import InferenceRequest


@dataclass(slots=True)
class Answer:
    """Outputs in the order asked for, else in that of the signature. `max_batch_size` is the servable's: 0 where
    nothing is known to be a batch axis. `class_labels`: names of classes by output."""

    id: ServableId
    signature: str
    outputs: dict[str, Array]
    max_batch_size: int = 0
    class_labels: Mapping[str, Sequence[str]] | None = None


def answer_of(group: RequestGroup, outputs: dict[str, Array]) -> Answer:
    """The answer to one request of a group."""
    assert group.handle is not None
    servable = group.handle.servable
    return Answer(servable.id, group.plan.signature.name, outputs, servable.max_batch_size, servable.class_labels)


def answers_of(group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]) -> list[Answer]:
    """The answers to requests that ran together; `outputs` hold their rows one after the other."""
    if len(requests) == 1:
        return [answer_of(group, outputs)]
    rows = group.route.rows
    return [
        answer_of(group, {name: output[number * rows : (number + 1) * rows] for name, output in outputs.items()})
        for number in range(len(requests))
    ]
