"""What is known of a request before its data is looked at.

RequestForm       what requests say that differ only in data, id, deadline, priority, timeouts, caller and trace
RequestTemplate   a form, and the rest that one kind of message says beside its data and id
Plan              what one servable has found out about one form
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import Signature
from inferd.server.lifecycle.interfaces import ModelMetricsLike
from inferd.server.scheduling.request import Route

KEPT_PLANS = 256  # of one servable


@dataclass(frozen=True, slots=True, eq=False)
class RequestForm:
    """One object stands for one form: codecs make equal forms once.

    method           full path of the method, which says how answers are encoded
    model            name of the model
    version, label   at most one; neither: the newest
    signature        "": the default one
    wanted           outputs asked for, None: all
    tensors          name, shape and element type of each input, in order
    options          what the codec needs for the answer
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
    """What all messages of one kind ask.

    priority        0: the model's default
    queue_timeout   seconds that the request may wait, None: until its deadline
    """

    form: RequestForm
    priority: int = 0
    queue_timeout: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The signature check is passed. Kept with the servable, and gone with it: so are the metrics of a version that is
    forgotten.

    names   of the outputs, in the order in which they are answered
    route   the queue and the bucket; None: the values of the inputs decide about it
    """

    signature: Signature
    names: Sequence[str]
    metrics: ModelMetricsLike
    route: Route | None
