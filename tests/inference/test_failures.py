"""The table from errors to status."""

from __future__ import annotations

from inferd.server.errors import Code
from inferd.server.inference.failures import ACCEPTED, PUSHBACK, failure_of


def test_want_of_memory_is_resource_exhausted() -> None:
    failure = failure_of(MemoryError(), "7")
    trailing = dict(failure.trailing)
    assert (failure.code, trailing[ACCEPTED], failure.unexpected) == (Code.RESOURCE_EXHAUSTED, "0", False)
    assert "not enough memory" in failure.text
    assert int(trailing[PUSHBACK]) > 0
