"""One client floods a model while another sends single requests: on every protocol and transport, over real sockets.
The model is held at a gate until the test has seen which requests are queued."""

from __future__ import annotations

import http.client
import json
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.marked import WIDTH, slow_onnx
from support.scheduling import PATIENCE, VECTOR, FakeModel
from support.security import entry, write_tokens
from support.server import FAST
from support.server import Served as Process
from support.waiting import eventually

from inferd.oip.v1 import infer_pb2
from inferd.server.app import App
from inferd.server.config.schema import ServerConfig
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.wire.native import decode_stream_response, encode_request

ROOM = 16
FLOOD = 200
TOKENS = {name: f"{name}-0123456789abcdef0123456789abcdef0123456789" for name in ("greedy", "modest")}
PREDICT = "/inferd.v1.PredictService/Predict"
STREAM = "/inferd.v1.PredictService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
INFER_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
TFS_PREDICT = "/tensorflow.serving.PredictionService/Predict"
X = np.array([[1.0, 2.0]], np.float32)


class Gated:
    """A backend with one model, whose runs wait at a gate that the test opens."""

    name = "gated"
    platforms = ()

    def __init__(self) -> None:
        self.model = FakeModel(signatures=[replace(VECTOR, name="serving_default")])

    def find(self, directory: Path) -> Path | None:
        return directory / "model.gated"

    def complete(self, artefact: Path) -> str | None:
        return None

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def devices(self) -> Sequence[str]:
        return ("cpu",)

    def open(self, request: object) -> FakeModel:
        return self.model

    # The methods of a registry whose only backend is this one.

    def artefact_names(self) -> frozenset[str]:
        return frozenset({"model.gated"})

    def detect(self, directory: Path, wanted: str | None, allow: object) -> tuple[Gated, Path]:
        return self, directory / "model.gated"

    def get(self, name: str) -> Gated:
        return self

    named = get


