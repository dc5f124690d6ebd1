"""A single call in flight is a batch of one on the loop. The scheduler is real; its loop is this thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.hot_calls import (
    DEMANDING,
    DOUBLE,
    INFER,
    LIMIT,
    TFS_PREDICT,
    FakeCall,
    Server,
    X,
    ask,
    classic,
    double,
    infer,
)

from inferd.backends.api import Array, BackendError, InvalidInput
from inferd.oip.v1 import infer_pb2
from inferd.server.composition.grpc_methods import PREDICT
from inferd.server.errors import Code
from inferd.server.scheduling.inline import LATELY, SHORT, TURN, InlineBudget
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.queue import Bucket
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.wire.native import decode_response


def test_a_single_call_is_one_batch_and_is_counted_once(serve_hot):
    server = serve_hot()
    server.trust()
    before = server.count()
    call = ask(3)
    assert server.alone(call)
    assert call.y == [6]
    assert server.recorder.batches == [(DOUBLE.name, 1, 1)]
    snapshot = server.metrics.models["digits"].snapshot()
    assert server.count() == before + 1
    assert sum(snapshot.seconds.counts) == sum(snapshot.queue.counts) == sum(snapshot.compute.counts) == before + 1
    assert server.servable.handles == 0


def test_a_single_call_gets_its_rows_and_its_id(serve_hot):
    server = serve_hot()
    server.trust(request=ask(0, 0, request_id="learn").request)
    server.trust(request=ask(0, 0).request)
    named, metadata = ask(1, 2, request_id="first"), FakeCall(ask(7, 8).request, x_request_id="of-metadata")
    assert server.alone(named)
    assert server.alone(metadata)
    assert (named.y, metadata.y) == ([2, 4], [14, 16])
    assert [decode_response(call.message).request_id for call in (named, metadata)] == ["first", "of-metadata"]


def test_inputs_are_aligned_at_every_offset_in_the_message(serve_hot):
    seen: list[bool] = []

    def look(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seen.append(inputs["x"].flags.aligned)
        return double("", inputs)

    server = serve_hot(look)
    for n in range(4):  # the id stands before the data of the Open Inference Protocol
        server.trust(INFER, infer(0, request_id="i" * n).request)
        seen.clear()
        call = infer(5, request_id="o" * n)
        assert server.alone(call)
        answer = infer_pb2.ModelInferResponse.FromString(call.message)
        assert (answer.id, answer.model_name, answer.model_version) == ("o" * n, "digits", "1")
        assert list(np.frombuffer(answer.raw_output_contents[0], np.float32)) == [10, 10]
        assert seen == [True]


def test_tensorflow_servings_predict_gains_alike(serve_hot):
    server = serve_hot()
    server.trust(TFS_PREDICT, classic(0).request)
    call = classic(4)
    assert server.alone(call)
    answer = tfs_pb.PredictResponse.FromString(call.message)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 1)
    assert list(answer.outputs["y"].float_val) == [8, 8]
    assert server.alone(classic(1, inferd_priority="2"))


@pytest.mark.parametrize("options", [{"priority": 1}, {"queue_timeout_us": 10**7}], ids=str)
def test_calls_with_options_get_the_same_answer(serve_hot, options: dict[str, int]):
    server = serve_hot()
    server.trust()
    call = ask(1, **options)
    assert server.alone(call)
    assert call.y == [2]


@pytest.mark.parametrize("options", DEMANDING.values(), ids=DEMANDING)
def test_a_demanding_model_gives_the_same_answer(serve_hot, options: dict[str, Any]):
    server = serve_hot(**options)
    server.trust()
    call = ask(1)
    server.alone(call)
    assert call.y == [2]


def test_first_calls_of_a_form_and_calls_beyond_the_batch_size(serve_hot):
    server = serve_hot()
    server.trust()
    large = ask(*range(LIMIT + 1))
    for call in (ask(1, 2, 3), large, FakeCall(large.request)):
        server.alone(call)
        assert call.wait().message is not None
    assert server.alone(ask(1, 2, 3))
    assert server.servable.handles == 0


def test_waiting_requests_run_before_a_new_one(serve_hot):
    server = serve_hot()
    server.trust()
    waiting, call = ask(1), ask(2)
    server.table.unary[PREDICT]((waiting,), 0.0)
    assert server.alone(call)
    assert (waiting.y, call.y) == ([2], [4])
    assert server.model.batches == [2]


def test_a_suspected_closed_or_unloaded_model_runs_nothing_on_the_loop(serve_hot):
    server = serve_hot()
    server.trust()
    server.scheduler._budget.suspected = True
    assert not on_loop(server)
    server.scheduler._budget.suspected = False
    assert server.alone(ask(1))
    server.scheduler.close()
    server.model.forget()
    assert server.alone(call := ask(1))
    assert call.failed[0] is Code.UNAVAILABLE
    assert server.model.batches == []
    server.manager.servables.clear()
    assert server.alone(call := ask(1))
    assert call.failed[0] is Code.NOT_FOUND


def too_long_for_the_loop(server: Server) -> tuple[InlineBudget, Bucket]:
    """A model whose recent batches were long, and that has run no single request."""
    server.trust()
    pace = server.scheduler._budget
    for _ in range(100):
        pace.ran(1.0)
    bucket = next(iter(server.scheduler._queues[DOUBLE.name].buckets.values()))
    bucket.effort = CostCurve()
    return pace, bucket


def on_loop(server: Server, call: FakeCall | None = None) -> bool:
    """Whether the loop's own thread ran the model for the only call in flight."""
    call = call or ask(1)
    threads: list[str] = []

    def watched(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        threads.append(threading.current_thread().name)
        return double("", inputs)

    server.model.function = watched
    server.alone(call)
    assert call.wait().message is not None
    return threads == [threading.current_thread().name]


def test_a_model_with_long_batches_runs_short_single_requests_on_the_loop(serve_hot):
    server = serve_hot()
    budget, bucket = too_long_for_the_loop(server)
    for _ in range(15):
        bucket.effort.ran(1, SHORT / 3)
    known, bucket.effort = bucket.effort, CostCurve()
    assert not on_loop(server)  # nobody knows
    bucket.effort = known
    bucket.effort.ran(1, SHORT / 3)
    assert on_loop(server)
    budget.banned = True
    assert not on_loop(server)
    budget.banned = False
    bucket.effort = CostCurve()
    for _ in range(30):
        bucket.effort.ran(1, SHORT)
    assert not on_loop(server)


def test_the_only_called_model_runs_on_the_loop_what_fits_a_turn(serve_hot):
    now = [100.0]
    server = serve_hot(clock=lambda: now[0])
    _, bucket = too_long_for_the_loop(server)

    def takes(seconds: float) -> None:
        bucket.effort = CostCurve()
        for _ in range(16):
            bucket.effort.ran(1, seconds)

    takes(0.9 * TURN)
    assert not on_loop(server)  # others may be called in a moment
    now[0] += LATELY
    takes(0.9 * TURN)
    assert on_loop(server)
    server.loop.called(InlineBudget("other:1", 1))
    assert not on_loop(server)
    takes(0.9 * TURN)
    assert not on_loop(server)
    now[0] += LATELY
    takes(0.9 * TURN)
    assert on_loop(server)
    takes(1.1 * TURN)
    assert not on_loop(server)


@pytest.mark.parametrize("error", [InvalidInput("no"), BackendError("it broke"), RuntimeError("secret"), SystemExit(3)])
def test_a_failed_run_is_answered_and_not_repeated(serve_hot, error: BaseException):
    def fails(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 5).any():
            raise error
        return double("", inputs)

    server = serve_hot(fails)
    server.trust()
    call = ask(5)
    assert server.alone(call)
    assert call.failed is not None
    assert "secret" not in call.failed[1]
    assert server.model.batches == [1]
    assert server.alone(ask(6))
    assert server.servable.handles == 0


def test_outputs_that_cannot_be_encoded_are_the_models_failure(serve_hot):
    def strange(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        return {"y": x.astype(np.complex64) if (x == 6).any() else x}

    server = serve_hot(strange, batching={"mode": "trusted"})
    server.trust()
    assert server.alone(call := ask(6))
    assert call.failed[0] is Code.INTERNAL
    assert server.count(code="INTERNAL") == 1


def test_outputs_are_sent_in_the_requested_order(serve_hot):
    signature = replace(DOUBLE, outputs=(replace(X, name="y"), replace(X, name="z")))

    def two(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"] * 2, "z": inputs["x"] * 3}

    server = serve_hot(two, signature=signature)
    server.trust(request=ask(0, outputs=("z", "y")).request)
    call = ask(4, outputs=("z", "y"))
    assert server.alone(call)
    outputs = decode_response(call.message).outputs
    assert [(name, array[0, 0]) for name, array in outputs.items()] == [("z", 12), ("y", 8)]


def test_a_defect_fails_the_call_and_no_other(serve_hot):
    server = serve_hot()
    server.trust()
    server.manager.crash = RuntimeError("a defect")
    assert server.alone(call := ask(1))
    assert call.failed[0] is Code.INTERNAL
    assert "defect" not in call.failed[1]
    server.manager.crash = None
    assert server.alone(ask(1))
