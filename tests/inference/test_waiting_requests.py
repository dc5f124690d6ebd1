"""Calls of one turn that cannot run on the loop wait for a worker. The calls of one batch are answered together, and a
failure, a cancel or a deadline ends only its own request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest
from support.hot_calls import (
    DOUBLE,
    LIMIT,
    FakeCall,
    Server,
    X,
    ask,
    classic,
    double,
    infer,
)
from support.rpc import eventually

from inferd.backends.api import Array, BackendError, InvalidInput, Signature, Traits
from inferd.oip.v1 import infer_pb2
from inferd.server.errors import Code
from inferd.server.inference.finish import Finish
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.dtypes import DType
from inferd.wire.native import decode_response, encode_request

PRELUDE = -1.0


class Slow:
    """A server whose model runs on a worker. Each batch waits for `go`."""

    def __init__(self, serve: Callable[..., Server], function: Callable[..., Any] = double, **options: Any) -> None:
        self._held = threading.Event()
        self._held.set()
        self._running = threading.Event()

        def held(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
            if not self._held.is_set():
                self._running.set()
                assert self._held.wait(30)
            return function(name, inputs)  # type: ignore[no-any-return]

        self.server = serve(held, traits=options.pop("traits", Traits()), **options)
        self._prelude: FakeCall | None = None

    def hold(self, *requests: FakeCall) -> None:
        """Lets the server learn such requests; then the model runs the first of them until `go`."""
        requests = requests or (ask(PRELUDE),)
        for request in requests:
            known = FakeCall(request.request, request.method)
            self.server.table.unary[request.method]((known,), monotonic())
            known.wait()
        self.server.model.forget()
        self.server.recorder.batches.clear()
        self._held.clear()
        self._prelude = FakeCall(requests[0].request, requests[0].method)
        self.server.table.unary[self._prelude.method]((self._prelude,), monotonic())
        assert self._running.wait(30)

    def go(self) -> None:
        """Lets the model run."""
        self._held.set()
        assert self._prelude is not None
        self._prelude.wait()

    @property
    def waiting(self) -> int:
        return self.server.scheduler.queue_depth[0]


@pytest.fixture
def slow(serve_hot):
    made: list[Slow] = []

    def start(*args: Any, **options: Any) -> Slow:
        made.append(Slow(serve_hot, *args, **options))
        return made[-1]

    yield start
    for one in made:
        one._held.set()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of requests in each share that was answered together."""
    shares: list[int] = []
    answer = Finish.answer

    def counted(self: Finish, requests: Sequence[InferenceRequest], *rest: Any) -> None:
        shares.append(len(requests))
        answer(self, requests, *rest)

    monkeypatch.setattr(Finish, "answer", counted)
    return shares


def test_waiting_calls_are_answered_together(slow, together):
    busy = slow()
    busy.hold()
    before = busy.server.count()
    calls = [ask(n) for n in range(5)]
    assert busy.server.hand_over(*calls) == calls
    assert busy.waiting == 5
    assert busy.server.servable.handles == 1 + 1  # one for each group
    busy.go()
    assert [call.y for call in calls] == [[2 * n] for n in range(5)]
    assert busy.server.model.batches == [1, 5]
    assert together == [1, 1, 5]
    eventually(lambda: busy.server.recorder.batches == [(DOUBLE.name, 1, 1), (DOUBLE.name, 5, 5)])
    assert busy.server.servable.handles == 0
    snapshot = busy.server.metrics.models["digits"].snapshot()
    assert busy.server.count() == before + 6
    assert sum(snapshot.seconds.counts) == sum(snapshot.queue.counts) == sum(snapshot.compute.counts) == before + 6


def test_every_caller_gets_its_own_rows_and_its_own_id(slow, together):
    busy = slow()
    busy.hold(ask(0, 0, request_id="learn"), ask(0, 0))
    metadata = FakeCall(ask(7, 8).request, x_request_id="of-metadata")
    calls = [ask(1, 2, request_id="first"), ask(3, 4, request_id="other"), metadata]
    busy.server.hand_over(*calls)
    busy.go()
    assert [call.y for call in calls] == [[2, 4], [6, 8], [14, 16]]
    ids = [decode_response(call.message).request_id for call in calls]
    assert ids == ["first", "other", "of-metadata"]
    assert together[-1] == 3


