"""Copies the standard output and error of a worker process, line by line, to the server's log. The rate is bounded."""

from __future__ import annotations

import logging
import os
from typing import Any

from inferd.server.observability.events import get
from inferd.server.observability.rate_limit import RateLimit

log = get("isolation")

_LONGEST = 2000  # bytes of a line; longer ones are truncated
_READ = 2**16
_READS = 8  # in one call of `read`, so that the reading thread can do its other work
_LINES = 256  # lines of one read that are logged at most (more than the rate limit allows); the others are counted
_EVENT = "worker says"


class Output:
    """Reads one pipe. Not thread-safe.

    behind   the last `read` has not read everything, because the process writes faster
    last     the last line that the process wrote
    """

    def __init__(self, descriptor: int, **fields: Any) -> None:
        """Takes over the descriptor. `fields` are added to each line of the log and identify the process."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._fields = fields
        self._limit = RateLimit(per_second=20.0, burst=200)
        self._partial = b""  # an unfinished line
        self.behind = False
        self.last = ""

    def read(self) -> bool:
        """Logs the lines in the pipe, up to a bound (see `behind`). Returns False at the end of the output."""
        self.behind = False
        for _ in range(_READS):
            try:
                data = os.read(self.descriptor, _READ)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self._log(self._partial)
                self._partial = b""
                return False
            *lines, rest = (self._partial + data).split(b"\n", _LINES)
            for line in lines:
                self._log(line)
            if b"\n" in rest:
                more, _, rest = rest.rpartition(b"\n")
                self._limit.skip(_EVENT, more.count(b"\n") + 1)
                self.last = _text(more.rpartition(b"\n")[2]) or self.last
            if len(rest) > _LONGEST:
                self._log(rest)
                rest = b""
            self._partial = rest
        self.behind = True
        return True

    def close(self) -> None:
        """Logs what is in the pipe, without waiting for more, and closes the descriptor."""
        self.read()
        os.close(self.descriptor)

    def _log(self, line: bytes) -> None:
        text = _text(line)
        if text:
            self.last = text
            self._limit.event(log, logging.INFO, _EVENT, line=text, **self._fields)


def _text(line: bytes) -> str:
    return line[: 4 * _LONGEST].decode(errors="replace").rstrip()[:_LONGEST]
