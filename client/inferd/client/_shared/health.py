"""The messages of grpc.health.v1, encoded by hand.

Each of the two messages has one field, and the package with the generated classes is not in the base installation.
"""

from __future__ import annotations

import grpc

from inferd.client._shared.errors import DeadlineExceeded, InvalidResponse

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"

SERVING = 1
NO_ANSWER = "no answer yet"
# Seconds between two checks if the server offers no Watch, and before a broken watch is started again.
PAUSE = 0.05


def health_request(service: str) -> bytes:
    """An encoded HealthCheckRequest { string service = 1 }. `service` is a model's name, or "" for the whole server."""
    name = service.encode()
    size = bytearray()
    rest = len(name)
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    size.append(rest)
    return b"\x0a" + bytes(size) + name if name else b""


def is_serving(message: bytes) -> bool:
    """Whether an encoded HealthCheckResponse { ServingStatus status = 1 } says SERVING. Raises InvalidResponse if the
    message is anything else."""
    if message == b"":
        return False
    if len(message) != 2 or message[0] != 0x08:
        raise InvalidResponse("the answer to the health check cannot be read")
    return message[1] == SERVING


def not_ready(service: str, last: str) -> DeadlineExceeded:
    """The error of a wait that has timed out. `last` is the last reason why the service was not ready."""
    what = f"model {service!r}" if service else "the server"
    return DeadlineExceeded(
        grpc.StatusCode.DEADLINE_EXCEEDED, f"{what} was not ready in time: {last}", model=service, accepted=False
    )
