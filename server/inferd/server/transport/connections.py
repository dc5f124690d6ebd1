"""The open connections of this process by the address of their client, which gRPC does not give."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator


def sockets() -> Iterator[tuple[int, socket.socket]]:
    """Every socket of this process: its descriptor, and a copy that is closed when the next one is asked for. Linux
    only."""
    for name in os.listdir("/proc/self/fd"):
        try:
            # A copy, because another thread may close the descriptor, and the kernel reuse it, at any time.
            copy = os.dup(int(name))
        except OSError:
            continue  # another thread has closed it
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue  # not a socket
        with sock:
            yield int(name), sock


def close_connections(peer: str) -> None:
    """Shuts down the connections of one client, by its address in gRPC's form ("ipv4:127.0.0.1:5000"). Does nothing
    where there are none. Thread-safe."""
    for _, sock in sockets():
        with contextlib.suppress(OSError):
            if peer_of(sock) == peer:
                sock.shutdown(socket.SHUT_RDWR)


def peer_of(sock: socket.socket) -> str:
    """The address of a connection's client in gRPC's form; "" for other sockets. Raises OSError."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    host, port = sock.getpeername()[:2]
    # gRPC gives the address of an IPv4 client on a socket for both families as IPv4.
    plain = host.removeprefix("::ffff:") if "." in host else host
    return f"ipv6:[{plain}]:{port}" if ":" in plain else f"ipv4:{plain}:{port}"
