"""Requests with more rows than a batch holds: split where batching is proven, joined again, ended as a whole."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.scheduling import F32, PATIENCE, Call, FakeModel, hold, signature, submit, vector

from inferd.backends.api import NOT_ANALYSED, BackendError
from inferd.server.errors import Cancelled, DeadlineExceeded, ExecutionFailed, InvalidRequest, Overloaded, Unavailable


@pytest.mark.parametrize("instances", [1, 3])
def test_every_row_comes_back_in_its_place(serve, instances):
    model = FakeModel()
    scheduler = serve(model, instances=instances, batching={"max_batch_size": 4})
    call = vector(*range(1, 12))
    submit(scheduler, call)
    np.testing.assert_array_equal(call.result()["y"][:, 0], np.arange(1, 12) * 2)
    assert call.outcomes == 1
    assert sorted(model.batches) == [3, 4, 4]
    assert call.batch_rows == 4
    assert call.enqueued_at <= call.started_at <= call.finished_at
    assert scheduler.drain(PATIENCE)
    assert scheduler.queue_depth == (0, 0)


def test_parts_share_batches_and_let_others_in_between(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 4})
    hold(model, scheduler)
    big, small = vector(*range(1, 10)), vector(20, 21)
    submit(scheduler, big)
    submit(scheduler, small)
    model.gate.open()
    np.testing.assert_array_equal(big.result()["y"][:, 0], np.arange(1, 10) * 2)
    assert small.result()["y"][:, 0].tolist() == [40, 42]
    assert [inputs["x"][:, 0].tolist() for _, inputs, _ in model.runs] == [
        [0],
        [1, 2, 3, 4],
        [20, 21],
        [5, 6, 7, 8],
        [9],
    ]


def test_its_bytes_are_charged_until_it_is_done(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2}, queue={"bytes": 100})
    blocker = hold(model, scheduler)
    big = vector(1, 2, 3, 4, nbytes=90)
    submit(scheduler, big)
    assert scheduler.queue_depth == (1, 90)
    with pytest.raises(Overloaded):
        submit(scheduler, vector(1, 2, 3, nbytes=20))
    model.gate.step()
    blocker.result()
    model.gate.wait_for_arrivals()
    assert scheduler.queue_depth == (0, 90)  # the first part runs, the rest is still held
    model.gate.open()
    big.result()
    assert scheduler.queue_depth == (0, 0)


def test_a_cancel_drops_what_is_left(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    blocker = hold(model, scheduler)
    big, other = vector(*range(1, 9)), vector(50)
    submit(scheduler, big)
    submit(scheduler, other)
    model.gate.step()
    blocker.result()
    model.gate.wait_for_arrivals()
    big.cancel()
    assert scheduler.queue_depth[1] == other.nbytes
    model.gate.open()
    assert other.result()["y"][0, 0] == 100
    assert scheduler.drain(PATIENCE)
    assert isinstance(big.error, Cancelled)
    assert big.outcomes == 1
    assert sum(model.batches) == 1 + 2 + 1  # the part that ran when it was cancelled, nothing after it
    assert scheduler.queue_depth == (0, 0)


def test_a_deadline_ends_it_as_a_whole(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    blocker = hold(model, scheduler)
    big = vector(1, 2, 3, 4, deadline=time.monotonic() + 0.3)
    submit(scheduler, big)
    with pytest.raises(DeadlineExceeded):
        big.result()
    assert not blocker.finished
    assert scheduler.queue_depth == (0, 0)
    with pytest.raises(DeadlineExceeded):
        submit(scheduler, late := vector(1, 2, 3, deadline=time.monotonic()))
    assert late.outcomes == 0


def test_the_queue_timeout_is_over_when_the_first_part_runs(serve, pass_time):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    model.gate.close()
    big = vector(1, 2, 3, 4, 5, queue_deadline=time.monotonic() + 600)
    submit(scheduler, big)
    model.gate.wait_for_arrivals()
    pass_time(600)
    model.gate.open()
    assert big.result()["y"].shape == (5, 2)


def test_a_failing_part_fails_it_with_the_models_message(serve):
    def run(_, inputs):
        if (inputs["x"] == 5).any():
            raise BackendError("five is too much")
        return {"y": inputs["x"] * 2}

    model = FakeModel(run)
    scheduler = serve(model, batching={"max_batch_size": 2})
    big = vector(*range(1, 12))
    submit(scheduler, big)
    with pytest.raises(ExecutionFailed, match="five is too much"):
        big.result()
    assert scheduler.drain(PATIENCE)
    assert big.outcomes == 1
    assert len(model.batches) == 3
    assert scheduler.queue_depth == (0, 0)


def test_inputs_without_a_batch_axis_go_with_every_part(serve):
    scaled = signature({"x": (F32, (-1, 2)), "by": (F32, ())}, {"y": (F32, (-1, 2))})
    model = FakeModel(lambda _, inputs: {"y": inputs["x"] * (inputs["by"] + 1)}, [scaled])
    scheduler = serve(model, batching={"max_batch_size": 2})
    call = Call({"x": np.ones((5, 2), np.float32), "by": np.array(6, np.float32)})
    submit(scheduler, call)
    np.testing.assert_array_equal(call.result()["y"], np.full((5, 2), 7))


def test_a_number_of_rows_without_elements_takes_no_memory(serve):
    """A message of fifty bytes may say that it has 2^40 of them."""
    model = FakeModel(signatures=[signature({"x": (F32, (-1, -1))}, {"y": (F32, (-1, -1))})])
    scheduler = serve(model, batching={"max_batch_size": 4})
    with pytest.raises(InvalidRequest, match="expected at most 4 rows without elements, got 1099511627776"):
        submit(scheduler, Call({"x": np.empty((2**40, 0), np.float32)}))
    fits = Call({"x": np.empty((3, 0), np.float32)})
    submit(scheduler, fits)
    assert fits.result()["y"].shape == (3, 0)
    assert scheduler.queue_depth == (0, 0)


def test_closing_ends_it(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    hold(model, scheduler)
    big = vector(*range(1, 9))
    submit(scheduler, big)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    with pytest.raises(Unavailable):
        big.result()
    model.gate.open()
    closing.join(PATIENCE)
    assert big.outcomes == 1


def test_closing_while_a_part_runs_ends_it(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    model.gate.close()
    big = vector(*range(1, 9))
    submit(scheduler, big)
    model.gate.wait_for_arrivals()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    model.gate.step()
    with pytest.raises(Unavailable) as info:
        big.result()
    assert info.value.accepted
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_draining_waits_for_all_parts(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 2})
    model.gate.close()
    big = vector(*range(1, 9))
    submit(scheduler, big)
    model.gate.wait_for_arrivals()
    assert not scheduler.drain(0.01)
    model.gate.open()
    assert scheduler.drain(PATIENCE)
    assert big.finished
    assert big.result()["y"].shape == (8, 2)


def longest(inputs):
    """Rows are padded to the longest of the run, like texts."""
    x = inputs["x"]
    return {"y": x[:, : max(1, int(x.max()))]}


def half_as_text(inputs):
    x = inputs["x"]
    return {"y": x if x.max() < 5 else x.astype(np.float64)}


def more_outputs(inputs):
    x = inputs["x"]
    return {"y": x} if x.max() < 5 else {"y": x, "z": x}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (longest, "a row of output 'y' is float32 [4] in one part and float32 [8] in another"),
        (half_as_text, "a row of output 'y' is float32 [9] in one part and float64 [9] in another"),
        (more_outputs, "one part has the outputs y, another one y, z"),
        (lambda inputs: {"y": inputs["x"].sum(0)}, "output 'y' has shape [9] for a part of 4 rows"),
        (lambda inputs: {"y": inputs["x"].sum()}, "output 'y' has shape [] for a part of 4 rows"),
        (lambda inputs: {"y": inputs["x"][:3]}, "output 'y' has shape [3, 9] for a part of 4 rows"),
    ],
)
@pytest.mark.parametrize("instances", [1, 2])
def test_parts_that_do_not_fit_together_run_again_in_one_piece(serve, caplog, instances, function, text):
    model = FakeModel()
    scheduler = serve(model, instances=instances, batching={"max_batch_size": 4})
    model.function = lambda _, inputs: function(inputs)
    calls = [vector(*range(1, 11), width=9) for _ in range(2)]
    for call in calls:
        submit(scheduler, call)
    for call in calls:
        for name, array in function(call.inputs).items():
            np.testing.assert_array_equal(call.result()[name], array)
        assert call.outcomes == 1
    reason = "unbatched: at run time the parts of a large request did not fit together: "
    assert scheduler.batching.startswith(reason + (text if instances == 1 else ""))  # else any part may be the first
    assert "is served unbatched from now on" in caplog.text
    submit(scheduler, call := vector(*range(1, 7), width=9))
    np.testing.assert_array_equal(call.result()["y"], function(call.inputs)["y"])
    assert scheduler.drain(PATIENCE)
    assert scheduler.queue_depth == (0, 0)


def test_a_request_in_one_piece_fails_or_is_cancelled_as_a_whole(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"max_batch_size": 4})

    def run(_, inputs):
        if len(inputs["x"]) > 4:
            raise BackendError("too large for me")
        return longest(inputs)

    model.function = run
    submit(scheduler, call := vector(*range(1, 9), width=9))
    with pytest.raises(ExecutionFailed, match="too large for me"):
        call.result()
    scheduler = serve(model := FakeModel(), batching={"max_batch_size": 4})
    model.function = lambda _, inputs: longest(inputs)
    model.gate.close()
    submit(scheduler, call := vector(*range(1, 9), width=9))
    for _ in range(2):  # the parts
        model.gate.wait_for_arrivals()
        model.gate.step()
    model.gate.wait_for_arrivals()
    call.cancel()
    with pytest.raises(Cancelled):
        call.result()
    model.gate.open()
    assert scheduler.drain(PATIENCE)
    assert scheduler.queue_depth == (0, 0)


def test_what_is_declared_and_not_proven_is_refused_not_split(serve):
    model = FakeModel()
    model.finding = NOT_ANALYSED
    scheduler = serve(model, batching={"mode": "trusted", "max_batch_size": 4})
    assert scheduler.batching == "up to 4 rows (declared)"
    with pytest.raises(InvalidRequest, match=r"expected at most 4 rows \(batching.max_batch_size\), got 5"):
        submit(scheduler, vector(*range(5)))
    submit(scheduler, call := vector(*range(4)))
    assert call.result()["y"].shape == (4, 2)


def test_what_is_declared_and_proven_is_split(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"mode": "trusted", "max_batch_size": 4})
    submit(scheduler, call := vector(*range(5)))
    assert call.result()["y"].shape == (5, 2)
    assert model.batches == [4, 1]


def test_unbatched_takes_any_number_of_rows_whole(serve):
    model = FakeModel()
    scheduler = serve(model, batching={"mode": "off", "max_batch_size": 4})
    submit(scheduler, call := vector(*range(9)))
    assert call.result()["y"].shape == (9, 2)
    assert model.batches == [9]
