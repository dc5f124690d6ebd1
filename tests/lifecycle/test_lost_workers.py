"""A version whose worker process is gone: told, replaced, with growing pauses; stepped by hand, without processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from support.lifecycle import SteppedManager

from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import State

REASON = "was killed by signal 9 (SIGKILL)"


class FakeWorker:
    """A process that ends when the test says so."""

    def __init__(self) -> None:
        self.lost = ""
        self.back_at = 0.0
        self.listeners: list[Callable[[str], None]] = []

    def on_lost(self, listener: Callable[[str], None]) -> None:
        self.listeners.append(listener)

    def die(self) -> None:
        self.lost = REASON
        for listener in self.listeners:
            listener(REASON)


@pytest.fixture
def stepped(tmp_path: Path) -> SteppedManager:
    """Version 1 of m in a worker process, served."""
    stepped = SteppedManager(tmp_path / "models", load={"retry_min": 1.0, "retry_max": 8.0})
    load = stepped.loader.load

    def isolated(request: LoadRequest, cancellation: Cancellation) -> Servable:
        found = load(request, cancellation)
        return Servable(
            found.id,
            found.generation,
            backend=found.backend,
            signatures=found.signatures,
            scheduler=found.scheduler,
            worker=cast(Any, FakeWorker()),
        )

    stepped.loader.load = isolated  # type: ignore[method-assign]
    stepped.write("m/1/model")
    stepped.settle()
    return stepped


def worker(stepped: SteppedManager) -> FakeWorker:
    with stepped.manager.acquire("m") as servable:
        return cast(FakeWorker, servable.worker)


def generation(stepped: SteppedManager) -> int:
    return stepped.version(1).generation


def test_a_lost_worker_is_reported_and_replaced_by_a_new_generation(stepped: SteppedManager) -> None:
    first = generation(stepped)
    stepped.pool.held.add("m")
    worker(stepped).die()
    stepped.run()
    status = stepped.version(1)
    assert status.state is State.AVAILABLE
    assert status.lost
    assert not status.serves
    assert status.error == f"its worker process {REASON}; another one takes its place"
    assert f"generation {first + 1} is loading in a new worker process" in status.notes
    assert worker(stepped).lost, "it stays in the map, where it refuses"
    stepped.pool.held.clear()
    stepped.run()
    status = stepped.version(1)
    assert status.serves
    assert (status.generation, status.error, status.restarts) == (first + 1, "", 1)
    assert not worker(stepped).lost
    assert [g for _, _, g in stepped.loader.unloads] == [first]


def test_requests_do_not_fall_back_to_another_version(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "version_policy: {latest: 2}\n")
    stepped.write("m/2/model")
    stepped.settle()
    stepped.pool.held.add("m")
    worker(stepped).die()
    stepped.run()
    assert stepped.default() == 2
    assert not stepped.version(2).serves
    assert stepped.version(1).serves


def test_pauses_grow_with_losses_in_a_row(stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    waits = []
    for _ in range(6):
        before = generation(stepped)
        worker(stepped).die()
        stepped.run()
        waited = 0.0
        while generation(stepped) == before:
            due = worker(stepped).back_at - stepped.clock.now
            assert due > 0
            stepped.later(due / 2)
            assert generation(stepped) == before, "it came too soon"
            stepped.later(due / 2)
            waited += due
        waits.append(waited)
    assert waits == [0, 1, 2, 4, 8, 8]
    stepped.later(60)
    before = generation(stepped)
    worker(stepped).die()
    stepped.run()
    assert generation(stepped) == before + 1, "after a good while it counts as the first again"
    assert stepped.version(1).restarts == 7


def test_a_replacement_that_does_not_load_is_tried_again(stepped: SteppedManager) -> None:
    stepped.loader.on_load = lambda request: (_ for _ in ()).throw(MemoryError("no room"))
    before = generation(stepped)
    worker(stepped).die()
    stepped.run()
    status = stepped.version(1)
    assert status.lost
    assert status.error == f"its worker process {REASON}: MemoryError: no room"
    loads = len(stepped.loader.loads)
    stepped.see()
    assert len(stepped.loader.loads) == loads, "looking at the disk is no reason to try again"
    stepped.loader.on_load = lambda request: None
    stepped.later(1)
    assert stepped.version(1).serves
    assert generation(stepped) > before
    assert stepped.version(1).error == ""


def test_changed_files_are_loaded_by_the_replacement(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "other content")
    stepped.settle()
    assert stepped.serves()[1] == "other content"
    worker(stepped).die()
    stepped.run()
    assert stepped.version(1).serves


def test_an_unload_ends_the_replacement(stepped: SteppedManager) -> None:
    worker(stepped).die()
    stepped.pool.held.add("m")
    stepped.run()
    stepped.pool.held.clear()
    stepped.do(stepped.manager.unload("m", by="test"))
    assert stepped.version(1).state is State.END
    assert not stepped.version(1).lost
    stepped.later(1000)
    assert stepped.version(1).state is State.END


def test_the_loss_of_a_retired_version_is_ignored(stepped: SteppedManager) -> None:
    old = worker(stepped)
    stepped.write("m/2/model")
    stepped.settle()
    changes = len(stepped.changes)
    old.die()
    stepped.run()
    assert len(stepped.changes) == changes


def test_with_the_resource_policy_the_old_one_goes_first(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "transition: resource\n")
    stepped.settle()
    worker(stepped).die()
    stepped.run()
    assert stepped.version(1).serves
    assert stepped.version(1).restarts == 1


def test_jitter_keeps_within_the_bounds() -> None:
    backoff = Backoff(1.0, 10.0)
    assert backoff.after_loss(1) == 0
    for losses in range(2, 12):
        for _ in range(50):
            assert 0.75 * backoff.delay(losses - 1) <= backoff.after_loss(losses) <= 10.0
