"""An ensemble of models of all three frameworks on a real server: requests, and steps that are swapped, broken and
unloaded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.ensembles import CHAIN, write_ensemble
from support.marked import publish, write_version
from support.server import Served
from support.traffic import Traffic
from support.waiting import eventually

from inferd.client import Client, FailedPrecondition, InvalidArgument, NotFound, Unavailable, VersionState

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_libtorch", "tensorflow": "tensorflow_savedmodel"}
STEP = """
name: "{name}"
platform: "{platform}"
max_batch_size: 64
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
dynamic_batching {{ }}
"""
STEPS = {"prepare": ("onnx", 1.0), "classify": ("torch", 10.0), "finish": ("tensorflow", 100.0)}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Laid out as for Triton: each model has a config.pbtxt, and the SavedModel is in model.savedmodel/.
    root = tmp_path_factory.mktemp("ensemble") / "models"
    for name, (backend, marker) in STEPS.items():
        layout = "1/model.savedmodel" if backend == "tensorflow" else "1"
        write_version(backend, root / name / layout, marker)
        (root / name / "config.pbtxt").write_text(STEP.format(name=name, platform=PLATFORMS[backend]))
    write_ensemble(root)
    with Served(root, limit=120) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=30.0) as client:
        yield client


def state(client: Client, name: str = "chain") -> VersionState:
    return client.status(name).versions[0].state


def available(client: Client, name: str = "chain") -> None:
    eventually(lambda: state(client, name) is VersionState.AVAILABLE, f"{name} available")


def test_an_ensemble_answers_natively_and_over_oip(served: Served, client: Client) -> None:
    answer = client.predict("chain", {"x": X})
    np.testing.assert_array_equal(answer["y"], X + 111)
    assert client.status("chain").versions[0].backend == "ensemble"
    with triton.InferenceServerClient(served.address) as other:
        tensor = triton.InferInput("x", [2, 4], "FP32")
        tensor.set_data_from_numpy(X)
        np.testing.assert_array_equal(other.infer("chain", [tensor]).as_numpy("y"), X + 111)
        config = other.get_model_config("chain").config
        assert (config.platform, config.max_batch_size) == ("ensemble", 32)
        assert [step.model_name for step in config.ensemble_scheduling.step] == list(STEPS)
        assert dict(config.ensemble_scheduling.step[1].input_map) == {"x": "prepared"}


def test_bad_requests_to_an_ensemble_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="'x'"):
        client.predict("chain", {"x": X.astype(np.float64)})
    with pytest.raises(InvalidArgument, match="at most 32 rows"):
        client.predict("chain", {"x": np.zeros((33, 4), np.float32)})


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_swapped_under_traffic_without_a_failure(served: Served, client: Client, step: str) -> None:
    backend, marker = STEPS[step]
    with Traffic(served.address, "chain") as traffic:
        traffic.marker(111)
        publish(backend, served.repository / step, 2, marker + 5)
        traffic.marker(116)
        client.rollback(step, to=1)
        traffic.until("111 again", lambda seen: all(order[-1] == 111 for order in seen.orders))
        traffic.more()
    seen = traffic.end()
    assert not seen.failures, seen.failures[:3]
    assert not seen.wrong, seen.wrong[:3]
    available(client)


def test_an_ensemble_is_unavailable_while_a_step_is(client: Client) -> None:
    client.unload("classify")
    eventually(lambda: state(client) is VersionState.FAILED, "the ensemble waits for its step")
    with pytest.raises((FailedPrecondition, Unavailable), match=r"step 2 \(model 'classify'\) is not available"):
        client.predict("chain", {"x": X})
    client.load("classify")
    available(client)
    client.unload("classify")
    eventually(lambda: state(client) is VersionState.FAILED, "the ensemble waits for its step")
    client.load("chain")  # loads the steps, too
    np.testing.assert_array_equal(client.predict("chain", {"x": X})["y"] - X, np.full_like(X, client_marker(client)))


def client_marker(client: Client) -> float:
    """The sum of the steps' present markers: earlier tests may have left a second version on disk."""
    return float(sum(client.predict(name, {"x": X[:1] * 0})["y"][0, 0] for name in STEPS))


def test_unload_with_dependents_unloads_the_steps(served: Served, client: Client) -> None:
    with triton.InferenceServerClient(served.address) as other:
        other.unload_model("chain", unload_dependents=True)
        for name in ("chain", *STEPS):
            eventually(lambda name=name: not other.is_model_ready(name), f"{name} unloaded")
        other.load_model("chain")
        assert all(other.is_model_ready(name) for name in ("chain", *STEPS))


BROKEN = {
    "missing": (CHAIN.replace('"classify"', '"nobody"'), r"step 2 \(model 'nobody'\): there is no such model"),
    "circle": (CHAIN.replace('value: "x" }', 'value: "y" }'), "wait for each other in a circle|no step uses"),
    "unknown": (CHAIN.replace('key: "x" value: "prepared"', 'key: "x" value: "prepard"'), "did you mean 'prepared'"),
    "type": (CHAIN.replace("TYPE_FP32", "TYPE_INT32", 1), r"input 'x' takes FP32 \[-1, 4\], 'x' is INT32"),
    "shape": (CHAIN.replace("dims: [ 4 ]", "dims: [ 5 ]", 1), r"'x' is FP32 \[-1, 5\]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_ensemble_has_its_reason(served: Served, client: Client, name: str) -> None:
    text, message = BROKEN[name]
    write_ensemble(served.repository, name, text.replace('name: "chain"', f'name: "{name}"'))

    def has_error() -> bool:
        try:
            return bool(client.status(name).versions[0].error)
        except NotFound:
            return False

    eventually(has_error, "the reason")
    with pytest.raises(FailedPrecondition, match=message):
        client.predict(name, {"x": X})
