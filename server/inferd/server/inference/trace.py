"""The trace that a call belongs to: the W3C `traceparent` that a client or a service mesh sends as metadata."""

from __future__ import annotations

import re
from typing import Protocol

KEY = "traceparent"
# Version, trace id, the caller's span, flags; later versions may append fields. An id of zeros and version ff are
# invalid.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Carrier(Protocol):
    """An object with a call's metadata."""

    def metadata(self, key: str) -> str | None: ...


def trace_of(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and the caller's span id in hexadecimal; None where `traceparent` is None or malformed."""
    found = _PARENT.fullmatch(traceparent) if traceparent is not None and len(traceparent) <= 128 else None
    return (found[1], found[2]) if found is not None else None


def trace_fields(call: Carrier) -> dict[str, str]:
    """The fields `trace_id` and `span_id` for a log line; empty for a call without a trace."""
    found = trace_of(call.metadata(KEY))
    return {} if found is None else {"trace_id": found[0], "span_id": found[1]}
