"""File events, which wake the source before its next poll. Without them changes are found by the poll, only later."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

from inferd.server.observability.events import event, get

log = get("lifecycle")

_RETRY = 5.0  # seconds between attempts to watch a root that cannot be watched now


class FileEvents:
    """Watches the roots, with links resolved, on a thread of its own. Calls `wake` on that thread when something
    changes below a root, until `stop` returns."""

    def __init__(self, roots: Sequence[str], wake: Callable[[], None]) -> None:
        self._roots = tuple(roots)
        self._wake = wake
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts to watch."""
        self._thread = threading.Thread(target=self._run, name="inferd-file-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops watching."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            from watchfiles import watch
        except ImportError:
            event(log, logging.INFO, "watchfiles is not installed: the repository is polled only")
            return
        warned = False
        while not self._stopped.is_set():
            resolved = self._resolved()
            if not resolved:
                self._stopped.wait(_RETRY)
                continue
            try:
                # When a link is swapped (git-sync, ConfigMaps), the watch stays on the old tree. So the loop resolves
                # the roots again at every timeout.
                for changes in watch(
                    *resolved,
                    watch_filter=None,
                    debounce=100,
                    step=50,
                    rust_timeout=int(_RETRY * 1000),
                    yield_on_timeout=True,
                    stop_event=self._stopped,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    if changes:
                        self._wake()
                    if self._resolved() != resolved:
                        self._wake()
                        break
            except Exception as error:  # inotify limits, vanished roots, exotic file systems
                if not warned:
                    event(log, logging.WARNING, "no file events: the repository is polled only", reason=str(error))
                    warned = True
                self._stopped.wait(_RETRY)

    def _resolved(self) -> tuple[str, ...]:
        return tuple(path for path in map(os.path.realpath, self._roots) if os.path.isdir(path))
