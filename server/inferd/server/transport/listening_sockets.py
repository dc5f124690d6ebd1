"""Closes the listening sockets of one worker before its server stops, which gRPC itself cannot do.

gRPC's own shutdown closes its listening sockets and, at the same moment, refuses every call on the open connections. A
worker that stops while others go on must close the sockets first and keep serving its connections.

Each worker has its own listening socket on the shared port, and the kernel distributes new connections among them. A
connection that was assigned to a socket and not yet accepted is reset when that socket is closed: the client believes
that it is connected, and its calls fail. So a stopping worker first drops the first segment of new handshakes, then
waits until the handshakes that have begun are accepted, and then closes the sockets.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from inferd.server.transport.connections import sockets

_SO_ATTACH_FILTER = 26  # linux/socket.h; Python has no name for it
# linux/filter.h, struct sock_filter (code, jump if true, jump if false, operand). The filter runs on each segment for
# the listening socket and sees it from the TCP header on. Byte 13 holds the flags; 2 is SYN, the first of a handshake.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load byte 13
        (0x45, 0, 1, 0x02),  # jump if SYN is set: to the next, else over it
        (0x06, 0, 0, 0),  # drop the segment
        (0x06, 0, 0, 0xFFFFFFFF),  # keep the whole of it
    )
)
_INSTRUCTION = 8  # bytes
_HANDSHAKE = 0.25  # seconds: a round trip to a distant client
_ACCEPTED = 5.0  # seconds at most until the connections are accepted; an idle server accepts at once
_INTERVAL = 0.01  # seconds between looks
# Offset of tcpi_unacked in linux/tcp.h, struct tcp_info. For a listening socket: connections not yet accepted.
_TCP_INFO_WAITING = 24


class Listeners:
    """The sockets of this process on the ports of these addresses (HOST:PORT). Thread-safe. Linux only."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._ports = frozenset(int(address.rpartition(":")[2]) for address in addresses)

    def turn_away(self, hurry: threading.Event) -> None:
        """Drops new handshakes and returns when the handshakes that had begun are accepted, or when `hurry` is set.
        Open connections are not affected. A client that begins to connect meanwhile gets no answer, and TCP repeats
        its SYN after a second: by then this port should be closed, so that the kernel assigns the client to another
        worker. Has no effect where the kernel or a sandbox has no socket filters."""
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        filtering = struct.pack("HP", len(_NO_SYN) // _INSTRUCTION, ctypes.addressof(program))
        for _, sock in self._listening():
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
            except OSError:
                return
        hurry.wait(_HANDSHAKE)
        until = time.monotonic() + _ACCEPTED
        while self.waiting() and time.monotonic() < until and not hurry.wait(_INTERVAL):
            pass

    def waiting(self) -> int:
        """The number of connections that clients have made and this process has not accepted."""
        return sum(_waiting(sock) for _, sock in self._listening())

    def close(self) -> None:
        """Stops accepting connections. Open connections go on."""
        for descriptor, sock in self._listening():
            # gRPC owns the descriptor and will close it later: until then it refers to an unconnected socket.
            with socket.socket(sock.family, socket.SOCK_STREAM) as idle:
                os.dup2(idle.fileno(), descriptor, inheritable=False)

    def connections(self) -> int:
        """The number of open connections of clients."""
        return sum(not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for _, sock in self._found())

    def _listening(self) -> Iterator[tuple[int, socket.socket]]:
        return (found for found in self._found() if found[1].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def _found(self) -> Iterator[tuple[int, socket.socket]]:
        for descriptor, sock in sockets():
            try:
                matches = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] in self._ports
            except OSError:
                continue
            if matches:
                yield descriptor, sock


def _waiting(sock: socket.socket) -> int:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_WAITING + 4)
    except OSError:
        return 0
    return int.from_bytes(info[_TCP_INFO_WAITING:], sys.byteorder)
