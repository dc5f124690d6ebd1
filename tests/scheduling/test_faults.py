"""Failing models: only the request that causes the failure fails, no request gets another's rows, and instances go
on."""

from __future__ import annotations

import logging
import os
import sys
import threading

import numpy as np
import pytest
from support.scheduling import PATIENCE, VECTOR, Call, FakeModel, Recorder, hold, submit, vector

from inferd.backends.api import BackendError, InstanceLost, InvalidInput, LoadError, Placement, Traits
from inferd.server.config.schema import Batching, Queue
from inferd.server.errors import ExecutionFailed, InvalidRequest, Unavailable
from inferd.server.scheduling.scheduler import Scheduler


def allergic(error):
    """Fails when a row holds -1."""

    def run(_, inputs):
        if (inputs["x"] == -1).any():
            raise error
        return {"y": inputs["x"] * 2}

    return run


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities of threads are Linux's")
def test_an_instance_lowers_the_priority_of_its_threads():
    seen = []

    def look():
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def run(_, inputs):
        look()
        (pool := threading.Thread(target=look)).start()
        pool.join()
        return {"y": inputs["x"]}

    front = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    scheduler = Scheduler("m:1", FakeModel(run), [Placement("cpu", 1, 3)], batching=Batching(), queue=Queue())
    scheduler.start()
    try:
        submit(scheduler, call := vector(1))
        call.result()
    finally:
        scheduler.close()
    assert seen == [min(19, front + 3)] * 2
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == front


@pytest.mark.parametrize(
    ("raised", "seen", "message"),
    [
        (InvalidInput("bad token"), InvalidRequest, "bad token"),
        (BackendError("out of memory"), ExecutionFailed, "out of memory"),
        (KeyError("secret"), ExecutionFailed, "unexpected KeyError"),
        (SystemExit(1), ExecutionFailed, "unexpected SystemExit"),
    ],
    ids=["input", "backend", "bug", "exit"],
)
def test_only_the_culprit_fails(serve, raised, seen, message):
    model, observer = FakeModel(allergic(raised)), Recorder()
    scheduler = serve(model, observer=observer)
    hold(model, scheduler)
    calls = [vector(i) for i in (1, -1, 3)]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    assert [calls[i].result()["y"][0, 0] for i in (0, 2)] == [2, 6]
    with pytest.raises(seen, match=message) as info:
        calls[1].result()
    assert "secret" not in str(info.value)
    assert info.value.accepted
    assert model.batches == [1, 3, 1, 1, 1]
    submit(scheduler, after := vector(4))
    assert after.result()["y"][0, 0] == 8
    assert [call.outcomes for call in calls] == [1, 1, 1]


@pytest.mark.parametrize("error", [InvalidInput("a text of caller 2"), BackendError("no"), KeyError("secret")])
def test_a_batch_that_may_not_be_repeated_fails_as_a_whole(serve, error):
    """Python code may have effects, so nothing is run twice; and nobody is told what another caller sent."""
    model = FakeModel(allergic(error), traits=Traits(repeatable=False))
    scheduler = serve(model)
    hold(model, scheduler)
    calls = [vector(i) for i in (1, -1, 3)]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    for call in calls:
        with pytest.raises(
            ExecutionFailed, match=r"a batch of 3 requests failed, .* not declared idempotent"
        ) as failed:
            call.result()
        assert failed.value.accepted
        assert "caller 2" not in str(failed.value)
    assert model.batches == [1, 3]
    submit(scheduler, alone := vector(-1))
    with pytest.raises(InvalidRequest if isinstance(error, InvalidInput) else ExecutionFailed) as failed:
        alone.result()
    assert ("caller 2" in str(failed.value)) == isinstance(error, InvalidInput), "its own fault is told"


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_client_is_not_asked_to_repeat_what_may_not_be_repeated(serve, repeatable):
    lost = InstanceLost("the worker is gone", accepted=True, retry_after=1.0)
    scheduler = serve(FakeModel(allergic(lost), traits=Traits(repeatable=repeatable)))
    submit(scheduler, call := vector(-1))
    with pytest.raises(Unavailable if repeatable else ExecutionFailed, match="the worker is gone"):
        call.result()


