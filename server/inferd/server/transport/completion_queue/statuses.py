"""Answers that are a status and nothing else: refusals and failures. The loop's thread keeps them until the end of its
turn and sends them together.

Sent one by one, each lets its client ask again at once and alone, and the core wakes a thread for every such request:
that costs more than the refusal. A dozen at a time are followed by a dozen requests, read together.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from grpc._cython import cygrpc

from inferd.server.transport.calls import Metadata

_log = logging.getLogger(__name__)
_NO_FLAGS = 0
_MANY = 64  # kept, after which they are sent though more events are ready
_EVENTS = 256  # handled since the first one was kept, likewise


class Statuses:
    """`kept` are those to be sent, for the loop to see that there are some. `give` is thread-safe, the rest for the
    loop's thread."""

    __slots__ = ("_events", "_thread", "kept")

    def __init__(self) -> None:
        self._thread = 0
        self._events = 0
        self.kept: list[tuple[Any, Any, int, bytes, Metadata, bool]] = []

    def enter(self) -> None:
        """The calling thread is the loop from now on."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """There is no loop any more: what is kept is sent, and later ones at once."""
        self._thread = 0
        self.send()

    def give(self, call: Any, tag: Any, code: int, text: bytes, trailing: Metadata, *, close: bool) -> None:
        """Ends one of the core's calls with a status; `close`: asks for the call's close in the same batch, which has
        that tag. At once on any thread but the loop's."""
        if threading.get_ident() == self._thread:
            self.kept.append((call, tag, code, text, trailing, close))
        else:
            _send(call, tag, code, text, trailing, close)

    def due(self) -> bool:
        """Whether what is kept should wait no longer. Asked after every event while there is something."""
        self._events += 1
        return len(self.kept) >= _MANY or self._events >= _EVENTS

    def send(self) -> None:
        """Sends what is kept."""
        self._events = 0
        kept = self.kept[:]
        self.kept.clear()  # the loop holds on to the list itself
        for status in kept:
            try:
                _send(*status)
            except Exception:  # its neighbours are sent all the same
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
