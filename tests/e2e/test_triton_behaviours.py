"""Behaviours from Triton's own test list, with the real tritonclient and a real server.

docs/protocols.md has the whole list, and names Triton's tests (L0_...).
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, save
from support.marked import prepare_model, publish, slow_onnx
from support.server import Served
from support.traffic import Traffic
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.timeout(180)

LONG = 60_000_000  # microseconds that a request may wait
STRINGS = [b"\0", b"a\0b", b"", "ünï".encode(), b"x" * 70_000]


def identity(directory: Path, kind: int, shape: list[Any]) -> None:
    """Writes a model of y = x."""
    directory.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("behaviours") / "models"
    identity(root / "strings" / "1", TensorProto.STRING, ["n", "m"])
    identity(root / "floats" / "1", TensorProto.FLOAT, ["n", "m"])
    identity(root / "scalar" / "1", TensorProto.FLOAT, [])
    publish("onnx", prepare_model("onnx", root, "marked"), 1, 1.0)
    slow_onnx(root / "slow" / "1", 300_000)
    (root / "slow" / "config.pbtxt").write_text(
        """
        backend: "onnxruntime" max_batch_size: 1
        dynamic_batching { default_queue_policy {
          default_timeout_microseconds: 1000 allow_timeout_override: true max_queue_size: 4 } }
        """
    )
    with Served(root) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address) as client:
        yield client


def tensor(array: np.ndarray, datatype: str = "FP32", name: str = "x") -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def test_strings_with_nul_and_other_bytes_round_trip(client: triton.InferenceServerClient) -> None:
    """L0_nullchar_string, L0_string_io."""
    words = np.array([STRINGS, STRINGS[::-1]], object)
    assert client.infer("strings", [tensor(words, "BYTES")]).as_numpy("y").tolist() == words.tolist()
    with pytest.raises(InferenceServerException, match="strings of ONNX models are UTF-8, element 1 is not"):
        client.infer("strings", [tensor(np.array([[b"a", b"\xff\xfe"]], object), "BYTES")])


def test_nan_and_infinity_round_trip_bit_for_bit(client: triton.InferenceServerClient) -> None:
    """L0_nan_inf: bit for bit."""
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0, np.float32(1e-45)]], np.float32)
    assert client.infer("floats", [tensor(odd)]).as_numpy("y").tobytes() == odd.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_tensors_with_zero_dimensions_round_trip(client: triton.InferenceServerClient, shape: tuple[int, int]) -> None:
    """L0_infer_zero."""
    assert client.infer("floats", [tensor(np.zeros(shape, np.float32))]).as_numpy("y").shape == shape
    assert client.infer("strings", [tensor(np.empty(shape, object), "BYTES")]).as_numpy("y").shape == shape


def test_scalars_round_trip(client: triton.InferenceServerClient) -> None:
    """L0_scalar_io: tensors without dimensions."""
    assert client.infer("scalar", [tensor(np.array(3.5, np.float32))]).as_numpy("y") == 3.5


def test_a_payload_at_the_limit_is_served_and_one_over_it_refused(client: triton.InferenceServerClient) -> None:
    """L0_large_payload: the next request after the refused one is served again."""
    large = np.arange(15 * 2**20, dtype=np.float32).reshape(15, -1)  # 60 MiB of 64
    np.testing.assert_array_equal(client.infer("floats", [tensor(large)]).as_numpy("y"), large)
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        client.infer("floats", [tensor(np.zeros((17, 2**20), np.float32))])
    assert client.infer("floats", [tensor(large[:1])]).as_numpy("y").shape == (1, 2**20)


LATE = "(?i)deadline"  # in the client's own error, or in the server's if that comes first


def late(error: object) -> bool:
    return re.search(LATE, str(error)) is not None


def test_the_clients_timeout_ends_unary_async_and_stream_requests(client: triton.InferenceServerClient) -> None:
    """L0_client_timeout: unary, asynchronous and streaming; the server serves afterwards."""
    x = tensor(np.ones((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match=LATE):
        client.infer("slow", [x], client_timeout=0.02, timeout=LONG)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.async_infer("slow", [x], lambda result, error: answers.put(error), client_timeout=0.02, timeout=LONG)
    assert late(answers.get(timeout=30))
    # Long enough to send a request, but shorter than the model takes.
    client.start_stream(lambda result, error: answers.put(error), stream_timeout=0.3)
    client.async_stream_infer("slow", [x], timeout=LONG)
    assert late(answers.get(timeout=30))
    client.stop_stream(cancel_requests=True)
    assert client.infer("floats", [x]).as_numpy("y").shape == (1, 4)


def ask(client: triton.InferenceServerClient, answers: queue.SimpleQueue[Any], **options: Any) -> None:
    x = tensor(np.ones((1, 4), np.float32))
    client.async_infer("slow", [x], lambda result, error: answers.put(error), **options)


def test_the_queue_timeout_applies_unless_the_request_overrides_it(client: triton.InferenceServerClient) -> None:
    """L0_model_queue: default timeout, REJECT, and a request's own timeout above it."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for timeout in (LONG, None, LONG, None):
        ask(client, answers, **({} if timeout is None else {"timeout": timeout}))
    ended = [answers.get(timeout=60) for _ in range(4)]
    refused = [str(error) for error in ended if error is not None]
    assert len(refused) >= 1
    assert all("Request timeout expired" in error for error in refused), refused
    assert sum(error is None for error in ended) >= 2, "both that may wait are answered"


def test_requests_over_the_queue_size_are_refused_at_once(client: triton.InferenceServerClient) -> None:
    """L0_model_queue: max_queue_size."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(12):
        ask(client, answers, timeout=LONG)
    ended = [answers.get(timeout=60) for _ in range(12)]
    refused = [str(error) for error in ended if error is not None]
    assert refused
    assert all("UNAVAILABLE" in error and "is full" in error for error in refused), refused
    assert sum(error is None for error in ended) >= 4


def test_load_and_unload_under_load_give_no_wrong_answer(served: Served, client: triton.InferenceServerClient) -> None:
    """L0_lifecycle: loads and unloads from several threads. Requests are answered or refused, but never wrongly."""
    with Traffic(served.address, "marked") as traffic:
        traffic.more(50)

        def turn() -> None:
            with triton.InferenceServerClient(served.address) as own:
                for _ in range(3):
                    for change in (own.unload_model, own.load_model):
                        try:
                            change("marked")
                        except InferenceServerException as error:
                            # Opposite operations at the same time: the later one wins, the other gets an error.
                            outcomes.append(str(error))

        outcomes: list[str] = []
        threads = [threading.Thread(target=turn) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        client.load_model("marked")
        traffic.more(50)
    seen = traffic.end()
    assert not seen.wrong
    assert set(seen.markers) == {1.0}
    assert {type(error).__name__ for error in seen.failures} <= {"NotFound", "Unavailable"}, seen.failures[:3]
    assert client.is_model_ready("marked")