def test_calls_of_several_turns_share_batches_up_to_the_limit(slow, together):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(LIMIT + 3)]
    for call in (calls[:2], calls[2:6], calls[6:]):
        busy.server.hand_over(*call)
    busy.go()
    assert [call.y for call in calls] == [[2 * n] for n in range(LIMIT + 3)]
    assert busy.server.model.batches == [1, LIMIT, 3]
    assert together[-2:] == [LIMIT, 3]
    assert busy.server.servable.handles == 0


def test_calls_in_one_batch_are_answered_in_their_own_protocols(slow):
    busy = slow()
    busy.hold(ask(0), infer(0), infer(0, request_id="ab"), classic(0))
    native, triton, alone, serving = [ask(1), ask(2)], [infer(3), infer(4, request_id="cd")], ask(5, 6), [classic(7)]
    busy.server.hand_over(*native)
    busy.server.hand_over(*triton)
    busy.server.hand_over(alone)
    busy.server.hand_over(*serving)
    busy.go()
    assert [call.y for call in (*native, alone)] == [[2], [4], [10, 12]]
    answers = [infer_pb2.ModelInferResponse.FromString(call.wait().message) for call in triton]
    assert [(a.id, list(np.frombuffer(a.raw_output_contents[0], np.float32))) for a in answers] == [
        ("", [6, 6]),
        ("cd", [8, 8]),
    ]
    assert all(call.wait().message for call in serving)
    assert busy.server.model.batches == [1, 7]
    assert busy.server.count("oip") == 2 + 2
    assert busy.server.count("tfs") == 1 + 1


def test_a_cancelled_call_is_dropped_alone(slow):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(4)]
    busy.server.hand_over(*calls)
    calls[1].cancel()
    assert busy.waiting == 3
    busy.go()
    assert [calls[n].y for n in (0, 2, 3)] == [[0], [4], [6]]
    assert calls[1].wait().failed[0] is Code.CANCELLED
    assert busy.server.model.batches == [1, 3]
    assert busy.server.servable.handles == 0


def test_a_cancel_during_the_run_ends_only_that_call(slow):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(3)]
    inner = busy.server.model.function

    def run(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if len(inputs["x"]) == 3:
            calls[2].cancel()
        return inner(name, inputs)

    busy.server.model.function = run
    busy.server.hand_over(*calls)
    busy.go()
    assert [call.y for call in calls[:2]] == [[0], [2]]
    assert calls[2].wait().failed[0] is Code.CANCELLED
    eventually(lambda: busy.server.servable.handles == 0)
    assert busy.server.count(code="CANCELLED") == 1


def test_a_passed_deadline_fails_one_call(slow):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(3)]
    calls[1].deadline = 0.0
    busy.server.hand_over(*calls)
    assert calls[1].wait().failed[0] is Code.DEADLINE_EXCEEDED
    busy.go()
    assert [calls[n].y for n in (0, 2)] == [[0], [4]]


def test_a_deadline_that_passes_in_the_queue_fails_one_call(slow):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(3)]
    calls[1].deadline = monotonic() + 0.5
    busy.server.hand_over(*calls)
    assert busy.waiting == 3
    assert calls[1].wait().failed[0] is Code.DEADLINE_EXCEEDED  # while the model is held
    busy.go()
    assert [calls[n].y for n in (0, 2)] == [[0], [4]]
    assert busy.server.servable.handles == 0