def test_a_cancelled_request_is_not_run_again(serve):
    model = FakeModel(allergic(BackendError("no")))
    scheduler = serve(model)
    blocker = hold(model, scheduler)
    calls = [vector(i) for i in (1, -1, 3)]
    for call in calls:
        submit(scheduler, call)
    model.gate.step()
    blocker.result()
    model.gate.wait_for_arrivals()
    calls[2].cancel()
    model.gate.open()
    assert calls[0].result()["y"][0, 0] == 2
    calls[1].wait()
    assert scheduler.drain(PATIENCE)
    assert model.batches == [1, 3, 1, 1]


def test_an_unexpected_exception_is_logged_with_its_traceback_and_not_too_often(serve, caplog):
    model = FakeModel(allergic(KeyError("secret")))
    scheduler = serve(model)
    for _ in range(20):
        submit(scheduler, call := vector(-1))
        call.wait()
    records = [record for record in caplog.records if "the model failed" in record.getMessage()]
    assert len(records) == 1
    assert records[0].exc_info


def test_a_callers_mistake_is_not_logged_here(serve, caplog):
    scheduler = serve(FakeModel(allergic(InvalidInput("bad"))))
    with caplog.at_level(logging.WARNING):
        submit(scheduler, call := vector(-1))
        call.wait()
    assert not caplog.records


def test_a_raising_callback_does_not_affect_other_requests(serve, caplog):
    model = FakeModel()
    scheduler = serve(model)
    hold(model, scheduler)

    class Bad(Call):
        def _done(self, _request):
            super()._done(_request)
            raise RuntimeError("callback")

    bad, good = Bad({"x": np.ones((1, 2), np.float32)}), vector(2)
    submit(scheduler, bad)
    submit(scheduler, good)
    model.gate.open()
    bad.wait()
    assert good.result()["y"][0, 0] == 4
    assert "on_done of a request raised" in caplog.text


def test_an_observer_that_raises_kills_no_instance(serve, caplog):
    class Broken(Recorder):
        def batch(self, *args):
            raise RuntimeError("metrics")

        def dropped(self, reason):
            raise RuntimeError("metrics")

    model = FakeModel()
    scheduler = serve(model, observer=Broken())
    for i in range(3):
        submit(scheduler, call := vector(i))
        call.result()


class TestWrongRows:
    def broken(self, threshold=8):
        """Well-behaved in the proof; drops a row as soon as a value of `threshold` turns up in company."""

        def run(_, inputs):
            x = inputs["x"]
            return {"y": x[1:] * 2 if len(x) > 1 and (x == threshold * 1000).any() else x * 2}

        return FakeModel(run)

    def test_nobody_gets_wrong_rows_and_the_model_is_unbatched_from_then_on(self, serve, caplog):
        model = self.broken()
        scheduler = serve(model)
        assert scheduler.max_batch_size == 32
        hold(model, scheduler)
        calls = [vector(i) for i in (1, 8000, 3)]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in calls] == [2, 16000, 6]
        assert scheduler.max_batch_size == 0
        assert scheduler.batching.startswith("unbatched: at run time output 'y' has shape [2, 2] for a batch of 3 rows")
        assert "unbatched from now on" in caplog.text
        hold(model, scheduler)
        for call in (more := [vector(5), vector(6)]):
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in more] == [10, 12]
        assert model.batches[-2:] == [1, 1]

    def test_who_makes_the_model_leave_an_output_out_fails_alone(self, serve):
        """Nobody names outputs: only the signature tells that one is missing."""

        def run(_, inputs):
            return {"y": inputs["x"] * 2} if (inputs["x"] != -1).all() else {"z": inputs["x"]}

        model = FakeModel(run)
        scheduler = serve(model)
        hold(model, scheduler)
        calls = [vector(i) for i in (1, -1, 3)]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        assert calls[0].result()["y"][0, 0] == 2
        assert calls[2].result()["y"][0, 0] == 6
        assert "y" not in calls[1].result(), "what it got is for `core.inference` to refuse"
        assert model.batches == [1, 3, 1, 1, 1]
        assert scheduler.max_batch_size == 32, "the rows were right"

    def test_an_output_that_is_missing(self, serve):
        def run(_, inputs):
            return {"y": inputs["x"]} if (inputs["x"] != -1).all() else {"z": inputs["x"]}

        class Forgetful(FakeModel):
            def instance(self, placement):
                inner = super().instance(placement)
                outer = self

                class Instance:
                    def run(self, signature, inputs, outputs=None):
                        return run(signature, inputs)

                    def close(self):
                        inner.close()

                del outer
                return Instance()

        scheduler = serve(Forgetful(run, [VECTOR]))
        submit(scheduler, call := vector(-1, wanted=("y",)))
        with pytest.raises(ExecutionFailed, match="no output 'y', only z"):
            call.result()


