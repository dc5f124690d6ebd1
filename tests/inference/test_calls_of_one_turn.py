"""Calls of one turn of the loop share batches and are answered together. The scheduler is real; its loop is this
thread."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.hot_calls import DEMANDING, DOUBLE, INFER, LIMIT, TFS_PREDICT, FakeCall, X, ask, classic, double, infer

from inferd.backends.api import Array, BackendError, InvalidInput
from inferd.oip.v1 import infer_pb2
from inferd.server.composition.grpc_methods import PREDICT
from inferd.server.errors import Code
from inferd.server.scheduling.inline import TURN
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.wire.native import decode_response


def test_calls_of_one_form_share_a_batch_and_a_handle(serve_hot):
    server = serve_hot()
    server.trust()
    before = server.count()
    calls = [ask(n) for n in range(5)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2 * n] for n in range(5)]
    assert server.recorder.batches == [(DOUBLE.name, 5, 5)]
    assert server.servable.handles == 0
    snapshot = server.metrics.models["digits"].snapshot()
    assert server.count() == before + 5
    assert sum(snapshot.seconds.counts) == sum(snapshot.queue.counts) == sum(snapshot.compute.counts) == before + 5


def test_every_caller_gets_its_own_rows_and_its_own_id(serve_hot):
    server = serve_hot()
    server.trust(request=ask(0, 0, request_id="learn").request)
    server.trust(request=ask(0, 0, request_id="").request)
    metadata = FakeCall(ask(7, 8).request, x_request_id="of-metadata")
    calls = [ask(1, 2, request_id="first"), ask(3, 4, request_id="other"), ask(5, 6), metadata]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2, 4], [6, 8], [10, 12], [14, 16]]
    ids = [decode_response(call.message).request_id for call in calls]
    assert ids[:2] == ["first", "other"]
    assert ids[2]
    assert ids[3] == "of-metadata"
    assert [rows for *_, rows in server.recorder.batches] == [LIMIT]


def test_calls_beyond_the_batch_size_run_in_several_batches(serve_hot):
    server = serve_hot()
    server.trust()
    calls = [ask(n) for n in range(LIMIT + 3)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2 * n] for n in range(LIMIT + 3)]
    assert server.model.batches == [LIMIT, 3]


def test_first_calls_of_a_form_share_a_batch(serve_hot):
    server = serve_hot()
    server.trust()
    calls = [ask(1, 2, 3), ask(4, 5, 6)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2, 4, 6], [8, 10, 12]]
    assert server.model.batches == [6]
    again = [ask(1, 2, 3), ask(4, 5, 6)]
    assert server.hand_over(*again) == []
    assert [call.y for call in again] == [[2, 4, 6], [8, 10, 12]]


def test_several_forms_share_a_batch_in_the_order_of_arrival(serve_hot):
    server = serve_hot()
    server.trust()
    server.trust(request=ask(0, 0).request)
    seen: list[float] = []
    server.model.function = lambda _, inputs: (seen.extend(inputs["x"][:, 0]), double("", inputs))[1]
    calls = [ask(1), ask(2, 3), ask(4), infer(5), ask(6, 7), classic(8)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls if call.method == PREDICT] == [[2], [4, 6], [8], [12, 14]]
    assert server.model.batches == [LIMIT]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]  # methods of every protocol share the list of a turn


@pytest.mark.parametrize("options", [{"priority": 1}, {"priority": 2}, {"queue_timeout_us": 10**7}], ids=str)
def test_priority_and_timeout_belong_to_the_request_and_not_to_the_form(serve_hot, options: dict[str, int]):
    server = serve_hot()
    server.trust()
    calls = [ask(1, **options), ask(2), ask(3, **options)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2], [4], [6]]
    assert server.model.batches == [3]
    assert len(server.servable.plans) == 1


@pytest.mark.parametrize("options", DEMANDING.values(), ids=DEMANDING)
def test_demanding_models_give_the_same_answers(serve_hot, options: dict[str, Any]):
    server = serve_hot(**options)
    server.trust()
    calls = [ask(1), ask(2)]
    server.hand_over(*calls)
    assert [call.y for call in calls] == [[2], [4]]


def test_only_the_request_that_causes_the_failure_fails(serve_hot):
    def picky(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 13).any():
            raise InvalidInput("13 is not served here")
        return double("", inputs)

    server = serve_hot(picky)
    server.trust()
    calls = [ask(1), ask(13), ask(3)]
    server.hand_over(*calls)
    assert (calls[0].y, calls[2].y) == ([2], [6])
    assert calls[1].wait().failed == (Code.INVALID_ARGUMENT, "13 is not served here")
    assert server.count(code="INVALID_ARGUMENT") == 1
    assert server.servable.handles == 0


@pytest.mark.parametrize("error", [BackendError("it broke"), RuntimeError("secret"), SystemExit(3)], ids=repr)
def test_a_failing_batch_answers_each_call_once(serve_hot, error: BaseException):
    fails = itertools.count()

    def once(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 5).any() and not next(fails):
            raise error
        return double("", inputs)

    server = serve_hot(once)
    server.trust()
    calls = [ask(5), ask(6)]
    server.hand_over(*calls)
    assert [call.y for call in calls] == [[10], [12]]


def test_a_batch_with_wrong_rows_is_run_again_one_by_one(serve_hot):
    def loses_one(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        return double("", {"x": x[1:] if (x == 5).any() and len(x) > 1 else x})

    server = serve_hot(loses_one)
    server.trust()
    calls = [ask(5), ask(6)]
    server.hand_over(*calls)
    assert [call.y for call in calls] == [[10], [12]]


def test_later_requests_queue_behind_earlier_ones(serve_hot):
    server = serve_hot()
    server.trust()
    waiting = [ask(1), ask(2)]
    server.table.unary[PREDICT](waiting, 0.0)
    calls = [ask(3)]
    assert server.hand_over(*calls) == []
    assert [call.y for call in waiting + calls] == [[2], [4], [6]]
    assert server.model.batches == [3]


def test_a_queue_smaller_than_the_turn_refuses_the_rest(serve_hot):
    server = serve_hot(queue={"requests": 2})
    server.trust()
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    assert [call.y for call in calls[:2]] == [[0], [2]]
    for call in calls[2:]:
        assert call.wait().failed[0] is Code.RESOURCE_EXHAUSTED


def test_requests_beyond_the_turn_go_to_the_workers(serve_hot):
    server = serve_hot()
    server.trust()
    server.loop.spent = TURN
    calls = [ask(n) for n in range(LIMIT + 2)]
    server.hand_over(*calls)  # one batch is every model's
    assert [call.y for call in calls] == [[2 * n] for n in range(LIMIT + 2)]
    assert server.model.batches == [LIMIT, 2]


def test_an_unloaded_model_is_not_found(serve_hot):
    server = serve_hot()
    server.trust()
    server.manager.servables.clear()
    calls = [ask(1), ask(2)]
    server.hand_over(*calls)
    assert {call.wait().failed[0] for call in calls} == {Code.NOT_FOUND}


def test_a_closed_scheduler_runs_nothing(serve_hot):
    server = serve_hot()
    server.trust()
    server.scheduler.close()
    calls = [ask(1), ask(2)]
    server.hand_over(*calls)
    assert {call.wait().failed[0] for call in calls} == {Code.UNAVAILABLE}
    assert server.model.batches == []


def test_a_malformed_request_fails_alone(serve_hot):
    server = serve_hot()
    server.trust()
    broken = FakeCall(b"\xff\xff")
    calls = [ask(1), broken, ask(2)]
    assert server.hand_over(*calls) == []
    assert (calls[0].y, calls[2].y) == ([2], [4])
    assert broken.wait().failed[0] is Code.INVALID_ARGUMENT


def test_outputs_that_cannot_be_encoded_are_the_models_failure(serve_hot):
    def strange(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        y = inputs["x"].astype(np.complex64) if (inputs["x"] == 5).any() else inputs["x"]
        return {"y": y}

    server = serve_hot(strange, batching={"mode": "trusted"})
    server.trust()
    calls = [ask(5), ask(5)]
    server.hand_over(*calls)
    assert {call.wait().failed[0] for call in calls} == {Code.INTERNAL}


def test_outputs_are_sent_in_the_requested_order(serve_hot):
    signature = replace(DOUBLE, outputs=(replace(X, name="y"), replace(X, name="z")))

    def two(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"] * 2, "z": inputs["x"] * 3}

    server = serve_hot(two, signature=signature)
    server.trust(request=ask(0, outputs=("z", "y")).request)
    calls = [ask(n, outputs=("z", "y")) for n in range(3)]
    assert server.hand_over(*calls) == []
    for n, call in enumerate(calls):
        outputs = decode_response(call.message).outputs
        assert [(name, array[0, 0]) for name, array in outputs.items()] == [("z", 3 * n), ("y", 2 * n)]


def test_oip_calls_share_a_batch(serve_hot):
    server = serve_hot()
    server.trust(INFER, infer(0).request)
    server.trust(INFER, infer(0, request_id="ab").request)
    calls = [infer(1), infer(2, request_id="cd"), infer(3, request_id="ef")]
    assert server.hand_over(*calls) == []
    for n, (call, request_id) in enumerate(zip(calls, ("", "cd", "ef"), strict=True), 1):
        answer = infer_pb2.ModelInferResponse.FromString(call.message)
        assert (answer.model_name, answer.model_version, answer.id) == ("digits", "1", request_id)
        assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("y", "FP32", [1, 2])]
        assert list(np.frombuffer(answer.raw_output_contents[0], np.float32)) == [2 * n, 2 * n]
    assert server.count("oip") == 2 * 17 + 3


def test_oip_calls_with_parameters_are_decoded_one_by_one(serve_hot):
    server = serve_hot()
    priority = {"priority": infer_pb2.InferParameter(int64_param=1)}
    request = infer(1, parameters=priority).request
    server.trust(INFER, request)
    calls = [infer(1, parameters=priority), infer(2, parameters=priority)]
    server.hand_over(*calls)
    assert all(call.wait().message for call in calls)


def test_tensorflow_servings_predict_gains_alike(serve_hot):
    server = serve_hot()
    server.trust(TFS_PREDICT, classic(0).request)
    calls = [classic(n) for n in range(3)]
    assert server.hand_over(*calls) == []
    for n, call in enumerate(calls):
        answer = tfs_pb.PredictResponse.FromString(call.message)
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 1)
        assert answer.model_spec.signature_name == DOUBLE.name
        assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [1, 2]
        assert list(answer.outputs["y"].float_val) == [2 * n, 2 * n]
    server.model.forget()
    special = [classic(1), classic(2, inferd_priority="2")]
    assert server.hand_over(*special) == []
    assert server.model.batches == [2]
