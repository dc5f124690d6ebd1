"""Watches files that are read again when they change: tokens, keys, certificates."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from inferd.server.config.errors import ConfigError
from inferd.server.observability.events import event, get

_log = get("security")

_State = tuple[tuple[int, ...] | None, ...]


@dataclass(slots=True)
class _Followed:
    what: str
    paths: tuple[str, ...]
    changed: Callable[[], None]
    state: _State


class FileWatch:
    """Compares the state of files every `poll` seconds, on a thread of its own. Call `follow` before `start`."""

    def __init__(self, poll: float) -> None:
        self._poll: Final = poll
        self._followed: Final[list[_Followed]] = []
        self._stopped: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, what: str, paths: Sequence[str], changed: Callable[[], None]) -> None:
        """Calls `changed` on the thread of the watch when one of the files has changed. `changed` raises ConfigError or
        OSError for unusable content and leaves the present state in force; then one line in the log, with `what`, says
        so."""
        self._followed.append(_Followed(what, tuple(paths), changed, _state_of(paths)))

    def start(self) -> None:
        """Starts the thread, if there is a file to watch."""
        if self._followed:
            self._thread = threading.Thread(target=self._run, name="inferd-file-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for it up to 5 s."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def look(self) -> None:
        """Compares every file once. Never raises."""
        for each in self._followed:
            now = _state_of(each.paths)
            if now == each.state:
                continue
            each.state = now
            try:
                each.changed()
            except (ConfigError, OSError) as error:
                # Two files that belong together may change one after the other: the second change is the next try.
                reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
                event(_log, logging.ERROR, "changed files are not taken over", what=each.what, reason=reason)
            except Exception as error:
                event(_log, logging.ERROR, "changed files are not taken over", what=each.what, error=error)

    def _run(self) -> None:
        while not self._stopped.wait(self._poll):
            self.look()


def _state_of(paths: Sequence[str]) -> _State:
    return tuple(_file_state(path) for path in paths)


def _file_state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
