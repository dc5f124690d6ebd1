"""What a real server holds in memory while clients flood it, and a while later."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.http2 import RawClient, message
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import Client
from inferd.wire.native import encode_request

MIB = 2**20
BOUND = 256 * MIB  # inflight.bytes
SLACK = 200 * MIB
PREDICT, PREDICT_STREAM = "/inferd.v1.PredictService/Predict", "/inferd.v1.PredictService/PredictStream"
ASK = message(encode_request("large", {"x": np.ones((1, 1), np.float32)}))
VALUES = 1_000_000  # 4 MB an answer


def large_answers(directory: Path) -> None:
    """A model that answers one number with VALUES of them."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", VALUES])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, VALUES])
    graph = helper.make_graph([helper.make_node("Expand", ["x", "shape"], ["y"])], "g", [x], [y], [shape])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.onnx").write_bytes(made.SerializeToString())
    (directory / "model.yaml").write_text("batching: {max_batch_size: 4}\n")


@pytest.fixture(scope="module", params=["cq", "public"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("floods") / "models"
    large_answers(root / "large")
    sets = (*FAST, f"server.transport={request.param}", f"inflight.bytes={BOUND // MIB}MiB")
    with Served(root, sets=sets) as server:
        yield server


class Peak:
    """The most memory that the server has held within the `with` block."""

    def __init__(self, server: Served) -> None:
        self.bytes = 0
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.bytes = max(self.bytes, self._server.memory())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def port(server: Served) -> int:
    return int(server.address.rpartition(":")[2])


def compressed(server: Served, path: str) -> None:
    packed = message(gzip.compress(bytes(60 * MIB), 9), compressed=True)
    clients = [RawClient(port(server)) for _ in range(3)]
    for _ in range(10):
        for client in clients:
            client.send(client.call(path, ("grpc-encoding", "gzip")), packed, end=True, timeout=5)
    for client in clients:
        client.sock.close()


def unread(server: Served, path: str) -> None:
    with RawClient(port(server), window=0) as client:
        if path == PREDICT_STREAM:
            for _ in range(4):
                client.send(client.call(path), 40 * ASK, timeout=5)
        else:
            for _ in range(160):  # 1.3 GB of answers, with gRPC's copies
                client.send(client.call(path), ASK, end=True, timeout=5)
        eventually(lambda: "did not read" in server.tail(100_000), "clients that do not read are cut off")


def half_sent(server: Served, path: str) -> None:
    half = message(bytes(60 * MIB))[: 40 * MIB]
    clients = [RawClient(port(server)) for _ in range(16)]  # 640 MiB
    for client in clients:
        client.send(client.call(path), half, timeout=5)
    for client in clients:
        client.sock.close()


@pytest.mark.parametrize("path", [PREDICT, PREDICT_STREAM])
def test_memory_is_bounded_during_floods_and_comes_back(served: Served, path: str) -> None:
    with Client(served.address) as client:
        # What the model itself needs is there after the first calls.
        expected = client.predict("large", {"x": np.ones((1, 1), np.float32)})["y"]
        idle = served.memory()
        floods: list[Callable[[Served, str], None]] = [compressed, unread, half_sent]
        for flood in floods:
            with Peak(served) as peak:
                flood(served, path)
            assert peak.bytes <= idle + BOUND + SLACK, (flood.__name__, idle // MIB, peak.bytes // MIB)
            eventually(
                lambda: np.array_equal(client.predict("large", {"x": np.ones((1, 1), np.float32)})["y"], expected),
                "others are served",
            )
        caches = 40 * MIB  # ONNX Runtime keeps what its batches took
        eventually(
            lambda: served.memory() <= idle * 1.1 + caches,
            "the memory is given back",
            lambda: (idle // MIB, served.memory() // MIB),
            limit=90,
        )
