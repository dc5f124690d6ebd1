"""What a real server holds in memory while clients flood it, and a while later."""

from __future__ import annotations

import gzip
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
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
    # ONNX Runtime would keep what its largest batches took, which is not what is tested.
    (directory / "model.yaml").write_text("batching: {max_batch_size: 4}\noptions: {enable_cpu_mem_arena: false}\n")


@pytest.fixture(scope="module")
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


def given_up(server: Served) -> float:
    """The requests that were given up because their callers were gone, or were cut off."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith('inferd_dropped_total{model="large",reason="cancelled"')
    )


def unread(server: Served, path: str) -> None:
    before = given_up(server)
    with RawClient(port(server), window=0) as client:
        if path == PREDICT_STREAM:
            for _ in range(4):
                client.send(client.call(path), 40 * ASK, timeout=5)
        else:
            for _ in range(160):  # 1.3 GB of answers, with gRPC's copies
                client.send(client.call(path), ASK, end=True, timeout=5)
        # A fast machine reaches the bound itself before the first look at clients that do not read.
        eventually(
            lambda: "did not read" in server.tail(100_000) or given_up(server) > before,
            "clients that do not read are cut off",
        )


def half_sent(server: Served, path: str) -> None:
    half = message(bytes(60 * MIB))[: 40 * MIB]
    clients = [RawClient(port(server)) for _ in range(16)]  # 640 MiB
    for client in clients:
        client.send(client.call(path), half, timeout=5)
    for client in clients:
        client.sock.close()


def over_http(server: Served, head: str, *bodies: bytes, clients: int) -> list[socket.socket]:
    """Opens connections, and sends each of them a head and the bodies as far as the server takes them."""
    connections = []
    for _ in range(clients):
        connection = socket.socket()
        connection.settimeout(5)
        host, number = server.http.rsplit(":", 1)
        connection.connect((host, int(number)))
        connections.append(connection)
        with suppress(OSError):  # the server has ended the connection, or does not read any more
            for body in bodies:
                connection.sendall(f"{head}\r\nHost: h\r\n".encode() + body)
    return connections


INFER = "POST /v2/models/large/infer HTTP/1.1"


def http_compressed(server: Served) -> None:
    packed = gzip.compress(b'{"inputs":[' + b" " * 60 * MIB, 9)
    body = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    for connection in over_http(server, INFER, *[body] * 3, clients=10):
        connection.close()


def http_half_sent(server: Served) -> None:
    body = f"Content-Length: {60 * MIB}\r\n\r\n".encode() + bytes(40 * MIB)
    for connection in over_http(server, INFER, body, clients=16):
        connection.close()


FLOODS: dict[str, list[Callable[[Served], None]]] = {
    path: [partial(flood, path=path) for flood in (compressed, unread, half_sent)] for path in (PREDICT, PREDICT_STREAM)
} | {"HTTP": [http_compressed, http_half_sent]}


@pytest.mark.parametrize(
    ("served", "floods"),
    [("cq", "HTTP"), *((transport, path) for transport in ("cq", "public") for path in (PREDICT, PREDICT_STREAM))],
    indirect=["served"],
)
def test_memory_is_bounded_during_floods_and_comes_back(served: Served, floods: str) -> None:
    with Client(served.address) as client:
        # What the model itself needs is there after the first calls.
        expected = client.predict("large", {"x": np.ones((1, 1), np.float32)})["y"]
        idle = served.memory()
        for flood in FLOODS[floods]:
            with Peak(served) as peak:
                flood(served)
            assert peak.bytes <= idle + BOUND + SLACK, (str(flood), idle // MIB, peak.bytes // MIB)
            eventually(
                lambda: np.array_equal(client.predict("large", {"x": np.ones((1, 1), np.float32)})["y"], expected),
                "others are served",
            )
            if floods == "HTTP":  # each is measured by itself: two of them hold different parts of the heap
                given_back(served, idle)
        given_back(served, idle)


def given_back(served: Served, idle: int) -> None:
    eventually(
        lambda: served.memory() <= idle * 1.1,
        "the memory is given back",
        lambda: (idle // MIB, served.memory() // MIB),
        limit=90,
    )
