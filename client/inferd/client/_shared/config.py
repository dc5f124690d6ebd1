"""The settings of a client: how it connects, and when it repeats a request. Immutable, so clients and threads can share
them."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from inferd.client._shared.errors import InvalidInput

DEFAULT_ADDRESS = "localhost:8001"
DEFAULT_PORT = 8001
DEFAULT_TIMEOUT = 30.0
# To load a model, the server reads its files and warms it up, which takes far longer than a prediction.
ADMIN_TIMEOUT = 300.0  # seconds, as is DEFAULT_TIMEOUT


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed request is sent again. Immutable, thread-safe.

    Only requests that can do no harm twice are repeated: predictions and questions (metadata, status, health). A
    prediction of a model that keeps state between requests is repeated only if the server said that it had not accepted
    the request. load, unload, set_label and rollback are never repeated. All attempts share the timeout of the call; if
    a pause would not leave enough time for another attempt, the call fails at once.

    attempts     how often a request is sent at most; 1: it is never repeated
    backoff      seconds of the first pause; the actual pause is random, between half of this and all of it
    multiplier   factor by which each further pause may be longer than the one before
    max_backoff  upper bound of a pause in seconds
    codes        the status codes that are retried; a lost connection is UNAVAILABLE

    Raises InvalidInput for values out of range.
    """

    attempts: int = 3
    backoff: float = 0.1
    multiplier: float = 2.0
    max_backoff: float = 2.0
    codes: Collection[grpc.StatusCode] = field(default=frozenset({grpc.StatusCode.UNAVAILABLE}))

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidInput(f"RetryPolicy.attempts is {self.attempts}; expected 1 or more")
        if self.backoff < 0 or self.max_backoff < 0 or self.multiplier < 1:
            raise InvalidInput("RetryPolicy: backoff and max_backoff are 0 or more, multiplier is 1 or more")


NO_RETRIES = RetryPolicy(attempts=1)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings. A `str` or path names a PEM file; `bytes` are the PEM text itself. The files are read when a client
    is made. Immutable, thread-safe.

    ca             the trusted certificate authorities; None: those that come with gRPC
    cert, key      this client's certificate and private key, both or neither (mutual TLS)
    override_name  the name that the server's certificate must have, if it differs from the address

    Raises InvalidInput if only one of `cert` and `key` is given.
    """

    ca: str | os.PathLike[str] | bytes | None = None
    cert: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = None
    override_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("Tls: cert and key belong together; only one of them is given")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises InvalidInput; the message names the file that cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_pem("ca", self.ca),
            private_key=_pem("key", self.key),
            certificate_chain=_pem("cert", self.cert),
        )


def _pem(what: str, source: str | os.PathLike[str] | bytes | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InvalidInput(f"Tls.{what}: cannot read {os.fspath(source)!r}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """HTTP/2 pings that detect a peer which vanished without closing the connection. Immutable, thread-safe.

    A server closes the connection if pings come more often than it allows. gRPC servers allow one in five minutes
    unless they are configured otherwise; the default here is slightly longer.

    time           seconds without traffic before a ping
    timeout        seconds to wait for the answer to a ping before the connection counts as lost
    without_calls  send pings also while no call is open
    """

    time: float = 330.0
    timeout: float = 20.0
    without_calls: bool = False
