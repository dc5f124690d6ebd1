"""Loads with settings or files, by the real tritonclient over gRPC and HTTP, on one running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_triton
import tritonclient.http as http_triton
from support.marked import WIDTH, prepare_model, publish, write_version
from support.server import FAST, Served
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("with")
    for name in ("m", "broken"):
        model = prepare_model("onnx", base / "models", name)
        publish("onnx", model, 1, 1.0)
        publish("onnx", model, 2, 2.0)
    (base / "models" / "broken" / "config.pbtxt").write_text("max_batch_size: ten")
    state = str(base / "state")
    with Served(base / "models", "--state-dir", state, sets=(*FAST, "admin.allow_upload=true")) as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[Any]:
    if request.param == "grpc":
        with grpc_triton.InferenceServerClient(served.address) as found:
            yield found
    else:
        with http_triton.InferenceServerClient(served.http, network_timeout=60) as found:
            yield found


@pytest.fixture(autouse=True)
def as_before(served: Served) -> Iterator[None]:
    yield
    with grpc_triton.InferenceServerClient(served.address) as client:
        client.load_model("m")


def marker(client: Any, model: str = "m", version: str = "") -> float:
    """The marker that the version adds to its input: it shows which version answered."""
    module = grpc_triton if isinstance(client, grpc_triton.InferenceServerClient) else http_triton
    tensor = module.InferInput("x", [1, WIDTH], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, WIDTH), np.float32))
    return float(client.infer(model, [tensor], model_version=version).as_numpy("y")[0, 0])


def config(client: Any, model: str = "m") -> dict[str, Any]:
    if isinstance(client, grpc_triton.InferenceServerClient):
        return dict(client.get_model_config(model, as_json=True)["config"])
    return dict(client.get_model_config(model))


def content(tmp_path: Path, value: float, ballast: int = 0) -> bytes:
    write_version("onnx", tmp_path / "made", value, ballast)
    return (tmp_path / "made" / "model.onnx").read_bytes()


def refused(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        fn(*args, **kwargs)
    return str(caught.value)


def kept(served: Served) -> list[Path]:
    return sorted(path for path in (served.repository.parent / "state").rglob("*") if path.name == "model.onnx")


def test_settings_of_a_load_hold_until_the_next_plain_load(client: Any) -> None:
    own = config(client)["max_batch_size"]
    client.load_model("m", config=json.dumps({"max_batch_size": 5, "version_policy": {"all": {}}}))
    found = config(client)
    assert (found["max_batch_size"], list(found["version_policy"])) == (5, ["all"])
    assert (marker(client), marker(client, version="1")) == (2.0, 1.0)
    pasted = json.dumps({**found, "max_batch_size": 6})
    client.load_model("m", config=pasted)
    assert config(client)["max_batch_size"] == 6
    client.load_model("m")
    assert config(client)["max_batch_size"] == own
    assert "version 1" in refused(marker, client, version="1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "load failed for model 'm': 'config' of the load: expected JSON"),
        ('{"input": [{"name": "x", "data_type": "TYPE_INT8", "dims": [4]}]}', "load failed for model 'm'"),
        ('{"backend": "nonsense"}', "nonsense"),
    ],
)
def test_wrong_settings_change_nothing(client: Any, text: str, words: str) -> None:
    own = config(client)
    assert words in refused(client.load_model, "m", config=text)
    assert (marker(client), config(client)) == (2.0, own)


def test_files_of_a_load_hold_until_the_next_plain_load(client: Any, served: Served, tmp_path: Path) -> None:
    made = content(tmp_path, 30.0, ballast=2_000_000)
    client.load_model("m", config="{}", files={"file:3/model.onnx": made})
    assert (marker(client), marker(client, version="3")) == (30.0, 30.0)
    assert len(kept(served)) == 1
    assert "load failed" in refused(client.load_model, "m", config="{}", files={"file:3/model.onnx": b"no model"})
    assert marker(client) == 30.0
    client.load_model("m")
    assert marker(client) == 2.0


def test_a_load_with_files_adds_a_model_that_is_not_in_the_repository(client: Any, tmp_path: Path) -> None:
    files = {"file:1/model.onnx": content(tmp_path, 40.0)}
    assert "failed to poll from model repository" in refused(client.load_model, "new", config="{}")
    client.load_model("new", config='{"backend": "onnxruntime", "max_batch_size": 4}', files=files)
    assert marker(client, "new") == 40.0
    assert config(client, "new")["max_batch_size"] == 4
    assert "it stays" in refused(client.load_model, "new")
    client.unload_model("new")
    assert not client.is_model_ready("new")
    client.load_model("new", config="{}", files=files)
    client.unload_model("new")


def test_settings_of_a_load_replace_a_broken_file(client: Any) -> None:
    assert "expected an integer" in refused(client.load_model, "broken")
    client.load_model("broken", config="{}")
    assert marker(client, "broken") == 2.0
    client.unload_model("broken")


@pytest.mark.parametrize("key", ["file:../../x/model.onnx", "file:/1/model.onnx", "file:1/../../model.onnx", "file:1/"])
def test_file_names_that_lead_out_of_the_model_are_refused(client: Any, served: Served, key: str) -> None:
    before = sorted(served.repository.parent.rglob("*"))
    assert "expected a version and a file's path in it" in refused(
        client.load_model, "m", config="{}", files={key: b"x"}
    )
    assert sorted(served.repository.parent.rglob("*")) == before
    assert marker(client) == 2.0


def test_uploaded_files_are_removed_when_the_server_stops(tmp_path: Path) -> None:
    publish("onnx", prepare_model("onnx", tmp_path / "models", "m"), 1, 1.0)
    state = tmp_path / "state"
    flags = ("--state-dir", str(state))
    with Served(tmp_path / "models", *flags, sets=(*FAST, "admin.allow_upload=true")) as server:
        with grpc_triton.InferenceServerClient(server.address) as client:
            client.load_model("m", config="{}", files={"file:7/model.onnx": content(tmp_path, 7.0)})
            assert marker(client) == 7.0
        assert kept(server)
    assert not kept(server)
    with Served(tmp_path / "models", *flags) as server, grpc_triton.InferenceServerClient(server.address) as client:
        assert marker(client) == 1.0
        assert "admin.allow_upload: false" in refused(
            client.load_model, "m", config="{}", files={"file:7/model.onnx": b""}
        )
