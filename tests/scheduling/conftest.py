from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import scheduling as support

from inferd.server.scheduling.scheduler import Scheduler


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
