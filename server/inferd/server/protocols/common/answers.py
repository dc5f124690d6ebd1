"""The answer to a request as arrays, for protocols that encode it on another thread than the one that ends the
batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.backends.api import Array
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.request import InferenceRequest


@dataclass(slots=True)
class Answer:
    """The answer to one request.

    outputs          in the order in which the request names them, else in the order of the signature
    max_batch_size   of the servable; 0: the arrays have no known batch axis
    class_labels     names of classes, by output name
    """

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
    """The answers to requests that ran in one batch; `outputs` hold their rows one after the other."""
    if len(requests) == 1:
        return [answer_of(group, outputs)]
    rows = group.route.rows
    return [
        answer_of(group, {name: output[number * rows : (number + 1) * rows] for name, output in outputs.items()})
        for number in range(len(requests))
    ]
