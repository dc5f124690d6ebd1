"""Model directories with a config.pbtxt as Triton's users write them, loaded by the real loader and called."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, save
from support.loading import ask, load, triton_settings
from support.marked import write_version

from inferd.backends.api import LoadError
from inferd.backends.registry import Registry
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import QueueTimeout
from inferd.server.lifecycle.inspection import inspect_repository
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.protocols.oip.metadata import model_config

DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 4, 4 ]
    reshape { shape: [ 1, 3, 4, 4 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 3 ]
    reshape { shape: [ 1, 3, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""


def pool(directory: Path, batch: object, name: str = "model.onnx") -> None:
    """The mean of each of three channels of [batch, 3, 4, 4]: [batch, 3, 1, 1]."""
    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["data_0"], ["fc6_1"])],
        "pool",
        [helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("fc6_1", TensorProto.FLOAT, [batch, 3, 1, 1])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / name)


def identity(directory: Path, kind: int = TensorProto.STRING) -> None:
    """y = x for any rows of two."""
    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


def model(root: Path, name: str, text: str) -> Path:
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text(text)
    return directory


def test_densenet_of_tritons_quick_start_takes_requests_without_the_batch_axis(tmp_path: Path) -> None:
    directory = model(tmp_path, "densenet_onnx", DENSENET)
    pool(directory / "1", 1)
    config, notes = triton_settings(directory)
    (directory / "densenet_labels.txt").write_text("CAT\nDOG\nFISH\n")
    assert notes == ()
    servable = load(directory / "1", config)
    signature = servable.signatures["serving_default"]
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == ((3, 4, 4), (3,))
    x = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    check_request(servable.id, signature, {"data_0": x}, ())
    np.testing.assert_allclose(ask(servable, {"data_0": x})["fc6_1"], x.mean((1, 2)))
    assert servable.class_labels == {"fc6_1": ("CAT", "DOG", "FISH")}
    servable.scheduler.close()


BATCHED = """
backend: "onnxruntime" max_batch_size: 8 default_model_filename: "pool_v2.onnx"
input { name: "data_0" data_type: TYPE_FP32 dims: [ 48 ] reshape { shape: [ 3, 4, 4 ] } }
output { name: "fc6_1" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 3, 1, 1 ] } label_filename: "densenet_labels.txt" }
"""  # noqa: E501


@pytest.mark.parametrize(("text", "batch", "file"), [(DENSENET, 1, "model.onnx"), (BATCHED, "n", "pool_v2.onnx")])
def test_the_reported_configuration_loads_the_same_model_again(
    tmp_path: Path, text: str, batch: object, file: str
) -> None:
    """Written to config.pbtxt, the reported configuration loads the same model again."""
    directory = model(tmp_path, "densenet_onnx", text)
    pool(directory / "1", batch, file)
    (directory / "densenet_labels.txt").write_text("CAT\nDOG\nFISH\n")
    reported = []
    for _ in range(2):
        servable = load(directory / "1", triton_settings(directory)[0])
        config = model_config(servable, ModelStatus("densenet_onnx"))
        reported.append((config, servable.signatures, servable.class_labels))
        servable.scheduler.close()
        (directory / "config.pbtxt").write_text(text_format.MessageToString(reported[0][0]))
    assert reported[0] == reported[1]
    config = reported[0][0]
    assert config.output[0].label_filename == "densenet_labels.txt"
    assert config.default_model_filename == ("" if file == "model.onnx" else file)
    assert list(config.input[0].reshape.shape)[-3:] == [3, 4, 4]


def test_a_missing_label_file_fails_the_load(tmp_path: Path) -> None:
    directory = model(tmp_path, "densenet_onnx", DENSENET)
    pool(directory / "1", 1)
    with pytest.raises(LoadError, match=r"labels of output 'fc6_1': densenet_labels\.txt cannot be read: No such file"):
        load(directory / "1", triton_settings(directory)[0])
    found = inspect_repository(ServerConfig(repository={"roots": (str(tmp_path),)}), Registry())
    assert any("densenet_labels.txt cannot be read" in finding.error for finding in found)


def test_reshape_keeps_the_batch(tmp_path: Path) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        backend: "onnxruntime" max_batch_size: 8
        input { name: "data_0" data_type: TYPE_FP32 dims: [ 48 ] reshape { shape: [ 3, 4, 4 ] } }
        output { name: "fc6_1" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 3, 1, 1 ] } }
        """,
    )
    pool(directory / "1", "n")
    servable = load(directory / "1", triton_settings(directory)[0])
    assert servable.batching.startswith("up to 8 rows")
    x = np.random.default_rng(0).random((5, 48), np.float32)
    np.testing.assert_allclose(ask(servable, {"data_0": x})["fc6_1"], x.reshape(5, 3, 16).mean(2), rtol=1e-5)
    servable.scheduler.close()


