"""The ports of the workers: the supervisor checks that they are free and then holds them until it ends.

A held port is bound but not listened on, so it accepts no connections. With SO_REUSEPORT, workers of the same user
listen on the same port; other users' processes cannot. The port stays reserved while a worker is replaced.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence

from inferd.server.config.fields import split_host_port
from inferd.server.config.schema import ServerConfig
from inferd.server.observability.events import event, get

_NO_FAMILY = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})
_TRIES = 20  # to find a port that is free at every address of a host name


class HeldPorts:
    """The addresses on which the workers listen; a port 0 is replaced by the port that was chosen. Release the ports
    with `close`."""

    def __init__(
        self, grpc: Sequence[str], http: Sequence[str], metrics: Sequence[str], held: Sequence[socket.socket]
    ) -> None:
        self.grpc = tuple(grpc)
        self.http = tuple(http)
        self.metrics = tuple(metrics)
        self._held = tuple(held)

    @classmethod
    def of(cls, config: ServerConfig) -> HeldPorts:
        """Holds all ports of the configuration. Raises OSError, which names the address that cannot be held. If the
        second of the two default gRPC addresses is taken, it is left out, with a warning."""
        configured = "listen" in config.server.model_fields_set
        held: list[socket.socket] = []
        grpc: list[str] = []
        try:
            for number, text in enumerate(config.server.listen):
                try:
                    grpc.append(_hold(text, held))
                except OSError as error:
                    if configured or number == 0:
                        raise
                    reason = f"{error.strerror or error}; this default address is left out"
                    event(get("group"), logging.WARNING, reason)
            http = [_hold(text, held) for text in config.server.http]
            metrics = [_hold(text, held) for text in config.server.metrics]
        except BaseException:
            for sock in held:
                sock.close()
            raise
        return cls(grpc, http, metrics, held)

    def apply(self, config: ServerConfig) -> ServerConfig:
        """The configuration with these addresses, as if the user had set them."""
        addresses = {"listen": self.grpc, "http": self.http, "metrics": self.metrics}
        server = config.server.model_copy(update=addresses)
        return config.model_copy(update={"server": server})

    def close(self) -> None:
        """Releases the ports."""
        for sock in self._held:
            sock.close()


def _hold(text: str, held: list[socket.socket]) -> str:
    """Checks that an address is free and adds its sockets to `held`. Returns the address with the chosen port."""
    if text.startswith("unix:"):
        raise OSError(
            errno.EINVAL,
            f"cannot listen on {text}: expected HOST:PORT while server.workers is above 1; a unix socket has one owner",
        )
    host, port = split_host_port(text)
    for _ in range(_TRIES):
        try:
            found, chosen = _bind_all(text, host, port)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue  # the chosen port is taken at another address of the host name
            raise
        held += found
        return f"{text.rpartition(':')[0]}:{chosen}"
    raise OSError(errno.EADDRINUSE, f"cannot listen on {text}: no port is free at every address of {host}")


def _bind_all(text: str, host: str, port: int) -> tuple[list[socket.socket], int]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"cannot listen on {text}: {getattr(error, 'strerror', None) or error}") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, _, _, _, name in dict.fromkeys(found):
            try:
                sock = _bind(family, str(name[0]), port, both=host == "::")
            except OSError as error:
                failure = error
                if error.errno not in _NO_FAMILY:
                    raise
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]
        if not sockets:
            if host == "::":  # the machine has no IPv6
                sockets.append(_bind(socket.AF_INET, "0.0.0.0", port, both=False))
                port = sockets[0].getsockname()[1]
            else:
                raise failure or OSError(errno.EADDRNOTAVAIL, "the host has no address")
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise OSError(error.errno, f"cannot listen on {text}: {(error.strerror or str(error)).lower()}") from None
    return sockets, port


def _bind(family: int, host: str, port: int, *, both: bool) -> socket.socket:
    # First without SO_REUSEPORT: the kernel then refuses a port that another process listens on or holds.
    with _socket(family, both) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # allows connections in TIME_WAIT
        probe.bind((host, port))
        port = probe.getsockname()[1]
    for allow_time_wait in (False, True):
        sock = _socket(family, both)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # SO_REUSEADDR would also let a second supervisor hold the port, so it is set only in the second try.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(allow_time_wait))
            sock.bind((host, port))
        except BaseException as error:
            sock.close()
            if allow_time_wait or not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                raise
        else:
            return sock
    raise AssertionError("the last try returns or raises")


def _socket(family: int, both: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
    return sock
