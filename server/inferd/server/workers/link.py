"""The link between the supervisor and one worker: a socket pair that no other process can reach.

A message is either told (it has no answer) or asked (it has one answer). Messages are pickled. That is safe here: both
ends are the same program of the same user, and one has started the other.
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
"""Answers a question. Call it once: with a value, or with an exception, which the asker's future then raises.
Thread-safe."""

_SEND_TIMEOUT = 10.0  # seconds after which the link to a process that reads nothing is closed

Receiver = Callable[[Any, Answer | None], None]
"""Gets each incoming message, in order, on the link's thread. The answer is None for a message that was told."""


class LinkLost(Exception):
    """The process at the other end is gone."""


class Link:
    """One end of the link. Thread-safe. `lost` is called once, on the link's thread, when the link has ended."""

    def __init__(self, end: socket.socket, received: Receiver, lost: Callable[[], None], *, name: str) -> None:
        # Without a timeout, sending to a suspended process would block this one.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_SEND_TIMEOUT), 0))
        self._connection: Connection[Any, Any] = Connection(end.detach())
        self._received = received
        self._lost = lost
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._unanswered: dict[int, Future[Any]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts to receive. Raises RuntimeError when the system gives no thread."""
        self._thread.start()

    def discard(self) -> None:
        """Closes the descriptor of a link that could not be started."""
        self._connection.close()

    def tell(self, message: object) -> None:
        """Sends a message. If the other end is gone, the message is dropped; `lost` reports the end of the link."""
        self._send(("told", 0, message))

    def ask(self, message: object) -> Future[Any]:
        """Sends a question. The future gives the answer. It raises the exception with which the other end answered,
        or LinkLost."""
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._closed:
                future.set_exception(LinkLost("the other process is gone"))
                return future
            self._unanswered[number] = future
        self._send(("asked", number, message))
        return future

    def close(self) -> None:
        """Ends the link. At the other end `lost` is called. Idempotent."""
        with self._sending:
            if not self._connection.closed:
                # The shutdown wakes the receiving thread, which closes the connection.
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
        except OSError:  # the other end is gone or reads nothing; half a frame may be sent, so the link is unusable
            self.close()

    def _run(self) -> None:
        try:
            while True:
                self._take(*pickle.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        except Exception as error:  # not a frame of this protocol: where the next frame begins is unknown
            event(log, logging.ERROR, "a link cannot be read and is closed", error=error, link=self._thread.name)
        with self._lock:
            self._closed = True
            unanswered, self._unanswered = list(self._unanswered.values()), {}
        with self._sending:
            self._connection.close()
        for future in unanswered:
            if future.set_running_or_notify_cancel():
                future.set_exception(LinkLost("the other process is gone"))
        self._lost()

    def _take(self, kind: str, number: int, content: Any) -> None:
        if kind == "answer":
            with self._lock:
                future = self._unanswered.pop(number, None)
            if future is not None and future.set_running_or_notify_cancel():
                if isinstance(content, BaseException):
                    future.set_exception(content)
                else:
                    future.set_result(content)
            return
        answer = self._answer(number) if kind == "asked" else None
        try:
            self._received(content, answer)
        except Exception as error:  # a message that fails must not end the link
            event(log, logging.ERROR, "a message failed", error=error, message=type(content).__name__)
            if answer is not None:
                answer(RuntimeError(f"{type(error).__name__}: {error}"))

    def _answer(self, number: int) -> Answer:
        def answer(content: Any) -> None:
            try:
                self._send(("answer", number, content))
            except Exception as error:  # the answer cannot be pickled; the asker must not wait for ever
                event(log, logging.ERROR, "an answer cannot be sent", error=error, answer=type(content).__name__)
                self._send(("answer", number, RuntimeError(f"{type(content).__name__}: {error}")))

        return answer
