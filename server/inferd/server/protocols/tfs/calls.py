"""One inference on behalf of a call of TensorFlow Serving's API: started, answered or failed, cancelled with the
call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock

from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.inference.service import Answer, InferenceService, Query
from inferd.server.lifecycle.interfaces import HandleLike, ManagerLike, ServableLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.tfs.error_messages import acquire, named, unknown
from inferd.server.transport.calls import UnaryCall
from inferd.wire.tensors import WireError

PROTOCOL = "tfs"
PRIORITY = "inferd-priority"
_MAXPRIORITY = 2**32 - 1


class Calls:
    """Runs queries for calls. Thread-safe."""

    def __init__(self, inference: InferenceService, manager: ManagerLike, edge: ErrorBoundary) -> None:
        self._inference = inference
        self._manager = manager
        self._edge = edge

    def refuse(self, call: UnaryCall, error: WireError | ServingError, seconds: float) -> None:
        """Fails a call that never became a query."""
        self._inference.refused(PROTOCOL, self._edge.status(error, "").code.name, seconds)
        self._edge.fail(call, error)

    def run(self, call: UnaryCall, query: Query, reply: Callable[[Answer], bytes]) -> None:
        """Answers the call with `reply` of what the query gives. Whatever fails, `reply` included, fails the call."""
        self._start(self._inference, call, query, lambda answer: call.reply(reply(answer)))

    def start_together(self, call: UnaryCall, queries: Sequence[Query], done: Callable[[int, Answer], None]) -> None:
        """Starts queries for what the first one names; `done` gets each one's place and answer, and what it raises
        fails the call. One servable answers them all, whatever comes and goes meanwhile. Raises ServingError where
        there is none; then none is started."""
        first = queries[0]
        inference = self._inference.on(
            _Shared(acquire(self._manager, first.model, first.version, first.label), len(queries))
        )
        for place, query in enumerate(queries):
            self._start(inference, call, query, partial(done, place))

    def _start(
        self, inference: InferenceService, call: UnaryCall, query: Query, done: Callable[[Answer], None]
    ) -> None:
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
            cancel = inference.start(query, outcome_is, call)
        except Exception as refused:
            error = unknown(refused, self._manager, query.model, query.version, query.label, query.signature)
            self._edge.fail(call, error, model=query.model)
            return
        call.on_cancel(cancel)


class _Shared:
    """One handle for as many queries as are said, each of which takes it once and gives it back. Thread-safe."""

    def __init__(self, handle: HandleLike, queries: int) -> None:
        self._handle = handle
        self._left = queries
        self._lock = Lock()

    @property
    def servable(self) -> ServableLike:
        return self._handle.servable

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> HandleLike:
        """Itself."""
        return self

    def another(self) -> HandleLike:
        """Itself, for one query more."""
        with self._lock:
            self._left += 1
        return self

    def release(self) -> None:
        """The last one gives back the handle."""
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._handle.release()


def checked_name(name: str, call: UnaryCall) -> tuple[str, int]:
    """The model's name and the request's priority, which TensorFlow Serving's messages have no field for: metadata
    `inferd-priority`. Raises InvalidRequest."""
    text = call.metadata(PRIORITY)
    if text is None:
        return named(name), 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAXPRIORITY):
        raise InvalidRequest(f"metadata {PRIORITY}: expected a whole number from 0 to {_MAXPRIORITY}, got {text!r:.50}")
    return named(name), int(text)
