"""What Triton's own tests look at and ours did not yet: through the real client, against a real server.

docs/protocols.md has the whole list.
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
    """y = x."""
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


def test_nul_and_other_bytes_in_strings(client: triton.InferenceServerClient) -> None:
    """L0_nullchar_string, L0_string_io."""
    words = np.array([STRINGS, STRINGS[::-1]], object)
    assert client.infer("strings", [tensor(words, "BYTES")]).as_numpy("y").tolist() == words.tolist()
    with pytest.raises(InferenceServerException, match="strings of ONNX models are UTF-8, element 1 is not"):
        client.infer("strings", [tensor(np.array([[b"a", b"\xff\xfe"]], object), "BYTES")])


def test_nan_and_infinity(client: triton.InferenceServerClient) -> None:
    """L0_nan_inf: bit for bit."""
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0, np.float32(1e-45)]], np.float32)
    assert client.infer("floats", [tensor(odd)]).as_numpy("y").tobytes() == odd.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_zero_dimensions(client: triton.InferenceServerClient, shape: tuple[int, int]) -> None:
    """L0_infer_zero."""
    assert client.infer("floats", [tensor(np.zeros(shape, np.float32))]).as_numpy("y").shape == shape
    assert client.infer("strings", [tensor(np.empty(shape, object), "BYTES")]).as_numpy("y").shape == shape


def test_scalars(client: triton.InferenceServerClient) -> None:
    """L0_scalar_io: no dimensions at all."""
    assert client.infer("scalar", [tensor(np.array(3.5, np.float32))]).as_numpy("y") == 3.5


def test_a_large_payload_and_one_too_large(client: triton.InferenceServerClient) -> None:
    """L0_large_payload: up to the limit it is served, past it refused, and the next one is served again."""
    large = np.arange(15 * 2**20, dtype=np.float32).reshape(15, -1)  # 60 MiB of 64
    np.testing.assert_array_equal(client.infer("floats", [tensor(large)]).as_numpy("y"), large)
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        client.infer("floats", [tensor(np.zeros((17, 2**20), np.float32))])
    assert client.infer("floats", [tensor(large[:1])]).as_numpy("y").shape == (1, 2**20)


LATE = "(?i)deadline"  # the client's own words, or the server's where they come first


def late(error: object) -> bool:
    return re.search(LATE, str(error)) is not None


def test_the_clients_own_timeout(client: triton.InferenceServerClient) -> None:
    """L0_client_timeout: unary, asynchronous and streaming; the server is well afterwards."""
    x = tensor(np.ones((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match=LATE):
        client.infer("slow", [x], client_timeout=0.02, timeout=LONG)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.async_infer("slow", [x], lambda result, error: answers.put(error), client_timeout=0.02, timeout=LONG)
    assert late(answers.get(timeout=30))
    # Long enough to send a request before it has passed, shorter than the model takes.
    client.start_stream(lambda result, error: answers.put(error), stream_timeout=0.3)
    client.async_stream_infer("slow", [x], timeout=LONG)
    assert late(answers.get(timeout=30))
    client.stop_stream(cancel_requests=True)
    assert client.infer("floats", [x]).as_numpy("y").shape == (1, 4)


def ask(client: triton.InferenceServerClient, answers: queue.SimpleQueue[Any], **options: Any) -> None:
    x = tensor(np.ones((1, 4), np.float32))
    client.async_infer("slow", [x], lambda result, error: answers.put(error), **options)


def test_what_waits_too_long_is_refused_unless_the_request_allows_it(client: triton.InferenceServerClient) -> None:
    """L0_model_queue: default timeout, REJECT, and a request's own timeout above it."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for timeout in (LONG, None, LONG, None):
        ask(client, answers, **({} if timeout is None else {"timeout": timeout}))
    ended = [answers.get(timeout=60) for _ in range(4)]
    refused = [str(error) for error in ended if error is not None]
    assert len(refused) >= 1
    assert all("Request timeout expired" in error for error in refused), refused
    assert sum(error is None for error in ended) >= 2, "both that may wait are answered"


def test_more_than_the_queue_takes_is_refused_at_once(client: triton.InferenceServerClient) -> None:
    """L0_model_queue: max_queue_size."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(12):
        ask(client, answers, timeout=LONG)
    ended = [answers.get(timeout=60) for _ in range(12)]
    refused = [str(error) for error in ended if error is not None]
    assert refused
    assert all("UNAVAILABLE" in error and "is full" in error for error in refused), refused
    assert sum(error is None for error in ended) >= 4


def test_load_and_unload_under_load(served: Served, client: triton.InferenceServerClient) -> None:
    """L0_lifecycle: from several threads, while it is asked: it is there or it is not, and never wrong."""
    with Traffic(served.address, "marked") as traffic:
        traffic.more(50)

        def turn() -> None:
            with triton.InferenceServerClient(served.address) as own:
                for _ in range(3):
                    for change in (own.unload_model, own.load_model):
                        try:
                            change("marked")
                        except InferenceServerException as error:
                            # Two who want opposite things: the later wish stands, and the other is told.
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