@pytest.mark.parametrize(
    ("dims", "shape"), [("48", "3, 4, 5"), ("-1", "3, 4, 4"), ("-1, 4", "4, -1")], ids=["size", "open", "moved"]
)
def test_an_impossible_reshape_is_refused(tmp_path: Path, dims: str, shape: str) -> None:
    directory = model(
        tmp_path,
        "m",
        f"""
        backend: "onnxruntime" max_batch_size: 8
        input {{ name: "data_0" data_type: TYPE_FP32 dims: [ {dims} ] reshape {{ shape: [ {shape} ] }} }}
        """,
    )
    pool(directory / "1", "n")
    with pytest.raises(LoadError, match="reshape of 'data_0': expected as many values and open sizes"):
        load(directory / "1", triton_settings(directory)[0])


def test_default_model_filename_names_the_artefact(tmp_path: Path) -> None:
    directory = model(
        tmp_path, "m", 'platform: "onnxruntime_onnx" default_model_filename: "pool_v2.onnx" max_batch_size: 4'
    )
    pool(directory / "1", "n", "pool_v2.onnx")
    servable = load(directory / "1", triton_settings(directory)[0])
    assert ask(servable, {"data_0": np.ones((2, 3, 4, 4), np.float32)})["fc6_1"].shape == (2, 3, 1, 1)
    servable.scheduler.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [("other.onnx", "'other.onnx' is not there; the version holds model.onnx"), ("../x.onnx", "inside the version's")],
)
def test_a_wrong_default_model_filename_is_refused(tmp_path: Path, name: str, message: str) -> None:
    directory = model(tmp_path, "m", f'platform: "onnxruntime_onnx" default_model_filename: "{name}"')
    pool(directory / "1", "n")
    with pytest.raises(LoadError, match=message):
        load(directory / "1", triton_settings(directory)[0])


@pytest.mark.heavy
def test_torchscript_with_a_default_model_filename_is_loaded(tmp_path: Path) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        platform: "pytorch_libtorch" default_model_filename: "traced.pt" max_batch_size: 8
        input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 4 ] }
        parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
        parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }
        parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
        """,
    )
    write_version("torch", directory / "1", 3.0)
    (directory / "1" / "model.pt").rename(directory / "1" / "traced.pt")
    config, notes = triton_settings(directory)
    assert config.instances.threads == 1
    assert [note for note in notes if "parameters" in note] == [
        "config.pbtxt: parameters 'DISABLE_OPTIMIZED_EXECUTION' is not honoured"
    ]
    servable = load(directory / "1", config)
    assert ask(servable, {"INPUT__0": np.zeros((2, 4), np.float32)})["OUTPUT__0"].tolist() == [[3.0] * 4] * 2
    servable.scheduler.close()


WARM = """
backend: "onnxruntime" max_batch_size: 8
model_warmup [
  { name: "zeros" batch_size: 3 inputs { key: "data_0" value { data_type: TYPE_FP32 dims: [ 3, 4, 4 ] zero_data: true } } },
  { name: "from file" batch_size: 5 count: 2
    inputs { key: "data_0" value { data_type: TYPE_FP32 dims: [ 3, 4, 4 ] input_data_file: "rows" } } }
]
"""  # noqa: E501


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The inputs of every run of an ONNX model."""
    from inferd.backends.onnx.session import OnnxInstance

    seen: list[Any] = []
    run = OnnxInstance.run

    def watched(self: Any, signature: str, inputs: Any, outputs: Any = None) -> Any:
        seen.extend(array.copy() for array in inputs.values())
        return run(self, signature, inputs, outputs)

    monkeypatch.setattr(OnnxInstance, "run", watched)
    return seen


def test_warmup_samples_run_on_every_instance(tmp_path: Path, runs: list[np.ndarray]) -> None:
    directory = model(tmp_path, "m", WARM + "instance_group { count: 2 kind: KIND_CPU }")
    pool(directory / "1", "n")
    rows = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    (directory / "warmup").mkdir()
    (directory / "warmup" / "rows").write_bytes(rows.tobytes())
    load(directory / "1", triton_settings(directory)[0]).scheduler.close()
    assert sum(len(x) == 3 and not x.any() for x in runs) == 2, "once on each of two instances"
    assert sum(x.shape == rows.shape and bool((x == rows).all()) for x in runs) == 4, "twice on each"


