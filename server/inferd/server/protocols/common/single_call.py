"""The call of a hot method that is the only one in flight: read, run and answered in one go.

With nothing to share a turn with, a request pays for every function on its way with cold caches. So this is the whole
journey of `rpc.burst`, `core.burst` and `core.inference` in as few steps as there can be, for a request that repeats an
earlier one in all but its data and id, to a model on the loop. Everything else goes the usual way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from inferd.backends.api import BackendError
from inferd.server.errors import ServingError
from inferd.server.inference.request_groups import TargetCache
from inferd.server.inference.service import ordered
from inferd.server.lifecycle.interfaces import ServableLike
from inferd.server.protocols.common.codec import Codec
from inferd.server.transport.calls import UnaryCall
from inferd.wire.tensors import WireError

_log = logging.getLogger(__name__)
Serving = Callable[[str, int | None, str | None], ServableLike | None]
"""What serves this model, version or label just now, without holding on to it."""


class SingleCall:
    """Handles lone calls of one method. On the loop's thread only."""

    def __init__(self, speech: Codec, serving: Serving) -> None:
        self._match = speech.layouts.match
        self._speech = speech
        self._serving = serving
        self._targets = TargetCache(speech.target)

    def __call__(self, call: UnaryCall, arrived_at: float) -> bool:
        """Whether the call, which came at this monotonic time, has been answered."""
        try:
            message = call.request
            layout = self._match(message)
            if layout is None:
                return False
            form = layout.form
            target = self._targets[form]
            if target is None:
                return False
            speech = self._speech
            request_id = speech.request_id(call, layout, message)
            if request_id is None:  # before anybody looks whether there is such a model
                return False
            servable = self._serving(target.model, target.version, target.label)
            plan = None if servable is None else servable.plans.get(form)
            if servable is None or plan is None or plan.route is None or plan.route.run_one is None:
                return False
            ran = plan.route.run_one(plan.route, target.wanted, message, layout.aligned)
            if ran is None:
                return False
            outputs = ran.outputs
            if list(outputs) != plan.names:
                outputs = ordered(outputs, plan.names)
            call.reply(speech.encode_one(servable, plan.signature.name, outputs, request_id))
            began, ended = ran.started_at, ran.finished_at
            plan.metrics.requests(speech.protocol, 1, ended - arrived_at, began - arrived_at, ended - began)
            return True
        except (ServingError, BackendError, WireError):
            return False  # whose fault it is shows when it runs again
        except Exception:
            _log.exception("a call of %s could not be answered at once", call.method)
            return False
