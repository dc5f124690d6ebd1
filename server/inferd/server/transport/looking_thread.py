"""A thread that looks at the open calls: at intervals, or when it is asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class LookingThread:
    """Calls `look` with the monotonic time until the transport has ended.

    A loop that looks at the clock itself starts it with `asked`, so that it sleeps until there is a reason.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[float], None],
        ended: threading.Event,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        """
        ended    ends the thread; a thread that is asked also needs `stop`
        at_end   is called last, on the thread
        """
        self._name = name
        self._look = look
        self._ended = ended
        self._at_end = at_end
        self._asked = threading.Event()

    def start(self, interval: float | None) -> None:
        """Starts the thread. `interval`: seconds between two looks; None: it looks when it is asked."""
        threading.Thread(target=self._run, args=(interval,), name=self._name, daemon=True).start()

    def ask(self) -> None:
        """Makes the thread look. Thread-safe."""
        self._asked.set()

    def stop(self) -> None:
        """Ends a thread that waits to be asked. To be called after `ended` is set."""
        self._asked.set()

    def _run(self, interval: float | None) -> None:
        while not self._over(interval):
            self._look(time.monotonic())
        self._at_end()

    def _over(self, interval: float | None) -> bool:
        if interval is not None:
            return self._ended.wait(interval)
        self._asked.wait()
        self._asked.clear()
        return self._ended.is_set()
