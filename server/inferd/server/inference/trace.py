"""Which trace a call belongs to: the W3C `traceparent` that a caller or a mesh sends along."""

from __future__ import annotations

import re
from typing import Protocol

KEY = "traceparent"
# version, trace id, the caller's span, flags; later versions may append. Zeros and version ff mean "none".
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Carrier(Protocol):
    """Whatever has a call's metadata."""

    def metadata(self, key: str) -> str | None: ...


def trace_of(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and the caller's span id in hexadecimal; None for no trace, or what is no traceparent."""
    found = _PARENT.fullmatch(traceparent) if traceparent is not None and len(traceparent) <= 128 else None
    return (found[1], found[2]) if found is not None else None


def trace_fields(call: Carrier) -> dict[str, str]:
    """What a log line says of a call's trace: `trace_id` and `span_id`, or nothing."""
    found = trace_of(call.metadata(KEY))
    return {} if found is None else {"trace_id": found[0], "span_id": found[1]}