class House:
    """A server in this process whose model waits at a closed gate, without a request."""

    def __init__(self, directory: Path, transport: str, *, auth: bool = True) -> None:
        self.backend = Gated()
        artefact = directory / "models" / "m" / "1" / "model.gated"
        artefact.parent.mkdir(parents=True)
        artefact.touch()
        entries = {name: entry(token, ["predict"]) for name, token in TOKENS.items()}
        tokens = write_tokens(directory / "tokens.yaml", entries)
        self.app = App(
            ServerConfig.model_validate(
                {
                    "server": {"listen": ("127.0.0.1:0",), "http": ("127.0.0.1:0",), "transport": transport},
                    "repository": {"roots": (str(directory / "models"),), "poll": 0.05, "settle": 0.0},
                    "models": {"m": {"queue": {"requests": ROOM}, "batching": {"mode": "off"}}},
                    **({"auth": {"tokens_file": str(tokens)}} if auth else {}),
                }
            ),
            self.backend,  # type: ignore[arg-type]
        )
        started = self.app.start()
        self.grpc, self.http = started.grpc[0], started.http[0]
        assert self.app.manager.wait_ready(PATIENCE)
        self.channels: list[grpc.Channel] = []
        handle = self.app.manager.acquire("m")
        self.scheduler = handle.servable.scheduler
        handle.release()
        self.backend.model.gate.close()

    def waiting(self, count: int) -> None:
        eventually(lambda: self.scheduler.queue_depth[0] == count, f"{count} wait")

    def channel(self) -> grpc.Channel:
        made = grpc.insecure_channel(self.grpc, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        self.channels.append(made)
        return made

    def flood(self) -> list[Any]:
        """Floods the model as the client "greedy": one request runs, ROOM requests are queued, the rest are refused."""
        call = self.channel().unary_unary(PREDICT)
        body = encode_request("m", {"x": X})
        calls = [call.future(body, timeout=60, metadata=who("greedy")) for _ in range(FLOOD)]
        self.waiting(ROOM)
        eventually(lambda: sum(call.done() for call in calls) == FLOOD - ROOM - 1, "the others are refused")
        return calls

    def stop(self) -> None:
        self.backend.model.gate.open()
        for channel in self.channels:
            channel.close()
        assert self.app.stop()


def who(name: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {TOKENS[name]}")]


@pytest.fixture(params=["cq", "public"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, request.param)
    yield made
    made.stop()


def native(house: House) -> Any:
    return house.channel().unary_unary(PREDICT)(encode_request("m", {"x": X}), timeout=60, metadata=who("modest"))


def oip_request() -> bytes:
    asked = infer_pb2.ModelInferRequest(model_name="m", id="mine", raw_input_contents=[X.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=X.shape)
    return asked.SerializeToString()


def oip(house: House) -> Any:
    return house.channel().unary_unary(INFER)(oip_request(), timeout=60, metadata=who("modest"))


def tfs(house: House) -> Any:
    asked = tfs_pb.PredictRequest()
    asked.model_spec.name = "m"
    tensor = asked.inputs["x"]
    tensor.dtype = 1
    for size in X.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = X.tobytes()
    body = asked.SerializeToString()
    return house.channel().unary_unary(TFS_PREDICT)(body, timeout=60, metadata=who("modest"))


def _over_a_stream(house: House, method: str, body: bytes) -> bytes:
    messages: queue.Queue[bytes | None] = queue.Queue()
    messages.put(body)
    answers = house.channel().stream_stream(method)(iter(messages.get, None), timeout=60, metadata=who("modest"))
    answer = next(answers)
    messages.put(None)
    assert list(answers) == []
    return answer


def stream(house: House) -> Any:
    request_id, answer = decode_stream_response(
        _over_a_stream(house, STREAM, encode_request("m", {"x": X}, request_id="mine"))
    )
    assert request_id == "mine"
    return answer.outputs  # a StreamFailure has none


def oip_stream(house: House) -> Any:
    answer = infer_pb2.ModelStreamInferResponse.FromString(_over_a_stream(house, INFER_STREAM, oip_request()))
    assert not answer.error_message, answer.error_message
    return answer


def _post(house: House, path: str, body: Any) -> bytes:
    connection = http.client.HTTPConnection(house.http, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), dict(who("modest")))
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


def rest_oip(house: House) -> Any:
    tensor = {"name": "x", "shape": X.shape, "datatype": "FP32", "data": X.ravel().tolist()}
    return _post(house, "/v2/models/m/infer", {"inputs": [tensor]})


def rest_tfs(house: House) -> Any:
    return _post(house, "/v1/models/m:predict", {"instances": X.tolist()})


@pytest.mark.parametrize(
    "ask", [native, stream, oip, oip_stream, tfs, rest_oip, rest_tfs], ids=lambda ask: ask.__name__
)
def test_an_occasional_client_is_answered_while_another_floods_the_queue(
    house: House, ask: Callable[[House], Any]
) -> None:
    flood = house.flood()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(house)))
    asking.start()
    try:
        # One of the flooding client's requests is dropped from the queue, nothing else changes, and nothing has run.
        eventually(lambda: sum(call.done() for call in flood) == FLOOD - ROOM, "one gives way")
        house.waiting(ROOM)
        assert asking.is_alive()
    finally:
        house.backend.model.gate.open()
        asking.join(PATIENCE)
    assert len(answers) == 1
    assert answers[0]
    ended = Counter(call.code() for call in flood)
    assert ended == {grpc.StatusCode.OK: ROOM, grpc.StatusCode.RESOURCE_EXHAUSTED: FLOOD - ROOM}
    refused = [call for call in flood if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
    for call in refused:
        trailing = dict(call.trailing_metadata())
        assert int(trailing["grpc-retry-pushback-ms"]) > 0
        assert trailing["inferd-accepted"] == "0"
    assert sum("gave way" in call.details() for call in refused) == 1
    assert (
        f'inferd_dropped_total{{model="m",reason="full",version="1"}} {FLOOD - ROOM}.0'
        in house.app.metrics.render().decode()
    )


def test_without_credentials_clients_are_told_apart_by_address(tmp_path: Path) -> None:
    house = House(tmp_path, "cq", auth=False)
    try:
        flood = house.flood()
        call = house.channel().unary_unary(PREDICT)
        with pytest.raises(grpc.RpcError) as refused:
            call(encode_request("m", {"x": X}), timeout=60)
        assert "queue.requests" in refused.value.details(), "another connection is not another client"
        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(_from_another_address(house)))
        asking.start()
        eventually(lambda: sum(call.done() for call in flood) == FLOOD - ROOM, "one gives way")
        house.backend.model.gate.open()
        asking.join(PATIENCE)
        assert answered == [200]
        assert sum(call.code() is grpc.StatusCode.OK for call in flood) == ROOM
    finally:
        house.stop()


def _from_another_address(house: House) -> int:
    connection = http.client.HTTPConnection(house.http, timeout=60, source_address=("127.0.0.2", 0))
    try:
        connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": X.tolist()}))
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_isolated_model_refuses_only_the_flooding_client(tmp_path: Path) -> None:
    """A real server and a real worker process, under a continuing flood: a client with one request in flight is never
    refused."""
    root = tmp_path / "models"
    slow_onnx(root / "m" / "1", 2000)
    (root / "m" / "model.yaml").write_text("isolation: process\nqueue: {requests: 8}\nbatching: {mode: 'off'}\n")
    tokens = write_tokens(tmp_path / "tokens.yaml", {name: entry(token, ["predict"]) for name, token in TOKENS.items()})
    body = encode_request("m", {"x": np.ones((1, WIDTH), np.float32)})
    enough, ended = threading.Event(), Counter[grpc.StatusCode]()

    def flood(address: str) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(PREDICT)
            while not enough.is_set():
                calls = [call.future(body, timeout=60, metadata=who("greedy")) for _ in range(60)]
                ended.update(finished.code() for finished in calls)

    with Process(root, sets=[*FAST, f"auth.tokens_file={tokens}"]) as server:
        flooding = threading.Thread(target=flood, args=(server.address,))
        flooding.start()
        try:
            eventually(lambda: ended[grpc.StatusCode.RESOURCE_EXHAUSTED], "the flood is refused")
            with grpc.insecure_channel(server.address) as channel:
                for _ in range(20):
                    assert channel.unary_unary(PREDICT)(body, timeout=60, metadata=who("modest"))
        finally:
            enough.set()
            flooding.join(60)
    assert not flooding.is_alive()
    assert set(ended) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
