"""The errors that this package raises on purpose. They can be pickled.

InferdError
├── ClientClosed            the client was used after close(), or in another process or event loop than its own
├── InvalidInput            the arguments cannot be sent; nothing has been sent                   (also ValueError)
├── InvalidResponse         the answer cannot be read
└── RequestError            the call failed, in the server or on the way to it; `.code` is the gRPC status
    ├── InvalidArgument     INVALID_ARGUMENT, OUT_OF_RANGE: says which tensor, what was expected and what was sent
    ├── NotFound            NOT_FOUND: no such model, version or label
    ├── FailedPrecondition  FAILED_PRECONDITION, ABORTED, ALREADY_EXISTS: waiting will not help
    ├── Unavailable         UNAVAILABLE: no connection, loading, unloading or draining; may be tried again
    ├── Overloaded          RESOURCE_EXHAUSTED: a queue or a limit is full (`.retry_after`)
    ├── MessageTooLarge     RESOURCE_EXHAUSTED: the request or the answer is larger than a setting allows
    ├── DeadlineExceeded    DEADLINE_EXCEEDED: the timeout, or the queue timeout, has passed       (also TimeoutError)
    ├── Cancelled           CANCELLED: the call was cancelled
    ├── Unauthenticated     UNAUTHENTICATED: credentials are missing or wrong
    ├── PermissionDenied    PERMISSION_DENIED: the caller may not do this
    ├── Unsupported         UNIMPLEMENTED: the server does not offer this
    └── ServerFailure       INTERNAL, UNKNOWN, DATA_LOSS: the model or the server failed
"""

from __future__ import annotations

import grpc


class InferdError(Exception):
    """The base class of all errors of this package."""


class ClientClosed(InferdError):
    """The client is closed, or belongs to another process or event loop."""


class InvalidInput(InferdError, ValueError):
    """The arguments cannot be sent. Nothing has been sent."""


class InvalidResponse(InferdError):
    """The answer cannot be read: the server does not speak inferd.v1, or is broken."""


class RequestError(InferdError):
    """The call failed, in the server or on the way to it.

    code         the gRPC status code
    message      the reason that the server, or gRPC, gives
    model        the model that was called, "" for calls that name none
    request_id   the id of the request, "" if it has none
    accepted     True: the request may have reached the model; False: it has certainly not; None: this is not known
    retry_after  seconds after which the server wants the next attempt; `inf`: it wants none; None: it did not say
    attempts     how often the request was sent
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        model: str = "",
        request_id: str = "",
        accepted: bool | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.model = model
        self.request_id = request_id
        self.accepted = accepted
        self.retry_after = retry_after
        self.attempts = attempts

    def __reduce__(self) -> tuple[type[RequestError], tuple[grpc.StatusCode, str], dict[str, object]]:
        """For `pickle`: errors are passed between the processes of a process pool."""
        return type(self), (self.code, self.message), dict(vars(self))

    def __str__(self) -> str:
        about = f"model {self.model!r}: " if self.model and self.model not in self.message else ""
        tries = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.code.name}: {about}{self.message}{tries}"


class InvalidArgument(RequestError):
    """The request is wrong; to send it again does not help."""


class NotFound(RequestError):
    """No such model, version or label."""


class FailedPrecondition(RequestError):
    """The state of the model does not allow the call, and waiting will not help."""


class Unavailable(RequestError):
    """The call is not possible now: there is no connection, the version is loading or unloading, or the server shuts
    down. It may be tried again."""


class Overloaded(RequestError):
    """The server is full and refused the request at once."""


class MessageTooLarge(RequestError):
    """The request or the answer is larger than a setting of the server or of this client allows; the message names the
    setting. To send it again does not help."""


class DeadlineExceeded(RequestError, TimeoutError):
    """The timeout, or the request's queue timeout, has passed."""


class Cancelled(RequestError):
    """The call was cancelled."""


class Unauthenticated(RequestError):
    """Credentials are missing or wrong."""


class PermissionDenied(RequestError):
    """The caller may not do this."""


class Unsupported(RequestError):
    """The server does not offer this."""


class ServerFailure(RequestError):
    """The model or the server failed."""


_BY_CODE: dict[grpc.StatusCode, type[RequestError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: FailedPrecondition,
    grpc.StatusCode.ALREADY_EXISTS: FailedPrecondition,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def error_class(code: grpc.StatusCode) -> type[RequestError]:
    """The class of error for a status code."""
    return _BY_CODE.get(code, ServerFailure)


def status_code(number: int) -> grpc.StatusCode:
    """The status code with this number; UNKNOWN for a number that gRPC does not define."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)
