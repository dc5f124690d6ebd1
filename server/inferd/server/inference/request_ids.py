"""Request ids: what logs, errors and answers name a request by."""

from __future__ import annotations

import itertools
import secrets

from inferd.server.access.caller import Credentials


class RequestIds:
    """Makes ids that are unique across servers, without asking the system for randomness on every request.
    Thread-safe."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = itertools.count(1)

    def request_id(self, call: Credentials, given: str = "") -> str:
        """The id in the request itself, else that of its metadata `x-request-id`, else a new one."""
        return given or call.metadata("x-request-id") or f"{self._prefix}-{next(self._count):x}"
