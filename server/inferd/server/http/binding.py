"""Listening sockets for HOST:PORT, IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Final

from inferd.server.config.fields import split_host_port

_BACKLOG: Final = 128
# A family that the machine knows by name and does not have.
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})


def listen(address: str, *, shared: bool = False) -> list[socket.socket]:
    """Sockets that listen at an address; several where the host's name has several (localhost).

    [::] takes IPv4 too, and is 0.0.0.0 on a machine without IPv6. Port 0 is one free port, the same for all sockets.
    The port is shared with other processes only where all of them say `shared`. Raises OSError that names the address,
    ValueError for no HOST:PORT.
    """
    host, port = split_host_port(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"cannot listen on {address}: {getattr(error, 'strerror', None) or error}") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, name in dict.fromkeys(found):
        place = name if not sockets else (name[0], sockets[0].getsockname()[1], *name[2:])
        try:
            sockets.append(_bind(family, place, both=host == "::", shared=shared))
        except OSError as error:
            failure = error
            if error.errno not in _NO_FAMILY:
                break
    if sockets and (failure is None or failure.errno in _NO_FAMILY):
        return sockets
    for each in sockets:
        each.close()
    if host == "::" and failure is not None and failure.errno in _NO_FAMILY:
        return listen(f"0.0.0.0:{port}", shared=shared)
    reason = failure.strerror if failure is not None else "the host has no address"
    raise OSError(
        failure.errno if failure is not None else errno.EADDRNOTAVAIL, f"cannot listen on {address}: {reason}"
    )


def shown(sock: socket.socket) -> str:
    """HOST:PORT of a bound socket."""
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def watch_writes(transport: asyncio.WriteTransport) -> None:
    """Makes a connection tell its protocol whenever not everything has been taken that was written."""
    # Behind TLS a limit of 0 pauses an empty connection, and nothing would let it go on.
    transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)


def _bind(family: int, place: Sequence[object], *, both: bool, shared: bool) -> socket.socket:
    # Of this protocol by name: asyncio then turns off the delay that would hold back the second part of an answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart need not wait for old connections to time out; on Linux this shares no port that is listened on.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind(tuple(place))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
