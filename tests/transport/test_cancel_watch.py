"""A call that waits long for its answer is watched, once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inferd.server.transport.completion_queue import cancel_watch as unwatched
from inferd.server.transport.completion_queue.cancel_watch import PATIENCE, CancelWatch


class Call:
    def __init__(self, *, answered: bool = False) -> None:
        self.answered = answered
        self.watched = 0

    def watch(self) -> None:
        self.watched += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both clocks stand still until a test adds to `seconds`."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(unwatched, "monotonic", lambda: 100.0 + now.seconds)
    monkeypatch.setattr(unwatched, "time", lambda: 5000.0 + now.seconds)
    return now


def test_a_call_that_waits_long_is_watched_once(clock):
    waiting = CancelWatch()
    assert waiting.until is None
    call = Call()
    waiting.add([call])
    waiting.look()
    assert not call.watched
    assert waiting.until == pytest.approx(5000.0 + PATIENCE, abs=1e-6)
    clock.seconds += 2 * PATIENCE
    waiting.look()
    waiting.look()
    assert call.watched == 1
    assert waiting.until is None


def test_an_answered_call_is_forgotten(clock):
    waiting = CancelWatch()
    calls = [Call(), Call(answered=True), Call(), Call()]
    waiting.add(calls)
    calls[0].answered = calls[2].answered = True
    waiting.look()
    assert waiting.until is not None
    calls[3].answered = True
    waiting.look()
    assert waiting.until is None
    clock.seconds += 2 * PATIENCE
    waiting.look()
    assert not any(call.watched for call in calls)
