"""Request ids: they name a request in logs, errors and answers."""

from __future__ import annotations

import itertools
import secrets

from inferd.server.access.caller import Credentials


class RequestIds:
    """Makes ids that are unique across servers: a random prefix, read once, and a count. Thread-safe."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = itertools.count(1)

    def request_id(self, call: Credentials, given: str = "") -> str:
        """`given`, the id in the request message; else the metadata `x-request-id`; else a new id."""
        return given or call.metadata("x-request-id") or f"{self._prefix}-{next(self._count):x}"
