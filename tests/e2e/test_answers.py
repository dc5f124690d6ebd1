"""What a framework gives is what a client gets, and a model's failure is not the client's: on every protocol."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper, save
from support.protocols import PROTOCOLS, Callers
from support.server import Served

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
torch = pytest.importorskip("torch")
Tensor = torch.Tensor
X = np.array([[1, 2], [3, 4]], np.float32)


class Nested(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Any:
        return x * 2, {"a": x + 1, "b": (x + 2, x + 3)}, x * 100


class Ordered(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Any:
        return OrderedDict(logits=x * 2, hidden=x + 1)


class Words(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, t: list[str]) -> list[str]:
        return [w.upper() for w in t]


class Failing(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Fails inside where x begins with -1, -2 or -3."""

    def forward(self, x: Tensor) -> Tensor:
        first = float(x[0, 0].item())
        if first == -1.0:
            raise RuntimeError("expected 3 but got 4: sizes must match")
        if first == -2.0:
            return x @ torch.zeros(7, 3)
        if first == -3.0:
            return torch.zeros(1 << 50)
        return x


DECLARED = """
signatures:
  - inputs: [{name: %s, dtype: %s, shape: %s}]
    outputs: [{name: y, dtype: %s, shape: %s}]
"""


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    root = tmp_path_factory.mktemp("answers") / "models"
    batch = torch.export.Dim("batch", min=1, max=64)
    for name, module in (("nested", Nested()), ("ordered", Ordered())):
        (root / name / "1").mkdir(parents=True)
        program = torch.export.export(module, (torch.zeros(2, 2),), dynamic_shapes={"x": {0: batch}})
        torch.export.save(program, root / name / "1" / "model.pt2")
    _script(root / "words", Words(), DECLARED % ("t", "STRING", "[-1]", "STRING", "[-1]"))
    _script(root / "failing", Failing(), DECLARED % ("x", "FP32", "[-1, 2]", "FP32", "[-1, 2]"))
    _failing_onnx(root / "failing_onnx" / "1")
    with Served(root, limit=120) as served, Callers(served) as clients:
        yield clients


def _script(directory: Path, module: Any, settings: str) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "model.yaml").write_text(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), str(directory / "1" / "model.pt"))


def _failing_onnx(directory: Path) -> None:
    """y = w[x], where w has four rows: other indices fail."""
    directory.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", T.INT64, ["n"])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


NESTED = {"output__0": X * 2, "output__1": X + 1, "output__2": X + 2, "output__3": X + 3, "output__4": X * 100}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_nested_output_has_its_name(callers: Callers, protocol: str) -> None:
    for model, expected in (("nested", NESTED), ("ordered", {"logits": X * 2, "hidden": X + 1})):
        outcome = callers.send(protocol, model, {"x": X})
        assert outcome.code == "OK", outcome
        assert outcome.outputs.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(outcome.outputs[name], array)
        if protocol != "rest v1":  # it has no choice of outputs
            last = list(expected)[-1]
            only = callers.send(protocol, model, {"x": X}, [last])
            assert list(only.outputs) == [last]
            np.testing.assert_array_equal(only.outputs[last], expected[last])


@pytest.mark.parametrize("protocol", [protocol for protocol in PROTOCOLS if protocol != "rest v1"])
def test_outputs_with_keys_may_be_asked_for_by_number(callers: Callers, protocol: str) -> None:
    outcome = callers.send(protocol, "ordered", {"x": X}, ["output__1", "logits"])
    assert outcome.code == "OK", outcome
    np.testing.assert_array_equal(outcome.outputs["output__1"], X + 1)
    np.testing.assert_array_equal(outcome.outputs["logits"], X * 2)
    refused = callers.send(protocol, "ordered", {"x": X}, ["output__2"])
    assert refused.refused, refused
    assert "output__2" in refused.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lists_of_texts(callers: Callers, protocol: str) -> None:
    outcome = callers.send(protocol, "words", {"t": np.array([b"ab", b"c"], object)})
    assert outcome.code == "OK", outcome
    (got,) = outcome.outputs.values()
    assert [item.decode() if isinstance(item, bytes) else item for item in got] == ["AB", "C"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_fails_inside_a_model_is_not_the_clients_fault(callers: Callers, protocol: str) -> None:
    for first, words in ((-1, "sizes must match"), (-2, "cannot be multiplied"), (-3, "out of memory")):
        outcome = callers.send(protocol, "failing", {"x": np.array([[first, 0]], np.float32)})
        assert outcome.failed, outcome
        assert words in outcome.text
        assert "Traceback" not in outcome.text
        assert "refused its inputs" not in outcome.text
    outcome = callers.send(protocol, "failing_onnx", {"x": np.array([9])})
    assert outcome.failed, outcome
    assert "out of data bounds" in outcome.text
    assert callers.send(protocol, "failing", {"x": X}).code == "OK"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_shape_is_the_clients_fault(callers: Callers, protocol: str) -> None:
    outcome = callers.send(protocol, "failing", {"x": np.ones((1, 3), np.float32)})
    assert outcome.refused, outcome
    text = outcome.text.replace(" ", "")
    assert "[-1,2]" in text
    assert "[1,3]" in text
