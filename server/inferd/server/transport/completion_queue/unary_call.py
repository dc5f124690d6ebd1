"""Unary calls on the completion queue: implements `transport.calls.UnaryCall`, and the table of unary methods.

The two batches of a unary call have the call itself as their tag, which avoids a bound method for each of them.
"""

from __future__ import annotations

from typing import Any

from grpc._cython import cygrpc

from inferd.server.errors import Code
from inferd.server.inference.failures import ANSWERS_HELD, header_text
from inferd.server.transport.calls import CallsHandler, Metadata, MethodTable
from inferd.server.transport.completion_queue.call import NO_FLAGS, OK, CallOwner, CompletionQueueCall
from inferd.server.transport.write_timeout import COPIES, COUNTED


class Service:
    """A unary method and its handler.

    handle     handles calls whose request messages have arrived
    gathered   calls wait for the end of the turn in `arrived`, a list that all methods with this handler share
    exempt     served even when the bounds are reached, and while the server drains
    """

    __slots__ = ("arrived", "exempt", "gathered", "handle", "method")

    def __init__(
        self,
        method: str,
        handle: CallsHandler,
        arrived: list[CompletionQueueUnaryCall],
        *,
        gathered: bool,
        exempt: bool,
    ) -> None:
        self.arrived = arrived
        self.method = method
        self.handle = handle
        self.gathered = gathered
        self.exempt = exempt


def services(table: MethodTable) -> dict[bytes, Service]:
    """The unary methods of a table, by path in bytes, as the core reports it."""
    arrived: dict[CallsHandler, list[CompletionQueueUnaryCall]] = {}
    return {
        method.encode(): Service(
            method,
            handler,
            arrived.setdefault(handler, []),
            gathered=method in table.gathered,
            exempt=method in table.exempt,
        )
        for method, handler in table.unary.items()
    }


class CompletionQueueUnaryCall(CompletionQueueCall):
    """One unary call. Its tag arrives at the loop twice, when the message is received and when the answer is sent;
    `waits` tells the two events apart.

    A call that is answered soon receives its close in the same batch as it sends its answer, which saves a batch and an
    event. A call that waits long for its answer is watched (`cancel_watch`).

    deadline    monotonic seconds at which the client stops waiting; None: never
    service     the method and its handler
    request     the message, b"" until it arrives
    waits       the message has not arrived
    """

    __slots__ = ("deadline", "request", "service", "waits")

    def __init__(self, owner: CallOwner, event: Any, service: Service, deadline: float | None) -> None:
        # Repeats CompletionQueueCall.__init__, because a call of it costs time on every request. Starts to receive.
        self._owner = owner
        self.event = event
        self._call = call = event.call
        self._unanswered = self._unwatched = self.waits = True
        self._cancel_fns = []
        self.method = service.method
        self.cancelled = False
        self.entered = False
        self.held = 0
        self.deadline = deadline
        self.service = service
        self.request = b""
        call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self)

    def reply(self, message: bytes) -> None:
        """See UnaryCall."""
        try:  # repeats `_claim`, because a call of it costs time on every request
            del self._unanswered
        except AttributeError:
            return
        if self._cancel_fns:
            self._cancel_fns.clear()
        if len(message) > COUNTED and not self._owner.hold_answer(self, COPIES * len(message)):
            self._send_status(ANSWERS_HELD.code, ANSWERS_HELD.text, ANSWERS_HELD.trailing)
            return
        operations: tuple[Any, ...]
        try:
            del self._unwatched
        except AttributeError:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), OK, b"", NO_FLAGS),
            )
        else:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),
                cygrpc.SendMessageOperation(message, NO_FLAGS),
                cygrpc.SendStatusFromServerOperation((), OK, b"", NO_FLAGS),
                cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
            )
        self._call.start_server_batch(operations, self)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        """See UnaryCall."""
        if self._claim():
            self._cancel_fns.clear()
            self._send_status(code, text, trailing)

    def _send_status(self, code: Code, text: str, trailing: Metadata) -> None:
        try:
            del self._unwatched
            close = True
        except AttributeError:  # the call is watched, so the close is received by another batch
            close = False
        # While the message is outstanding, the call itself is the tag of the batch that receives it.
        tag = self._sent if self.waits else self
        self._owner.statuses.give(self._call, tag, code.value, header_text(text).encode(), tuple(trailing), close=close)

    def _sent(self, _event: Any) -> None:
        self._owner.ended(self)

    @property
    def receiving(self) -> bool:
        """Whether the message has not arrived and the call is not answered."""
        return self.waits and not self.answered

    @property
    def unwritten(self) -> int:
        """See CompletionQueueCall."""
        return self._owner.more_bytes(self)

    @property
    def writing(self) -> int | None:
        """See CompletionQueueCall. An answer is written as a whole."""
        return 0 if self.answered and not self.cancelled else None

    @property
    def answered(self) -> bool:
        """Whether the call is answered, or needs no answer because it was cancelled."""
        return not hasattr(self, "_unanswered")

    def _abandon(self) -> None:
        if self._claim():
            self._owner.ended(self)
