"""Files that are read again when they change: tokens, keys, certificates."""

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

_Seen = tuple[tuple[int, ...] | None, ...]


@dataclass(slots=True)
class _Followed:
    what: str
    paths: tuple[str, ...]
    changed: Callable[[], None]
    seen: _Seen


class FileWatch:
    """Looks at files every `poll` seconds, on a thread of its own: no request ever does. `follow` before `start`."""

    def __init__(self, poll: float) -> None:
        self._poll: Final = poll
        self._followed: Final[list[_Followed]] = []
        self._stopped: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, what: str, paths: Sequence[str], changed: Callable[[], None]) -> None:
        """Calls `changed` when one of the files has. It raises ConfigError or OSError for content that cannot be used;
        then what was stays, and one line in the log says so."""
        self._followed.append(_Followed(what, tuple(paths), changed, _look(paths)))

    def start(self) -> None:
        """Begins to look, if there is anything to look at."""
        if self._followed:
            self._thread = threading.Thread(target=self._run, name="inferd-file-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def look(self) -> None:
        """One look at every file. Never raises for what is in them."""
        for each in self._followed:
            now = _look(each.paths)
            if now == each.seen:
                continue
            each.seen = now
            try:
                each.changed()
            except (ConfigError, OSError) as error:
                # Of two files that belong together one may be new already: the other's change brings the next try.
                reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
                event(_log, logging.ERROR, "changed files are not taken over", what=each.what, reason=reason)
            except Exception as error:
                event(_log, logging.ERROR, "changed files are not taken over", what=each.what, error=error)

    def _run(self) -> None:
        while not self._stopped.wait(self._poll):
            self.look()


def _look(paths: Sequence[str]) -> _Seen:
    return tuple(_state(path) for path in paths)


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
