"""File events, which wake the source before its next poll. Without them changes are found by the poll, only later.

Only directories that a scan has listed are watched, each by itself. A recursive watch would follow links out of the
repository into trees of any size, and could not be interrupted meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Final

from inferd.server.observability.events import event, get

log = get("lifecycle")

MOST_WATCHED: Final = 8192  # directories; the operating system bounds watches, too, for all processes together
_RETRY = 5.0  # seconds between attempts to watch what cannot be watched now

_Watched = tuple[tuple[str, int, int], ...]  # path, device and inode of each directory


class FileEvents:
    """Watches directories on a thread of its own. Calls `wake` on that thread when something changes in one of them,
    until `stop` returns. `follow` and `stop` may be called from any thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._directories: frozenset[str] = frozenset()
        self._changed = threading.Event()  # other directories are to be watched, or none any more
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts to watch."""
        self._thread = threading.Thread(target=self._run, name="inferd-file-events", daemon=True)
        self._thread.start()

    def follow(self, directories: Iterable[str]) -> None:
        """From now on watches these directories, and nothing below them that is not among them."""
        wanted = frozenset(directories)
        if wanted != self._directories:
            self._directories = wanted
            self._changed.set()

    def stop(self) -> None:
        """Stops watching."""
        self._stopped = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            from watchfiles import watch
        except ImportError:
            event(log, logging.INFO, "watchfiles is not installed: the repository is polled only")
            return
        warned = False
        while not self._stopped:
            self._changed.clear()
            watched = self._watched()
            if not watched:
                self._changed.wait(_RETRY)
                continue
            try:
                # When a link is swapped (git-sync, ConfigMaps), the watch stays on the old directory. So the loop looks
                # at the directories again at every timeout.
                for changes in watch(
                    *(path for path, _, _ in watched),
                    watch_filter=None,
                    debounce=100,
                    step=50,
                    rust_timeout=int(_RETRY * 1000),
                    yield_on_timeout=True,
                    stop_event=self._changed,
                    raise_interrupt=False,
                    recursive=False,
                    ignore_permission_denied=True,
                ):
                    if changes:
                        self._wake()
                    if self._watched() != watched:
                        self._wake()
                        break
            except Exception as error:  # inotify limits, vanished directories, exotic file systems
                if not warned:
                    event(log, logging.WARNING, "no file events: the repository is polled only", reason=str(error))
                    warned = True
                self._changed.wait(_RETRY)

    def _watched(self) -> _Watched:
        """The directories that are there. Of too many, those that are nested least: models come and go there."""
        found = []
        for path in sorted(self._directories, key=lambda path: (path.count(os.sep), path))[:MOST_WATCHED]:
            try:
                of = os.stat(path)
            except OSError:
                continue
            found.append((path, of.st_dev, of.st_ino))
        return tuple(found)
