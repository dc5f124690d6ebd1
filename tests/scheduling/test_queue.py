"""Bounds, expiry and cancellation of queued requests."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from support.scheduling import PATIENCE, Call, FakeModel, Recorder, hold, submit, vector

from inferd.server.errors import Cancelled, Code, DeadlineExceeded, Overloaded, QueueTimeout, Unavailable


class TestBounds:
    def test_full_in_requests_is_refused_at_once(self, serve):
        model, observer = FakeModel(), Recorder()
        scheduler = serve(model, queue={"requests": 2}, observer=observer)
        hold(model, scheduler)
        waiting = [vector(1), vector(2)]
        for call in waiting:
            submit(scheduler, call)
        refused = vector(3)
        with pytest.raises(Overloaded, match=r"m:1 is full: 2 of 2 requests \(queue.requests\)") as info:
            submit(scheduler, refused)
        assert info.value.code is Code.RESOURCE_EXHAUSTED
        assert info.value.retry_after is not None
        assert 0 < info.value.retry_after <= 5
        assert not info.value.accepted
        model.gate.open()
        for call in waiting:
            call.result()
        submit(scheduler, again := vector(4))
        again.result()
        assert refused.outcomes == 0
        assert observer.drops == ["full"]

    def test_full_in_bytes_is_refused_at_once(self, serve):
        model = FakeModel()
        scheduler = serve(model, queue={"bytes": 100})
        hold(model, scheduler)
        submit(scheduler, vector(1, nbytes=60))
        with pytest.raises(Overloaded, match=r"60 of 100 bytes \(queue.bytes\), this request needs 41"):
            submit(scheduler, vector(1, nbytes=41))
        submit(scheduler, vector(1, nbytes=40))
        assert scheduler.queue_depth == (2, 100)
        model.gate.open()
        assert scheduler.drain(PATIENCE)
        assert scheduler.queue_depth == (0, 0)

    def test_a_request_that_never_fits_is_told_so(self, serve):
        scheduler = serve(FakeModel(), queue={"bytes": 100})
        with pytest.raises(
            Overloaded, match=r"holds 101 bytes, the whole queue of m:1 takes 100 \(queue.bytes\)"
        ) as info:
            submit(scheduler, vector(1, nbytes=101))
        assert info.value.retry_after is None

    def test_unbatched_models_have_the_same_bounds(self, serve):
        model = FakeModel()
        scheduler = serve(model, queue={"requests": 1}, batching={"mode": "off"})
        hold(model, scheduler)
        submit(scheduler, vector(1))
        with pytest.raises(Overloaded):
            submit(scheduler, vector(2))

    def test_waiting_for_ever_and_cancelling_grows_nothing(self, serve):
        model = FakeModel()
        scheduler = serve(model, queue={"requests": 4})
        hold(model, scheduler)
        submit(scheduler, first := vector(1))
        for i in range(500):
            submit(scheduler, call := vector(i, priority=1 + i % 3))
            call.cancel()
        levels = [level for bucket in scheduler._queues["f"].buckets.values() for level in bucket.levels]
        assert sum(len(level.requests) for level in levels) < 60
        model.gate.open()
        first.result()


class TestExpiry:
    def test_expired_on_arrival_is_refused(self, serve):
        model, observer = FakeModel(), Recorder()
        scheduler = serve(model, observer=observer)
        with pytest.raises(DeadlineExceeded) as info:
            submit(scheduler, call := vector(1, deadline=time.monotonic()))
        assert not isinstance(info.value, QueueTimeout)
        with pytest.raises(QueueTimeout):
            submit(scheduler, vector(1, queue_deadline=time.monotonic()))
        assert call.outcomes == 0
        assert observer.drops == ["expired", "expired"]

    @pytest.mark.parametrize(
        ("option", "error"),
        [("deadline", DeadlineExceeded), ("queue_deadline", QueueTimeout)],
        ids=["deadline", "queue"],
    )
    def test_answered_at_its_deadline_while_every_instance_is_busy(self, serve, option, error):
        model, observer = FakeModel(), Recorder()
        scheduler = serve(model, observer=observer)
        blocker = hold(model, scheduler)
        due = time.monotonic() + 0.3  # time enough to submit both
        dying, living = vector(1, **{option: due}), vector(2, deadline=due + 1000)
        submit(scheduler, dying)
        submit(scheduler, living)
        with pytest.raises(error) as info:
            dying.result()
        assert type(info.value) is error
        assert not info.value.accepted
        assert dying.finished_at >= due
        assert not blocker.finished  # the gate is still closed: nobody took it out of the queue but the clock
        assert scheduler.queue_depth[0] == 1
        model.gate.open()
        living.result()
        assert all(1 not in inputs["x"] for _, inputs, _ in model.runs)
        assert observer.drops == ["expired"]

    def test_earlier_deadlines_that_come_later_are_met(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        hold(model, scheduler)
        now = time.monotonic()
        calls = [vector(1, deadline=now + d, width=w) for d, w in ((500, 1), (0.5, 2), (0.3, 1), (0.4, 3))]
        for call in calls:
            submit(scheduler, call)
        for call in sorted(calls, key=lambda call: call.deadline)[:3]:
            with pytest.raises(DeadlineExceeded):
                call.result()
        assert not calls[0].finished

    def test_expired_is_dropped_when_dequeued_and_never_runs(self, serve, pass_time):
        """The clock thread is late here: the instance itself must not run what nobody waits for."""
        model = FakeModel()
        scheduler = serve(model)
        hold(model, scheduler)
        dying, living = vector(1, deadline=time.monotonic() + 600), vector(2)
        submit(scheduler, dying)
        submit(scheduler, living)
        pass_time(600)
        model.gate.open()
        living.result()
        with pytest.raises(DeadlineExceeded, match="in the queue"):
            dying.result()
        assert model.batches == [1, 1]


class TestCancel:
    def test_dropped_alone_and_freed_at_once(self, serve):
        model, observer = FakeModel(), Recorder()
        scheduler = serve(model, observer=observer)
        hold(model, scheduler)
        calls = [vector(i) for i in (1, 2, 3)]
        for call in calls:
            submit(scheduler, call)
        memory = weakref.ref(calls[1].inputs["x"])
        calls[1].cancel()
        assert calls[1].outcomes == 1
        assert scheduler.queue_depth == (2, 16)
        gc.collect()
        assert memory() is None  # not when its turn would have come
        calls[1].cancel()
        model.gate.open()
        assert [calls[i].result()["y"][0, 0] for i in (0, 2)] == [2, 6]
        with pytest.raises(Cancelled):
            calls[1].result()
        assert calls[1].outcomes == 1
        assert [inputs["x"][:, 0].tolist() for _, inputs, _ in model.runs] == [[0], [1, 3]]
        assert observer.drops == ["cancelled"]

    def test_while_it_runs_the_neighbours_get_their_rows(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        blocker = hold(model, scheduler)
        calls = [vector(i) for i in (1, 2, 3)]
        for call in calls:
            submit(scheduler, call)
        model.gate.step()
        blocker.result()
        model.gate.wait_for_arrivals()
        calls[1].cancel()
        model.gate.open()
        assert [calls[i].result()["y"][0, 0] for i in (0, 2)] == [2, 6]
        assert [call.outcomes for call in calls] == [1, 1, 1]
        assert isinstance(calls[1].error, Cancelled)

    @pytest.mark.parametrize("running", [False, True])
    def test_a_client_whose_time_is_over_has_not_gone_away(self, serve, running: bool):
        model, observer = FakeModel(), Recorder()
        scheduler = serve(model, observer=observer)
        blocker = hold(model, scheduler)
        call = vector(1, deadline=time.monotonic() + 60)
        submit(scheduler, call)
        if running:
            model.gate.step()
            blocker.result()
            model.gate.wait_for_arrivals()
        call.deadline = time.monotonic()  # the queue, which has noted when it ends, has not looked yet
        call.cancel()
        with pytest.raises(DeadlineExceeded, match="the deadline passed before the answer was there"):
            call.result()
        assert observer.drops == ([] if running else ["expired"])
        model.gate.open()

    @pytest.mark.parametrize(("given", "left", "over"), [(1.0, 0.009, True), (60.0, 0.6, True), (60.0, 5.0, False)])
    def test_its_time_is_over_before_ours_where_grpc_has_rounded_it(self, given: float, left: float, over: bool):
        call = vector(1, deadline=time.monotonic() + left)
        call.enqueued_at = call.deadline - given
        call.cancel()
        assert isinstance(call.error, DeadlineExceeded if over else Cancelled)

    def test_before_it_is_submitted(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        call = vector(1)
        call.cancel()
        submit(scheduler, call)
        assert scheduler.drain(PATIENCE)
        assert call.outcomes == 1
        assert model.runs == []

    def test_just_before_it_is_queued(self, serve, monkeypatch):
        """The cancel is over before the request has a place that it could be taken out of."""
        model = FakeModel()
        scheduler = serve(model)
        hold(model, scheduler)
        call = vector(1)

        def clock():
            call.cancel()
            return time.monotonic()

        with monkeypatch.context() as patch:
            patch.setattr("inferd.server.scheduling.batcher.monotonic", clock)
            submit(scheduler, call)
        assert scheduler.queue_depth == (0, 0)
        assert call.outcomes == 1

    def test_between_submit_and_queue(self, serve):
        """The caller goes away while another thread is just queueing the request: its place must not be left
        occupied.
        """
        model = FakeModel()
        scheduler = serve(model)
        hold(model, scheduler)
        for _ in range(200):
            call = vector(1)
            ready = threading.Barrier(2)

            def cancel(call=call, ready=ready):
                ready.wait()
                call.cancel()

            thread = threading.Thread(target=cancel)
            thread.start()
            ready.wait()
            submit(scheduler, call)
            thread.join()
            assert call.wait().outcomes == 1
            assert scheduler.queue_depth == (0, 0)


def test_a_finished_request_keeps_nothing_of_its_caller_alive(serve):
    scheduler = serve(FakeModel())

    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)
    done = threading.Event()

    def on_done(_request, held=held):
        done.set()

    from inferd.server.scheduling.request import callback_request

    request = callback_request("f", {"x": np.ones((1, 2), np.float32)}, on_done)
    del held, on_done
    submit(scheduler, request)
    assert done.wait(PATIENCE)
    assert scheduler.drain(PATIENCE)
    assert alive() is None


def test_an_idle_instance_keeps_no_request_alive(serve):
    model = FakeModel()
    scheduler = serve(model)
    call = vector(1)
    memory = weakref.ref(call.inputs["x"])
    submit(scheduler, call)
    call.result()
    assert scheduler.drain(PATIENCE)
    del call
    model.forget()
    gc.collect()
    assert memory() is None


def test_only_the_first_outcome_counts():
    """Sixteen threads race to finish one request."""
    for _ in range(100):
        call = Call({"x": np.ones((1, 1), np.float32)})
        ready = threading.Barrier(16)

        def race(i, call=call, ready=ready):
            ready.wait()
            if i % 3 == 0:
                call.cancel()
            elif i % 3 == 1:
                call.succeed({"y": np.full(1, i)}, 1.0)
            else:
                call.fail(Unavailable("no"))

        threads = [threading.Thread(target=race, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert call.outcomes == 1
        assert (call.outputs is None) != (call.error is None)
