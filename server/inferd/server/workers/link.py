"""The link between the supervisor and one worker: a socket pair that nobody else can reach.

Messages are told (no answer) or asked (one answer). They are pickled: both ends are the same program of the same user,
one started by the other.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from inferd.server.observability.events import event, get

log = get("group")

Answer = Callable[[Any], None]
"""Answers a question, once: with a value, or with an exception that the asker's future then raises. Thread-safe."""

_SEND = 10.0  # seconds after which an end that takes nothing is given up

Receiver = Callable[[Any, Answer | None], None]
"""Takes what comes in, on the link's thread and in order. There is no answer to what was told."""


class LinkLost(Exception):
    """The other end is gone."""


class Link:
    """One end. Thread-safe. `lost` is called once, on the link's thread, when the other end has gone."""

    def __init__(self, end: socket.socket, received: Receiver, lost: Callable[[], None], *, name: str) -> None:
        # A process that was stopped in its tracks must not stop the others with it.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_SEND), 0))
        self._connection: Connection[Any, Any] = Connection(end.detach())
        self._received = received
        self._lost = lost
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Any]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to receive. Raises RuntimeError when the system gives no thread."""
        self._thread.start()

    def discard(self) -> None:
        """Gives the descriptor of a link back that could not be started."""
        self._connection.close()

    def tell(self, message: object) -> None:
        """Sends a message. One to an end that has gone is lost, and `lost` has told so or will."""
        self._send(("told", 0, message))

    def ask(self, message: object) -> Future[Any]:
        """Sends a question. The future raises what the other end answered with, or LinkLost."""
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._closed:
                future.set_exception(LinkLost("the other process is gone"))
                return future
            self._asked[number] = future
        self._send(("asked", number, message))
        return future

    def close(self) -> None:
        """Ends the link: the other end sees it as gone. Idempotent."""
        with self._sending:
            if not self._connection.closed:
                # The reading thread is woken, and closes.
                with socket.socket(fileno=self._connection.fileno()) as end:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    end.detach()

    def _send(self, frame: tuple[str, int, object]) -> None:
        data = pickle.dumps(frame, pickle.HIGHEST_PROTOCOL)
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError:  # gone, or it takes nothing: half a frame may be sent, so the link is of no more use
            self.close()

    def _run(self) -> None:
        try:
            while True:
                self._take(*pickle.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        except Exception as error:  # nothing that this program says: what comes next cannot be trusted either
            event(log, logging.ERROR, "a link is given up", error=error, link=self._thread.name)
        with self._lock:
            self._closed = True
            left, self._asked = list(self._asked.values()), {}
        with self._sending:
            self._connection.close()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(LinkLost("the other process is gone"))
        self._lost()

    def _take(self, kind: str, number: int, content: Any) -> None:
        if kind == "answer":
            with self._lock:
                future = self._asked.pop(number, None)
            if future is not None and future.set_running_or_notify_cancel():
                if isinstance(content, BaseException):
                    future.set_exception(content)
                else:
                    future.set_result(content)
            return
        answer = self._answer(number) if kind == "asked" else None
        try:
            self._received(content, answer)
        except Exception as error:  # of one message: those that come after it are still heard
            event(log, logging.ERROR, "a message came to nothing", error=error, message=type(content).__name__)
            if answer is not None:
                answer(RuntimeError(f"{type(error).__name__}: {error}"))

    def _answer(self, number: int) -> Answer:
        def answer(content: Any) -> None:
            try:
                self._send(("answer", number, content))
            except Exception as error:  # it cannot be pickled: who asked must not wait for ever
                event(log, logging.ERROR, "an answer cannot be sent", error=error, answer=type(content).__name__)
                self._send(("answer", number, RuntimeError(f"{type(content).__name__}: {error}")))

        return answer
