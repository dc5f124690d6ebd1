"""Bounds what gRPC's core holds of messages that have not arrived completely.

The core tells nobody how much of a message has come. The kernel counts what each connection has received; of that,
what was handed over in complete messages is known. The rest is held, as far as calls of the connection wait for a
message. It counts towards `inflight.bytes`. Where it does not fit, the clients that have sent most and not finished
lose their place. Calls are measured only if so many have waited for a while that the largest messages would not fit.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from inferd.server.inference.failures import Failure, not_completed
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.connections import peer_of, sockets
from inferd.server.transport.looking_thread import LookingThread

_log = logging.getLogger("inferd.rpc")
_LOOK: Final = 0.05  # seconds between two looks of a thread that nobody asks
_MOMENT: Final = 0.02  # seconds after which a message that is on its way has come
_MOST: Final = 0.75  # the share of what is free at which clients lose their place: more comes until the next look
_QUIET: Final = 10.0  # seconds between two log lines
# Offset of tcpi_bytes_received in linux/tcp.h, struct tcp_info.
_TCP_INFO_RECEIVED: Final = 128
# A complete message comes with frames and headers: this share of its size, and so many bytes.
_FRAMES: Final = 1.1
_HEADERS: Final = 512


class ReceivingCall(Protocol):
    """The part of a call that is used here. Thread-safe."""

    @property
    def receiving(self) -> bool:
        """Whether the call waits for a message of its client."""
        ...

    @property
    def peer(self) -> str: ...

    def drop(self, failure: Failure) -> None:
        """Ends the call without waiting for anything."""
        ...


@dataclass(slots=True)
class _Connection:
    """A connection with calls that wait for a message.

    received    what the kernel counted at the last look
    delivered   bytes of complete messages since then, with their frames
    partial     bytes of incomplete messages, estimated
    """

    received: int
    delivered: float = 0.0
    partial: float = 0.0


class PartialMessages:
    """Looks at the open calls at intervals, on its own thread.

    watching   whether `delivered` must be called for each complete message
    """

    def __init__(
        self, calls: Iterable[ReceivingCall], largest: int, inflight: InflightBounds, ended: threading.Event
    ) -> None:
        """
        calls     the transport's own set, which other threads change
        largest   bytes of the largest message
        ended     ends the thread
        """
        self._calls = calls
        self._largest = largest
        self._inflight = inflight
        self._thread = LookingThread("inferd-grpc-partial", self.look, ended, lambda: self._count(0))
        self._checked = False  # somebody calls `check`
        self._waited: set[ReceivingCall] = set()  # the calls that waited at the last look, too
        self._connections: dict[str, _Connection] = {}
        self._counted = 0
        self._dropped = 0
        self._logged_at = -_QUIET
        self.watching = False

    def start(self, *, asked: bool = False) -> None:
        """Starts the thread. `asked`: it looks when `check` has found a reason, else at intervals."""
        self._checked = asked
        self._thread.start(None if asked else _LOOK)

    def stop(self) -> None:
        """Ends the thread. To be called after `ended` is set."""
        self._thread.stop()

    def check(self, _now: float) -> float | None:
        """Lets the thread look if there may be a reason. To be called at intervals; for one thread. Returns the seconds
        until the next call is due, None for the usual ones."""
        if self.watching:
            self._thread.ask()
            return None
        waiting = {call for call in list(self._calls) if call.receiving}
        room = self._inflight.room
        if len(waiting) * self._largest <= room:
            self._waited = waiting
            return None
        # On a busy loop many messages are on their way: only calls that still wait a moment later may be half-sent.
        if len(waiting & self._waited) * self._largest > room:
            self._thread.ask()
        else:
            self._waited = waiting
        return _MOMENT

    def delivered(self, peer: str, nbytes: int) -> None:
        """A complete message was handed over. Thread-safe: an update that is lost does little harm."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.delivered += _FRAMES * nbytes + _HEADERS

    def look(self, now: float) -> None:
        """Counts what is held, and drops the calls for which there is no room."""
        waiting = [call for call in list(self._calls) if call.receiving]
        room = self._inflight.room + self._counted
        stuck = sum(call in self._waited for call in waiting) if self._checked else len(waiting)
        if stuck * self._largest <= room:
            if self.watching:
                self.watching = False
                self._connections = {}
                self._count(0)
            self._waited = set(waiting)
            return
        by_peer: dict[str, list[ReceivingCall]] = {}
        for call in waiting:
            by_peer.setdefault(call.peer, []).append(call)
        self._measure(by_peer)
        total = sum(connection.partial for connection in self._connections.values())
        over = total - _MOST * room
        if over > 0:
            slow = {peer: [call for call in calls if call in self._waited] for peer, calls in by_peer.items()}
            total -= self._make_room(slow, over + room / 4)
        self._waited = set(waiting)
        self._count(int(total))
        if self._dropped and now - self._logged_at >= _QUIET:
            _log.warning("%d calls were cut off because their messages did not arrive completely", self._dropped)
            self._dropped, self._logged_at = 0, now

    def _measure(self, by_peer: dict[str, list[ReceivingCall]]) -> None:
        before, self._connections = self._connections, {}
        for peer, received in _received(by_peer).items():
            most = len(by_peer[peer]) * self._largest
            known = before.get(peer)
            if known is None:
                # On a new connection all may belong to the messages that are incomplete.
                partial: float = min(received, most) if received <= 2 * most else 0.0
                self._connections[peer] = _Connection(received, partial=partial)
                continue
            grown = received - known.received - known.delivered
            known.partial = min(max(0.0, known.partial + grown), most)
            known.received, known.delivered = received, 0.0
            self._connections[peer] = known
        self.watching = True

    def _make_room(self, slow: dict[str, list[ReceivingCall]], over: float) -> float:
        """Drops calls until so many bytes are free. Returns how many are. `slow`: those that have waited for a look."""
        failure = not_completed()
        freed = 0.0
        for peer, connection in sorted(self._connections.items(), key=lambda item: -item[1].partial):
            if freed >= over or not connection.partial:
                break
            if not slow[peer]:
                continue
            each = connection.partial / len(slow[peer])
            for call in slow[peer]:
                call.drop(failure)
                freed += each
                connection.partial -= each
                self._dropped += 1
                if freed >= over:
                    break
        return freed

    def _count(self, nbytes: int) -> None:
        before, self._counted = self._counted, nbytes
        self._inflight.count(nbytes - before)


def _received(peers: Iterable[str]) -> dict[str, int]:
    """The bytes that the connections of these clients have received. Linux only, and not over unix sockets."""
    wanted = set(peers)
    found: dict[str, int] = {}
    if not wanted:
        return found
    for _, sock in sockets():
        try:
            peer = peer_of(sock)
            if peer in wanted:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RECEIVED + 8)
                found[peer] = int.from_bytes(info[_TCP_INFO_RECEIVED:], sys.byteorder)
        except OSError:
            continue  # not connected
    return found
