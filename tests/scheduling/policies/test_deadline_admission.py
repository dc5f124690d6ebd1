"""Admission by predicted deadline, and batches no larger than pays: with models whose runs a test steps by hand."""

from __future__ import annotations

import threading
from time import monotonic

import pytest
from support.scheduling import PATIENCE, VECTOR, FakeModel, Recorder, learn, submit, vector
from support.waiting import eventually

from inferd.server.errors import Code, Overloaded, TooLate
from inferd.server.scheduling.bucket import BucketKeys
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.queue import Bucket, SignatureQueue
from inferd.server.scheduling.request import Callback, Route


def bucket(limit=8, per_row=0.01, fixed=0.0):
    queue = SignatureQueue("f", BucketKeys(VECTOR, Padding(VECTOR, {})), max_requests=100, max_bytes=1 << 20)
    queue.limit = limit
    made = queue.bucket((2,), lambda bucket, request: None)
    learn(made, per_row, fixed)
    return made


def waiting(bucket: Bucket, rows: int) -> Bucket:
    bucket.count = bucket.rows = rows
    return bucket


class TestPrediction:
    def test_what_runs_what_waits_and_its_own_batch(self):
        outlook, at = DeadlineAdmission(), bucket()
        outlook.busy("worker", at, 8, 100.0, [waiting(at, 16)])
        # 80 ms run, two batches of 80 ms wait, and its own has one row, at least
        request = vector(1)
        request.route = Route("f", rows=1)
        assert outlook.seconds(at, request, 16, 100.0) == pytest.approx(1.05 * 0.25, rel=0.01)
        assert outlook.seconds(at, request, 16, 100.06) == pytest.approx(1.05 * 0.19, rel=0.01)

    def test_two_workers_share_what_waits(self):
        outlook, at = DeadlineAdmission(), waiting(bucket(), 16)
        for worker in "ab":
            outlook.busy(worker, at, 8, 100.0, [at])
        request = vector(1)
        request.route = Route("f", rows=1)
        assert outlook.seconds(at, request, 16, 100.0) < 1.05 * 0.18

    def test_a_batch_that_is_overdue_may_take_as_long_again(self):
        outlook, at = DeadlineAdmission(), bucket()
        outlook.busy("worker", at, 8, 100.0, [])
        request = vector(1)
        request.route = Route("f", rows=1)
        assert outlook.seconds(at, request, 0, 101.0) > 0.9

    def test_less_important_requests_stand_behind(self):
        outlook, at = DeadlineAdmission(), waiting(bucket(), 16)
        outlook.busy("worker", at, 8, 100.0, [at])
        for priority, count in ((1, 4), (5, 12)):
            at.level(priority).requests.extend(vector(i) for i in range(count))
        first, last = vector(1), vector(1, priority=5)
        first.route = last.route = Route("f", rows=1)
        assert outlook.seconds(at, first, 16, 100.0) < outlook.seconds(at, last, 16, 100.0) - 0.05

    def test_what_is_unknown_is_never_late(self):
        outlook = DeadlineAdmission()
        queue = SignatureQueue("f", BucketKeys(VECTOR, Padding(VECTOR, {})), max_requests=100, max_bytes=1 << 20)
        at = waiting(queue.bucket((2,), lambda bucket, request: None), 50)
        outlook.busy("worker", at, 8, 100.0, [at])
        assert outlook.base == outlook.each == 0
        assert outlook.seconds(at, vector(1), 50, 100.0) == 0

    def test_answers_that_come_too_late_widen_the_margin_and_others_narrow_it(self):
        outlook, at = DeadlineAdmission(), bucket()
        outlook.busy("worker", at, 8, 100.0, [])
        request, late, fine = vector(1), vector(2), vector(3)
        request.route = Route("f", rows=1)
        before = outlook.seconds(at, request, 0, 100.0)
        for call, leaves_at in ((late, 100.5), (fine, 110.0)):
            call.enqueued_at, call.leaves_at = 100.0, leaves_at
        outlook.answered([fine, late], 100.4, 100.49)
        widened = outlook.seconds(at, request, 0, 100.0)
        assert widened > before
        for _ in range(100):
            outlook.answered([fine], 100.4, 100.49)
        assert outlook.seconds(at, request, 0, 100.0) == pytest.approx(before)

    def test_a_request_without_the_time_for_its_own_run_says_nothing(self):
        outlook = DeadlineAdmission()
        hasty = vector(1)
        hasty.enqueued_at, hasty.leaves_at = 100.0, 100.3
        outlook.answered([hasty], 100.0, 100.29)
        assert outlook._margin == DeadlineAdmission()._margin


@pytest.fixture
def slow(serve):
    """A model that stands at its gate with a request in its hands, and has told that a row takes ten seconds."""
    model, observer = FakeModel(), Recorder()
    scheduler = serve(model, observer=observer)
    submit(scheduler, first := vector(0))
    first.result()
    queue = scheduler._queues["f"]
    (at,) = queue.buckets.values()
    learn(at, 10.0)
    model.gate.close()
    submit(scheduler, vector(1))
    model.gate.wait_for_arrivals()
    return model, scheduler, observer


