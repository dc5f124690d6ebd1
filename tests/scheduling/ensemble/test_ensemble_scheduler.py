"""The steps of ensembles, run by hand: their order, their inputs, and exactly one outcome for every request."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rpc import FakeScheduler
from support.scheduling import submit

from inferd.backends.api import Signature, TensorSpec
from inferd.server.config.schema import Queue
from inferd.server.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    QueueTimeout,
    ServingError,
    Unavailable,
)
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.ensemble.scheduler import EnsembleScheduler
from inferd.server.scheduling.ensemble.step_graph import GraphStep, build_step_graph
from inferd.server.scheduling.request import InferenceRequest, callback_request
from inferd.wire.dtypes import DType


def spec(name: str, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, DType.FP32, (-1, 2), optional)


def stage(model: str, inputs: dict[str, str], outputs: dict[str, str], version: int | None = None) -> GraphStep:
    return GraphStep(model, version, tuple(inputs.items()), tuple(outputs.items()), f"step {model}")


class Handle:
    def __init__(self, house: House, model: Any) -> None:
        self.servable = model
        self.released = False
        house.out += 1
        self.house = house

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.house.out -= 1


class FakeTarget:
    """A model that adds `add` to the sum of its inputs; held until the test steps it."""

    def __init__(self, name: str, add: float, inputs: tuple[TensorSpec, ...]) -> None:
        self.id = ServableId(name, 1)
        self.default_signature = "serving_default"
        self.signatures = {"serving_default": Signature("serving_default", inputs, (spec("y"),))}
        self.scheduler = FakeScheduler(lambda arrays: {"y": np.asarray(sum(arrays.values())) + np.float32(add)})
        self.scheduler.holding = True


class House:
    """An ensemble over fake models: x → a → c, x → b → c → y; a's output is an output, too."""

    STAGES = (
        stage("c", {"l": "p", "r": "q"}, {"y": "y"}),
        stage("a", {"x": "x"}, {"y": "p"}),
        stage("b", {"x": "x"}, {"y": "q"}),
    )

    def __init__(self, **options: Any) -> None:
        self.out = 0
        self.models = {
            "a": FakeTarget("a", 1, (spec("x"),)),
            "b": FakeTarget("b", 10, (spec("x"),)),
            "c": FakeTarget("c", 100, (spec("l"), spec("r"))),
        }
        self.batches: list[int] = []
        self.drops: list[str] = []
        signature = Signature("serving_default", (spec("x"),), (spec("y"), spec("p")))
        self.pipeline = EnsembleScheduler(
            "ensemble 'e'",
            signature,
            build_step_graph(["x"], ["y", "p"], self.STAGES),
            acquire=self.acquire,
            check=check_request,
            queue=options.pop("queue", Queue()),
            observer=self,
            **options,
        )
        self.done: list[InferenceRequest] = []

    def acquire(self, name: str, version: int | None) -> Handle:
        if name not in self.models:
            raise NotFound(f"unknown model {name!r}")
        return Handle(self, self.models[name])

    def batch(self, signature: str, requests: Any, rows: int, compute_seconds: float) -> None:
        self.batches.append(rows)

    def dropped(self, reason: str) -> None:
        self.drops.append(reason)

    def ask(self, rows: int = 2, **options: Any) -> InferenceRequest:
        x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        request = callback_request("serving_default", {"x": x}, self.done.append, **options)
        submit(self.pipeline, request)
        return request

    def held(self, name: str) -> list[InferenceRequest]:
        return self.models[name].scheduler.held

    def step(self, *names: str) -> None:
        for name in names:
            self.models[name].scheduler.step(1)


@pytest.fixture
def house() -> House:
    return House()


def idle(house: House) -> bool:
    return house.out == 0 and house.pipeline.queue_depth == (0, 0)


def test_steps_run_beside_each_other_and_the_last_when_both_are_done(house: House) -> None:
    request = house.ask()
    assert [len(house.held(name)) for name in "abc"] == [1, 1, 0]
    house.step("b")
    assert not house.held("c")
    house.step("a")
    assert len(house.held("c")) == 1
    house.step("c")
    assert house.done == [request]
    x = request.inputs["x"]
    np.testing.assert_array_equal(request.outputs["y"], 2 * x + 111)
    np.testing.assert_array_equal(request.outputs["p"], x + 1)
    assert house.batches == [1]
    assert idle(house)


def test_only_the_steps_run_that_the_wanted_outputs_need(house: House) -> None:
    request = house.ask(wanted=("p",))
    assert not house.held("b")
    house.step("a")
    assert request.outputs is not None
    assert "y" not in request.outputs
    assert idle(house)


