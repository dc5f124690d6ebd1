"""How batches are formed: which requests share one, when it waits, and which goes first."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.scheduling import F32, PATIENCE, Call, FakeModel, Recorder, hold, signature, submit, vector

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import InvalidRequest
from inferd.wire.dtypes import DType


def test_waiting_requests_share_the_next_batch(serve):
    model, observer = FakeModel(), Recorder()
    scheduler = serve(model, observer=observer)
    assert scheduler.batching == "up to 32 rows"
    blocker = hold(model, scheduler)
    calls = [vector(i) for i in range(1, 6)]
    for call in calls:
        submit(scheduler, call)
    assert scheduler.queue_depth == (5, 5 * 8)
    model.gate.open()
    for i, call in enumerate(calls, 1):
        np.testing.assert_array_equal(call.result()["y"], [[2 * i, 2 * i]])
        assert call.batch_rows == 5
        assert call.enqueued_at <= call.started_at <= call.finished_at
    assert blocker.wait().batch_rows == 1
    assert scheduler.drain(20)
    assert model.batches == [1, 5]
    assert observer.batches == [("f", 1, 1), ("f", 5, 5)]
    assert scheduler.queue_depth == (0, 0)


def test_an_idle_instance_does_not_wait_without_a_delay(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"preferred_batch_size": 8})
    vector_call = vector(1)
    submit(scheduler, vector_call)
    vector_call.result()
    assert model.batches == [1]


def test_a_batch_holds_at_most_the_largest_size_and_keeps_the_order(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 4})
    hold(model, scheduler)
    calls = [vector(1, 2), vector(3), vector(4, 5), vector(6)]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    np.testing.assert_array_equal(calls[2].result()["y"][:, 0], [8, 10])
    np.testing.assert_array_equal(calls[3].result()["y"][:, 0], [12])
    # 2 + 1 rows; two more do not fit and close the batch, although one that comes later would
    assert model.batches == [1, 3, 3]


def test_another_shape_waits_in_its_own_bucket_and_closes_no_batch(serve):
    model = FakeModel()
    scheduler = serve(model)
    hold(model, scheduler)
    narrow = [vector(i, width=2) for i in (1, 2, 3)]
    wide = [vector(i, width=5) for i in (4, 5)]
    for call in (narrow[0], wide[0], narrow[1], wide[1], narrow[2]):
        submit(scheduler, call)
    model.gate.open()
    for value, call in zip((1, 2, 3, 4, 5), narrow + wide, strict=True):
        assert (call.result()["y"] == 2 * value).all()
    assert model.batches == [1, 3, 2]  # the bucket with the oldest head first


def test_inputs_without_a_batch_axis_must_be_equal_to_share(serve):
    scaled = signature({"x": (F32, (-1, 2)), "by": (F32, ())}, {"y": (F32, (-1, 2))})
    model = FakeModel(lambda _, inputs: {"y": inputs["x"] * (inputs["by"] + 1)}, [scaled])
    scheduler = serve(model)
    assert scheduler.batching == "up to 32 rows"
    model.gate.close()
    calls = [
        Call({"x": np.full((1, 2), i, np.float32), "by": np.array(by, np.float32)})
        for i, by in ((0, 9), (1, 1), (2, 5), (3, 1))
    ]
    submit(scheduler, calls[0])
    model.gate.wait_for_arrivals()
    for call in calls[1:]:
        submit(scheduler, call)
    model.gate.open()
    assert [call.result()["y"][0, 0] for call in calls] == [0, 2, 12, 6]
    assert model.batches == [1, 2, 1]


def test_the_set_of_inputs_present_is_part_of_the_bucket(serve):
    optional = Signature(
        "f",
        (TensorSpec("x", F32, (-1, 2)), TensorSpec("bias", F32, (-1, 2), optional=True)),
        (TensorSpec("y", F32, (-1, 2)),),
    )
    model = FakeModel(lambda _, inputs: {"y": inputs["x"] + inputs.get("bias", np.float32(100))}, [optional])
    scheduler = serve(model)
    hold(model, scheduler)
    x = np.ones((1, 2), np.float32)
    without, with_bias, without_too = Call({"x": x}), Call({"x": x, "bias": x}), Call({"x": x})
    for call in (without, with_bias, without_too):
        submit(scheduler, call)
    model.gate.open()
    assert [call.result()["y"][0, 0] for call in (without, with_bias, without_too)] == [101, 2, 101]
    assert model.batches == [1, 2, 1]


def test_one_optional_input_is_not_taken_for_another(serve, caplog):
    optional = Signature(
        "f",
        (TensorSpec("x", F32, (-1, 2)), *(TensorSpec(name, F32, (-1, 2), optional=True) for name in ("plus", "minus"))),
        (TensorSpec("y", F32, (-1, 2)),),
    )

    def run(_, inputs):
        return {"y": inputs["x"] + inputs.get("plus", np.float32(0)) - inputs.get("minus", np.float32(0))}

    model = FakeModel(run, [optional])
    scheduler = serve(model)
    hold(model, scheduler)
    x = np.ones((1, 2), np.float32)
    plus, minus = Call({"x": x, "plus": x}), Call({"x": x, "minus": x})
    submit(scheduler, plus)
    submit(scheduler, minus)
    model.gate.open()
    assert (plus.result()["y"][0, 0], minus.result()["y"][0, 0]) == (2, 0)
    assert model.batches == [1, 1, 1]
    assert not caplog.records  # kept apart from the start, not after a batch of both has failed


def test_signatures_share_instances_but_not_batches_nor_bounds(serve):
    f, g = (signature({"x": (F32, (-1, 2))}, {"y": (F32, (-1, 2))}, name) for name in "fg")
    model = FakeModel(lambda name, inputs: {"y": inputs["x"] * (2 if name == "f" else 3)}, [f, g])
    scheduler = serve(model, queue={"requests": 2})
    hold(model, scheduler)
    calls = [vector(1), vector(1, signature="g"), vector(2), vector(2, signature="g")]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    assert [call.result()["y"][0, 0] for call in calls] == [2, 3, 4, 6]
    assert [name for name, _, _ in model.runs] == ["f", "f", "g"]
    with pytest.raises(InvalidRequest, match=r"'h'.*f, g"):
        submit(scheduler, vector(1, signature="h"))


def test_only_the_wanted_outputs_are_computed(serve):
    two = signature({"x": (F32, (-1, 2))}, {"a": (F32, (-1, 2)), "b": (F32, (-1, 2)), "c": (F32, (-1, 2))})
    model = FakeModel(lambda _, inputs: {"a": inputs["x"] + 1, "b": inputs["x"] + 2, "c": inputs["x"] + 3}, [two])
    scheduler = serve(model)
    hold(model, scheduler)
    a, b, ba = vector(1, wanted=("a",)), vector(2, wanted=("b",)), vector(3, wanted=("b", "a"))
    for call in (a, b, ba):
        submit(scheduler, call)
    model.gate.step(2)
    assert list(a.result()) == ["a"]
    assert list(b.result()) == ["b"]
    assert list(ba.result()) == ["b", "a"]
    assert b.result()["b"][0, 0] == 4
    assert ba.result()["a"][0, 0] == 4
    hold(model, scheduler)
    everything, one = vector(1), vector(2, wanted=("c",))
    submit(scheduler, everything)
    submit(scheduler, one)
    model.gate.open()
    assert list(everything.result()) == ["a", "b", "c"]
    assert list(one.result()) == ["c"]
    assert [wanted and sorted(wanted) for _, _, wanted in model.runs] == [None, ["a", "b"], None, None]


def test_strings_share_batches(serve):
    text = signature({"x": (DType.STRING, (-1, 1))}, {"y": (DType.STRING, (-1, 1))})
    model = FakeModel(lambda _, inputs: {"y": inputs["x"] + np.array(b"!", object)}, [text])
    scheduler = serve(model)
    assert scheduler.batching == "up to 32 rows"
    model.gate.close()
    calls = [Call({"x": np.array([[word]], object)}) for word in (b"a", b"longer", b"")]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    assert [call.result()["y"].tolist() for call in calls] == [[[b"a!"]], [[b"longer!"]], [[b"!"]]]


class TestWaitingForCompany:
    """`max_queue_delay` is so long in these tests that whatever runs did not wait for it."""

    LONG = 1000.0

    def test_until_the_preferred_size_is_there(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_queue_delay": self.LONG, "preferred_batch_size": 3})
        calls = [vector(i) for i in range(3)]
        for call in calls:
            submit(scheduler, call)
        for call in calls:
            call.result()
        assert model.batches == [3]

    def test_for_the_largest_size_where_none_is_preferred(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_queue_delay": self.LONG, "max_batch_size": 2})
        for call in (calls := [vector(1), vector(2)]):
            submit(scheduler, call)
        for call in calls:
            call.result()
        assert model.batches == [2]

    def test_not_longer_than_the_delay(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_queue_delay": 0.02})
        call = vector(1)
        submit(scheduler, call)
        call.result()
        assert call.started_at - call.enqueued_at >= 0.019

    def test_not_beyond_a_deadline(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_queue_delay": self.LONG})
        patient, urgent = vector(1), vector(2, deadline=time.monotonic() + 0.5)
        submit(scheduler, patient)
        submit(scheduler, urgent)
        assert urgent.result()["y"][0, 0] == 4  # served before its deadline, not dropped at it
        assert patient.result()["y"][0, 0] == 2
        assert model.batches == [2]

    def test_a_ripe_bucket_does_not_wait_for_an_older_unripe_one(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_queue_delay": self.LONG, "preferred_batch_size": 2})
        lonely = vector(1, width=7)
        submit(scheduler, lonely)
        pair = [vector(2), vector(3)]
        for call in pair:
            submit(scheduler, call)
        for call in pair:
            call.result()
        assert not lonely.finished
        assert scheduler.drain(20)  # a drain waits for nobody
        assert lonely.result()["y"].shape == (1, 7)

    def test_an_idle_instance_takes_over_the_clock(self, serve):
        """One instance takes a batch and is stuck; the other must still see the second bucket's time come."""
        model = FakeModel()
        scheduler = serve(model, instances=2, batching={"max_queue_delay": 0.3, "preferred_batch_size": 8})
        submit(scheduler, opening := vector(0))
        opening.result()
        model.gate.close()
        first, second = vector(1, width=2), vector(2, width=3)
        submit(scheduler, first)
        give_up = time.monotonic() + PATIENCE
        while len(scheduler._batcher._idle) < 2:  # until the one that was woken has set its clock and sleeps again
            assert time.monotonic() < give_up
        submit(scheduler, second)
        model.gate.wait_for_arrivals(2)
        model.gate.open()
        first.result()
        second.result()

    def test_not_at_all_where_nothing_is_batched(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"mode": "off", "max_queue_delay": self.LONG})
        call = vector(1)
        submit(scheduler, call)
        call.result()