def test_only_the_request_that_causes_the_failure_fails(slow):
    def picky(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 13).any():
            raise InvalidInput("13 is not served here")
        return double(name, inputs)

    busy = slow(picky)
    busy.hold(infer(0, request_id="a"))
    calls = [infer(1, request_id="b"), infer(13, request_id="c"), infer(3, request_id="d")]
    busy.server.hand_over(*calls)
    busy.go()
    assert calls[1].wait().failed == (Code.INVALID_ARGUMENT, "[request id: c] 13 is not served here")
    assert calls[0].wait().message
    assert calls[2].wait().message
    assert busy.server.model.batches == [1, 3, 1, 1, 1]
    assert busy.server.servable.handles == 0
    assert busy.server.count("oip", "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("error", [BackendError("it broke"), RuntimeError("secret"), SystemExit(3)], ids=repr)
def test_a_failing_model_fails_each_call(slow, error: BaseException):
    def broken(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if (inputs["x"] == 5).any():
            raise error
        return double(name, inputs)

    busy = slow(broken)
    busy.hold()
    calls = [ask(5), ask(5)]
    busy.server.hand_over(*calls)
    busy.go()
    assert {call.wait().failed[0] for call in calls} == {Code.INTERNAL}
    assert not any("secret" in call.failed[1] for call in calls)
    assert busy.server.servable.handles == 0


def test_outputs_that_cannot_be_encoded_are_the_models_failure(slow):
    def strange(_name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"].astype(np.complex64) if (inputs["x"] == 5).any() else inputs["x"]}

    busy = slow(strange, batching={"mode": "trusted"})
    busy.hold()
    calls = [ask(5), ask(5)]
    busy.server.hand_over(*calls)
    busy.go()
    told = {call.wait().failed for call in calls}
    assert {code for code, _ in told} == {Code.INTERNAL}
    assert all("the model's answer cannot be sent" in text for _, text in told)
    assert busy.server.servable.handles == 0


def test_the_first_calls_get_the_places_of_a_short_queue(slow):
    busy = slow(queue={"requests": 4})
    busy.hold()
    calls = [ask(n) for n in range(6)]
    busy.server.hand_over(*calls)
    assert [call.wait().failed[0] for call in calls[4:]] == [Code.RESOURCE_EXHAUSTED] * 2
    busy.go()
    assert [call.y for call in calls[:4]] == [[2 * n] for n in range(4)]


def test_unloading_a_model_fails_each_waiting_call(slow):
    busy = slow()
    busy.hold()
    calls = [ask(n) for n in range(3)]
    busy.server.hand_over(*calls)
    closing = threading.Thread(target=busy.server.scheduler.close)
    closing.start()
    assert {call.wait().failed[0] for call in calls} == {Code.UNAVAILABLE}
    busy.go()
    closing.join()
    assert busy.server.servable.handles == 0


def test_padded_calls_wait_and_are_answered_together(slow, together):
    busy = slow(batching={"padding": {"x": [4]}}, signature=replace(DOUBLE, inputs=(replace(X, shape=(-1, -1)),)))
    busy.hold()
    calls = [ask(1), ask(2)]
    busy.server.hand_over(*calls)
    busy.go()
    assert [call.y for call in calls] == [[2], [4]]
    assert together[-1] == 2


def test_an_unbatched_model_runs_the_calls_one_by_one(slow, together):
    busy = slow(batching={"mode": "off"})
    busy.hold()
    calls = [ask(1), ask(2)]
    busy.server.hand_over(*calls)
    busy.go()
    assert [call.y for call in calls] == [[2], [4]]
    assert busy.server.model.batches == [1, 1, 1]
    assert set(together) == {1}


def test_invalid_bools_fail_alone(slow):
    x = replace(X, dtype=DType.BOOL)

    def same(_name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"]}

    busy = slow(same, signature=Signature(DOUBLE.name, (x,), (replace(x, name="y"),)))
    good = encode_request("digits", {"x": np.ones((1, 2), np.bool_)})
    bad = good.replace(b"\x01\x01", b"\x01\x02")
    assert bad != good
    busy.hold(FakeCall(good))
    calls = [FakeCall(good), FakeCall(bad), FakeCall(good)]
    busy.server.hand_over(*calls)
    assert calls[1].wait().failed[0] is Code.INVALID_ARGUMENT
    busy.go()
    assert all(call.wait().message for call in (calls[0], calls[2]))
