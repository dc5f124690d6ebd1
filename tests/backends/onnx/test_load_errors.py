"""What an operator is told about an ONNX model that ONNX Runtime cannot load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper as H
from support.onnx_models import open_model

from inferd.backends.api import LoadError, Placement
from inferd.backends.onnx.load_errors import load_reason, plain


def save(directory: Path, node: Any, *, opset: int = 17, ir: int = 8, **opsets: int) -> Path:
    directory.mkdir()
    graph = H.make_graph(
        [node],
        "g",
        [H.make_tensor_value_info("x", T.FLOAT, ["n"])],
        [H.make_tensor_value_info("y", T.FLOAT, ["n"])],
    )
    imports = [H.make_opsetid("", opset), *(H.make_opsetid(domain, number) for domain, number in opsets.items())]
    onnx.save(H.make_model(graph, opset_imports=imports, ir_version=ir), directory / "model.onnx")
    return directory


SAME = H.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    ("node", "options", "start", "words"),
    [
        (SAME, {"ir": 99}, "IR version 99 of the model is newer", ("upgrade onnxruntime", "model.ir_version")),
        (SAME, {"opset": 99}, "opset 99 of the model is newer", ("convert_version",)),
        (SAME, {"ai.onnx.ml": 99}, "opset 99 of domain ai.onnx.ml of the model is newer", ("upgrade onnxruntime",)),
        (
            H.make_node("Foo", ["x"], ["y"], domain="com.acme"),
            {"com.acme": 1},
            "operator com.acme:Foo is not one that ONNX Runtime",
            ("custom operators are not loaded",),
        ),
        (H.make_node("Foo", ["x"], ["y"]), {}, "operator Foo is not in opset 17", ("upgrade onnxruntime",)),
    ],
)
def test_the_cause_comes_first(
    tmp_path: Path, node: Any, options: dict[str, int], start: str, words: tuple[str, ...]
) -> None:
    model = open_model(save(tmp_path / "1", node, **options))
    with pytest.raises(LoadError) as caught:
        model.instance(Placement())
    text = str(caught.value)
    assert text.startswith(start)
    assert onnxruntime.__version__ in text
    assert [word for word in words if word not in text] == [], text


def test_other_errors_are_passed_on_without_the_function_that_found_them() -> None:
    text = (
        "void onnxruntime::model::Check(const std::unordered_map<std::basic_string<char>, int>&, bool) The graph is odd"
    )
    assert plain(text) == "The graph is odd"
    assert load_reason(text, "1.0") == "ONNX Runtime cannot load the model: The graph is odd"
    assert plain("Type Error: Type (T) of Optype (Add) bound") == "Type Error: Type (T) of Optype (Add) bound"
    missing = "Could not find an implementation for Cos(7) node with name 'Cos_1'"
    assert load_reason(missing, "1.0").startswith("operator Cos (since opset 7) has no implementation")
