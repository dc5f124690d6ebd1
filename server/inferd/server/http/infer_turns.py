"""The inference requests that one turn of the HTTP event loop has brought: they pass through the pipeline together,
and their answers come back together.

A turn ends when the events that were ready have been handled. The request of the only open connection does not wait for
that.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from inferd.server.access.caller import Caller
from inferd.server.access.rules import ANYBODY
from inferd.server.http.error_boundary import coding_of
from inferd.server.http.exchange import GRACE, BodyBounds
from inferd.server.http.http_call import HttpCall, RespondsTo
from inferd.server.http.infer_routes import InferRoutes
from inferd.server.http.known_heads import KnownHead, KnownHeads
from inferd.server.http.method_call import MethodFailed
from inferd.server.http.reply import Reply, UnwrittenReply
from inferd.server.inference.service import InferenceService
from inferd.server.scheduling.inline import InlineLoop

_TURN_AFTER: Final = 64  # requests with which a turn ends although more events are ready
_PATIENCE: Final = 0.05  # seconds for the rest of a body, before its connection waits for it with all its bounds


@dataclass(frozen=True, slots=True)
class Inference:
    """What infers for an HTTP port. `inline`: runs short batches on the port's event loop."""

    routes: InferRoutes
    service: InferenceService
    bounds: BodyBounds
    inline: InlineLoop


class Waits(Protocol):
    """A connection that waits for the rest of a body."""

    def wait_no_more(self) -> None:
        """The rest has not come: the connection's parser takes what has."""
        ...