def test_deadline_priority_and_timeout_reach_every_step(house: House) -> None:
    deadline = time.monotonic() + 1000
    request = house.ask(deadline=deadline, queue_deadline=time.monotonic() + 50, priority=3)
    first = house.held("a")[0]
    assert (first.deadline, first.priority) == (deadline, 3)
    house.step("a", "b")
    last = house.held("c")[0]
    assert (last.deadline, last.priority) == (deadline, 3)
    assert last.queue_deadline is not None
    assert last.queue_deadline >= (first.queue_deadline or 0), "each step's queue has the whole time"
    request.cancel()


def test_models_are_held_from_the_start_and_a_swap_in_between_changes_nothing(house: House) -> None:
    request = house.ask()
    assert house.out == 3
    old, house.models["c"] = house.models["c"], FakeTarget("c", 5000, (spec("l"), spec("r")))
    house.step("a", "b")
    old.scheduler.step(1)
    np.testing.assert_array_equal(request.outputs["y"], 2 * request.inputs["x"] + 111)
    assert idle(house)


def test_a_cancel_reaches_the_steps_that_wait(house: House) -> None:
    request = house.ask()
    request.cancel()
    assert isinstance(request.error, Cancelled)
    assert house.done == [request]
    assert not house.held("a")
    assert not house.held("b")
    assert idle(house)


def test_a_step_that_fails_ends_the_request_and_its_neighbours(house: House) -> None:
    def fail(_: Any) -> Any:
        raise ExecutionFailed("boom")

    house.models["a"].scheduler.run = fail
    request = house.ask()
    house.step("a")
    assert isinstance(request.error, ExecutionFailed)
    assert str(request.error) == "in ensemble 'e', step a: boom"
    assert not house.held("b"), "nobody waits for it any more"
    assert house.done == [request]
    assert idle(house)


def test_a_first_step_that_refuses_refuses_the_request(house: House) -> None:
    house.models["a"].scheduler.refusal = Overloaded("full", retry_after=2.0)
    with pytest.raises(Overloaded, match="in ensemble 'e', step a: full") as caught:
        house.ask()
    assert caught.value.retry_after == 2.0
    assert not caught.value.accepted
    assert not house.done
    assert idle(house)


def test_a_second_step_that_refuses_fails_it(house: House) -> None:
    house.models["b"].scheduler.refusal = QueueTimeout("too late")
    request = house.ask()
    assert isinstance(request.error, QueueTimeout)
    assert house.done == [request]
    assert not house.held("a")
    assert idle(house)


def test_a_later_step_that_refuses_tells_that_others_have_run(house: House) -> None:
    house.models["c"].scheduler.refusal = Overloaded("full")
    request = house.ask()
    house.step("a", "b")
    assert isinstance(request.error, Overloaded)
    assert request.error.accepted
    assert idle(house)


def test_a_model_that_is_gone_makes_the_ensemble_unavailable(house: House) -> None:
    del house.models["c"]
    with pytest.raises(Unavailable, match="step c: unknown model 'c'"):
        house.ask()
    assert idle(house)


def test_tensors_that_do_not_fit_the_next_model_are_an_error_of_that_step(house: House) -> None:
    house.models["c"].signatures = {
        "serving_default": Signature("serving_default", (spec("l"), TensorSpec("r", DType.INT8, (-1,))), (spec("y"),))
    }
    request = house.ask()
    house.step("a", "b")
    assert isinstance(request.error, ExecutionFailed), "the caller did not make these tensors"
    assert "step c" in str(request.error)
    assert "'r'" in str(request.error)
    assert idle(house)


def test_a_step_that_refuses_its_inputs_blames_the_caller_only_for_what_the_caller_sent() -> None:
    house = House()
    first = house.ask()
    house.held("a")[0].fail(InvalidRequest("no such word"))
    assert type(first.error) is InvalidRequest
    house = House()
    last = house.ask()
    house.step("a", "b")
    house.held("c")[0].fail(InvalidRequest("no such word"))
    assert type(last.error) is ExecutionFailed
    assert "step a: no such word" in str(first.error)
    assert "step c: no such word" in str(last.error)
    assert idle(house)


def test_a_step_that_gives_too_little_is_an_error(house: House) -> None:
    house.models["a"].scheduler.run = lambda arrays: {}
    request = house.ask()
    house.step("a")
    assert isinstance(request.error, ExecutionFailed)
    assert "it gave no output 'y'" in str(request.error)


