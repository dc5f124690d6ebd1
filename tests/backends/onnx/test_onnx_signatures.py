"""The signature in an ONNX file, the effect of a declaration, and the refusals with the tensor's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.onnx_models import open_model, run_once

from inferd.backends.api import (
    LoadError,
    Placement,
    Signature,
    TensorSpec,
)
from inferd.wire.dtypes import DType

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
T = onnx.TensorProto
node = onnx.helper.make_node


def test_dimensions_are_fixed_or_of_any_size(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Identity", ["x"], ["y"])],
        [("x", T.FLOAT, ["batch", 3, None, "2*n+1"])],
        [("y", T.FLOAT, ["batch", 3, None, "2*n+1"])],
    )
    model = open_model(version)
    assert model.signatures[0].inputs[0].shape == (-1, 3, -1, -1)
    assert model.signatures[0].outputs[0].shape == (-1, 3, -1, -1)
    assert model.traits.max_batch is None


def test_a_fixed_batch_is_in_the_traits(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Add", ["x", "s"], ["y"])],
        [("x", T.FLOAT, [1, 3]), ("s", T.FLOAT, [])],
        [("y", T.FLOAT, [1, 3])],
    )
    assert open_model(version).traits.max_batch == 1


def test_an_output_without_a_declared_type_is_inferred(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Identity", ["x"], ["y"]), node("Reshape", ["x", "s"], ["z"])],
        [("x", T.FLOAT, ["N", 4]), ("s", T.INT64, ["K"])],
        [("y", T.FLOAT, None), ("z", T.FLOAT, None)],
    )
    y, z = open_model(version).signatures[0].outputs
    assert y == TensorSpec("y", DType.FP32, (-1, 4))
    assert z == TensorSpec("z", DType.FP32, None)


def test_declared_signatures_fill_in_and_must_agree(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Reshape", ["x", "s"], ["y"])],
        [("x", T.FLOAT, ["N", "M"]), ("s", T.INT64, ["K"])],
        [("y", T.FLOAT, None)],
    )

    def declared(role: str, *specs: TensorSpec, name: str = "serving_default") -> tuple[Signature, ...]:
        return (Signature(name, specs if role == "input" else (), specs if role == "output" else ()),)

    model = open_model(version, declared("output", TensorSpec("y", DType.FP32, (-1, 2))))
    assert model.signatures[0].outputs[0].shape == (-1, 2)
    model = open_model(version, declared("input", TensorSpec("x", DType.FP32, (-1, 8))))
    assert [s.shape for s in model.signatures[0].inputs] == [(-1, 8), (-1,)]
    for wrong, words in [
        (declared("input", TensorSpec("q", DType.FP32, None)), "'q'.*x, s"),
        (declared("input", TensorSpec("x", DType.INT64, None)), "'x'.*INT64.*FP32"),
        (declared("input", TensorSpec("x", DType.FP32, (-1,))), r"'x'.*\[-1\].*\[-1, -1\]"),
        (declared("input", name="other"), "'other'.*'serving_default'"),
    ]:
        with pytest.raises(LoadError, match=words):
            open_model(version, wrong)


def test_initializers_among_the_inputs_are_no_inputs(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Add", ["x", "w"], ["y"])],
        [("x", T.FLOAT, ["N", 3]), ("w", T.FLOAT, [3])],
        [("y", T.FLOAT, ["N", 3])],
        {"w": np.ones(3, np.float32)},
    )
    model = open_model(version)
    assert [s.name for s in model.signatures[0].inputs] == ["x"]
    np.testing.assert_array_equal(run_once(model, {"x": np.zeros((1, 3), np.float32)})["y"], np.ones((1, 3)))


@pytest.mark.parametrize("name", ["serving_default_input_2:0", "a/b{c}", "4195", "ünï", "with space"])
def test_names_may_have_any_characters(version: Path, write_onnx: Any, name: str) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Identity", [name], [f"{name}_out"])],
        [(name, T.FLOAT, ["N"])],
        [(f"{name}_out", T.FLOAT, ["N"])],
    )
    x = np.ones(3, np.float32)
    np.testing.assert_array_equal(run_once(open_model(version), {name: x})[f"{name}_out"], x)


def test_a_scalar_output_is_an_array(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [("x", T.FLOAT, ["N"])],
        [("y", T.FLOAT, [])],
    )
    model = open_model(version)
    assert model.signatures[0].outputs[0].shape == ()
    y = run_once(model, {"x": np.ones(3, np.float32)})["y"]
    assert isinstance(y, np.ndarray)
    assert (y.shape, float(y)) == ((), 3.0)


# ---- refused by name


def typed(write_onnx: Any, path: Path, kind: Any) -> None:
    """A model that returns its input, which has the given type."""
    write_onnx(path, [node("Identity", ["x"], ["y"])], [("x", T.FLOAT, [1])], [("y", T.FLOAT, [1])])
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.CopyFrom(kind)
    path.write_bytes(model.SerializeToString())


def kinds() -> Iterator[Any]:
    make = onnx.helper
    tensor = make.make_tensor_type_proto(T.FLOAT, [1])
    sparse = make.make_sparse_tensor_type_proto(T.FLOAT, [1])
    numbers = make.make_map_type_proto(T.INT64, tensor)
    yield pytest.param(make.make_tensor_type_proto(T.FLOAT8E4M3FN, [1]), "tensor(float8e4m3fn)", id="float8")
    yield pytest.param(make.make_tensor_type_proto(T.COMPLEX64, [1]), "tensor(complex64)", id="complex")
    yield pytest.param(make.make_tensor_type_proto(T.INT4, [2]), "tensor(int4)", id="int4")
    yield pytest.param(make.make_tensor_type_proto(99, [1]), "tensor(type 99)", id="future")
    yield pytest.param(make.make_sequence_type_proto(tensor), "seq(tensor(float))", id="sequence")
    yield pytest.param(make.make_sequence_type_proto(numbers), "seq(map(int64,tensor(float)))", id="seq-of-maps")
    yield pytest.param(make.make_optional_type_proto(tensor), "optional(tensor(float))", id="optional")
    yield pytest.param(sparse, "sparse_tensor(float)", id="sparse")


@pytest.mark.parametrize(("kind", "text"), list(kinds()))
def test_tensors_that_cannot_be_sent_are_refused_with_name_and_type(
    version: Path, write_onnx: Any, kind: Any, text: str
) -> None:
    typed(write_onnx, version / "model.onnx", kind)
    with pytest.raises(LoadError) as refused:
        open_model(version)
    assert "'x'" in str(refused.value)
    assert text in str(refused.value)


def test_outputs_that_cannot_be_sent_are_left_out_with_a_note(version: Path, write_onnx: Any) -> None:
    """A classifier of scikit-learn: the label is a tensor, the probabilities are a list of dictionaries."""
    probabilities = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(T.INT64, onnx.helper.make_tensor_type_proto(T.FLOAT, None))
    )
    graph = onnx.helper.make_graph(
        [
            node(
                "LinearClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml",
                coefficients=[1.0, -1.0, -1.0, 1.0], intercepts=[0.0, 0.0], classlabels_ints=[0, 1],
            ),
            node("ZipMap", ["p"], ["probs"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
        ],
        "classifier",
        [onnx.helper.make_tensor_value_info("x", T.FLOAT, [None, 2])],
        [
            onnx.helper.make_tensor_value_info("label", T.INT64, [None]),
            onnx.helper.make_value_info("probs", probabilities),
        ],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), version / "model.onnx")
    model = open_model(version)
    assert [spec.name for spec in model.signatures[0].outputs] == ["label"]
    assert model.traits.notes == (
        "output 'probs' is left out: seq(map(int64,tensor(float))), not a tensor (convert with zipmap=False)",
    )
    got = run_once(model, {"x": np.array([[3, 1]], np.float32)})
    assert {name: array.tolist() for name, array in got.items()} == {"label": [0]}
    declared = Signature("serving_default", (), (TensorSpec("probs", DType.FP32, (-1, 2)),))
    with pytest.raises(LoadError, match="output 'probs' is declared, but output 'probs' is seq"):
        open_model(version, (declared,))


def test_strings_in_with_bfloat16_out_is_refused(version: Path, write_onnx: Any) -> None:
    write_onnx(
        version / "model.onnx",
        [node("Identity", ["s"], ["t"]), node("Identity", ["x"], ["y"])],
        [("s", T.STRING, ["N"]), ("x", T.BFLOAT16, ["N"])],
        [("t", T.STRING, ["N"]), ("y", T.BFLOAT16, ["N"])],
    )
    with pytest.raises(LoadError, match=r"'s'.*'y'"):
        open_model(version)


def test_an_operator_that_does_not_exist_is_a_load_error(version: Path, write_onnx: Any) -> None:
    write_onnx(version / "model.onnx", [node("NoSuchOp", ["x"], ["y"])], [("x", T.FLOAT, [1])], [("y", T.FLOAT, [1])])
    with pytest.raises(LoadError, match="NoSuchOp"):
        open_model(version).instance(Placement())
