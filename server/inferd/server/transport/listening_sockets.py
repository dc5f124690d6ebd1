"""The listening sockets of a worker's ports: closed before the server stops, which gRPC itself cannot do.

gRPC's own shutdown closes them too, and in the same breath refuses every call on the connections that are open. A
worker that leaves others behind lets its connections go first.

Each worker has a listening socket of its own on the shared port, and the kernel deals new connections among them. What
it dealt to one that is closed before it was accepted is reset: the client, which was told that it is connected, fails
its calls. So a leaver first turns away those who begin to connect, then waits for those who had begun, then closes.
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

_SO_ATTACH_FILTER = 26  # linux/socket.h; Python has no name for it
# linux/filter.h, struct sock_filter (code, jump if true, jump if false, operand), run on each segment that comes for
# the listening socket, from its TCP header on. Byte 13 has the flags, of which 2 is SYN: the first of a handshake.
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
_HANDSHAKE = 0.25  # seconds: a round trip to a client far away
_ACCEPTED = 5.0  # seconds at most for the acceptance of those who have connected, which takes an idle server none
_LOOK = 0.01
_TCP_INFO_WAITING = 24  # offset of tcpi_unacked in linux/tcp.h, struct tcp_info: of a listener, those not yet accepted


class Listeners:
    """The sockets of this process that belong to these addresses (HOST:PORT). Thread-safe."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._ports = frozenset(int(address.rpartition(":")[2]) for address in addresses)

    def turn_away(self, hurry: threading.Event) -> None:
        """Lets no handshake begin from now on and returns when those that had begun are accepted, or when `hurry` is
        set; what is open goes on. Who begins to connect meanwhile hears nothing and tries again after a second, as TCP
        does: by then the port should be closed, and another's. Without effect where the kernel (or a sandbox that
        stands for one) has no socket filters."""
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        filtering = struct.pack("HP", len(_NO_SYN) // _INSTRUCTION, ctypes.addressof(program))
        for _, sock in self._listening():
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
            except OSError:
                return
        hurry.wait(_HANDSHAKE)
        until = time.monotonic() + _ACCEPTED
        while self.waiting() and time.monotonic() < until and not hurry.wait(_LOOK):
            pass

    def waiting(self) -> int:
        """Connections that clients have made and that have not been accepted."""
        return sum(_waiting(sock) for _, sock in self._listening())

    def close(self) -> None:
        """Takes no new connections from now on; those that are open go on."""
        for descriptor, sock in self._listening():
            # Its owner will close the number later: until then it stands for a socket on which nothing happens.
            with socket.socket(sock.family, socket.SOCK_STREAM) as idle:
                os.dup2(idle.fileno(), descriptor, inheritable=False)

    def connections(self) -> int:
        """Connections that clients have open."""
        return sum(not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for _, sock in self._found())

    def _listening(self) -> Iterator[tuple[int, socket.socket]]:
        return (found for found in self._found() if found[1].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

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


def _waiting(sock: socket.socket) -> int:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_WAITING + 4)
    except OSError:
        return 0
    return int.from_bytes(info[_TCP_INFO_WAITING:], sys.byteorder)
