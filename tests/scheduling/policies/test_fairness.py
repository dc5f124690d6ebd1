"""A flooded model does not delay other models, neither on the transport's loop nor on workers."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.scheduling import PATIENCE, FakeModel, double, submit, vector
from support.server import Served

from inferd.backends.api import Traits
from inferd.server.scheduling.inline import TURN, InlineLoop
from inferd.wire.native import encode_request

PREDICT = "/inferd.v1.PredictService/Predict"


def test_in_each_turn_every_model_runs_whatever_the_first_one_has_to_do(serve) -> None:
    """A flooded model uses up the turn; its other requests run on its worker, and another model still answers."""
    loop = InlineLoop()
    loop.enter()
    traits = Traits(bounded=True, concurrent=True)

    def slowly(signature: str, inputs: dict) -> dict:  # type: ignore[type-arg]
        loop.spent += TURN  # as if each batch took the whole turn
        return double(signature, inputs)

    flooded, quiet = FakeModel(slowly, traits=traits), FakeModel(traits=traits)
    first, second = (serve(model, loop=loop, batching={"max_batch_size": 1}) for model in (flooded, quiet))
    for scheduler in (first, second):
        scheduler._budget.clock = lambda: 0.0  # a busy machine must not take it off the loop
        for number in range(20):
            submit(scheduler, call := vector(number))
            loop.turn()
            call.result()
    here = threading.current_thread().name
    threads: list[str] = []
    quiet.function = lambda _, inputs: (threads.append(threading.current_thread().name), {"y": inputs["x"]})[1]
    flood = [vector(i) for i in range(50)]
    for call in flood:
        submit(first, call)
    submit(second, asked := vector(1))
    loop.turn()
    assert asked.finished, "the flooded model has used up the turn"
    assert threads == [here]
    for call in flood:
        call.result()


def test_a_model_whose_queue_is_full_refuses_for_itself_only(serve) -> None:
    flooded, quiet = FakeModel(), FakeModel()
    first, second = serve(flooded, queue={"requests": 4}), serve(quiet, queue={"requests": 4})
    flooded.gate.close()
    submit(first, vector(0))
    flooded.gate.wait_for_arrivals()
    for i in range(4):
        submit(first, vector(i))
    with pytest.raises(Exception, match=r"queue .* is full"):
        submit(first, vector(5))
    for i in range(8):
        submit(second, call := vector(i))
        assert call.result()["y"][0, 0] == 2 * i
    flooded.gate.open()


def test_a_flood_on_one_model_does_not_keep_another_from_answering(tmp_path: Path) -> None:
    """On a real server: the flood never pauses until the other model has given all its answers."""
    from benchmarks.models import write_mlp

    root = tmp_path / "models"
    for name in ("flooded", "quiet"):
        write_mlp(root / name / "1" / "model.onnx", 64, 1)
    x = np.ones((1, 64), np.float32)
    enough, answered = threading.Event(), []

    def flood(address: str) -> None:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(PREDICT)
            body = encode_request("flooded", {"x": x})
            pending = [call.future(body, timeout=PATIENCE) for _ in range(64)]
            while not enough.is_set():
                answered.append(pending.pop(0).result())
                pending.append(call.future(body, timeout=PATIENCE))
            for future in pending:
                future.result()

    with Served(root) as server:
        flooding = threading.Thread(target=flood, args=(server.address,))
        flooding.start()
        try:
            with grpc.insecure_channel(server.address) as channel:
                call = channel.unary_unary(PREDICT)
                body = encode_request("quiet", {"x": x})
                for _ in range(200):
                    before = len(answered)
                    call(body, timeout=PATIENCE)
                    assert len(answered) - before < 5000, "thousands were served before one"
        finally:
            enough.set()
            flooding.join(PATIENCE)
    assert answered
