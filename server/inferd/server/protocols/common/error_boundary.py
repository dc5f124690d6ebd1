"""What all services share: the wall that no exception passes, and parsing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.server.access.call_checks import CallChecks
from inferd.server.errors import InvalidRequest
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import Failure, failure_of
from inferd.server.inference.trace import trace_fields
from inferd.server.transport.calls import StreamCall, StreamHandler, UnaryCall, UnaryHandler

_M = TypeVar("_M", bound=Message)
_LONGEST = 1024  # characters of a name that is kept


class ErrorBoundary:
    """CallChecks and failure log of one server, and the wall around its handlers. Thread-safe."""

    def __init__(
        self, gate: CallChecks, failures: FailureLog, status: Callable[[BaseException, str], Failure] = failure_of
    ) -> None:
        """`status` is the protocol's table from errors to status and text."""
        self.gate = gate
        self.failures = failures
        self.status = status

    def unary(self, handler: UnaryHandler) -> UnaryHandler:
        """The handler behind the wall: whatever it raises becomes a status."""

        def walled(call: UnaryCall) -> None:
            try:
                handler(call)
            except Exception as error:
                self.fail(call, error)

        return walled

    def stream(self, handler: StreamHandler) -> StreamHandler:
        """The same for streams. Callbacks given to `read` are the handler's own to guard: see `guarded`."""

        def walled(call: StreamCall) -> None:
            try:
                handler(call)
            except Exception as error:
                self.fail(call, error)

        return walled

    def guarded(self, call: StreamCall, fn: Callable[[bytes | None], None]) -> Callable[[bytes | None], None]:
        """A read callback behind the wall."""

        def walled(message: bytes | None) -> None:
            try:
                fn(message)
            except Exception as error:
                self.fail(call, error)

        return walled

    def fail(
        self, call: UnaryCall | StreamCall, error: BaseException, *, request_id: str = "", model: str = ""
    ) -> None:
        """Fails a call with the status for `error`, and logs it."""
        request_id = request_id or self.gate.request_id(call, "")
        failure = self.status(error, request_id)
        left_out = self.failures.admit(call.method, failure.code)
        if left_out is not None:  # in a flood of refusals most lines are left out: then nobody asks who called
            self.failures.write_admitted(
                call.method,
                failure,
                left_out,
                model=model,
                request_id=request_id,
                peer=call.peer,
                error=error,
                trace=trace_fields(call),
            )
        call.fail(failure.code, failure.text, failure.trailing)

    def fail_together(
        self, calls: Sequence[UnaryCall], request_ids: Sequence[str], error: Exception, model: str
    ) -> None:
        """Fails calls of one method for one reason, and logs at most one line for all of them. `request_ids` are those
        that the status names, "" where it names none."""
        first, failures = calls[0], {id_: self.status(error, id_) for id_ in set(request_ids)}
        failure = failures[request_ids[0]]
        left_out = self.failures.admit(first.method, failure.code, len(calls))
        if left_out is not None:
            self.failures.write_admitted(
                first.method,
                failure,
                left_out,
                model=model,
                request_id=self.gate.request_id(first, request_ids[0]),
                peer=first.peer,
                error=error,
                trace=trace_fields(first),
            )
        for call, id_ in zip(calls, request_ids, strict=True):
            failure = failures[id_]
            call.fail(failure.code, failure.text, failure.trailing)


def checked_name(name: str) -> str:
    """A name that is kept as long as a stream. Raises InvalidRequest."""
    if len(name) > _LONGEST:
        raise InvalidRequest(f"expected a name of at most {_LONGEST} characters, got {len(name)}")
    return name


def parse(kind: type[_M], message: bytes) -> _M:
    """A protobuf message. Raises InvalidRequest."""
    parsed = kind()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected a {name}, got {len(message)} bytes that are not one") from None
    return parsed
