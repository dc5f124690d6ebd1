"""The Transport on the completion queue: one thread polls the core and handles each event by its tag.

grpcio's own server is not used: unary calls and streams are batches of core operations, kept in one set of open calls
and ended in one way. A turn of the loop ends when no event is ready, or when enough calls have arrived: then the
arrived calls are passed to their handlers, and short batches run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc

from inferd.server.access.tls import TlsFiles, tls_files
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.failures import (
    CUT_OFF,
    DEADLINE_PASSED,
    NO_MESSAGE,
    SHUTTING_DOWN,
    Failure,
    refusal,
    unknown_method,
)
from inferd.server.inference.inflight import InflightBounds
from inferd.server.scheduling.inline import InlineLoop
from inferd.server.transport import listen
from inferd.server.transport.callbacks import fail_raised
from inferd.server.transport.calls import FLUSH, REFUSING, MethodTable
from inferd.server.transport.completion_queue.call import NO_DEADLINE, CompletionQueueCall
from inferd.server.transport.completion_queue.call_bytes import CallBytes
from inferd.server.transport.completion_queue.cancel_watch import CancelWatch
from inferd.server.transport.completion_queue.periodic_checks import PeriodicChecks
from inferd.server.transport.completion_queue.receive_timeout import ReceiveTimeout
from inferd.server.transport.completion_queue.statuses import Statuses
from inferd.server.transport.completion_queue.stream_call import CompletionQueueStreamCall
from inferd.server.transport.completion_queue.unary_call import CompletionQueueUnaryCall, services
from inferd.server.transport.compression import COMPRESSED, Inflater
from inferd.server.transport.partial_messages import PartialMessages
from inferd.server.transport.write_timeout import WriteTimeout

_log = logging.getLogger(__name__)
_ARMED = 128  # calls that the core may accept before the loop asks for more
_TURN_AFTER = 64  # weight of arrived calls at which a turn ends although more events are ready
_PIECE = 2**16  # bytes that add 1 to a call's weight: large messages run while they are in the processor's cache
_CHECK_AFTER = 64  # events after which the loop looks whether its periodic checks are due
_HEAVIEST = 8  # the largest weight of a call
_TIMEOUT = cygrpc.CompletionType.queue_timeout
_LAST_WAIT = 30.0  # seconds that a stop waits for the core after everything was cancelled
_NEW_CALL = object()
_SHUT_DOWN = object()


def _ignore(_event: Any) -> None:
    """The tag of a batch whose completion needs no handling."""


class CompletionQueueTransport:
    """A gRPC server. Started once and stopped once. Thread-safe.

    addresses   the default: those of `config`
    on_fatal    called when the loop has failed with an exception: every open call has been failed, and the process
                should end
    loop        runs short batches at the end of a turn
    tls         the files of `server.tls`, reloaded when they change; None: they are read once
    """

    def __init__(
        self,
        table: MethodTable,
        config: ServerConfig,
        inflight: InflightBounds,
        addresses: Sequence[listen.Address] | None = None,
        on_fatal: Callable[[], None] = lambda: os._exit(70),
        loop: InlineLoop | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._unary = services(table)
        gathered = [service for service in self._unary.values() if service.gathered]
        # The lists of calls that wait for the end of the turn, with their handlers. `_arrived`: weight of all these
        # calls; `_arrived_at`: when the first of them arrived.
        self._gathered = [
            (handler, calls) for handler, calls in {id(s.arrived): (s.handle, s.arrived) for s in gathered}.values()
        ]
        self._arrived = 0
        self._arrived_at = 0.0
        self._stream = {method.encode(): (method, handler) for method, handler in table.stream.items()}
        self._refused = table.refused
        self._config = config
        self._tls = tls
        self._loop_count = inflight.loop_count
        self._cancel_watch = CancelWatch()
        self._addresses = listen.addresses(config.server) if addresses is None else tuple(addresses)
        self._on_fatal = on_fatal
        self._inline = loop or InlineLoop()
        self.statuses = Statuses()
        self._full = refusal(Code.RESOURCE_EXHAUSTED, inflight.full)
        self.inflight = inflight
        self.inflater = Inflater(config.grpc, inflight)
        self._calls: set[CompletionQueueCall] = set()
        self._more_bytes = CallBytes(inflight, self._calls)
        self._draining = False
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._shut = threading.Event()
        self._ended = threading.Event()
        self.partial = PartialMessages(self._calls, config.grpc.max_message, inflight, self._ended)
        self._unread = WriteTimeout(self._calls, config.grpc.write_timeout, inflight, self._ended)
        self._checks = PeriodicChecks((self.partial.check, self._unread.check))
        self._drained = True
        self._thread: threading.Thread | None = None
        self._armed = 0

    @property
    def open_calls(self) -> int:
        """Calls accepted and not yet answered, streams included."""
        return len(self._calls)

    def start(self) -> Sequence[str]:
        """See Transport."""
        if self._thread is not None:
            raise RuntimeError("a transport is started once")
        self._queue = cygrpc.CompletionQueue()
        shared = self._config.server.workers > 1
        self._server = cygrpc.Server(tuple(listen.options(self._config.grpc, shared=shared)), False)
        self._server.register_completion_queue(self._queue)
        tls = self._tls or tls_files(self._config.server.tls, listen.TLS)
        bound = listen.bind(self._addresses, tls, self._add, shared=shared)
        self._server.start()
        for _ in range(_ARMED):
            self._server.request_call(self._queue, self._queue, _NEW_CALL)
            self._armed += 1
        self._thread = threading.Thread(target=self._run, name="inferd-grpc", daemon=True)
        self._thread.start()
        ReceiveTimeout(self._calls, self._config.grpc.receive_timeout, self._ended).start()
        self.partial.start(asked=True)
        self._unread.start(asked=True)
        return bound

    def _add(self, target: str, credentials: grpc.ServerCredentials | None) -> int:
        args = (target.encode(),) if credentials is None else (target.encode(), credentials._credentials)
        return int(self._server.add_http2_port(*args))

    def stop(self, grace: float) -> bool:
        """See Transport."""
        if self._thread is None:
            return True
        with self._lock:
            first = not self._draining
            self._draining = True
        if first:
            until = time.monotonic() + grace
            for call in list(self._calls):
                if isinstance(call, CompletionQueueStreamCall):
                    call.drain()
            # The loop still accepts new calls, to refuse them with UNAVAILABLE.
            self._ended.wait(REFUSING)
            self._server.shutdown(self._queue, _SHUT_DOWN)
            self._shut.set()
            self._drained = self._wait_for_calls(until)
            if not self._drained:
                unfinished = list(self._calls)
                _log.warning("%d calls had not finished after %g s and are cut off", len(unfinished), grace)
                for call in unfinished:
                    call.cut(CUT_OFF)
            if not self._ended.wait(FLUSH):  # answers that are not written by now are cancelled
                with self._lock:
                    if not self._ended.is_set():
                        self._server.cancel_all_calls()
        self.inflater.stop()
        if not self._ended.wait(grace + _LAST_WAIT):
            _log.error("the core did not let go of its last calls within %g s and is left behind", grace + _LAST_WAIT)
            return False
        self._thread.join()
        return self._drained

    def _wait_for_calls(self, until: float) -> bool:
        """Whether every call is over by `until`, in monotonic seconds."""
        while self._calls and not self._ended.is_set():
            self._idle.clear()
            if self._calls and not self._idle.wait(max(0.0, until - time.monotonic())):
                return not self._calls
        return True

    # ---- the loop's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException:
            _log.critical("the gRPC loop failed; every open call is failed", exc_info=True)
            self.statuses.leave()
            for call in list(self._calls):
                call.fail(Code.INTERNAL, "the server failed and ends", (("inferd-accepted", "1"),))
            self._end()
            self._on_fatal()
        else:
            # The shutdown event may arrive before the core's shutdown call has returned, and destroying the server
            # during that call crashes.
            self._shut.wait()
            with self._lock:
                self._server.destroy()
                self._end()

    def _end(self) -> None:
        self._ended.set()
        self.partial.stop()
        self._unread.stop()

    def _loop(self) -> None:
        poll, inline, loop_count, shut_down = self._queue.poll, self._inline, self._loop_count, False
        statuses, checks, events = self.statuses, self._checks, 0
        kept = statuses.kept
        statuses.enter()
        inline.enter()
        while not (shut_down and not self._armed and not self._calls):
            # While calls wait for the end of the turn, the loop takes only events that are ready; else it sleeps.
            event = poll(0 if self._arrived or inline.asked or kept or inline.overlapped else self._wake_at())
            tag = event.tag
            if type(tag) is CompletionQueueUnaryCall:
                if tag.waits:
                    self._received(tag, event.batch_operations[0].message())
                else:
                    self.ended(tag)
            elif tag is _NEW_CALL:
                if event.success:
                    self._accept(event)
                else:
                    self._armed -= 1
            elif tag is _SHUT_DOWN:
                shut_down = True
            elif tag is not None:
                tag(event)
            elif event.completion_type == _TIMEOUT:
                self._turn()
                checks.run()
                if inline.overlapped and not inline.asked:
                    inline.wait()
            events += 1
            if events >= _CHECK_AFTER:
                events = 0
                checks.run()
            event = tag = None  # a reference to a finished call can make the core spin
            if inline.overlapped:
                inline.collect()
            waiting = self._arrived + inline.asked
            # A call that is alone in flight runs at once: that saves a poll.
            if waiting >= _TURN_AFTER or (waiting and loop_count.calls == 1):
                self._turn()
            elif kept and statuses.due():
                statuses.send()
        inline.leave()
        self._turn()
        statuses.leave()

    def _wake_at(self) -> float | None:
        """Epoch seconds until which the loop may sleep; None: without limit."""
        until = self._cancel_watch.until
        if not self._calls and not self.partial.watching:
            return until
        check = self._checks.until
        return check if until is None else min(until, check)

    def _turn(self) -> None:
        """Passes the arrived calls to their handlers, runs the batches that may run on the loop, watches calls that
        wait long, and sends the collected statuses."""
        inline = self._inline
        handled: list[CompletionQueueUnaryCall] = []
        if self._arrived:
            self._arrived = 0
            inline.in_flight = self._loop_count.calls
            inline.only = inline.in_flight == 1
            for handler, arrived in self._gathered:
                if arrived:
                    calls = arrived[:]
                    arrived.clear()
                    try:
                        handler(calls, self._arrived_at)
                    except Exception as error:
                        for call in calls:
                            fail_raised(call, error)
                    handled += calls
        if inline.asked:
            inline.turn()
        inline.only = False
        if handled:
            self._cancel_watch.add(handled)
        self._cancel_watch.look()
        if self.statuses.kept:
            self.statuses.send()

    def _accept(self, event: Any) -> None:
        """Accepts or refuses a new call, and lets the core accept one more."""
        try:
            self._server.request_call(self._queue, self._queue, _NEW_CALL)
        except ValueError:  # the server was shut down
            self._armed -= 1
        details = event.call_details
        method = details.method
        service = self._unary.get(method)
        if service is not None:
            if self._draining and not service.exempt:
                self._refuse(event, service.method, SHUTTING_DOWN)
                return
            deadline: float | None = None
            expires = details.deadline
            if expires < NO_DEADLINE:
                remaining = expires - time.time()
                if remaining <= 0:  # the client no longer waits, so the message is not read
                    self._refuse(event, service.method, DEADLINE_PASSED)
                    return
                deadline = time.monotonic() + remaining
            entered = self._loop_count.enter()
            if not entered and not service.exempt:
                self._refuse(event, service.method, self._full)
                return
            call = CompletionQueueUnaryCall(self, event, service, deadline)
            call.entered = entered
            self._calls.add(call)
            return
        stream = self._stream.get(method)
        if stream is None:
            name = method.decode("utf-8", "replace")
            self._refuse(event, name, unknown_method(name))
            return
        name, handler = stream
        if self._draining:
            self._refuse(event, name, SHUTTING_DOWN)
        elif not self.inflight.open_stream():
            self._refuse(event, name, self._full)
        else:
            opened = CompletionQueueStreamCall(self, event, name)
            opened.entered = True
            self._calls.add(opened)
            self._guarded(handler, opened)

    def _refuse(self, event: Any, method: str, failure: Failure) -> None:
        """Refuses a call without reading its message."""
        self._refused(method, failure.code)
        self.statuses.give(event.call, _ignore, failure.code.value, failure.text.encode(), failure.trailing, close=True)

    def _received(self, call: CompletionQueueUnaryCall, message: bytes | None) -> None:
        """Handles the message of a unary call. None: the client half-closed or cancelled without one."""
        call.waits = False
        if message is None:
            call.fail(NO_MESSAGE.code, NO_MESSAGE.text, NO_MESSAGE.trailing)
            return
        size = len(message)
        if self.partial.watching:
            self.partial.delivered(call.peer, size)
        if call.entered:
            if not self._loop_count.hold(size):
                failure = self._full
                self._refused(call.method, failure.code)
                call.fail(failure.code, failure.text, failure.trailing)
                return
            call.held = size
        if message.startswith(COMPRESSED):
            inflated = self.inflater.short(message)
            if inflated is None:
                call.watch()  # it may wait long, and is not inflated for a client that is gone
                self.inflater.inflate(message, call.held, lambda: not call.answered, partial(self._inflated, call))
                return
            if isinstance(inflated, Failure):
                self._inflated(call, inflated, 0)
                return
            message = inflated
        call.request = message
        service = call.service
        if service.gathered:
            if not self._arrived:
                self._arrived_at = time.monotonic()
            self._arrived += min(1 + size // _PIECE, _HEAVIEST)
            service.arrived.append(call)
            return
        try:
            service.handle((call,), time.monotonic())
        except Exception as error:
            fail_raised(call, error)
        self._cancel_watch.add((call,))

    def _inflated(self, call: CompletionQueueUnaryCall, outcome: bytes | Failure, counted: int) -> None:
        """Handles the message of a call that was inflated on the inflater's thread. Thread-safe."""
        if counted:
            self._more_bytes.take(call, counted)
        if isinstance(outcome, Failure):
            self._refused(call.method, outcome.code)
            call.fail(outcome.code, outcome.text, outcome.trailing)
            return
        if call.answered:
            return
        call.request = outcome
        try:
            call.service.handle((call,), time.monotonic())
        except Exception as error:
            fail_raised(call, error)

    def hold_answer(self, call: CompletionQueueCall, nbytes: int) -> bool:
        """See CallOwner."""
        more = self._more_bytes
        if not self.inflight.hold_answer(nbytes, call.held + more.of(call)):
            return False
        more.take(call, nbytes)
        return True

    def more_bytes(self, call: CompletionQueueCall) -> int:
        """See CallOwner."""
        return self._more_bytes.of(call)

    def _guarded(self, handler: Callable[[Any], None], call: CompletionQueueCall) -> None:
        try:
            handler(call)
        except Exception as error:
            fail_raised(call, error)

    def ended(self, call: CompletionQueueCall) -> None:
        """See CallOwner."""
        if call.entered:
            call.entered = False
            if type(call) is CompletionQueueUnaryCall:
                loop_count = self._loop_count
                loop_count.calls -= 1
                loop_count.nbytes -= call.held
            else:
                self.inflight.close_stream()
        self._calls.discard(call)
        if self._more_bytes.held:
            self._more_bytes.drop(call)
        if self._draining and not self._calls:
            self._idle.set()
