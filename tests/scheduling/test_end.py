"""The end of a scheduler: drain, refusals, close."""

from __future__ import annotations

import threading

import pytest
from support.scheduling import PATIENCE, FakeModel, hold, submit, vector

from inferd.server.errors import Unavailable


class TestEnd:
    def test_drain_refuses_new_requests_and_waits_for_all_others(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        running = hold(model, scheduler)
        submit(scheduler, waiting := vector(1))
        assert not scheduler.drain(0.01)
        with pytest.raises(Unavailable, match="m:1 is being unloaded") as info:
            submit(scheduler, vector(2))
        assert not info.value.accepted
        model.gate.open()
        assert scheduler.drain(PATIENCE)
        for call in (running, waiting):
            assert call.finished
            call.result()

    def test_drain_of_an_unused_scheduler(self, serve):
        assert serve(FakeModel()).drain(0)

    def test_drain_after_a_cancel_of_the_last_request(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        hold(model, scheduler)
        submit(scheduler, waiting := vector(1))
        waiting.cancel()
        model.gate.open()
        assert scheduler.drain(PATIENCE)

    def test_close_fails_what_waits_and_lets_the_running_end(self, serve):
        model = FakeModel()
        scheduler = serve(model, instances=2)
        blockers = [hold(model, scheduler)]
        submit(scheduler, second := vector(5))
        model.gate.wait_for_arrivals(2)
        submit(scheduler, waiting := vector(1))
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result()
        assert not blockers[0].finished
        model.gate.open()
        closing.join(PATIENCE)
        for call in (*blockers, second):
            call.result()
        with pytest.raises(Unavailable):
            submit(scheduler, vector(2))
        made = {thread for what, thread in model.events if what == "make"}
        closed = {thread for what, thread in model.events if what == "close instance"}
        assert made == closed  # each on the thread that made and ran it
        assert len(made) == 2
        assert all("m:1" in name for name in made)
        assert [what for what, _ in model.events].count("close model") == 1
        assert model.events[-1][0] == "close model"
        scheduler.close()
        assert [what for what, _ in model.events].count("close model") == 1

    def test_a_hanging_model_is_contained_honestly(self, serve, caplog):
        model = FakeModel()
        scheduler = serve(model)
        stuck = hold(model, scheduler)
        assert not scheduler.drain(0.01)
        scheduler.close(timeout=0.01)
        with pytest.raises(Unavailable) as info:
            stuck.result()
        assert info.value.accepted  # it may have reached the model
        assert "did not come back" in caplog.text
        assert "close model" not in [what for what, _ in model.events]
        thread = next(thread for thread in threading.enumerate() if thread.name == "inferd-m:1-0")
        assert thread.daemon
        model.gate.open()
        thread.join(PATIENCE)
        assert [what for what, _ in model.events][-2:] == ["close instance", "close model"]
        assert stuck.outcomes == 1

    def test_no_thread_is_left(self, serve):
        before = set(threading.enumerate())  # other tests may have left some of this name
        scheduler = serve(FakeModel(), instances=2)
        submit(scheduler, call := vector(1))
        call.result()
        own = [thread for thread in threading.enumerate() if thread not in before and "m:1" in thread.name]
        assert len(own) >= 2
        scheduler.close()
        for thread in own:
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread.name
