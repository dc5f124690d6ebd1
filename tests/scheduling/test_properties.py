"""Whatever is submitted, cancelled, expired and stepped in whatever order: everyone gets exactly their rows or one
error.
"""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.scheduling import PATIENCE, Call, FakeModel, scheduler, submit

from inferd.backends.api import BackendError, OpenRequest
from inferd.backends.onnx.backend import OnnxBackend
from inferd.server.errors import (
    Cancelled,
    DeadlineExceeded,
    ExecutionFailed,
    Overloaded,
    QueueTimeout,
    ServingError,
)

MOST_REQUESTS = 6
MOST_BYTES = 400
LARGEST = 4

submits = st.tuples(
    st.just("submit"),
    st.integers(0, 10),  # rows; over LARGEST: split; 0: alone
    st.integers(1, 2),  # width
    st.sampled_from([None, None, "deadline", "queue_deadline"]),
    st.integers(1, 3),  # priority
    st.booleans(),  # poisoned
    st.sampled_from([None, "a", "a", "b"]),  # whose
)
steps = st.one_of(
    submits,
    submits,
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 3)),
)


def tagged(tag, rows, width, poison, **options):
    """Rows that no other request has: tag in the first column's whole part, the row's number behind the point."""
    x = np.zeros((rows, width), np.float64)
    x[:, 0] = tag + np.arange(rows) / 64
    if poison:
        x[:1, 0] *= -1
    return Call({"x": x}, **options)


def answer(_, inputs):
    if (inputs["x"] < 0).any():
        raise BackendError("poisoned")
    return {"y": inputs["x"] * 2}


@pytest.mark.parametrize("instances", [1, 2])
@settings(max_examples=60)
@given(plan=st.lists(steps, max_size=30), delay=st.sampled_from([0.0, 0.0, 0.002]))
def test_every_request_gets_its_rows_or_one_error(instances, plan, delay):
    from support.scheduling import signature

    from inferd.wire.dtypes import DType

    wide = signature({"x": (DType.FP64, (-1, -1))}, {"y": (DType.FP64, (-1, -1))})
    model = FakeModel(answer, [wide])
    served = scheduler(
        model,
        instances=instances,
        batching={"max_batch_size": LARGEST, "max_queue_delay": delay},
        queue={"requests": MOST_REQUESTS, "bytes": MOST_BYTES},
        who=str,
    )
    assert served.max_batch_size == LARGEST
    model.gate.close()
    accepted, refused, cancelled = [], [], set()
    try:
        for tag, (what, *details) in enumerate(plan, 1):
            if what == "submit":
                rows, width, expiry, priority, poison, caller = details
                options = {expiry: time.monotonic() + 0.001} if expiry else {}
                call = tagged(tag, rows, width, poison and rows, priority=priority, call=caller, **options)
                # `inputs` is given up when a request is dropped: keep what it should get
                call.expected = call.inputs["x"] * 2
                try:
                    submit(served, call)
                except (Overloaded, DeadlineExceeded):
                    refused.append(call)
                else:
                    accepted.append(call)
            elif what == "cancel" and accepted:
                call = accepted[details[0] % len(accepted)]
                call.cancel()
                cancelled.add(call)
                assert call.wait().outcomes == 1
            elif what == "step":
                model.gate.step(details[0])
            requests, nbytes = served.queue_depth
            # a split request has at most one part per instance in the queue, of which the first was admitted
            assert 0 <= requests <= MOST_REQUESTS + instances
            assert 0 <= nbytes <= MOST_BYTES
        model.gate.open()
        assert served.drain(PATIENCE)
        for call in accepted:
            assert call.wait().outcomes == 1
            error = call.error
            if error is None:
                np.testing.assert_array_equal(call.outputs["y"], call.expected)
                assert not (call.expected < 0).any()
            elif isinstance(error, Cancelled):
                assert call in cancelled
            elif isinstance(error, QueueTimeout):
                assert call.queue_deadline is not None
            elif isinstance(error, DeadlineExceeded):
                assert call.deadline is not None
            elif isinstance(error, Overloaded):
                assert call.call is not None
                assert "gave way" in str(error)
            else:
                assert isinstance(error, ExecutionFailed)
                assert (call.expected < 0).any()
        assert all(call.outcomes == 0 for call in refused)
        assert served.queue_depth == (0, 0)
        assert all(rows <= LARGEST for rows in model.batches)
    finally:
        model.gate.open()
        served.close()


def test_sixty_four_threads_on_a_real_model(tmp_path):
    """Rows tagged by caller, mixed shapes and sizes, cancellations and short deadlines among them."""
    n, width = "n", "width"
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [n, width])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [n, width]) for name in "yz"],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = OnnxBackend().open(OpenRequest("m", 1, tmp_path, path))
    name = model.signatures[0].name
    served = scheduler(model, instances=2, batching={"max_batch_size": 16}, queue={"requests": 48})
    assert served.batching == "up to 16 rows"
    failures: list[str] = []
    tally = {"ok": 0, "cancelled": 0, "expired": 0, "refused": 0}
    lock = threading.Lock()
    start = threading.Barrier(64)

    def caller(number):
        dice = random.Random(number)
        start.wait()
        for round_ in range(30):
            rows = dice.choice((1, 1, 1, 2, 5, 16, 40))
            tag = number * 1000 + round_
            x = tag + np.arange(rows * (w := dice.choice((1, 3, 8))), dtype=np.float64).reshape(rows, w) / 4096
            fate = dice.random()
            wanted = dice.choice((None, ("y",), ("z",), ("z", "y")))
            options = {"deadline": time.monotonic() + dice.choice((1e-4, 1e-3))} if fate < 0.15 else {}
            call = Call({"x": x}, name, wanted=wanted, priority=dice.choice((1, 1, 2)), **options)
            try:
                submit(served, call)
                if fate > 0.85:
                    call.cancel()
                outputs = call.result()
                right = {"y": x * 2, "z": -x}
                if tuple(outputs) != (wanted or ("y", "z")) or not all(
                    np.array_equal(outputs[key], right[key]) for key in outputs
                ):
                    failures.append(f"caller {number} got {outputs} for {x}")
                kind = "ok"
            except Cancelled:
                kind = "cancelled" if fate > 0.85 else failures.append("cancelled without being asked") or "ok"
            except DeadlineExceeded:
                kind = "expired" if options else failures.append("expired without a deadline") or "ok"
            except Overloaded:
                kind = "refused"
            except ServingError as error:
                failures.append(repr(error))
                kind = "ok"
            if call.outcomes != (kind != "refused") and not (kind == "expired" and call.outcomes == 0):
                failures.append(f"{call.outcomes} outcomes")
            with lock:
                tally[kind] += 1

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert served.drain(PATIENCE)
    assert served.queue_depth == (0, 0)
    served.close()
    assert not failures, failures[:5]
    assert sum(tally.values()) == 64 * 30
    assert all(tally[kind] for kind in ("ok", "cancelled", "expired")), tally
