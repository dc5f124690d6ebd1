"""One inference on behalf of a call of TensorFlow Serving's API: started, answered or failed, cancelled with the
call."""

from __future__ import annotations

from collections.abc import Callable

from inferd.server.core.inference import Answer, Inference, Query
from inferd.server.core.needs import ManagerLike
from inferd.server.core.tfs.words import named, unknown
from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.rpc.edge import Edge
from inferd.server.rpc.transport import UnaryCall
from inferd.wire.tensors import WireError

PROTOCOL = "tfs"
PRIORITY = "inferd-priority"
_MAXPRIORITY = 2**32 - 1


class Calls:
    """Runs queries for calls. Thread-safe."""

    def __init__(self, inference: Inference, manager: ManagerLike, edge: Edge) -> None:
        self._inference = inference
        self._manager = manager
        self._edge = edge

    def refuse(self, call: UnaryCall, error: WireError | ServingError, seconds: float) -> None:
        """Fails a call that never became a query."""
        self._inference.refused(PROTOCOL, self._edge.status(error, "").code.name, seconds)
        self._edge.fail(call, error)

    def run(self, call: UnaryCall, query: Query, reply: Callable[[Answer], bytes]) -> None:
        """Answers the call with `reply` of what the query gives."""
        self.start(call, query, lambda answer: call.reply(reply(answer)))

    def start(self, call: UnaryCall, query: Query, done: Callable[[Answer], None]) -> None:
        """Starts the query; `done` gets its answer. Whatever fails, `done` included, fails the call."""

        def outcome_is(outcome: Answer | ServingError) -> None:
            try:
                if isinstance(outcome, Answer):
                    done(outcome)
                    return
                error: Exception = outcome
            except Exception as failed:
                error = failed
            self._edge.fail(call, error, model=query.model)

        try:
            cancel = self._inference.start(query, outcome_is, call)
        except Exception as refused:
            error = unknown(refused, self._manager, query.model, query.version, query.label, query.signature)
            self._edge.fail(call, error, model=query.model)
            return
        call.on_cancel(cancel)


def checked_name(name: str, call: UnaryCall) -> tuple[str, int]:
    """The model's name and the request's priority, which TensorFlow Serving's messages have no field for: metadata
    `inferd-priority`. Raises InvalidRequest."""
    text = call.metadata(PRIORITY)
    if text is None:
        return named(name), 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAXPRIORITY):
        raise InvalidRequest(f"metadata {PRIORITY}: expected a whole number from 0 to {_MAXPRIORITY}, got {text!r:.50}")
    return named(name), int(text)
