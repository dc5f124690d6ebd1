"""What a failure looks like on the native API: the one table from errors to status, text and trailing metadata.

Codes of our own carry gRPC's numbers, so the table has few lines. Every failure says in `inferd-accepted` whether the
request may have reached the model (a stateful one is retried only on 0); what may be retried says when.
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
_MAX_TEXT = 1024  # the text travels in a header, and clients take 8 KiB of those
_MAX_ENCODED = 6144
_RETRIED = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Failure:
    """A status ready to be sent. `unexpected` asks for a traceback in the log; the client never sees one."""

    code: Code
    text: str
    trailing: Sequence[tuple[str, str]]
    unexpected: bool = False


def failure_of(error: BaseException, request_id: str = "") -> Failure:
    """The status for an exception."""
    if isinstance(error, ServingError):
        return _failure(error.code, error.message, accepted=error.accepted, retry_after=error.retry_after)
    if isinstance(error, WireError | InvalidInput):
        return _failure(Code.INVALID_ARGUMENT, str(error), accepted=False)
    if isinstance(error, BackendError):
        return _failure(Code.INTERNAL, str(error), accepted=True)
    named = f" (request id {request_id})" if request_id else ""
    return _failure(Code.INTERNAL, f"internal error{named}", accepted=True, unexpected=True)


def refusal(code: Code, text: str, retry_after: float | None = None) -> Failure:
    """A failure of a request that was not accepted."""
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
    """Text that fits into gRPC's status message: not too long, and encodable."""
    cut = text[: _MAX_TEXT + 1].encode(errors="replace").decode()
    if len(cut) > _MAX_TEXT:
        cut = f"{cut[: _MAX_TEXT - 1]}…"
    return cut if cut.isascii() else _fitting(cut)


def _fitting(text: str) -> str:
    # Every byte outside of ASCII takes three.
    room = _MAX_ENCODED
    for place, char in enumerate(text):
        room -= 1 if char.isascii() else 3 * len(char.encode())
        if room < 0:
            return f"{text[:place]}…"
    return text


def pushback(failure: Failure) -> float | None:
    """The seconds after which a refused request may come again, None where nothing is said."""
    return pushback_of(failure.trailing)


def pushback_of(trailing: Sequence[tuple[str, str]]) -> float | None:
    """The same of trailing metadata."""
    return next((int(value) / 1000 for key, value in trailing if key == PUSHBACK), None)


GONE = refusal(Code.UNAVAILABLE, "the server is shutting down")
"""For calls that come while the server drains."""
LATE = refusal(Code.DEADLINE_EXCEEDED, "the deadline passed before the call was read")
"""For calls that waited too long to be looked at."""
CUT = Failure(Code.UNAVAILABLE, "the server is shutting down and could not wait for this call", ((ACCEPTED, "1"),))
"""For calls that are still running when the drain's grace is over."""
NO_MESSAGE = refusal(Code.INVALID_ARGUMENT, "expected one message, got none")
"""For unary calls whose client sends nothing."""


def unknown_method(name: str) -> Failure:
    """For a call of a method that there is not."""
    return Failure(Code.UNIMPLEMENTED, header_text(f"there is no method {name}"), ())


def late(seconds: float) -> Failure:
    """For a call whose request has not come in this time."""
    text = f"the request did not come within {seconds:g} s (grpc.receive_timeout)"
    return refusal(Code.DEADLINE_EXCEEDED, text)