def test_warmup_strings_are_read_from_a_file_in_tritons_format(tmp_path: Path, runs: list[np.ndarray]) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        backend: "onnxruntime" max_batch_size: 8
        model_warmup { name: "words" batch_size: 1 inputs { key: "x" value {
            data_type: TYPE_STRING dims: [ 2 ] input_data_file: "words" } } }
        """,
    )
    identity(directory / "1")
    (directory / "warmup").mkdir()
    (directory / "warmup" / "words").write_bytes(b"".join(struct.pack("<I", len(w)) + w for w in (b"h\0i", b"")))
    load(directory / "1", triton_settings(directory)[0]).scheduler.close()
    assert [[b"h\0i", b""]] in [x.tolist() for x in runs]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, r"warm-up request 'from file': file warmup/rows of input 'data_0' cannot be read"),
        (b"too short", r"warm-up request 'from file': file warmup/rows.*960 bytes.*9"),
    ],
    ids=["missing", "short"],
)
def test_an_unreadable_warmup_file_fails_the_load(tmp_path: Path, file: bytes | None, message: str) -> None:
    directory = model(tmp_path, "m", WARM)
    pool(directory / "1", "n")
    if file is not None:
        (directory / "warmup").mkdir()
        (directory / "warmup" / "rows").write_bytes(file)
    with pytest.raises(LoadError, match=message):
        load(directory / "1", triton_settings(directory)[0])


def test_a_warmup_of_the_wrong_shape_fails_the_load(tmp_path: Path) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        backend: "onnxruntime" max_batch_size: 8
        model_warmup { name: "wide" inputs { key: "data_0" value { data_type: TYPE_FP32 dims: [ 3, 5, 4 ] } } }
        """,
    )
    pool(directory / "1", "n")
    with pytest.raises(LoadError, match=r"warm-up request 'wide'.*\[-1, 3, 4, 4\].*\[1, 3, 5, 4\]"):
        load(directory / "1", triton_settings(directory)[0])


def test_the_default_timeout_of_the_queue_is_honoured(tmp_path: Path) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        backend: "onnxruntime" max_batch_size: 8
        dynamic_batching {
          preferred_batch_size: [ 4, 8 ]
          max_queue_delay_microseconds: 100
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy { max_queue_size: 2 default_timeout_microseconds: 1000 allow_timeout_override: true }
        }
        """,
    )
    pool(directory / "1", "n")
    config, notes = triton_settings(directory)
    assert (config.queue.timeout, config.queue.requests, config.default_priority) == (0.001, 2, 2)
    declared = "dynamic_batching declares that rows are independent: batched without proof"
    assert [note for note in notes if "dynamic_batching" in note] == [f"config.pbtxt: {declared}"]
    servable = load(directory / "1", config)
    stop = threading.Event()
    # The instance is busy, so the request has to wait in the queue.
    servable.scheduler._group.workers[0].call(lambda instance: stop.wait(30))
    try:
        with pytest.raises(QueueTimeout):
            ask(servable, {"data_0": np.ones((1, 3, 4, 4), np.float32)})
    finally:
        stop.set()
        servable.scheduler.close()


def test_parameters_and_optimization_of_onnx_are_translated(tmp_path: Path) -> None:
    directory = model(
        tmp_path,
        "m",
        """
        backend: "onnxruntime" max_batch_size: 8
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        parameters { key: "inter_op_thread_count" value { string_value: "2" } }
        parameters { key: "execution_mode" value { string_value: "1" } }
        parameters { key: "enable_mem_arena" value { string_value: "0" } }
        parameters { key: "session.dynamic_block_base" value { string_value: "4" } }
        optimization { graph { level: 1 } execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }
        """,
    )
    pool(directory / "1", "n")
    config, notes = triton_settings(directory)
    assert config.instances.threads == 1
    assert config.options == {
        "inter_op_threads": 2,
        "execution_mode": "parallel",
        "enable_cpu_mem_arena": False,
        "session_config": {"session.dynamic_block_base": "4"},
        "graph_optimization": "extended",
    }
    assert "config.pbtxt: optimization.execution_accelerators is not honoured: openvino" in notes
    load(directory / "1", config).scheduler.close()


def test_check_reports_unhonoured_fields_and_warmup_requests(tmp_path: Path) -> None:
    root = tmp_path / "models"
    pool(
        model(root, "warm", WARM.replace("from file", "b").replace('input_data_file: "rows"', "random_data: true"))
        / "1",
        "n",
    )
    pool(model(root, "odd", 'backend: "onnxruntime" sequence_batching { } response_cache { enable: true }') / "1", "n")
    found = inspect_repository(ServerConfig(repository={"roots": (str(root),)}), Registry())
    notes = {finding.model: " ".join(finding.notes) for finding in found if finding.version is None}
    assert "sequence_batching" in notes["odd"]
    assert "response_cache" in notes["odd"]
    assert any("2 warm-up requests" in finding.notes for finding in found if finding.model == "warm")
    assert all(finding.ok for finding in found)