class TestAdmission:
    def test_what_cannot_be_answered_in_time_is_refused_at_once(self, slow):
        model, scheduler, observer = slow
        with pytest.raises(TooLate, match=r"would answer in about .* the deadline is in [45]\.\d+ s") as refused:
            submit(scheduler, vector(2, deadline=monotonic() + 5))
        assert refused.value.code is Code.RESOURCE_EXHAUSTED
        assert isinstance(refused.value, Overloaded)
        assert not refused.value.accepted
        assert refused.value.retry_after == 5.0
        assert observer.drops == ["late"]
        assert scheduler.queue_depth == (0, 0)
        model.gate.open()

    def test_what_can_is_not(self, slow):
        model, scheduler, _ = slow
        calls = [vector(2, deadline=monotonic() + 1000), vector(3)]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in calls] == [4, 6]

    def test_an_idle_model_takes_everything_whatever_it_has_learnt(self, slow):
        model, scheduler, _ = slow
        model.gate.open()
        for i in range(3):
            eventually(lambda: scheduler._batcher._idle, "the worker is idle")
            submit(scheduler, call := vector(i, deadline=monotonic() + PATIENCE / 2))
            assert call.result()["y"][0, 0] == 2 * i

    def test_bounds_only(self, serve):
        model = FakeModel()
        scheduler = serve(model, queue={"admission": "bounds"})
        submit(scheduler, first := vector(0))
        first.result()
        learn(next(iter(scheduler._queues["f"].buckets.values())), 10.0)
        model.gate.close()
        submit(scheduler, vector(1))
        model.gate.wait_for_arrivals()
        submit(scheduler, call := vector(2, deadline=monotonic() + PATIENCE / 2))
        model.gate.open()
        assert call.result()["y"][0, 0] == 4


class TestSize:
    def run(self, serve, per_row, fixed, count, **batching):
        model = FakeModel()
        scheduler = serve(model, batching=batching)
        submit(scheduler, first := vector(0))
        first.result()
        learn(next(iter(scheduler._queues["f"].buckets.values())), per_row, fixed)
        model.gate.close()
        submit(scheduler, vector(1))
        model.gate.wait_for_arrivals()
        calls = [vector(i) for i in range(count)]
        for call in calls:
            submit(scheduler, call)
        model.forget()
        model.gate.open()
        for call in calls:
            call.result()
        return model.batches

    def test_rows_that_cost_the_same_alone_are_left_for_the_next_batch(self, serve):
        assert self.run(serve, 0.01, 0.0, 16)[0] == 8

    def test_rows_that_are_cheaper_together_run_together(self, serve):
        assert self.run(serve, 0.0, 0.1, 16) == [16]

    def test_what_fills_more_than_a_batch_is_not_cut(self, serve):
        assert self.run(serve, 0.01, 0.0, 40)[0] == 32

    def test_as_large_as_may_be(self, serve):
        assert self.run(serve, 0.01, 0.0, 16, size="largest") == [16]


class TestAnswering:
    def test_the_model_runs_the_next_batch_while_the_last_is_being_answered(self, serve):
        """A caller that takes its time does not keep the model waiting, and a drain waits for the caller."""
        held, ran = threading.Event(), threading.Event()

        def run(_, inputs):
            if inputs["x"].shape[0] == 5:
                ran.set()
            threading.Event().wait(0.002)  # long enough for its answers to be handed off
            return {"y": inputs["x"] * 2}

        model = FakeModel(run)
        scheduler = serve(model, batching={"size": "largest"})
        model.gate.close()
        submit(scheduler, first := vector(0))
        model.gate.wait_for_arrivals()
        slow = [vector(i) for i in range(4)]
        slow[0].owner = Callback(lambda request: held.wait(PATIENCE))
        for call in slow:
            submit(scheduler, call)
        model.gate.step()
        first.result()
        model.gate.wait_for_arrivals()
        five = [vector(i) for i in range(5)]
        for call in five:
            submit(scheduler, call)
        model.gate.open()
        assert ran.wait(PATIENCE), "the second batch waited for the first one's answers"
        assert [call.result()["y"][0, 0] for call in five] == [0, 2, 4, 6, 8]
        assert not scheduler.drain(0.0)
        held.set()
        assert scheduler.drain(PATIENCE)
        assert [call.result()["y"][0, 0] for call in slow[1:]] == [2, 4, 6]

    def test_a_close_answers_what_was_handed_off(self, serve):
        def run(_, inputs):
            threading.Event().wait(0.002)
            return {"y": inputs["x"] * 2}

        model = FakeModel(run)
        scheduler = serve(model, batching={"size": "largest"})
        for _ in range(20):
            calls = [vector(i) for i in range(4)]
            for call in calls:
                submit(scheduler, call)
            for call in calls:
                call.result()
        last = [vector(i) for i in range(4)]
        model.gate.close()
        submit(scheduler, vector(0))
        model.gate.wait_for_arrivals()
        for call in last:
            submit(scheduler, call)
        model.gate.open()
        assert scheduler.drain(PATIENCE)
        scheduler.close()
        assert [call.outcomes for call in last] == [1] * 4
        assert [call.result()["y"][0, 0] for call in last] == [0, 2, 4, 6]
