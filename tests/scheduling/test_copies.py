"""The memory that a model gets: the received bytes, or a copy where the model needs one."""

from __future__ import annotations

import numpy as np
import pytest
from support.scheduling import Call, FakeModel, hold, submit, vector

from inferd.backends.api import Traits


class TestCopies:
    def read_only(self, *values, offset=0):
        raw = bytes(offset) + np.repeat(np.array(values, np.float32)[:, None], 2, axis=1).tobytes()
        array = np.frombuffer(raw, np.float32, len(values) * 2, offset) if offset % 4 == 0 else None
        if array is None:
            array = np.frombuffer(memoryview(raw)[offset:], np.float32)
        return array.reshape(-1, 2)

    def test_a_request_alone_is_passed_as_it_is(self, serve):
        model = FakeModel()
        scheduler = serve(model)
        array = self.read_only(1)
        call = Call({"x": array})
        submit(scheduler, call)
        call.result()
        assert model.runs[0][1]["x"] is array

    def test_a_model_that_writes_its_inputs_never_gets_the_requests_bytes(self, serve):
        def writes(_, inputs):
            inputs["x"] *= 2
            return {"y": inputs["x"]}

        model = FakeModel(writes, traits=Traits(may_write_inputs=True))
        scheduler = serve(model)
        array = self.read_only(3)
        alone = Call({"x": array})
        submit(scheduler, alone)
        assert alone.result()["y"][0, 0] == 6
        hold(model, scheduler)
        pair = [Call({"x": self.read_only(4)}), Call({"x": self.read_only(5)})]
        for call in pair:
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in pair] == [8, 10]
        assert alone.result()["y"][0, 0] == 6  # not overwritten by what ran later
        assert array[0, 0] == 3

    def test_an_owned_array_may_be_written_to_in_place(self, serve):
        model = FakeModel(traits=Traits(may_write_inputs=True))
        scheduler = serve(model)
        call = vector(1, owned=True)
        array = call.inputs["x"]
        submit(scheduler, call)
        call.result()
        assert model.runs[0][1]["x"] is array

    def test_inputs_are_aligned_where_the_model_needs_it(self, serve):
        model = FakeModel(traits=Traits(alignment=64))
        scheduler = serve(model)
        for offset in (1, 3, 4):
            call = Call({"x": self.read_only(7, offset=offset)})
            submit(scheduler, call)
            assert call.result()["y"][0, 0] == 14
        hold(model, scheduler)
        pair = [Call({"x": self.read_only(i, offset=i)}) for i in (1, 2)]
        for call in pair:
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in pair] == [2, 4]
        assert all(inputs["x"].ctypes.data % 64 == 0 for _, inputs, _ in model.runs)

    def test_an_output_that_is_a_view_of_the_batch_stays_what_it_was(self, serve):
        """Large batches are put together in memory that is used again; an identity model gives that very memory out."""
        model = FakeModel(lambda _, inputs: {"y": inputs["x"]})
        scheduler = serve(model)
        answers = []
        width = 40_000
        for round_ in range(3):
            hold(model, scheduler)
            pair = [vector(10 * round_ + i, width=width) for i in (1, 2)]
            for call in pair:
                submit(scheduler, call)
            model.gate.open()
            answers += [(10 * round_ + i, call.result()["y"]) for i, call in enumerate(pair, 1)]
        for value, answer in answers:
            assert (answer == value).all()

    def test_memory_of_large_batches_is_used_again(self, serve, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("inferd.server.scheduling.policies.strategy.LARGE", 2**40)  # all are joined
        model = FakeModel()
        scheduler = serve(model)
        for _ in range(3):
            hold(model, scheduler)
            for call in (pair := [vector(i, width=40_000) for i in (1, 2)]):
                submit(scheduler, call)
            model.gate.open()
            for call in pair:
                call.result()
        large = [inputs["x"].ctypes.data for _, inputs, _ in model.runs if inputs["x"].shape[0] == 2]
        assert len(large) == 3
        assert len(set(large)) == 1
