"""grpc.health.v1 by hand: its two messages have one field each, and their package is not in the base install."""

from __future__ import annotations

import grpc

from inferd.client._shared.errors import DeadlineExceeded, InvalidResponse

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"

SERVING = 1
# Between two looks where the server offers no watch, and before a broken watch is begun again.
PAUSE = 0.05


def health_request(service: str) -> bytes:
    """HealthCheckRequest { string service = 1 }. "" asks for the server as a whole, a model's name for that model."""
    name = service.encode()
    size = bytearray()
    rest = len(name)
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    size.append(rest)
    return b"\x0a" + bytes(size) + name if name else b""


def is_serving(message: bytes) -> bool:
    """HealthCheckResponse { ServingStatus status = 1 }; SERVING is 1. Raises InvalidResponse for any other form."""
    if message == b"":
        return False
    if len(message) != 2 or message[0] != 0x08:
        raise InvalidResponse("the answer to the health check cannot be read")
    return message[1] == SERVING


def not_ready(service: str, last: str) -> DeadlineExceeded:
    what = f"model {service!r}" if service else "the server"
    return DeadlineExceeded(
        grpc.StatusCode.DEADLINE_EXCEEDED, f"{what} was not ready in time: {last}", model=service, accepted=False
    )
