"""Existing TensorFlow Serving setups work unchanged: flags, files, base paths, and unmodified client stubs."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.marked import publish
from support.server import FAST, INFERD, Served
from support.waiting import eventually

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
tf = pytest.importorskip("tensorflow")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

BATCHING = """
max_batch_size { value: 16 }
batch_timeout_micros { value: 0 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 16
"""


class Stubs:
    """A TensorFlow Serving user's client code. The models' markers show which version answered."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)

    def marker(self, name: str, version: int | None = None, label: str = "") -> float:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = "serving_default"
        if version is not None:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([[0.0, 0.0, 0.0, 0.0]]))
        return float(self.predictions.Predict(request, 10.0).outputs["y"].float_val[0])

    def states(self, name: str) -> dict[int, int]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        return {s.version: s.state for s in self.models.GetModelStatus(request, 10.0).model_version_status}

    def refusal(self, name: str, **spec: Any) -> str:
        with pytest.raises(grpc.RpcError) as refused:
            self.marker(name, **spec)
        return str(refused.value.code().name)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three separate base paths: a SavedModel and two ONNX models."""
    for kind, name, versions in (("tensorflow", "half", (1,)), ("onnx", "plain", (1, 2, 3)), ("onnx", "third", (7,))):
        base = tmp_path / f"of-{name}" / "base"
        base.mkdir(parents=True)
        for version in versions:
            publish(kind, base, version, version * 10)
    return tmp_path


def base_of(models: Path, name: str) -> Path:
    return models / f"of-{name}" / "base"


def config(models: Path, *entries: str) -> str:
    """The text of a models.config. An entry is a model's name, optionally followed by further fields."""
    texts = []
    for item in entries:
        name, _, more = item.partition(" ")
        texts.append(f'config {{ name: "{name}" base_path: "{base_of(models, name)}" {more} }}')
    return f"model_config_list {{ {' '.join(texts)} }}"


def test_a_base_path_serves_and_takes_new_versions(models: Path) -> None:
    flags = (f"--model_base_path={base_of(models, 'half')}", "--model_name=half")
    with Served(None, *flags, log=models / "log") as server:
        with grpc.insecure_channel(server.address) as channel:
            user = Stubs(channel)
            assert user.marker("half") == 10
            assert user.refusal("default") == "NOT_FOUND"
            publish("tensorflow", base_of(models, "half"), 2, 20)
            eventually(lambda: user.marker("half") == 20, "version 2 serves", server.tail)
            eventually(lambda: user.states("half") == {2: 30, 1: 50}, "version 1 is gone", lambda: user.states("half"))
        with urllib.request.urlopen(f"http://{server.http}/v1/models/half") as answer:
            assert json.load(answer)["model_version_status"][0]["state"] == "AVAILABLE"


def test_a_models_file_with_labels_and_batching_can_be_reloaded(models: Path) -> None:
    file, batching = models / "models.config", models / "batching.txt"
    batching.write_text(BATCHING)
    policy = (
        "model_version_policy { specific { versions: 1 versions: 3 } } "
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 3 }'
    )
    file.write_text(config(models, 'half model_platform: "tensorflow"', f"plain {policy}"))
    flags = (f"--model_config_file={file}", "--enable_batching=true", f"--batching_parameters_file={batching}")
    sets = (*FAST, f"repository.base_paths=[{models}]")  # a reload will ask for a model that lies elsewhere
    with (
        Served(None, *flags, log=models / "log", sets=sets) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert "allowed_batch_sizes is not honoured" in server.tail()
        user = Stubs(channel)
        assert user.marker("half") == 10
        assert user.states("plain") == {3: 30, 1: 30}
        assert (user.marker("plain", label="stable"), user.marker("plain", label="canary")) == (10, 30)
        assert user.refusal("plain", version=2) == "NOT_FOUND"
        assert user.refusal("plain", label="other") == "INVALID_ARGUMENT"
        listed = subprocess.run(
            [str(INFERD), "models", "--address", server.address, "--json"], capture_output=True, text=True, check=True
        )
        assert "up to 16 rows" in listed.stdout

        asked = model_management_pb2.ReloadConfigRequest()
        entries = asked.config.model_config_list.config
        plain = entries.add(name="plain", base_path=str(base_of(models, "plain")))
        plain.model_version_policy.all.SetInParent()
        plain.version_labels.update({"stable": 2})
        entries.add(name="third", base_path=str(base_of(models, "third")))
        answer = user.models.HandleReloadConfigRequest(asked, 60.0)
        assert answer.status.error_code == 0
        # The reply means that all changes are in force.
        assert user.marker("third") == 70
        assert user.marker("plain", label="stable") == 20
        assert user.refusal("plain", label="canary") == "INVALID_ARGUMENT"
        assert user.states("plain") == {3: 30, 2: 30, 1: 30}
        assert user.refusal("half") == "NOT_FOUND"

        plain.version_labels.update({"stable": 9})
        with pytest.raises(grpc.RpcError) as refused:
            user.models.HandleReloadConfigRequest(asked, 60.0)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert user.marker("plain", label="stable") == 20

        plain.version_labels.update({"stable": 3})
        entries.add(name="half", base_path=str(base_of(models, "half")))
        user.models.HandleReloadConfigRequest(asked, 60.0)
        assert user.marker("half") == 10, "what was removed may come back"
        assert user.marker("plain", label="stable") == 30


def test_a_changed_models_file_is_applied(models: Path) -> None:
    file = models / "models.config"
    file.write_text(config(models, "plain"))
    flags = (f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1")
    with Served(None, *flags, log=models / "log") as server, grpc.insecure_channel(server.address) as channel:
        user = Stubs(channel)
        assert user.marker("plain") == 30
        fresh = models / "fresh.config"
        fresh.write_text(config(models, "plain model_version_policy { specific { versions: 1 } }", "third"))
        fresh.rename(file)
        eventually(lambda: user.marker("plain") == 10, "version 1 serves", server.tail)
        eventually(lambda: "third" in server.tail() and user.states("third") == {7: 30}, "third serves", server.tail)
        assert user.marker("third") == 70


def test_check_reports_what_would_be_served_and_what_is_ignored(models: Path) -> None:
    file = models / "models.config"
    file.write_text(config(models, "plain logging_config { }", "nowhere"))
    found = subprocess.run(
        [str(INFERD), "check", f"--model_config_file={file}", "--grpc_max_threads=8"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert "x FP32[-1, 4] -> y FP32[-1, 4]" in found.stdout
    assert "1 versions would be served, 1 problems" in found.stdout
    assert "nowhere" in found.stdout
    assert "note: model plain: logging_config is not honoured" in found.stderr
    assert "note: --grpc_max_threads is not honoured" in found.stderr
