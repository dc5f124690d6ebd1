"""A line for every operator's action, done or refused: who, what, which model, how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from inferd.server.access.caller import Credentials
from inferd.server.errors import Code
from inferd.server.observability.events import event, get
from inferd.server.observability.rate_limit import RateLimit

_REFUSED: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED})
_LONGEST: Final = 256  # characters of a value from the request


class Audit:
    """Writes to the logger `inferd.audit`: every action that was done or failed. Refusals, which strangers can cause at
    any rate, are counted instead of written past a few a second for each code. Thread-safe."""

    def __init__(self) -> None:
        self._log: Final = get("audit")
        self._rate: Final = RateLimit(per_second=10.0, burst=50)

    def write(
        self,
        call: Credentials,
        method: str,
        who: str | None,
        outcome: Code | None,
        reason: str,
        request_id: str,
        asked: Mapping[str, object],
    ) -> None:
        """One line. `who`: the name of the caller, None for one without; `outcome`: None for an action that was done;
        `asked`: fields from the request itself."""
        fields: dict[str, Any] = {
            "method": method,
            "who": who,
            "peer": call.peer,
            "request_id": _clean(request_id),
            "outcome": "OK" if outcome is None else outcome.name,
            **{key: _clean(value) if isinstance(value, str) else value for key, value in asked.items()},
            "reason": _clean(reason) or None,
        }
        if outcome in _REFUSED:
            self._rate.event(self._log, logging.WARNING, "admin refused", outcome, **fields)
        else:
            event(self._log, logging.INFO, "admin", **fields)


def _clean(text: str) -> str:
    # A client must not be able to forge log lines.
    text = text[:_LONGEST]
    return text if text.isprintable() else repr(text)[1:-1]
