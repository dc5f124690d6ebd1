"""Features of the ONNX backend only: settings, devices, strings, and no output on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.onnx_models import open_model, run_once

from inferd.backends.api import (
    BackendError,
    InvalidInput,
    LoadError,
    MissingFramework,
    Placement,
)
from inferd.backends.onnx import content as onnx_content
from inferd.backends.onnx.backend import OnnxBackend
from inferd.backends.onnx.session import _check_device

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
T = onnx.TensorProto
node = onnx.helper.make_node


# ---- settings


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"intra_op_threads": 0}, "'intra_op_threads'.*from 1 to 1024, got 0"),
        ({"intra_op_threads": True}, "'intra_op_threads'.*got True"),
        ({"inter_op_threads": "two"}, "'inter_op_threads'.*got 'two'"),
        ({"execution_mode": "fast"}, "'execution_mode'.*sequential, parallel, got 'fast'"),
        ({"graph_optimization": 99}, "'graph_optimization'.*disabled, basic.*got 99"),
        ({"enable_mem_pattern": "yes"}, "'enable_mem_pattern'.*true or false, got 'yes'"),
        ({"log_severity": 9}, "'log_severity'.*from 0 to 4"),
        ({"session_config": ["a"]}, "'session_config'.*mapping"),
        ({"provider_options": {"a": {"b": 1}}}, "'provider_options'.*mapping"),
        ({"intra_op_thread": 1}, "unknown option 'intra_op_thread'.*intra_op_threads"),
    ],
)
def test_a_wrong_option_is_refused(version: Path, write_onnx: Any, option: dict[str, Any], words: str) -> None:
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, [1])], [("y", T.FLOAT, [1])])
    with pytest.raises(LoadError, match=words):
        open_model(version, **option)


FIRST_SESSION = """
import sys
from pathlib import Path
import numpy as np
from inferd.backends.api import OpenRequest, Placement
from inferd.backends.onnx.backend import OnnxBackend
options = {"session_config": {"session.set_denormal_as_zero": True}}
file = Path(sys.argv[1])
model = OnnxBackend().open(OpenRequest("m", 1, file.parent, file, options=options))
model.instance(Placement("cpu", 1))
print(float((np.array([1e-310]) * np.array([0.5]))[0]))
"""


def test_a_session_that_flushes_denormals_does_not_affect_other_sessions(version: Path, write_onnx: Any) -> None:
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, ["N"])], [("y", T.FLOAT, ["N"])])
    done = subprocess.run(
        [sys.executable, "-c", FIRST_SESSION, str(version / "model.onnx")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(1e-310 * 0.5), done.stderr


def test_options_reach_the_session(version: Path, write_onnx: Any) -> None:
    import onnxruntime

    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, ["N"])], [("y", T.FLOAT, ["N"])])
    model = open_model(
        version,
        intra_op_threads=2,
        inter_op_threads=3,
        execution_mode="parallel",
        graph_optimization="basic",
        enable_cpu_mem_arena=False,
        enable_mem_pattern=True,
        allow_spinning=True,
        log_severity=3,
        session_config={"session.set_denormal_as_zero": True},
    )
    instance: Any = model.instance(Placement("cpu", 7))
    options = instance.session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 3
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert not options.enable_cpu_mem_arena
    assert options.enable_mem_pattern
    assert options.log_severity_level == 3
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    instance.close()


@pytest.mark.parametrize(("shape", "planned"), [([2, 3], True), (["N", 3], False)])
def test_memory_is_planned_ahead_only_for_fixed_shapes(
    version: Path, write_onnx: Any, shape: list[Any], planned: bool
) -> None:
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, shape)], [("y", T.FLOAT, shape)])
    instance: Any = open_model(version).instance(Placement())
    assert instance.session.get_session_options().enable_mem_pattern is planned
    assert instance.session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"
    instance.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_threads_than_the_budget_are_started(version: Path, write_onnx: Any, threads: int) -> None:
    """The caller's thread computes too, so with three threads, two are started."""
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, ["N"])], [("y", T.FLOAT, ["N"])])
    model = open_model(version)
    before = len(os.listdir("/proc/self/task"))
    instance = model.instance(Placement("cpu", threads))
    instance.run("serving_default", {"x": np.ones(4, np.float32)})
    assert len(os.listdir("/proc/self/task")) - before == threads - 1
    instance.close()
    assert len(os.listdir("/proc/self/task")) == before


def test_a_model_kept_on_disk_can_be_run(version: Path, write_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_content, "SPOOLED_FROM", 1)
    write_onnx(
        version / "model.onnx",
        [node("Add", ["x", "w"], ["y"])],
        [("x", T.FLOAT, ["N", 3])],
        [("y", T.FLOAT, ["N", 3])],
        {"w": np.ones(3, np.float32)},
        external="w.bin",
    )
    model = open_model(version)
    for file in version.iterdir():
        file.write_bytes(b"")
    for _ in range(2):
        np.testing.assert_array_equal(run_once(model, {"x": np.ones((1, 3), np.float32)})["y"], np.full((1, 3), 2))
    model.close()


# ---- devices


def test_cuda_without_cuda_names_the_package(version: Path, write_onnx: Any) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, [1])], [("y", T.FLOAT, [1])])
    with pytest.raises(LoadError, match=r"'cuda:0'.*no CUDA.*onnxruntime-gpu"):
        open_model(version).instance(Placement("cuda:0"))
    assert OnnxBackend().devices() == ("cpu",)


