"""Two managers over one repository, as in two workers: a version serves in both or in neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.lifecycle import SteppedManager

from inferd.backends.api import LoadError
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.reconcile.model_state import Content
from inferd.server.lifecycle.state import ServableId, State
from inferd.server.workers.two_phase_activation import TwoPhaseActivation


class Seat:
    """One manager's admission: asks the agreement."""

    def __init__(self, number: int, pair: Pair) -> None:
        self.number = number
        self.pair = pair
        self.waiting: dict[str, Callable[[str | None], None]] = {}

    def loaded(self, id: ServableId, content: Content, decided: Callable[[str | None], None]) -> Callable[[], None]:  # noqa: A002
        key = repr((id, content))
        self.waiting[key] = decided
        self.pair.agreement.loaded(self.number, key, str(id))
        return lambda: self.pair.agreement.withdrawn(self.number, key)

    def failed(self, id: ServableId, content: Content, reason: str) -> None:  # noqa: A002
        self.pair.agreement.failed(self.number, repr((id, content)), str(id), reason)


class Pair:
    """Two stepped managers, and what they agree on."""

    def __init__(self, root: Path) -> None:
        self.agreement = TwoPhaseActivation(
            lambda worker, key, refusal: self.seats[worker].waiting.pop(key)(refusal or None),
            lambda subject, workers: None,
            name_of="worker {}".format,
            patience=60,
            clock=lambda: 0.0,
        )
        self.seats = {number: Seat(number, self) for number in (1, 2)}
        self.one, self.two = (SteppedManager(root, self.seats[number]) for number in (1, 2))
        self.agreement.join(1)
        self.agreement.join(2)

    def settle(self, stepped: SteppedManager) -> None:
        stepped.settle()
        self.run()

    def run(self) -> None:
        for stepped in (self.one, self.two, self.one):
            stepped.run()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path / "models")
    pair.one.write("m/1/model", "one")
    pair.settle(pair.one)
    pair.settle(pair.two)
    assert pair.one.serves() == pair.two.serves() == {1: "one"}
    return pair


def test_the_first_worker_to_load_waits_for_the_other(pair: Pair) -> None:
    pair.one.write("m/2/model", "two")
    pair.settle(pair.one)
    assert pair.one.loader.loads[-1] == ("m", 2, "two")
    assert pair.one.serves() == {1: "one"}
    assert pair.one.version(2).state is State.LOADING
    pair.settle(pair.two)
    assert pair.one.serves() == pair.two.serves() == {2: "two"}


def test_a_version_that_one_worker_cannot_load_is_served_by_none(pair: Pair) -> None:
    def no_memory(request: LoadRequest) -> None:
        raise LoadError("no memory")

    pair.two.loader.on_load = no_memory
    pair.one.write("m/2/model", "two")
    pair.settle(pair.one)
    pair.settle(pair.two)
    assert pair.one.serves() == pair.two.serves() == {1: "one"}
    assert pair.one.version(2).error == "worker 2 could not load it: no memory"
    assert pair.two.version(2).error == "no memory"
    assert pair.one.loader.unloads == [("m", 2, 2)], "what must not serve gives its memory back"
    pair.two.loader.on_load = lambda request: None
    for stepped in (pair.two, pair.one):
        stepped.later(1.0)  # the pause before the next try
        pair.run()
    assert pair.one.serves() == pair.two.serves() == {2: "two"}


def test_a_waiting_version_is_dropped_when_its_files_change(pair: Pair) -> None:
    pair.one.write("m/2/model", "two")
    pair.settle(pair.one)
    pair.one.write("m/2/model", "two, mended")
    pair.settle(pair.one)
    pair.settle(pair.two)
    assert pair.one.serves() == pair.two.serves() == {2: "two, mended"}
    assert [text for name, number, text in pair.one.loader.loads if number == 2] == ["two", "two, mended"]


def test_a_waiting_version_is_dropped_when_it_is_unloaded(pair: Pair) -> None:
    pair.one.write("m/2/model", "two")
    pair.settle(pair.one)
    pair.one.do(pair.one.manager.unload("m", 2, by="me"))
    assert ("m", 2, 2) in pair.one.loader.unloads
    assert pair.one.version(2).state is State.END


def test_a_stop_does_not_wait_for_the_other_worker(pair: Pair) -> None:
    pair.one.write("m/2/model", "two")
    pair.settle(pair.one)
    pair.one.manager.begin_stop(1.0)
    pair.one.run()
    assert {(name, number) for name, number, _ in pair.one.loader.unloads} == {("m", 1), ("m", 2)}