class InferTurns:
    """Used on the event loop that makes it; only `settle` is thread-safe."""

    def __init__(self, inference: Inference) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._service = inference.service
        self._bounds = inference.bounds
        self._inline = inference.inline
        self._turning = False  # `_turn` runs
        self._due = False  # it is about to
        self._inline.enter(self._soon)
        self.heads: Final = KnownHeads(inference.routes, inference.bounds.max_body)
        self._arrived: list[HttpCall] = []
        self._open: dict[HttpCall, None] = {}  # the oldest first
        self._expiry: asyncio.TimerHandle | None = None
        self._settled: deque[tuple[HttpCall, Any]] = deque()  # by other threads
        self._woken = False
        self._early: dict[Waits, float] = {}  # when they began to wait, the earliest first
        self._patience: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()

    # -- requests ------------------------------------------------------------------------------------------------------

    def call(self, connection: RespondsTo, head: KnownHead, body: bytes) -> HttpCall:
        """The call of a request that has come whole; `join` follows."""
        call = HttpCall(self, connection, head, body, self._bounds.timeout)
        self._open[call] = None
        if self._expiry is None:
            self._expiry = self._loop.call_at(call.started + self._bounds.timeout + GRACE, self._expire)
        return call

    def join(self, call: HttpCall, *, alone: bool) -> None:
        """Makes a call part of the turn. Its connection gets the response. `alone`: no other connection is open, so
        nothing is waited for."""
        arrived = self._arrived
        arrived.append(call)
        if (alone or len(arrived) >= _TURN_AFTER) and not self._turning:
            self._turn()
        else:
            self._soon()

    def wait_for_rest(self, connection: Waits) -> None:
        """Tells the connection when it has waited long enough for the rest of a body."""
        self._early[connection] = now = self._loop.time()
        if self._patience is None:
            self._patience = self._loop.call_at(now + _PATIENCE, self._lose_patience)

    def waits_no_more(self, connection: Waits) -> None:
        """The rest has come, or the connection is lost."""
        self._early.pop(connection, None)

    def gone(self, call: HttpCall) -> None:
        """The client has disconnected, or has waited too long: the call gets no outcome, and its work is cancelled."""
        if not call.ended:
            self._end(call)
            call.cancel()

    def cut_off(self) -> None:
        """Ends the requests that were not answered before the server stops. No batch runs on this loop any more."""
        self._inline.leave()
        self._inline.turn()
        for call in list(self._open):
            self._respond(call, call.target.endpoint.boundary.cut_off())
            call.cancel()

    def _soon(self) -> None:
        if not self._due and not self._turning:
            self._due = True
            self._loop.call_soon(self._due_turn)

    def _due_turn(self) -> None:
        self._due = False
        if self._arrived or self._inline.asked:
            self._turn()

    def _turn(self) -> None:
        """Passes the arrived calls to the pipeline, and runs the batches that may run on this loop."""
        inline = self._inline
        inline.only = len(self._open) <= 1 and self._bounds.inflight.calls <= 1
        self._turning = True
        try:
            self._pass_on()
            if inline.asked:
                inline.turn()
        finally:
            inline.only = self._turning = False
            if self._arrived or inline.asked:  # a client had its next request ready behind the one that was answered
                self._soon()

    def _pass_on(self) -> None:
        arrived, self._arrived = self._arrived, []
        calls: list[HttpCall] = []
        caller: Caller | None = None
        for call in arrived:
            if call.ended:
                continue
            try:
                who = self._enter(call)
            except Exception as error:
                self._fail(call, error, counted=False)
                continue
            if who is not caller and calls:
                self._service.handle(calls, calls[0].started, caller)
                calls = []
            caller = who
            calls.append(call)
        if calls:
            self._service.handle(calls, calls[0].started, caller)

    def _enter(self, call: HttpCall) -> Caller:
        """The caller of a call that counts from now on. Raises ServingError."""
        bounds, boundary, caller = self._bounds, call.target.endpoint.boundary, ANYBODY
        if not boundary.open:
            caller, call.lease = boundary.admit(call, call.method, call.target.model)
        bounds.enter()
        call.entered = True
        try:
            bounds.hold(len(call.request))
        except BaseException:
            call.entered = False
            bounds.leave(0)
            raise
        return caller

    def _lose_patience(self) -> None:
        self._patience = None
        now = self._loop.time()
        for connection, since in list(self._early.items()):
            if since + _PATIENCE > now:
                self._patience = self._loop.call_at(since + _PATIENCE, self._lose_patience)
                return
            del self._early[connection]
            connection.wait_no_more()

    def _expire(self) -> None:
        self._expiry = None
        while self._open:
            call = next(iter(self._open))
            expires = (call.deadline or 0.0) + GRACE
            if expires > self._loop.time():
                self._expiry = self._loop.call_at(expires, self._expire)
                return
            self.gone(call)
            boundary, error = call.target.endpoint.boundary, self._bounds.not_answered()
            call.connection.respond(boundary.failed(call, call.method, call.target.model, error, counted=True))

    # -- answers -------------------------------------------------------------------------------------------------------

    def settle(self, call: HttpCall, outcome: Any) -> None:
        """See Answers."""
        if threading.get_ident() == self._thread:
            self._finish(call, outcome)
            return
        self._settled.append((call, outcome))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._finish_settled)
            except RuntimeError:
                pass  # the event loop has ended with the port: nobody waits for the outcome

    def _finish_settled(self) -> None:
        self._woken = False  # before the outcomes are taken, so that a later one wakes the loop again
        settled = self._settled
        while settled:
            self._finish(*settled.popleft())

    def _finish(self, call: HttpCall, outcome: Any) -> None:
        if call.ended:
            return
        if type(outcome) is MethodFailed:
            self._respond(call, call.target.endpoint.boundary.method_failure(outcome))
        elif type(outcome) is UnwrittenReply or coding_of(outcome, call.headers):
            task = self._loop.create_task(self._write(call, outcome))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        else:
            self._respond(call, outcome)

    async def _write(self, call: HttpCall, reply: Reply | UnwrittenReply) -> None:
        try:
            written = await call.target.endpoint.boundary.written(reply, call.headers)
        except Exception as error:
            self._fail(call, error, counted=True)
        else:
            self._respond(call, written)

    def _fail(self, call: HttpCall, error: Exception, *, counted: bool) -> None:
        if not call.ended:
            boundary = call.target.endpoint.boundary
            self._respond(call, boundary.failed(call, call.method, call.target.model, error, counted=counted))

    def _respond(self, call: HttpCall, reply: Reply) -> None:
        if not call.ended:
            self._end(call)
            call.connection.respond(reply)

    def _end(self, call: HttpCall) -> None:
        call.ended = True
        self._open.pop(call, None)
        if call.entered:
            self._bounds.leave(len(call.request))
        if call.lease is not None:
            call.lease.release()
