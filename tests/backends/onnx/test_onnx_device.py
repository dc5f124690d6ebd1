"""ONNX Runtime with bound inputs and outputs and with CUDA graphs. The CPU takes the place of a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import load_module, request_for

from inferd.backends.api import Ahead, InvalidInput, LoadError, Placement
from inferd.backends.onnx import device as onnx_device
from inferd.backends.onnx.backend import OnnxBackend, OnnxModel, _instance
from inferd.backends.onnx.device import DeviceInstance, GraphInstance, UploadedInputs
from inferd.backends.onnx.options import OnnxOptions
from inferd.backends.onnx.session import OnnxInstance, _providers

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
node = onnx.helper.make_node
NAME = "serving_default"
Make = Callable[[type[DeviceInstance]], DeviceInstance]


def rows(*values: float) -> np.ndarray[Any, Any]:
    return np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)


@pytest.fixture
def model(version: Path) -> OnnxModel:
    """A model y = 2x, s = the sum of x."""
    floats = onnx.TensorProto.FLOAT
    load_module("case_onnx").write_onnx(
        version / "model.onnx",
        [
            node("Add", ["x", "x"], ["y"]),
            node("ReduceSum", ["x"], ["s"], keepdims=0),
        ],
        [("x", floats, ["n", 3])],
        [("y", floats, ["n", 3]), ("s", floats, [])],
    )
    backend = OnnxBackend()
    opened = backend.open(request_for(backend, version, (), {}))
    assert isinstance(opened, OnnxModel)
    return opened


@pytest.fixture
def make(model: OnnxModel) -> Make:
    def instance(kind: type[DeviceInstance]) -> DeviceInstance:
        plain = model.instance(Placement())
        assert type(plain) is OnnxInstance
        return kind(plain.session, model.signatures[0], "cpu")

    return instance


@pytest.mark.parametrize("kind", [DeviceInstance, GraphInstance])
def test_outputs_equal_those_of_an_ordinary_run_and_do_not_change(kind: type[DeviceInstance], make: Make) -> None:
    instance = make(kind)
    assert isinstance(instance, Ahead)
    kept = []
    for value in range(1, 5):
        got = instance.run(NAME, instance.upload(NAME, {"x": rows(value, 0)}))
        np.testing.assert_array_equal(got["y"], rows(2 * value, 0))
        assert got["s"] == 3 * value
        kept.append(got)
    assert [got["y"][0, 0] for got in kept] == [2, 4, 6, 8], "a later run changed an answer"
    assert list(instance.run(NAME, {"x": rows(1)}, ["s"])) == ["s"]


def test_inputs_are_on_the_device_before_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = make(DeviceInstance)
    uploaded = instance.upload(NAME, {"x": rows(1)})
    assert isinstance(uploaded, UploadedInputs)
    assert type(uploaded["x"]) is ort.OrtValue
    monkeypatch.setattr(DeviceInstance, "upload", None)
    np.testing.assert_array_equal(instance.run(NAME, uploaded)["y"], rows(2))


@pytest.mark.parametrize("kind", [DeviceInstance, GraphInstance])
def test_wrong_inputs_are_named(kind: type[DeviceInstance], make: Make) -> None:
    instance = make(kind)
    for wrong in (rows(1).astype(np.float64), rows(1)[:, :2]):
        with pytest.raises(InvalidInput, match="'x'"):
            instance.run(NAME, instance.upload(NAME, {"x": wrong}))
    np.testing.assert_array_equal(instance.run(NAME, {"x": rows(1)})["y"], rows(2))


def test_known_shapes_run_through_their_graph_and_graphs_are_bounded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_device, "_GRAPHS", 2)
    instance = make(GraphInstance)
    assert isinstance(instance, GraphInstance)
    graphs: list[str] = []
    session = instance.session

    class Watched:
        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            graphs.append(options.get_run_config_entry("gpu_graph_id"))
            session.run_with_iobinding(binding, options)

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

    instance.session = Watched()
    for count in (1, 2, 1, 2, 3, 3):
        values = range(1, count + 1)
        got = instance.run(NAME, {"x": rows(*values)})
        np.testing.assert_array_equal(got["y"], rows(*(2 * value for value in values)))
    assert graphs == ["-1", "-1", "1", "2", "-1", "-1"]
    assert instance.graphs == 2
    instance.close()
    assert instance.graphs == 0


def test_staging_memory_is_usable_where_there_is_no_page_locked_memory(make: Make) -> None:
    staged = make(DeviceInstance).staging(12)
    assert (staged.dtype, staged.shape, staged.flags.writeable) == (np.uint8, (12,), True)


def test_the_placement_decides_the_class_of_instance(model: OnnxModel) -> None:
    session = model.instance(Placement()).session  # type: ignore[attr-defined]
    (signature,) = model.signatures
    assert type(_instance(session, signature, "cpu", graph=False)) is OnnxInstance
    assert type(_instance(session, signature, "cuda:0", graph=False)) is DeviceInstance
    assert type(_instance(session, signature, "cuda:0", graph=True)) is GraphInstance
    assert model.traits.overlaps == 2


def test_cuda_graphs_have_their_own_option_and_need_cuda(model: OnnxModel) -> None:
    with pytest.raises(LoadError, match=r"'cuda_graph' needs a CUDA device.*instances.device"):
        _providers(ort, "cpu", OnnxOptions.read({"cuda_graph": True}))
    with pytest.raises(LoadError, match="set cuda_graph instead"):
        OnnxOptions.read({"provider_options": {"enable_cuda_graph": True}})
    with pytest.raises(LoadError, match=r"'cuda_graph'.*expected true or false, got 1"):
        OnnxOptions.read({"cuda_graph": 1})
