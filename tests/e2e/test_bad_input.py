"""Every kind of wrong request gets a precise status that says what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.marked import prepare_model, publish
from support.server import Served

from inferd.client import Client, FailedPrecondition, InvalidArgument, NotFound, RequestError
from inferd.v1 import predict_service_pb2 as pb
from inferd.v1 import tensor_pb2
from inferd.wire.native import encode_request

PREDICT = "/inferd.v1.PredictService/Predict"
X = np.zeros((1, 4), np.float32)
GOOD = encode_request("good", {"x": X})


@pytest.fixture(scope="module", params=["cq", "public"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("bad") / "models"
    publish("onnx", prepare_model("onnx", root, "good"), 3, marker=1)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"\x08\x08not a model")
    with Served(root, sets=(f"server.transport={request.param}", "grpc.max_message=1MiB")) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "inputs", "options", "error", "words"),
    [
        ("nobody", {"x": X}, {}, NotFound, ["nobody", "good"]),
        ("good", {"x": X}, {"version": 9}, NotFound, ["9", "3"]),
        ("good", {"x": X}, {"label": "stable"}, NotFound, ["stable"]),
        ("good", {"x": X}, {"signature": "other"}, InvalidArgument, ["other", "serving_default"]),
        ("good", {"x": X}, {"outputs": ["z"]}, InvalidArgument, ["'z'", "y"]),
        ("good", {"w": X}, {}, InvalidArgument, ["'w'", "x"]),
        ("good", {}, {}, InvalidArgument, ["x"]),
        ("good", {"x": X, "w": X}, {}, InvalidArgument, ["'w'"]),
        ("good", {"x": X.astype(np.float64)}, {}, InvalidArgument, ["FP32", "FP64"]),
        ("good", {"x": X[0]}, {}, InvalidArgument, ["[4]"]),
        ("good", {"x": np.zeros((1, 5), np.float32)}, {}, InvalidArgument, ["[-1, 4]", "[1, 5]"]),
        ("broken", {"x": X}, {}, FailedPrecondition, ["broken"]),
    ],
)
def test_errors_name_what_was_expected_and_what_came(
    client: Client, model: str, inputs: dict, options: dict, error: type[RequestError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        client.predict(model, inputs, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert client.predict("good", {"x": X}).version == 3


def raw(served: Served, message: bytes) -> tuple[grpc.StatusCode, str]:
    with grpc.insecure_channel(served.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        try:
            channel.unary_unary(PREDICT)(message, timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def tensor(**fields: object) -> bytes:
    values: dict[str, object] = {"name": "x", "dtype": tensor_pb2.DATA_TYPE_FP32, "shape": [1, 4], "data": bytes(16)}
    request = pb.PredictRequest(inputs=[tensor_pb2.Tensor(**values | fields)])
    request.model.name = "good"
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (tensor(data=bytes(15)), ["'x'", "16", "15"]),
        (tensor(shape=[-1, 4]), ["'x'", "-1"]),
        (tensor(shape=[2**62, 4]), ["'x'"]),
        (tensor(shape=[1] * 200), ["'x'"]),
        (tensor(dtype=0), ["'x'"]),
        (tensor(dtype=99), ["'x'", "99"]),
        (tensor(dtype=tensor_pb2.DATA_TYPE_STRING, data=b"\xff\xff\xff\xff"), ["'x'"]),
        (b"", []),
        (GOOD[:-1], []),
        (b"\xff" * 50, []),
    ],
)
def test_malformed_messages_are_refused_with_the_reason(served: Served, message: bytes, words: list[str]) -> None:
    code, details = raw(served, message)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), details
    for word in words:
        assert word in details, details


def test_an_oversized_message_is_refused_and_the_server_keeps_serving(served: Served, client: Client) -> None:
    code, _ = raw(served, encode_request("good", {"x": np.zeros((1 << 18, 4), np.float32)}))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.predict("good", {"x": X}).version == 3


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=8))))
def test_random_and_mutated_bytes_get_no_internal_error(served: Served, noise: bytes | tuple[int, bytes]) -> None:
    message = noise if isinstance(noise, bytes) else GOOD[: noise[0]] + noise[1] + GOOD[noise[0] + len(noise[1]) :]
    code, details = raw(served, message)
    expired = grpc.StatusCode.DEADLINE_EXCEEDED  # the bytes may be a queue timeout of a microsecond
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, expired), details
    assert "Traceback" not in details
    assert "internal error" not in details


def test_the_server_is_healthy_after_all_bad_input(served: Served, client: Client) -> None:
    assert client.ready()
    assert client.predict("good", {"x": X}).version == 3
    assert "Traceback" not in served.tail(200_000)
