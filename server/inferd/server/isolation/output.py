"""What a worker process writes on standard output and error, line by line into the server's log; bounded."""

from __future__ import annotations

import logging
import os
from typing import Any

from inferd.server.observability.events import get
from inferd.server.observability.rate_limit import RateLimit

log = get("isolation")

_LONGEST = 2000  # of a line
_READ = 2**16
_READS = 8  # at a time: whoever reads has other things to watch
_LINES = 256  # of one read that are looked at, more than may be written at once; the others are counted
_EVENT = "worker says"


class Output:
    """Reads one pipe. Not thread-safe."""

    def __init__(self, descriptor: int, **fields: Any) -> None:
        """`fields` say in each line whose it is. Takes the descriptor over."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._fields = fields
        self._limit = RateLimit(per_second=20.0, burst=200)
        self._begun = b""
        self.behind = False
        self.last = ""
        """The last line that was written."""

    def read(self) -> bool:
        """Logs what has come, of a process that never stops writing not all: then it is `behind`. Whether more may
        come."""
        self.behind = False
        for _ in range(_READS):
            try:
                data = os.read(self.descriptor, _READ)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self._say(self._begun)
                self._begun = b""
                return False
            *lines, rest = (self._begun + data).split(b"\n", _LINES)
            for line in lines:
                self._say(line)
            if b"\n" in rest:
                more, _, rest = rest.rpartition(b"\n")
                self._limit.skip(_EVENT, more.count(b"\n") + 1)
                self.last = _text(more.rpartition(b"\n")[2]) or self.last
            if len(rest) > _LONGEST:
                self._say(rest)
                rest = b""
            self._begun = rest
        self.behind = True
        return True

    def close(self) -> None:
        """Logs what is there, waits for nothing, and gives the descriptor back."""
        self.read()
        os.close(self.descriptor)

    def _say(self, line: bytes) -> None:
        text = _text(line)
        if text:
            self.last = text
            self._limit.event(log, logging.INFO, _EVENT, line=text, **self._fields)


def _text(line: bytes) -> str:
    return line[: 4 * _LONGEST].decode(errors="replace").rstrip()[:_LONGEST]