class TestPriorities:
    def test_one_goes_before_two(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"mode": "off"})
        hold(model, scheduler)
        calls = [vector(1, priority=2), vector(2, priority=3), vector(3, priority=1), vector(4, priority=2)]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        for call in calls:
            call.result()
        assert [inputs["x"][0, 0] for _, inputs, _ in model.runs] == [0, 3, 1, 4, 2]

    def test_a_batch_takes_the_important_first_and_fills_up_with_others(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"max_batch_size": 3})
        hold(model, scheduler)
        calls = [vector(i, priority=p) for i, p in ((1, 2), (2, 2), (3, 1), (4, 1))]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        for i, call in enumerate(calls, 1):
            assert call.result()["y"][0, 0] == 2 * i
        assert [inputs["x"][:, 0].tolist() for _, inputs, _ in model.runs] == [[0], [3, 4, 1], [2]]

    def test_nobody_starves(self, serve, monkeypatch):
        """An old request of low priority goes before a young one of high priority."""
        monkeypatch.setattr("inferd.server.scheduling.queue.AGING", 0.0)
        model = FakeModel()
        scheduler = serve(model, batching={"mode": "off"})
        hold(model, scheduler)
        old, young = vector(1, priority=5), vector(2, priority=1)
        submit(scheduler, old)
        submit(scheduler, young)
        model.gate.open()
        old.result()
        young.result()
        assert [inputs["x"][0, 0] for _, inputs, _ in model.runs] == [0, 1, 2]


