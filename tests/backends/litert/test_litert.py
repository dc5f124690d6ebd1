"""The LiteRT backend: signatures, quantised tensors, what is kept between runs, and files that are not as they should
be."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.litert_graphs import GraphBuilder, packed, schema, some_inputs, written
from support.litert_models import OUT_SCALE, OUT_ZERO, digits, float_digits, int8_digits, quantised
from support.real_models import package_file

from inferd.backends.api import (
    BackendError,
    IncompleteArtefact,
    Instance,
    InvalidInput,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
)
from inferd.backends.litert.backend import LiteRtBackend
from inferd.backends.litert.flatbuffer import Malformed, MemoryBytes, Truncated
from inferd.backends.litert.graph import read_graph
from inferd.wire.dtypes import DType

TABLE = ("FLOAT32", (-1, 4))
Array = np.ndarray[Any, Any]


def opened(
    version: Path, content: bytes, options: Mapping[str, Any] | None = None, declared: tuple[Signature, ...] = ()
) -> Model:
    artefact = version / "model.tflite"
    artefact.write_bytes(content)
    return LiteRtBackend().open(OpenRequest("m", 1, version, artefact, declared, dict(options or {})))


@contextmanager
def serving(version: Path, content: bytes, **settings: Any) -> Iterator[tuple[Model, Instance]]:
    with closing(opened(version, content, **settings)) as model, closing(model.instance(Placement())) as instance:
        yield model, instance


# ---- signatures


def test_every_signature_is_served_the_default_one_first(version: Path) -> None:
    graph = GraphBuilder()
    graph.sign("double", {"y": graph("ADD", *[graph.input("x", *TABLE)] * 2)})
    other = GraphBuilder(graph)
    other.sign("serving_default", {"z": other("NEG", other.input("a", *TABLE))})
    x = np.array([[1, 2, 3, 4]], np.float32)
    with serving(version, packed(graph._model)) as (model, instance):
        assert [signature.name for signature in model.signatures] == ["serving_default", "double"]
        np.testing.assert_array_equal(instance.run("double", {"x": x})["y"], 2 * x)
        np.testing.assert_array_equal(instance.run("serving_default", {"a": x})["z"], -x)
        assert all(model.independence(signature).proven for signature in model.signatures)  # type: ignore[attr-defined]


def test_a_file_without_signatures_is_called_by_its_tensors(version: Path) -> None:
    graph = GraphBuilder()
    x = graph.input("x", *TABLE)
    content = graph.content({"y": graph("NEG", x)}, signature=None)
    with serving(version, content) as (model, instance):
        (signature,) = model.signatures
        assert (signature.name, [spec.name for spec in signature.inputs]) == ("serving_default", ["x"])
        given = np.ones((3, 4), np.float32)
        (name,) = [spec.name for spec in signature.outputs]
        np.testing.assert_array_equal(instance.run("serving_default", {"x": given})[name], -given)


def test_rows_of_outputs_are_open_where_those_of_inputs_are(version: Path) -> None:
    """Converters write the sizes for one row into outputs of which they do not know which sizes vary."""
    graph = GraphBuilder()
    x = graph.input("x", *TABLE)
    y = graph("NEG", x)
    tensor = graph._graph.tensors[y.index]
    tensor.shape, tensor.hasRank = [1, 4], True
    with closing(opened(version, graph.content({"y": y}))) as model:
        assert model.signatures[0].outputs[0].shape == (-1, 4)


def test_a_model_of_a_fixed_number_of_rows_is_served_with_that_number(version: Path) -> None:
    content = written(lambda g, x: g("NEG", x), ("FLOAT32", (2, 4)))
    with serving(version, content) as (model, instance):
        assert model.traits.max_batch == 2
        assert instance.run("serving_default", {"x": np.ones((2, 4), np.float32)})["y"].shape == (2, 4)
        with pytest.raises(InvalidInput, match=r"expected shape \[2, 4\]"):
            instance.run("serving_default", {"x": np.ones((1, 4), np.float32)})


def test_declared_signatures_must_agree(version: Path) -> None:
    content = written(lambda g, x: g("NEG", x), ("FLOAT32", (-1, -1)))
    wanted = Signature("serving_default", (TensorSpec("x", DType.FP32, (-1, 4)),), ())
    with closing(opened(version, content, declared=(wanted,))) as model:
        assert model.signatures[0].inputs[0].shape == (-1, 4)
    for wrong in (
        Signature("serving_default", (TensorSpec("x", DType.INT8, (-1, 4)),), ()),
        Signature("serving_default", (TensorSpec("stranger", DType.FP32, (-1, 4)),), ()),
        Signature("stranger", (), ()),
    ):
        with pytest.raises(LoadError, match=r"declared (as INT8|input 'stranger'|signature 'stranger')"):
            opened(version, content, declared=(wrong,))


def test_open_sizes_that_do_not_fit_are_the_callers_fault(version: Path) -> None:
    content = written(lambda g, x, y: g("ADD", x, y), ("FLOAT32", (-1, -1)), ("FLOAT32", (-1, -1)))
    with serving(version, content) as (_, instance):
        wrong = {"x": np.ones((2, 3), np.float32), "x1": np.ones((2, 4), np.float32)}
        with pytest.raises(InvalidInput, match="the model refused its inputs"):
            instance.run("serving_default", wrong)


# ---- quantised models


def test_quantised_inputs_are_sent_as_they_are_and_the_notes_say_how(version: Path) -> None:
    data = digits()
    with serving(version, float_digits()) as (_, instance):
        exact = instance.run("serving_default", {"image": data.images})["scores"]
    with serving(version, int8_digits()) as (model, instance):
        (image,), (scores,) = model.signatures[0].inputs, model.signatures[0].outputs
        assert (image.dtype, scores.dtype) == (DType.INT8, DType.INT8)
        assert model.traits.notes == (
            "input 'image' is quantised: send INT8 numbers, round(value / 0.00390625) - 128",
            "output 'scores' is quantised: value = 0.0199999996 * number, number is INT8",
        )
        answer = instance.run("serving_default", {"image": quantised(data.images)})["scores"]
    assert np.abs((answer.astype(np.float32) - OUT_ZERO) * OUT_SCALE - exact).max() < 0.08
    accuracy = [float((found.argmax(1) == data.labels).mean()) for found in (exact, answer)]
    assert accuracy[0] > 0.85
    assert abs(accuracy[0] - accuracy[1]) < 0.01


# ---- what is kept between runs


def recurrent() -> bytes:
    """y = x of the run before, as an old recurrent operator keeps it: SVDF of rank 1 with a memory of two runs."""
    graph = GraphBuilder()
    x = graph.input("x", "FLOAT32", (1, 1))
    state = graph.tensor("FLOAT32", (1, 2), variable=True)
    features, times = np.ones((1, 1), np.float32), np.array([[1, 0]], np.float32)
    y = graph("SVDF", x, features, times, None, state, rank=1)
    return graph.content({"y": y})


@pytest.mark.parametrize("keep", [False, True])
def test_what_operators_keep_is_cleared_before_each_run_unless_the_owner_says_so(version: Path, keep: bool) -> None:
    with serving(version, recurrent(), options={"keep_state": keep}) as (model, instance):
        assert model.traits.stateful is keep
        answers = [
            float(instance.run("serving_default", {"x": np.full((1, 1), v, np.float32)})["y"][0, 0]) for v in (3, 5)
        ]
        assert answers == ([0, 3] if keep else [0, 0])


def test_a_graph_that_writes_variables_is_stateful(version: Path) -> None:
    graph = GraphBuilder()
    x = graph.input("x", "FLOAT32", (1, 4))
    handle = graph("VAR_HANDLE", kind="RESOURCE", sharedName="v", container="")
    graph("ASSIGN_VARIABLE", handle, x, count=0)
    with closing(opened(version, graph.content({"y": graph("NEG", x)}))) as model:
        assert model.traits.stateful


# ---- what is not there


def test_a_missing_package_names_its_extra(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ai_edge_litert"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(LoadError, match=r"pip install 'inferd\[litert\]'"):
        opened(version, float_digits())


@pytest.mark.parametrize(
    ("operator", "words"), [("custom:FlexErf", "TensorFlow's operators Erf"), ("custom:Mine", "custom op: Mine")]
)
def test_operators_that_are_not_there_are_named(version: Path, operator: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        opened(version, written(lambda g, x: g(operator, x), TABLE)).instance(Placement())


# ---- files


def test_a_real_model_that_is_cut_short_anywhere_is_incomplete(version: Path) -> None:
    whole = package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite").read_bytes()
    backend = LiteRtBackend()
    for size in (0, 4, 8, 60, 1000, len(whole) // 3, len(whole) // 2, len(whole) - 40_000, len(whole) - 5000):
        (version / "model.tflite").write_bytes(whole[:size])
        assert "cut short" in str(backend.complete(version / "model.tflite")), size
        with pytest.raises(IncompleteArtefact, match="cut short"):
            opened(version, whole[:size])
    (version / "model.tflite").write_bytes(whole)
    assert backend.complete(version / "model.tflite") is None


def test_damaged_files_are_refused_and_nothing_else_happens() -> None:
    """Any bytes may stand anywhere; reading takes bounded time and raises nothing else."""
    whole = written(
        lambda g, x: g("SOFTMAX", g("FULLY_CONNECTED", x, np.ones((3, 4), np.float32), None), beta=1.0), TABLE
    )
    rng = random.Random(3)
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.choice([0, 1, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        with suppress(Malformed, Truncated):
            read_graph(MemoryBytes(bytes(content)))


def changed(change: Any, body: Any = lambda g, x: g("NEG", x), *inputs: Any) -> bytes:
    content = written(body, *(inputs or (TABLE,)))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    change(model)
    return packed(model)


def far_tensor(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [99]


def far_operator(model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 7


def far_buffer(model: Any) -> None:
    model.subgraphs[0].tensors[0].buffer = 50


def huge(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [2**31 - 1] * 3


def far_zero(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization = schema.QuantizationParametersT()
    model.subgraphs[0].tensors[0].quantization.scale = [0.1]
    model.subgraphs[0].tensors[0].quantization.zeroPoint = [2**40]


def two_names(model: Any) -> None:
    model.signatureDefs = model.signatureDefs * 2


def no_subgraph(model: Any) -> None:
    model.subgraphs, model.signatureDefs = [], []


def wrong_output(model: Any) -> None:
    model.signatureDefs[0].outputs[0].tensorIndex = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (far_tensor, "tensor 99 is not one of its 2"),
        (far_operator, "operator 7 is not in its list"),
        (far_buffer, "lies in buffer 50"),
        (huge, "more elements than any machine can hold"),
        (far_zero, "a scale or zero point that is none"),
        (two_names, "two signatures have one name"),
        (no_subgraph, "no subgraph"),
        (wrong_output, "not among the outputs"),
    ],
)
def test_indices_that_lead_nowhere_are_refused(version: Path, change: Any, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        opened(version, changed(change))


def test_a_subgraph_that_calls_itself_is_refused(version: Path) -> None:
    flag = ("BOOL", ())
    content = written(
        lambda g, x, c: g("IF", c, x, kind="FLOAT32", thenSubgraphIndex=0, elseSubgraphIndex=0), TABLE, flag
    )
    with pytest.raises(LoadError, match="calls itself"):
        opened(version, content)


def test_settings_that_kernels_divide_by_are_refused(version: Path) -> None:
    pool = {"strideW": 0, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": 1}
    content = written(lambda g, x: g("MAX_POOL_2D", x, **pool), ("FLOAT32", (-1, 4, 4, 1)))
    with pytest.raises(LoadError, match="stride_w 0"):
        opened(version, content)
    content = written(lambda g, x: g("SPLIT", np.int32(1), x, numSplits=7, count=2)[0], TABLE)
    with pytest.raises(LoadError, match="num_splits 7 and 2 tensors"):
        opened(version, content)


def test_a_file_of_another_kind_is_no_litert_model(version: Path) -> None:
    with pytest.raises(LoadError, match="instead of b'TFL3'"):
        opened(version, b"\x1c\x00\x00\x00ONNX" + bytes(100))


def test_the_kernels_may_do_without_xnnpack(version: Path) -> None:
    content = float_digits()
    x = some_inputs(content)
    with serving(version, content) as (_, fast), serving(version, content, options={"xnnpack": False}) as (_, plain):
        np.testing.assert_allclose(
            fast.run("serving_default", x)["scores"], plain.run("serving_default", x)["scores"], rtol=1e-4, atol=1e-5
        )


def test_a_device_that_is_not_the_cpu_is_refused(version: Path) -> None:
    with closing(opened(version, float_digits())) as model, pytest.raises(LoadError, match="CPU only"):
        model.instance(Placement("cuda:0"))


def test_a_closed_model_and_instance_say_so(version: Path) -> None:
    model = opened(version, float_digits())
    instance = model.instance(Placement())
    instance.close()
    with pytest.raises(BackendError, match="closed"):
        instance.run("serving_default", {"image": digits().images[:1]})
    model.close()
    with pytest.raises(LoadError, match="closed"):
        model.instance(Placement())