class TestLoading:
    def test_an_instance_that_cannot_be_made_fails_the_start_and_closes_everything(self):
        model = FakeModel(unplaceable="cuda:7")
        scheduler = Scheduler("m:1", model, [Placement("cpu"), Placement("cuda:7")], batching=Batching(), queue=Queue())
        assert scheduler.devices == ("cpu", "cuda:7")
        with pytest.raises(LoadError, match="no device cuda:7"):
            scheduler.start()
        assert [what for what, _ in model.events] == ["make", "close instance", "close model"]

    def test_an_unexpected_exception_is_a_load_error(self, caplog):
        from support.scheduling import scheduler

        class Broken(FakeModel):
            def instance(self, placement):
                raise ZeroDivisionError("oops")

        with pytest.raises(LoadError, match="no instance on cpu: unexpected ZeroDivisionError"):
            scheduler(Broken())
        assert "ZeroDivisionError" in caplog.text

    def test_closing_one_that_was_never_started_closes_the_model(self):

        model = FakeModel()
        Scheduler("m:1", model, [Placement()], batching=Batching(), queue=Queue()).close()
        assert [what for what, _ in model.events] == ["close model"]

    def test_warm_up_runs_every_signature_on_every_instance(self, serve):
        model = FakeModel()
        scheduler = serve(model, instances=2, proven=False)
        scheduler.warm_up(3)
        assert len(model.runs) == 6

    def test_a_declared_sample_that_fails_is_a_load_error_seeded_data_is_not(self, serve):
        model = FakeModel(allergic(BackendError("no")))
        sample = {"f": {"x": np.full(2, -1, np.float32)}}
        with pytest.raises(LoadError, match="declared sample of signature 'f' failed: no"):
            serve(model, samples=sample, proven=False).warm_up()

        def refuses(_, inputs):
            raise InvalidInput("never")

        scheduler = serve(FakeModel(refuses))
        scheduler.warm_up()
        assert scheduler.batching == "up to 32 rows"

    def test_a_sample_that_does_not_fit(self, serve):
        with pytest.raises(LoadError, match=r"input 'x': expected shape \[-1, -1\], got \[2, 2, 2\]"):
            serve(FakeModel(), samples={"f": {"x": np.ones((2, 2, 2), np.float32)}})
        with pytest.raises(LoadError, match=r"sample for 'z'.*has inputs x"):
            serve(FakeModel(), samples={"f": {"z": np.ones(2, np.float32)}})

    def test_a_stateful_model_starts_fresh_after_warm_up(self, serve):
        model = FakeModel(traits=Traits(stateful=True))
        scheduler = serve(model, instances=3)
        assert model.instances == 1  # two copies would have two pasts
        scheduler.warm_up()
        assert model.instances == 2
        submit(scheduler, call := vector(1))
        call.result()
        assert scheduler.stateful
        assert scheduler.batching == "unbatched: stateful"
        assert scheduler.drain(PATIENCE)
