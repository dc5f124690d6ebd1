"""What the server knows about a request before it reads the tensors' data.

RequestForm       the fields that requests of one form share: all but data, id, deadline, priority, timeouts, caller,
                  trace
RequestTemplate   the fields that repeated messages share: a form, the priority and the queue timeout
Plan              the results of checking one form against one servable
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import Signature
from inferd.server.lifecycle.interfaces import ModelMetricsLike
from inferd.server.scheduling.request import Route

KEPT_PLANS = 256  # for each servable


@dataclass(frozen=True, slots=True, eq=False)
class RequestForm:
    """Compared by identity: a codec makes one object for all requests of a form.

    method           full path of the method; decides how answers are encoded
    model            name of the model
    version, label   at most one is set; neither: the newest version
    signature        "": the model's default signature
    wanted           names of the requested outputs; None: all
    tensors          name, shape and element type of each input, in order
    options          the codec's own data for encoding the answer
    """

    method: str
    model: str
    version: int | None = None
    label: str | None = None
    signature: str = ""
    wanted: tuple[str, ...] | None = None
    tensors: tuple[Any, ...] = ()
    options: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class RequestTemplate:
    """The fields that all messages with one MessageForm share. Compared by identity.

    priority        0: the model's default
    queue_timeout   seconds that the request may wait in the queue; None: until its deadline
    """

    form: RequestForm
    priority: int = 0
    queue_timeout: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A form that has passed the check against a servable's signature. The servable keeps its plans: when a version is
    forgotten, its plans and the metrics that they refer to are freed with it.

    names   names of the outputs in the order of the answer
    route   the queue and the bucket; None: they depend on the values of the inputs
    """

    signature: Signature
    names: Sequence[str]
    metrics: ModelMetricsLike
    route: Route | None
