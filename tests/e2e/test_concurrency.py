"""Sixty-four concurrent callers with mixed shapes; some cancel, some have short deadlines. Every caller gets its own
answer."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from support.marked import prepare_model
from support.server import Served

from inferd.client import NO_RETRIES, Client, DeadlineExceeded, Overloaded

pytestmark = pytest.mark.timeout(180)
CALLERS, CALLS = 64, 60


def write_tagged(directory: Path) -> None:
    """Writes a model of y = 2 x + 1 on shape [n, m]: requests with equal m can share batches."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["d"]), helper.make_node("Add", ["d", "one"], ["y"])],
        "tagged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])],
        [
            helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    directory.mkdir(parents=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


@pytest.fixture(scope="module", params=["cq", "public"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("concurrency") / "models"
    write_tagged(prepare_model("onnx", root, "tagged", "queue: {requests: 4096}\n") / "1")
    with Served(root, sets=(f"server.transport={request.param}",)) as server:
        yield server


def test_every_caller_gets_its_own_answer(served: Served) -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    lock = threading.Lock()

    def call(caller: int, client: Client) -> None:
        rng = random.Random(caller)
        for i in range(CALLS):
            rows, width = rng.choice([1, 1, 1, 2, 5, 40]), rng.choice([3, 4, 7])
            # The tag of the caller and the call is in every element.
            x = np.full((rows, width), caller * 1000 + i, np.float32) + np.arange(rows, dtype=np.float32)[:, None] / 64
            fate = rng.random()
            try:
                if fate < 0.1:
                    future = client.submit("tagged", {"x": x})
                    future.cancel()
                    answer = future.result()
                elif fate < 0.2:
                    answer = client.predict("tagged", {"x": x}, timeout=0.002)
                else:
                    answer = client.predict("tagged", {"x": x}, timeout=60.0)
            except CancelledError:
                outcome = "cancelled"
            except (DeadlineExceeded, Overloaded):  # expired, or refused early by queue.admission
                outcome = "late"
            else:
                outcome = "answered"
                if not np.array_equal(answer["y"], 2 * x + 1):
                    wrong.append(f"caller {caller}, call {i}")
            with lock:
                counts[outcome] += 1
                if outcome == "late":
                    counts["late, with a long deadline"] += fate >= 0.2

    with Client(served.address, retry=NO_RETRIES) as client:
        threads = [threading.Thread(target=call, args=(i, client)) for i in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert counts["late, with a long deadline"] == 0
    assert counts["answered"] + counts["cancelled"] + counts["late"] == CALLERS * CALLS
    assert counts["answered"] > CALLERS * CALLS * 0.7


def test_a_request_over_the_batch_size_gets_all_its_rows(served: Served) -> None:
    with Client(served.address) as client:
        x = np.arange(1000 * 5, dtype=np.float32).reshape(1000, 5)
        np.testing.assert_array_equal(client.predict("tagged", {"x": x})["y"], 2 * x + 1)
