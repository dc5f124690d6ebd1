"""REST on a real server with models of every framework, called by the real tritonclient.http."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from support.server import FAST, Served
from tritonclient.utils import InferenceServerException

from inferd.client import Client

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
REPOSITORY = Path(__file__).parents[3] / "model_repository"
MODELS = ("digits_onnx", "digits_torch", "digits_pt2", "digits_tf")
IMAGES = np.random.default_rng(7).random((5, 64), np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("rest") / "models"
    shutil.copytree(REPOSITORY, root, ignore=shutil.ignore_patterns("*.md"))
    with Served(root, sets=(*FAST, f"server.shared_memory=/inferd_test_{os.getpid()}")) as server:
        yield server


@pytest.fixture(scope="module")
def expected(served: Served) -> dict[str, dict[str, np.ndarray]]:
    """The native client's answers."""
    with Client(served.address) as client:
        return {model: dict(client.predict(model, {"image": IMAGES})) for model in MODELS}


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.http, concurrency=4) as found:
        yield found


def images(*, binary: bool = True) -> list[Any]:
    tensor = triton.InferInput("image", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary)
    return [tensor]


def ask(served: Served, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(served.http, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


def assert_same(answer: Any, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected["probabilities"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(answer.as_numpy("digit"), expected["digit"])


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_tritonclient_infers_on_every_model(
    client: triton.InferenceServerClient, expected: Any, model: str, binary: bool, compression: str | None
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("digit", "probabilities")]
    answer = client.infer(
        model,
        images(binary=binary),
        outputs=outputs,
        request_id="r",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert_same(answer, expected[model])
    assert answer.get_response()["id"] == "r"


@pytest.mark.parametrize("model", MODELS)
def test_tritonclient_async_infer_and_classification(
    client: triton.InferenceServerClient, expected: Any, model: str
) -> None:
    started = [client.async_infer(model, images()) for _ in range(8)]
    for each in started:
        assert_same(each.get_result(), expected[model])
    top = client.infer(model, images(), outputs=[triton.InferRequestedOutput("probabilities", class_count=1)])
    found = [int(item.split(b":")[1]) for item in top.as_numpy("probabilities")[:, 0]]
    assert found == expected[model]["digit"].tolist()


@pytest.mark.parametrize("model", MODELS)
def test_tensorflow_serving_predict_on_every_model(served: Served, expected: Any, model: str) -> None:
    path = f"/v1/models/{model}:predict"
    status, rows = ask(served, "POST", path, {"instances": IMAGES.tolist()})
    assert status == 200
    assert [row["digit"] for row in rows["predictions"]] == expected[model]["digit"].tolist()
    status, columns = ask(served, "POST", path, {"inputs": {"image": IMAGES.tolist()}})
    assert status == 200
    np.testing.assert_allclose(
        columns["outputs"]["probabilities"], expected[model]["probabilities"], rtol=1e-5, atol=1e-6
    )
    status, named = ask(served, "POST", path, {"instances": [{"image": row} for row in IMAGES.tolist()]})
    assert (status, named) == (200, rows)
    status, told = ask(served, "GET", f"/v1/models/{model}/metadata")
    assert (
        told["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]["dtype"] == "DT_FLOAT"
    )
    status, told = ask(served, "GET", f"/v1/models/{model}")
    assert told["model_version_status"][0]["state"] == "AVAILABLE"


def test_every_other_call_of_tritonclient_works_or_is_refused(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits_onnx")
    assert not client.is_model_ready("nope")
    assert "system_shared_memory" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("digits_onnx")["platform"] == "onnxruntime_onnx"
    assert client.get_model_config("digits_onnx")["backend"] == "onnxruntime"
    assert client.get_inference_statistics("digits_onnx")["model_stats"][0]["name"] == "digits_onnx"
    assert {each["name"] for each in client.get_model_repository_index()} == set(MODELS)
    assert client.get_trace_settings("digits_onnx") == {"trace_level": ["OFF"]}
    assert client.get_log_settings()["log_info"] is True
    client.load_model("digits_onnx")
    client.load_model("digits_onnx", config="{}")
    client.load_model("digits_onnx")
    refusals: dict[str, Any] = {
        "traces are not kept": lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        "log settings are read": lambda: client.update_log_settings({"log_verbose_level": 1}),
        "CUDA shared memory": client.get_cuda_shared_memory_status,
        "CUDA shared": lambda: client.register_cuda_shared_memory("r", b"AAAA", 0, 10),
        "CUDA": client.unregister_cuda_shared_memory,
        "sequences are not": lambda: client.infer("digits_onnx", images(), sequence_id=5),
    }
    for words, call in refusals.items():
        with pytest.raises(InferenceServerException, match=words) as caught:
            call()
        assert caught.value.status() == "501"


def test_errors_reach_tritonclient_with_status_and_text(client: triton.InferenceServerClient) -> None:
    for status, words, call in (
        ("404", "Request for unknown model: 'nope'", lambda: client.infer("nope", images())),
        ("404", "version 9 is not found", lambda: client.infer("digits_onnx", images(), model_version="9")),
        (
            "400",
            "unexpected inference output 'q'",
            lambda: client.infer("digits_tf", images(), outputs=[triton.InferRequestedOutput("q")]),
        ),
        ("500", "failed to poll from model repository", lambda: client.load_model("nope")),
    ):
        with pytest.raises(InferenceServerException, match=words) as caught:
            call()
        assert caught.value.status() == status


def test_tensors_in_shared_memory_are_read_and_written(client: triton.InferenceServerClient, expected: Any) -> None:
    key, size = f"/inferd_test_{os.getpid()}_rest", IMAGES.nbytes
    handle = shm.create_shared_memory_region("local", key, size + 200)
    try:
        shm.set_shared_memory_region(handle, [IMAGES])
        client.register_system_shared_memory("r", key, size + 200)
        assert client.get_system_shared_memory_status()[0]["key"] == key
        tensor = triton.InferInput("image", list(IMAGES.shape), "FP32")
        tensor.set_shared_memory("r", size)
        output = triton.InferRequestedOutput("probabilities")
        output.set_shared_memory("r", 200, offset=size)
        answer = client.infer("digits_onnx", [tensor], outputs=[output])
        told = answer.get_output("probabilities")
        assert told["parameters"]["shared_memory_region"] == "r"
        found = shm.get_contents_as_numpy(handle, np.float32, [5, 10], offset=size)
        np.testing.assert_allclose(found, expected["digits_onnx"]["probabilities"], rtol=1e-5, atol=1e-6)
        client.unregister_system_shared_memory("r")
        assert client.get_system_shared_memory_status() == []
    finally:
        shm.destroy_shared_memory_region(handle)


def test_metrics_have_rest_protocols_of_their_own(served: Served) -> None:
    ask(served, "POST", "/v1/models/digits_onnx:predict", {"instances": IMAGES.tolist()})
    ask(served, "POST", "/v2/models/digits_onnx/infer", {})
    connection = http.client.HTTPConnection(served.http, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'protocol="http-tfs"' in text
    assert 'protocol="http-oip"' in text


def test_a_large_request_gets_its_answer(served: Served, expected: Any) -> None:
    rows = np.tile(IMAGES, (4000, 1))
    status, told = ask(served, "POST", "/v1/models/digits_onnx:predict", {"inputs": rows.tolist()})
    assert status == 200
    assert told["outputs"]["digit"] == np.tile(expected["digits_onnx"]["digit"], 4000).tolist()
