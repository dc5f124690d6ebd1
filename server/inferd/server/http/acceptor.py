"""Accepts connections on listening sockets, also when the process has no descriptors left.

asyncio's own accept loop (Python 3.11) writes a traceback for each of up to 2,048 attempts a second when descriptors
run out. This one keeps a spare descriptor: it accepts the waiting connection with it and closes it at once, so that the
client is told and does not wait, and logs one line now and then. TLS handshakes are bounded in number and time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from inferd.server.observability.events import event, get

_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_AT_ONCE: Final = 64  # connections accepted before other work of the event loop gets its turn
_PAUSE: Final = 0.5  # seconds without accepting when even the spare descriptor does not help
_QUIET: Final = 10.0  # seconds between two log lines


class Acceptor:
    """Accepts on some sockets from its creation until `close`, which closes them. On the event loop only.

    uvicorn treats it like an `asyncio.Server`.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        context: ssl.SSLContext | None,
        handshake: float,
        handshakes: int,
    ) -> None:
        """
        protocol     makes the protocol of a new connection
        context      for TLS; None: plain text
        handshake    seconds that a TLS handshake may take
        handshakes   TLS handshakes at the same time; beyond them the oldest is given up
        """
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._protocol = protocol
        self._context = context
        self._handshake = handshake
        self._handshakes = handshakes
        self._starting: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._spare = _spare()
        self._turned_away = 0
        self._logged_at = -_QUIET
        for sock in self._sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Accepts no more. Connections that are open go on."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        for task in list(self._starting):
            task.cancel()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def wait_closed(self) -> None:
        """Returns at once: connections are waited for elsewhere."""

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NONE_LEFT:
                    self._turn_away(listener, error)
                return
            self._start(sock)

    def _start(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        task = self._loop.create_task(self._connect(sock))
        self._starting[task] = None
        task.add_done_callback(self._started)
        if self._context is not None and len(self._starting) > self._handshakes:
            next(iter(self._starting)).cancel()

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.pop(task, None)

    async def _connect(self, sock: socket.socket) -> None:
        more: dict[str, Any] = {}
        if self._context is not None:
            more = {"ssl": self._context, "ssl_handshake_timeout": self._handshake}
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock, **more)
        except (OSError, asyncio.CancelledError):
            sock.close()  # the client is gone, was too slow, or does not speak TLS

    def _turn_away(self, listener: socket.socket, error: OSError) -> None:
        """There are no descriptors: closes the connections that wait."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            try:
                for _ in range(_AT_ONCE):
                    listener.accept()[0].close()
                    self._turned_away += 1
            except OSError:
                pass
            self._spare = _spare()
        if self._spare is None:
            self._loop.remove_reader(listener)
            self._loop.call_later(_PAUSE, self._resume, listener)
        now = self._loop.time()
        if now - self._logged_at >= _QUIET:
            reason, count = error.strerror or str(error), self._turned_away
            event(get("http"), logging.ERROR, "connections are turned away", reason=reason, connections=count)
            self._logged_at, self._turned_away = now, 0

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            if self._spare is None:
                self._spare = _spare()
            self._loop.add_reader(listener, self._accept, listener)


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
