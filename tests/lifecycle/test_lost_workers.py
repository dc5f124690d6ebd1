"""A version whose worker process is gone: told, replaced, with growing pauses; stepped by hand, without processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from support.lifecycle import House

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
def house(tmp_path: Path) -> House:
    """Version 1 of m in a worker process, served."""
    house = House(tmp_path / "models", load={"retry_min": 1.0, "retry_max": 8.0})
    load = house.loader.load

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

    house.loader.load = isolated  # type: ignore[method-assign]
    house.write("m/1/model")
    house.settle()
    return house


def worker(house: House) -> FakeWorker:
    with house.manager.acquire("m") as servable:
        return cast(FakeWorker, servable.worker)


def generation(house: House) -> int:
    return house.version(1).generation


def test_a_lost_worker_is_reported_and_replaced_by_a_new_generation(house: House) -> None:
    first = generation(house)
    house.pool.held.add("m")
    worker(house).die()
    house.run()
    status = house.version(1)
    assert status.state is State.AVAILABLE
    assert status.lost
    assert not status.serves
    assert status.error == f"its worker process {REASON}; another one takes its place"
    assert f"generation {first + 1} is loading in a new worker process" in status.notes
    assert worker(house).lost, "it stays in the map, where it refuses"
    house.pool.held.clear()
    house.run()
    status = house.version(1)
    assert status.serves
    assert (status.generation, status.error, status.restarts) == (first + 1, "", 1)
    assert not worker(house).lost
    assert [g for _, _, g in house.loader.unloads] == [first]


def test_requests_do_not_fall_back_to_another_version(house: House) -> None:
    house.write("m/model.yaml", "version_policy: {latest: 2}\n")
    house.write("m/2/model")
    house.settle()
    house.pool.held.add("m")
    worker(house).die()
    house.run()
    assert house.default() == 2
    assert not house.version(2).serves
    assert house.version(1).serves


def test_pauses_grow_with_losses_in_a_row(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    waits = []
    for _ in range(6):
        before = generation(house)
        worker(house).die()
        house.run()
        waited = 0.0
        while generation(house) == before:
            due = worker(house).back_at - house.clock.now
            assert due > 0
            house.later(due / 2)
            assert generation(house) == before, "it came too soon"
            house.later(due / 2)
            waited += due
        waits.append(waited)
    assert waits == [0, 1, 2, 4, 8, 8]
    house.later(60)
    before = generation(house)
    worker(house).die()
    house.run()
    assert generation(house) == before + 1, "after a good while it counts as the first again"
    assert house.version(1).restarts == 7


def test_a_replacement_that_does_not_load_is_tried_again(house: House) -> None:
    house.loader.on_load = lambda request: (_ for _ in ()).throw(MemoryError("no room"))
    before = generation(house)
    worker(house).die()
    house.run()
    status = house.version(1)
    assert status.lost
    assert status.error == f"its worker process {REASON}: MemoryError: no room"
    loads = len(house.loader.loads)
    house.see()
    assert len(house.loader.loads) == loads, "looking at the disk is no reason to try again"
    house.loader.on_load = lambda request: None
    house.later(1)
    assert house.version(1).serves
    assert generation(house) > before
    assert house.version(1).error == ""


def test_changed_files_are_loaded_by_the_replacement(house: House) -> None:
    house.write("m/1/model", "other content")
    house.settle()
    assert house.serves()[1] == "other content"
    worker(house).die()
    house.run()
    assert house.version(1).serves


def test_an_unload_ends_the_replacement(house: House) -> None:
    worker(house).die()
    house.pool.held.add("m")
    house.run()
    house.pool.held.clear()
    house.do(house.manager.unload("m", by="test"))
    assert house.version(1).state is State.END
    assert not house.version(1).lost
    house.later(1000)
    assert house.version(1).state is State.END


def test_the_loss_of_a_retired_version_is_ignored(house: House) -> None:
    old = worker(house)
    house.write("m/2/model")
    house.settle()
    changes = len(house.changes)
    old.die()
    house.run()
    assert len(house.changes) == changes


def test_with_the_resource_policy_the_old_one_goes_first(house: House) -> None:
    house.write("m/model.yaml", "transition: resource\n")
    house.settle()
    worker(house).die()
    house.run()
    assert house.version(1).serves
    assert house.version(1).restarts == 1


def test_jitter_keeps_within_the_bounds() -> None:
    backoff = Backoff(1.0, 10.0)
    assert backoff.after_loss(1) == 0
    for losses in range(2, 12):
        for _ in range(50):
            assert 0.75 * backoff.delay(losses - 1) <= backoff.after_loss(losses) <= 10.0
