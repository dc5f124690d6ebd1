"""Answers without a message: refusals and failures. The loop's thread collects them and sends them together at the end
of its turn.

When refusals are sent one by one, each client repeats its request at once, and the core wakes a thread for every such
request: that costs more than the refusal. When a dozen are sent together, the dozen requests that follow are read
together.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from grpc._cython import cygrpc

from inferd.server.transport.calls import Metadata

_log = logging.getLogger(__name__)
_NO_FLAGS = 0
_MANY = 64  # statuses after which they are sent although more events are ready
_EVENTS = 256  # events after the first status, likewise


class Statuses:
    """Collects statuses. `give` is thread-safe; everything else is for the loop's thread.

    kept   the statuses to be sent; the loop sees by it whether there are any
    """

    __slots__ = ("_events", "_thread", "kept")

    def __init__(self) -> None:
        self._thread = 0
        self._events = 0
        self.kept: list[tuple[Any, Any, int, bytes, Metadata, bool]] = []

    def enter(self) -> None:
        """Makes the calling thread the loop's thread."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """The loop has ended: sends the collected statuses. Later ones are sent at once."""
        self._thread = 0
        self.send()

    def give(self, call: Any, tag: Any, code: int, text: bytes, trailing: Metadata, *, close: bool) -> None:
        """Ends one of the core's calls with a status. On the loop's thread it is sent at the end of the turn, on any
        other thread at once.

        tag     of the batch that sends the status
        close   the batch also receives the call's close
        """
        if threading.get_ident() == self._thread:
            self.kept.append((call, tag, code, text, trailing, close))
        else:
            _send(call, tag, code, text, trailing, close)

    def due(self) -> bool:
        """Whether the collected statuses must be sent now. The loop calls it after every event while there are any."""
        self._events += 1
        return len(self.kept) >= _MANY or self._events >= _EVENTS

    def send(self) -> None:
        """Sends the collected statuses."""
        self._events = 0
        kept = self.kept[:]
        self.kept.clear()  # the same list, because the loop has a reference to it
        for status in kept:
            try:
                _send(*status)
            except Exception:  # the other statuses are still sent
                _log.exception("a call could not be ended")


def _send(call: Any, tag: Any, code: int, text: bytes, trailing: Metadata, close: bool) -> None:
    operations: tuple[Any, ...]
    if close:
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(trailing, code, text, _NO_FLAGS),
            cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        )
    else:
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(trailing, code, text, _NO_FLAGS),
        )
    call.start_server_batch(operations, tag)
