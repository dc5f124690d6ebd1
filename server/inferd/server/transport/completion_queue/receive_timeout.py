"""Ends calls whose message does not arrive: each counts towards `inflight.calls`, and a client may never send it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from inferd.server.inference.failures import not_received
from inferd.server.transport.completion_queue.call import CompletionQueueCall
from inferd.server.transport.completion_queue.unary_call import CompletionQueueUnaryCall

_LOOKS = 4  # looks within one timeout


class ReceiveTimeout:
    """Looks at the open calls at intervals, on its own thread, so that no call pays for it."""

    def __init__(self, calls: Iterable[CompletionQueueCall], patience: float, ended: threading.Event) -> None:
        """
        calls      the transport's own set, which other threads change
        patience   seconds that a message may take; calls end up to a quarter later
        ended      ends the thread
        """
        self._calls = calls
        self._patience = patience
        self._ended = ended
        self._since: dict[CompletionQueueCall, float] = {}
        self._failure = not_received(patience)

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="inferd-grpc-sweep", daemon=True).start()

    def look(self, now: float) -> None:
        """Fails the calls that have waited for `patience`, at monotonic time `now`."""
        since = {call: self._since.get(call, now) for call in list(self._calls) if _waits(call)}
        for call, first_seen in since.items():
            if now - first_seen >= self._patience:
                call.fail(self._failure.code, self._failure.text, self._failure.trailing)
        self._since = since

    def _run(self) -> None:
        while not self._ended.wait(self._patience / _LOOKS):
            self.look(time.monotonic())


def _waits(call: CompletionQueueCall) -> bool:
    return type(call) is CompletionQueueUnaryCall and call.receiving
