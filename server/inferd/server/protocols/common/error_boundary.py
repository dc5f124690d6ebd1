"""The error boundary of the gRPC handlers: every exception becomes a status. Also parses protobuf messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.server.access.rules import AccessRules
from inferd.server.errors import InvalidRequest
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import Failure, failure_of
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.trace import trace_fields
from inferd.server.transport.calls import StreamCall, StreamHandler, UnaryCall, UnaryHandler

_M = TypeVar("_M", bound=Message)
_MAX_NAME = 1024  # characters


class ErrorBoundary:
    """Wraps handlers, so that an exception fails the call with a status and is logged. Holds the access rules,
    the request ids and the failure log for them. Thread-safe."""

    def __init__(
        self,
        rules: AccessRules,
        ids: RequestIds,
        failures: FailureLog,
        status: Callable[[BaseException, str], Failure] = failure_of,
    ) -> None:
        """`status` gives the protocol's status and text for an exception and a request id."""
        self.rules = rules
        self.ids = ids
        self.failures = failures
        self.status = status

    def unary(self, handler: UnaryHandler) -> UnaryHandler:
        """A handler that fails the call with the status of what `handler` raises."""

        def handle(call: UnaryCall) -> None:
            try:
                handler(call)
            except Exception as error:
                self.fail(call, error)

        return handle

    def stream(self, handler: StreamHandler) -> StreamHandler:
        """As `unary`, for streams. The handler must wrap the callbacks that it gives to `read` itself, by `guarded`."""

        def handle(call: StreamCall) -> None:
            try:
                handler(call)
            except Exception as error:
                self.fail(call, error)

        return handle

    def guarded(self, call: StreamCall, fn: Callable[[bytes | None], None]) -> Callable[[bytes | None], None]:
        """A read callback that fails the stream with the status of what `fn` raises."""

        def read(message: bytes | None) -> None:
            try:
                fn(message)
            except Exception as error:
                self.fail(call, error)

        return read

    def fail(
        self, call: UnaryCall | StreamCall, error: BaseException, *, request_id: str = "", model: str = ""
    ) -> None:
        """Fails a call with the status for `error`, and logs it."""
        request_id = request_id or self.ids.request_id(call)
        failure = self.status(error, request_id)
        left_out = self.failures.admit(call.method, failure.code)
        if left_out is not None:  # None: the log drops this line, and the fields for it need not be gathered
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


def checked_name(name: str) -> str:
    """The name, if it is short enough to be kept for as long as a stream is open. Raises InvalidRequest."""
    if len(name) > _MAX_NAME:
        raise InvalidRequest(f"expected a name of at most {_MAX_NAME} characters, got {len(name)}")
    return name


def parse(kind: type[_M], message: bytes) -> _M:
    """Parses bytes as a protobuf message. Raises InvalidRequest."""
    parsed = kind()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected a {name}, got {len(message)} bytes that are not one") from None
    return parsed