class FakeSession:
    """A session with the methods that describe its device."""

    def __init__(
        self, providers: list[str], index: str = "0", used: tuple[str, ...] = ("CUDAExecutionProvider",)
    ) -> None:
        self.providers, self.index, self.used = providers, index, used

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"device_id": self.index}}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=name) for name in self.used]


def test_a_core_with_other_arguments_is_run_through_its_session(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Identity", ["x"], ["y"])],
        [("x", T.FLOAT, ["n"])],
        [("y", T.FLOAT, ["n"])],
    )
    instance: Any = open_model(version).instance(Placement())
    x = np.ones(3, np.float32)
    ran: list[list[str]] = []

    def other(names: list[str]) -> None:
        ran.append(names)

    instance._run, core = other, instance._run
    assert instance.run("serving_default", {"x": x})["y"].tolist() == [1, 1, 1]
    instance._run = lambda *args: [ran.append(args[0]), core(*args)][1]
    assert instance.run("serving_default", {"x": x})["y"].tolist() == [1, 1, 1]
    assert ran == [["y"]]
    instance.close()


def test_a_session_on_another_device_is_a_load_error() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    _check_device(FakeSession(both), "cuda:0")
    _check_device(FakeSession(both, used=("CPUExecutionProvider", "CUDAExecutionProvider")), "cuda:0")
    with pytest.raises(LoadError, match="uses CPUExecutionProvider: its CUDA or cuDNN"):
        _check_device(FakeSession(["CPUExecutionProvider"]), "cuda:0")
    with pytest.raises(LoadError, match="uses cuda:1"):
        _check_device(FakeSession(both, index="1"), "cuda:0")
    with pytest.raises(LoadError, match="no CUDA kernels"):
        _check_device(FakeSession(both, used=("CPUExecutionProvider",)), "cuda:0")


def test_a_missing_onnxruntime_names_the_extra(version: Path, write_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, [1])], [("y", T.FLOAT, [1])])
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingFramework, match=r"pip install 'inferd\[onnx\]'"):
        open_model(version)


# ---- running


def test_strings_must_be_utf8(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx", [node("Identity", ["x"], ["y"])], [("x", T.STRING, ["N"])], [("y", T.STRING, ["N"])]
    )
    model = open_model(version)
    with pytest.raises(InvalidInput, match=r"'x'.*UTF-8, element 1"):
        run_once(model, {"x": np.array([b"good", b"\xff\xfe"], object)})
    with pytest.raises(InvalidInput, match=r"'x'.*element 0 is a int"):
        run_once(model, {"x": np.array([1, 2], object)})


def test_wrong_inputs_name_tensor_expected_and_got(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Relu", ["pixels"], ["y"])],
        [("pixels", T.FLOAT, ["N", 3])],
        [("y", T.FLOAT, ["N", 3])],
    )
    model = open_model(version)
    for wrong, words in [
        ({"pixels": np.ones((2, 3))}, r"'pixels'.*FP32.*FP64"),
        ({"pixels": np.ones((2, 4), np.float32)}, r"'pixels'.*\[-1, 3\].*\[2, 4\]"),
        ({"pixels": np.ones(3, np.complex64)}, r"'pixels'.*FP32.*complex64"),
        ({}, "missing.*'pixels'|'pixels'.*missing"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            run_once(model, wrong)


def test_a_failing_run_prints_nothing_and_its_error_is_one_line(
    version: Path, write_onnx: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Reshape", ["x", "s"], ["y"])],
        [("x", T.FLOAT, ["N"]), ("s", T.INT64, ["K"])],
        [("y", T.FLOAT, None)],
    )
    model = open_model(version)
    with pytest.raises(BackendError, match=r"cannot be reshaped.*\{5,7\}") as failed:
        run_once(model, {"x": np.ones(3, np.float32), "s": np.array([5, 7])})
    assert "\n" not in str(failed.value)
    assert "onnxruntime_src" not in str(failed.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("inner", "fault"), [(3, BackendError), ("M", InvalidInput)], ids=["sizes declared", "sizes open"]
)
def test_a_node_that_fails_is_the_models_fault_unless_sizes_are_open(
    version: Path, write_onnx: Any, inner: Any, fault: type[Exception]
) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Mul", ["x", "zero"], ["z"]), node("Reshape", ["z", "s"], ["y"])],
        [("x", T.FLOAT, ["N", inner])],
        [("y", T.FLOAT, None)],
        {"zero": np.zeros(1, np.float32), "s": np.array([5, 7])},
    )
    with pytest.raises(BackendError, match="cannot be reshaped") as failed:
        run_once(open_model(version), {"x": np.ones((2, 3), np.float32)})
    assert isinstance(failed.value, InvalidInput) is (fault is InvalidInput)


def test_an_index_out_of_range_inside_is_the_models_fault(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Gather", ["w", "x"], ["y"])],
        [("x", T.INT64, ["N"])],
        [("y", T.FLOAT, None)],
        {"w": np.zeros((4, 2), np.float32)},
    )
    with pytest.raises(BackendError, match="out of data bounds") as failed:
        run_once(open_model(version), {"x": np.array([9])})
    assert not isinstance(failed.value, InvalidInput)


def test_a_closed_instance_says_so(version: Path, write_onnx: Any) -> None:
    write_onnx(version / "model.onnx", [node("Relu", ["x"], ["y"])], [("x", T.FLOAT, ["N"])], [("y", T.FLOAT, ["N"])])
    instance = open_model(version).instance(Placement())
    instance.close()
    with pytest.raises(BackendError, match="closed"):
        instance.run("serving_default", {"x": np.ones(1, np.float32)})
