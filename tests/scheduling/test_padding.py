"""Requests of different lengths that share a batch after padding."""

from __future__ import annotations

import numpy as np
import pytest
from support.scheduling import F32, FakeModel, hold, signature, submit, vector


class TestPadding:
    def test_lengths_share_a_batch_after_padding(self, serve):
        def lengths(_, inputs):
            return {
                "y": inputs["x"].sum(axis=1, keepdims=True),
                "n": np.full((len(inputs["x"]), 1), inputs["x"].shape[1], np.float32),
            }

        model = FakeModel(lengths, [signature({"x": (F32, (-1, -1))}, {"y": (F32, (-1, 1)), "n": (F32, (-1, 1))})])
        scheduler = serve(model, batching={"padding": {"x": (4, 8)}})
        assert scheduler.batching == "up to 32 rows"
        hold(model, scheduler)
        calls = [vector(1, width=3), vector(2, width=4), vector(3, width=6), vector(4, width=9), vector(5, width=1)]
        for call in calls:
            submit(scheduler, call)
        model.gate.open()
        assert [call.result()["y"][0, 0] for call in calls] == [3, 8, 18, 36, 5]
        assert [call.result()["n"][0, 0] for call in calls] == [4, 4, 8, 9, 4]
        assert model.batches == [1, 3, 1, 1]

    def test_a_request_alone_is_padded_too(self, serve):
        model = FakeModel()
        scheduler = serve(model, batching={"padding": {"x": (4,)}})
        call = vector(1, width=3)
        submit(scheduler, call)
        np.testing.assert_array_equal(call.result()["y"], [[2, 2, 2, 0]])

    def test_an_input_that_cannot_be_padded_is_refused_at_load(self):
        from support.scheduling import scheduler

        from inferd.backends.api import LoadError

        fixed = signature({"x": (F32, (-1, 3))}, {"y": (F32, (-1, 3))})
        with pytest.raises(LoadError, match=r"batching.padding: input 'x'.*\[-1, 3\]"):
            scheduler(FakeModel(signatures=[fixed]), batching={"padding": {"x": (4,)}})

    def test_a_name_that_is_no_input_is_told(self, serve, caplog: pytest.LogCaptureFixture):
        serve(FakeModel(), batching={"padding": {"x": (4,), "xx": (4,)}})
        assert [m for m in caplog.messages if "padding" in m] == [
            "m:1: batching.padding names 'xx', which is no input of the model"
        ]