class TestClients:
    def full(self, who: str = "greedy", **options: Any) -> tuple[House, list[InferenceRequest]]:
        house = House(queue=Queue(requests=3), who=str, **options)
        return house, [house.ask(call=who) for _ in range(3)]

    def test_the_newest_run_of_who_has_most_gives_way(self) -> None:
        house, greedy = self.full()
        modest = house.ask(call="modest")
        assert [request.finished for request in greedy] == [False, False, True]
        assert isinstance(greedy[2].error, Overloaded)
        assert greedy[2].error.accepted, "a step of it may have begun"
        assert greedy[2].error.retry_after
        assert house.drops == ["full"]
        assert [len(house.held(name)) for name in "ab"] == [3, 3], "its steps are gone from their queues"
        with pytest.raises(Overloaded, match="3 of 3 requests"):
            house.ask(call="greedy")
        house.step("a", "a", "a", "b", "b", "b", "c", "c", "c")
        assert modest.outputs is not None
        assert all(request.outputs is not None for request in greedy[:2])
        assert len(house.done) == 4
        assert idle(house)

    def test_a_step_says_whose_it_is(self) -> None:
        house, _ = self.full()
        assert [inner.call for inner in house.held("a")] == ["greedy"] * 3

    def test_a_run_that_is_over_is_forgotten(self) -> None:
        house, greedy = self.full()
        house.ask(call="modest")
        greedy[0].cancel()
        house.ask(call="other")
        with pytest.raises(Overloaded):
            house.ask(call="one more")
        assert not greedy[1].finished

    def test_off_it_is_first_come_first_served(self) -> None:
        house = House(queue=Queue(requests=1, fair=False), who=str)
        house.ask(call="a")
        with pytest.raises(Overloaded):
            house.ask(call="b")


def test_full_is_refused_at_once() -> None:
    house = House(queue=Queue(requests=1))
    first = house.ask()
    with pytest.raises(Overloaded, match="1 of 1 requests"):
        house.ask()
    assert house.drops == ["full"]
    first.cancel()
    house.ask().cancel()
    assert idle(house)


def test_rows_are_bounded_and_equal() -> None:
    house = House(max_batch_size=4)
    with pytest.raises(InvalidRequest, match="at most 4 rows"):
        house.ask(5)
    house.ask(4).cancel()
    assert idle(house)


def test_drain_waits_and_refuses(house: House) -> None:
    house.ask()
    assert not house.pipeline.drain(0)
    with pytest.raises(Unavailable, match="being unloaded"):
        house.ask()
    drained = threading.Event()
    thread = threading.Thread(target=lambda: house.pipeline.drain(30) and drained.set())
    thread.start()
    house.step("a", "b", "c")
    thread.join(30)
    assert drained.is_set()


def test_close_fails_what_is_in_flight(house: House) -> None:
    request = house.ask()
    house.pipeline.close()
    house.pipeline.close()
    assert isinstance(request.error, Unavailable)
    assert request.error.accepted
    assert idle(house)


def test_an_optional_input_that_did_not_come_is_not_waited_for() -> None:
    house = House()
    house.models["a"].signatures = {
        "serving_default": Signature("serving_default", (spec("x"), spec("z", optional=True)), (spec("y"),))
    }
    signature = Signature("serving_default", (spec("x"), spec("z", optional=True)), (spec("y"),))
    house.pipeline = EnsembleScheduler(
        "e",
        signature,
        build_step_graph(["x", "z"], ["y"], [stage("a", {"x": "x", "z": "z"}, {"y": "y"})]),
        acquire=house.acquire,
        check=check_request,
        queue=Queue(),
    )
    request = house.ask()
    house.step("a")
    assert request.outputs is not None
    assert idle(house)


@given(st.lists(st.sampled_from(["ask", "a", "b", "c", "cancel", "fail"]), max_size=30))
def test_every_request_ends_once_and_nothing_stays(events: list[str]) -> None:
    house = House()
    asked: list[InferenceRequest] = []

    def fail(_: Any) -> Any:
        raise ExecutionFailed("boom")

    for event in events:
        match event:
            case "ask":
                asked.append(house.ask())
            case "cancel" if asked:
                asked[len(asked) // 2].cancel()
            case "fail":
                house.models["b"].scheduler.run = fail
            case "a" | "b" | "c" if house.held(event):
                house.step(event)
    house.pipeline.close()
    assert sorted(map(id, house.done)) == sorted(map(id, asked))
    assert all((request.outputs is None) != (request.error is None) for request in asked)
    assert all(request.error is None or isinstance(request.error, ServingError) for request in asked)
    assert idle(house)
