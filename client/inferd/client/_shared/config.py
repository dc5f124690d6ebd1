"""How a client connects and when it tries again. Frozen values, shared freely between clients and threads."""

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
# Loading reads files, warms the model up and waits for it: far longer than a prediction.
ADMIN_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request that failed is sent again.

    Only what cannot do harm is repeated: predictions (for a model that keeps state between requests only when the
    server said that it had not accepted them) and questions (metadata, status, health). load, unload, set_label and
    rollback never are. All attempts share the one timeout of the call; a pause that would outlast it is not begun.

    attempts     how often a request is sent at most; 1: never again
    backoff      seconds of the first pause; the real one is drawn at random from half of this to all of it
    multiplier   each further pause may be this many times longer
    max_backoff  upper bound of a pause in seconds
    codes        the status codes that are retried; loss of the connection is UNAVAILABLE
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
    """TLS to the server. A `str` or path names a PEM file, `bytes` are the PEM text itself.

    ca             the authorities trusted; None: those of gRPC's own bundle
    cert, key      this client's certificate and key, both or none (mutual TLS)
    override_name  the name that the server's certificate is checked against, where it differs from the address
    """

    ca: str | os.PathLike[str] | bytes | None = None
    cert: str | os.PathLike[str] | bytes | None = None
    key: str | os.PathLike[str] | bytes | None = None
    override_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("Tls: cert and key belong together; only one of them is given")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises InvalidInput that names an unreadable one."""
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
    """Pings that notice a peer which vanished without a word.

    The default stays above the five minutes that gRPC servers tolerate unless told otherwise; a server that sees pings
    more often than it allows closes the connection.

    time           seconds of silence before a ping
    timeout        seconds to wait for its answer before the connection counts as lost
    without_calls  ping also while no call is open
    """

    time: float = 330.0
    timeout: float = 20.0
    without_calls: bool = False