def test_several_instances_take_from_one_queue(serve):
    model = FakeModel()
    scheduler = serve(model, instances=3, batching={"mode": "off"})
    model.gate.close()
    calls = [vector(i) for i in range(6)]
    for call in calls:
        submit(scheduler, call)
    model.gate.wait_for_arrivals(3)
    assert scheduler.queue_depth[0] == 3
    model.gate.open()
    assert [call.result()["y"][0, 0] for call in calls] == [0, 2, 4, 6, 8, 10]


def test_rows_of_several_inputs_must_agree(serve):
    two = signature({"a": (F32, (-1, 2)), "b": (F32, (-1, 2))}, {"y": (F32, (-1, 2))})
    model = FakeModel(lambda _, inputs: {"y": inputs["a"] + inputs["b"]}, [two])
    scheduler = serve(model)
    call = Call({"a": np.ones((3, 2), np.float32), "b": np.ones((2, 2), np.float32)})
    with pytest.raises(InvalidRequest, match=r"input 'b': expected 3 rows.*input 'a', got shape \[2, 2\]"):
        submit(scheduler, call)
    assert call.outcomes == 0


def test_a_request_without_rows_runs_alone(serve):
    model = FakeModel()
    scheduler = serve(model)
    hold(model, scheduler)
    empty, one = Call({"x": np.empty((0, 2), np.float32)}), vector(1)
    submit(scheduler, empty)
    submit(scheduler, one)
    model.gate.open()
    assert empty.result()["y"].shape == (0, 2)
    assert one.result()["y"][0, 0] == 2
    assert sorted(model.batches) == [0, 1, 1]
