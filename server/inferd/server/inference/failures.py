"""The table of the native API from errors to status, text and trailing metadata.

`errors.Code` has gRPC's numbers, so codes need no translation. Every failure says in the trailing metadata
`inferd-accepted` whether the request may have reached the model: a client repeats a request to a stateful model only
where it is 0. A failure that the client may retry says in `grpc-retry-pushback-ms` after how long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.backends.api import BackendError, InvalidInput
from inferd.server.errors import Code, ServingError
from inferd.wire.tensors import WireError

PUSHBACK = "grpc-retry-pushback-ms"
ACCEPTED = "inferd-accepted"
DEFAULT_PUSHBACK = 0.1  # seconds, for refusals that name none
_MAX_TEXT = 1024  # characters; the text travels in a header, and clients accept 8 KiB of headers
_MAX_ENCODED = 6144  # bytes, percent-encoded
_RETRIED = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Failure:
    """A status ready to be sent. `unexpected`: the log line gets a traceback. The client never sees it."""

    code: Code
    text: str
    trailing: Sequence[tuple[str, str]]
    unexpected: bool = False


def failure_of(error: BaseException, request_id: str = "") -> Failure:
    """The status for an exception. `request_id` appears in the text of unexpected errors only."""
    if isinstance(error, ServingError):
        return _failure(error.code, error.message, accepted=error.accepted, retry_after=error.retry_after)
    if isinstance(error, WireError | InvalidInput):
        return _failure(Code.INVALID_ARGUMENT, str(error), accepted=False)
    if isinstance(error, BackendError):
        return _failure(Code.INTERNAL, str(error), accepted=True)
    if isinstance(error, MemoryError):
        return refusal(Code.RESOURCE_EXHAUSTED, "the server has not enough memory for this request")
    named = f" (request id {request_id})" if request_id else ""
    return _failure(Code.INTERNAL, f"internal error{named}", accepted=True, unexpected=True)


def refusal(code: Code, text: str, retry_after: float | None = None) -> Failure:
    """The failure of a request that was not accepted. `retry_after`: seconds; None: the default of a code that clients
    retry, else nothing."""
    return _failure(code, text, accepted=False, retry_after=retry_after)


def _failure(
    code: Code, text: str, *, accepted: bool, retry_after: float | None = None, unexpected: bool = False
) -> Failure:
    trailing = [(ACCEPTED, "1" if accepted else "0")]
    if retry_after is None and code in _RETRIED and not accepted:
        retry_after = DEFAULT_PUSHBACK
    if retry_after is not None:
        trailing.append((PUSHBACK, str(max(0, round(retry_after * 1000)))))
    return Failure(code, header_text(text), tuple(trailing), unexpected)


def header_text(text: str) -> str:
    """The text, shortened to fit into gRPC's status message, with characters that UTF-8 cannot encode replaced."""
    cut = text[: _MAX_TEXT + 1].encode(errors="replace").decode()
    if len(cut) > _MAX_TEXT:
        cut = f"{cut[: _MAX_TEXT - 1]}…"
    return cut if cut.isascii() else _fitting(cut)


def _fitting(text: str) -> str:
    # gRPC percent-encodes the text: each byte outside ASCII becomes three.
    room = _MAX_ENCODED
    for position, char in enumerate(text):
        room -= 1 if char.isascii() else 3 * len(char.encode())
        if room < 0:
            return f"{text[:position]}…"
    return text


def pushback(failure: Failure) -> float | None:
    """The seconds after which the client may repeat a refused request; None: the failure names none."""
    return pushback_of(failure.trailing)


def pushback_of(trailing: Sequence[tuple[str, str]]) -> float | None:
    """As `pushback`, from trailing metadata."""
    return next((int(value) / 1000 for key, value in trailing if key == PUSHBACK), None)


SHUTTING_DOWN = refusal(Code.UNAVAILABLE, "the server is shutting down")
"""For calls that arrive while the server drains."""
DEADLINE_PASSED = refusal(Code.DEADLINE_EXCEEDED, "the deadline passed before the call was read")
"""For calls whose deadline has passed when the transport accepts them."""
CUT_OFF = Failure(Code.UNAVAILABLE, "the server is shutting down and could not wait for this call", ((ACCEPTED, "1"),))
"""For calls that are still running when the drain's grace is over."""
ANSWERS_HELD = Failure(
    Code.RESOURCE_EXHAUSTED,
    "the answer does not fit: other answers, which their clients have not read, fill inflight.bytes",
    ((ACCEPTED, "1"),),
)
"""For calls whose answer would exceed the bound on what is held."""
NO_MESSAGE = refusal(Code.INVALID_ARGUMENT, "expected one message, got none")
"""For unary calls whose client sends nothing."""


def unknown_method(name: str) -> Failure:
    """For a call of a method that does not exist."""
    return Failure(Code.UNIMPLEMENTED, header_text(f"there is no method {name}"), ())


def not_received(seconds: float) -> Failure:
    """For a call whose request message did not arrive within `grpc.receive_timeout`."""
    text = f"the request did not come within {seconds:g} s (grpc.receive_timeout)"
    return refusal(Code.DEADLINE_EXCEEDED, text)


def not_read(seconds: float) -> Failure:
    """For a call whose answer the client has not read within `grpc.write_timeout`, or not quickly enough while others
    need the room."""
    text = f"the answer was not read within {seconds:g} s (grpc.write_timeout; less while inflight.bytes is half used)"
    return Failure(Code.RESOURCE_EXHAUSTED, text, ((ACCEPTED, "1"),))


def not_completed() -> Failure:
    """For a call whose message had not arrived completely when its bytes were needed for others."""
    text = "the request did not arrive completely, and incomplete requests fill inflight.bytes"
    return refusal(Code.RESOURCE_EXHAUSTED, text)
