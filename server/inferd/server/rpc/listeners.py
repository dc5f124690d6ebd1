"""The listening sockets of the gRPC port: closed before the server stops, which gRPC itself cannot do.

gRPC's own shutdown closes them too, and in the same breath refuses every call on the connections that are open. A
worker that leaves others behind lets its connections go first.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence


class Listeners:
    """The sockets of this process that belong to these addresses (HOST:PORT). Thread-safe."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._ports = frozenset(int(address.rpartition(":")[2]) for address in addresses)

    def close(self) -> None:
        """Takes no new connections from now on; those that are open go on."""
        for descriptor, sock in self._found():
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                # gRPC will close the number later: until then it stands for a socket on which nothing happens.
                with socket.socket(sock.family, socket.SOCK_STREAM) as idle:
                    os.dup2(idle.fileno(), descriptor, inheritable=False)

    def connections(self) -> int:
        """Connections that clients have open."""
        return sum(not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for _, sock in self._found())

    def _found(self) -> Iterator[tuple[int, socket.socket]]:
        for name in os.listdir("/proc/self/fd"):
            try:
                # A copy, since the number may be closed and given to another at any time.
                copy = os.dup(int(name))
            except OSError:
                continue  # closed meanwhile
            try:
                sock = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                continue  # no socket
            with sock:
                try:
                    here = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] in self._ports
                except OSError:
                    continue
                if here:
                    yield int(name), sock
