from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import scheduling as support

from inferd.server.scheduling.scheduler import Scheduler


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass at once for the schedulers' queues. The thread that looks for what has expired does not
    notice."""
    ahead = 0.0

    def passed(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr("inferd.server.scheduling.batcher.monotonic", lambda: time.monotonic() + ahead)
    return passed


@pytest.fixture
def serve() -> Iterator[Callable[..., Scheduler]]:
    """Makes started schedulers and closes them, opening the gates of fake models first."""
    made: list[tuple[Any, Scheduler]] = []

    def start(model: Any, **options: Any) -> Scheduler:
        scheduler = support.scheduler(model, **options)
        made.append((model, scheduler))
        return scheduler

    yield start
    for model, scheduler in made:
        if isinstance(model, support.FakeModel):
            model.gate.open()
        scheduler.close()
