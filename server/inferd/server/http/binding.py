"""Listening sockets for HOST:PORT, IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Final

from inferd.server.config.fields import split_host_port

_BACKLOG: Final = 128
# The errors for an address family (IPv6, say) that resolves, but that this machine does not have.
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})


def listen(address: str, *, shared: bool = False) -> list[socket.socket]:
    """Sockets that listen on HOST:PORT: one for each address of the host name (localhost may have two).

    [::] takes IPv4, too, and becomes 0.0.0.0 on a machine without IPv6. Port 0 picks one free port for all sockets.
    Processes can share a port only when all of them pass `shared`. Raises OSError that names the address, or
    ValueError when `address` is not HOST:PORT.
    """
    host, port = split_host_port(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"cannot listen on {address}: {getattr(error, 'strerror', None) or error}") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, name in dict.fromkeys(found):
        target = name if not sockets else (name[0], sockets[0].getsockname()[1], *name[2:])
        try:
            sockets.append(_bind(family, target, both=host == "::", shared=shared))
        except OSError as error:
            failure = error
            if error.errno not in _NO_FAMILY:
                break
    if sockets and (failure is None or failure.errno in _NO_FAMILY):
        return sockets
    for sock in sockets:
        sock.close()
    if host == "::" and failure is not None and failure.errno in _NO_FAMILY:
        return listen(f"0.0.0.0:{port}", shared=shared)
    reason = failure.strerror if failure is not None else "the host has no address"
    raise OSError(
        failure.errno if failure is not None else errno.EADDRNOTAVAIL, f"cannot listen on {address}: {reason}"
    )


def bound_address(sock: socket.socket) -> str:
    """HOST:PORT of a bound socket."""
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def watch_writes(transport: asyncio.WriteTransport) -> None:
    """Lowers the write buffer limit, so that the protocol's `pause_writing` is called whenever the kernel has not taken
    everything that was written."""
    # Behind TLS, a limit of 0 would pause a connection whose buffer is empty, and nothing would resume it.
    transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)


def _bind(family: int, address: Sequence[object], *, both: bool, shared: bool) -> socket.socket:
    # IPPROTO_TCP is named because asyncio sets TCP_NODELAY only then; without it, the second part of a response would
    # be delayed.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart then need not wait for old connections to time out. On Linux, SO_REUSEADDR does not allow two
        # listeners on one port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind(tuple(address))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
