"""Two batches in hand on one instance of a device: the next is prepared while the current one computes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.scheduling import PATIENCE, Call, FakeInstance, FakeModel, submit, vector

from inferd.backends.api import Ahead, Array, InvalidInput, Traits
from inferd.server.errors import InvalidRequest
from inferd.server.scheduling.double_buffer import ComputeTurns
from inferd.server.scheduling.scheduler import Scheduler

WIDE = 40_000  # values in a row: two rows are more than what the allocator keeps warm by itself


class DeviceModel(FakeModel):
    """A device that is stepped by hand: it copies what it gets ahead, and says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(traits=Traits(overlaps=2), **options)
        self.copied = threading.Semaphore(0)
        self.staged: list[Array] = []

    def instance(self, placement: Any) -> DeviceInstance:
        super().instance(placement)
        return DeviceInstance(self)

    def wait_for_copies(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.copied.acquire(timeout=PATIENCE), "nothing was copied ahead"


class DeviceInstance(FakeInstance):
    model: DeviceModel

    def staging(self, nbytes: int) -> Array:
        self.model.staged.append(np.empty(nbytes, np.uint8))
        return self.model.staged[-1]

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.model.copied.release()
        if np.isnan(inputs["x"]).any():
            raise InvalidInput("not a number")
        return inputs


def occupy(model: DeviceModel, scheduler: Scheduler, width: int = 2) -> list[Call]:
    """One batch that computes until the gate opens and one that is ready to follow it: what comes next waits."""
    model.gate.close()
    calls = [vector(1, width=width), vector(2, width=width)]
    submit(scheduler, calls[0])
    model.gate.wait_for_arrivals()
    submit(scheduler, calls[1])
    model.wait_for_copies(2)
    return calls


def test_the_next_batch_is_put_together_and_copied_while_one_computes(serve):
    model = DeviceModel()
    assert isinstance(DeviceInstance(model), Ahead)
    scheduler = serve(model, device="cuda:0", batching={"mode": "trusted"})
    first, second = occupy(model, scheduler)
    third = vector(3)
    submit(scheduler, third)
    assert scheduler.queue_depth[0] == 1, "two are in hand, the third waits"
    assert model.batches == [1], "one computes at a time"
    assert not first.finished
    model.gate.open()
    for value, call in enumerate((first, second, third), 1):
        np.testing.assert_array_equal(call.result()["y"], [[2 * value, 2 * value]])
    assert scheduler.drain(PATIENCE)


def test_a_batch_in_preparation_never_touches_the_one_that_computes(serve):
    model = DeviceModel()
    scheduler = serve(model, device="cuda:0", batching={"mode": "trusted"})
    occupy(model, scheduler, WIDE)
    calls = [vector(value, width=WIDE) for value in range(1, 9)]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    for value, call in enumerate(calls, 1):
        np.testing.assert_array_equal(call.result()["y"], np.full((1, WIDE), 2 * value, np.float32))
    assert model.staged, "joined rows lie in the instance's own memory"
    assert all(np.shares_memory(run["x"], model.staged[0]) for _, run, _ in model.runs if len(run["x"]) == 8)


def test_requests_during_a_run_share_the_next_batch(serve):
    model = DeviceModel()
    scheduler = serve(model, device="cuda:0", batching={"mode": "trusted"})
    occupy(model, scheduler)
    late = [vector(value) for value in range(5)]
    for call in late:
        submit(scheduler, call)
    model.gate.open()
    assert [call.wait().batch_rows for call in late] == [5] * 5


def test_inputs_that_cannot_be_copied_fail_alone(serve):
    model = DeviceModel()
    scheduler = serve(model, device="cuda:0", batching={"mode": "trusted"})
    occupy(model, scheduler)
    good, bad = vector(1), vector(float("nan"))
    submit(scheduler, good)
    submit(scheduler, bad)
    model.gate.open()
    np.testing.assert_array_equal(good.result()["y"], [[2, 2]])
    with pytest.raises(InvalidRequest, match="not a number"):
        bad.result()


def test_on_the_cpu_there_is_nothing_to_overlap(serve):
    model = DeviceModel()
    scheduler = serve(model, batching={"mode": "trusted"})
    model.gate.close()
    calls = [vector(1), vector(2), vector(3)]
    submit(scheduler, calls[0])
    model.gate.wait_for_arrivals()
    submit(scheduler, calls[1])
    submit(scheduler, calls[2])
    assert scheduler.queue_depth[0] == 2
    model.gate.open()
    assert [call.wait().batch_rows for call in calls] == [1, 2, 2]
    assert not model.copied.acquire(blocking=False)


def test_the_instance_is_closed_after_the_last_batch_in_hand(serve):
    model = DeviceModel()
    scheduler = serve(model, device="cuda:0", batching={"mode": "trusted"})
    calls = occupy(model, scheduler)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    model.gate.open()
    closing.join(PATIENCE)
    assert [call.result()["y"][0, 0] for call in calls] == [2, 4]
    assert [what for what, _ in model.events] == ["make", "close instance", "close model"]


def test_preparation_starts_when_the_current_batch_is_about_to_end():
    turnstile = ComputeTurns(expected=3600.0)
    turnstile.wait(0.0)  # nothing computes
    begun = threading.Event()

    def prepare() -> None:
        turnstile.wait(0.001)
        begun.set()

    with turnstile:
        turnstile.wait(7200.0)  # it takes longer to prepare than the batch will compute
        waiter = threading.Thread(target=prepare)
        waiter.start()
        assert not begun.is_set()
    assert begun.wait(PATIENCE), "the end of a batch that is quicker than expected goes unnoticed"
    waiter.join(PATIENCE)
