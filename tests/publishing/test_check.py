"""What cannot be served is not published: it is loaded, run and compared before the rename."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from publishing.conftest import tree

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.sources.material import SourceOptions
from inferd.server.publishing.tasks import TaskLimits


def model(nodes, outputs, initializers=(), opset=17, **domains):
    """An ONNX model of one input x, [n, 4]."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])], outputs, list(initializers)
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in domains.get("more", ()))]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def output(name: str = "y", kind: int = TensorProto.FLOAT, shape=("n", 4)):
    return helper.make_tensor_value_info(name, kind, list(shape))


def test_it_is_loaded_and_run_as_a_server_would(published, repository: Path, onnx: Path) -> None:
    done = published(onnx)
    assert done.place == repository / "m" / "1"
    assert done.report.backend == "onnx"
    assert (done.report.rows, done.report.rows_from) == (3, "made up")
    assert done.report.batching == "up to 32 rows"
    assert tree(repository) == {"m", "m/1", "m/1/model.onnx"}
    told = json.loads((repository / "m/1/.inferd/provenance.json").read_text())
    assert told["checked"]["backend"] == "onnx"
    assert set(told["files"]) == {"model.onnx"}


@pytest.mark.usefixtures("here")
def test_weights_in_a_file_of_their_own_come_along(published, repository: Path, tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [output()], [weights])
    save(made, tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    done = published(tmp_path / "net.onnx")
    assert tree(done.place) == {"model.onnx", "net.onnx.data"}
    assert done.report.rows == 3
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(PublishError, match=r"external data 'net\.onnx\.data' is missing"):
        published(tmp_path / "net.onnx")
    assert tree(repository) == {"m", "m/1", "m/1/model.onnx", "m/1/net.onnx.data"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd"])
def test_weights_that_lie_elsewhere_are_not_taken(published, repository: Path, tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    (tmp_path / "in").mkdir()
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [output()], [weights])
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    (tmp_path / "in" / "net.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(PublishError, match="outside the model's directory"):
        published(tmp_path / "in" / "net.onnx")
    assert not repository.exists()


@pytest.mark.parametrize("zipmap_only", [True, False])
@pytest.mark.usefixtures("here")
def test_the_maps_of_zipmap_are_refused(published, repository: Path, tmp_path: Path, zipmap_only: bool) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["scores"]),
        helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3]),
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    maps = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        ),
    )
    outputs = [maps] if zipmap_only else [output("label", TensorProto.INT64, ["n"]), maps]
    save(model(nodes, outputs, more=[("ai.onnx.ml", 3)]), tmp_path / "clf.onnx")
    with pytest.raises(PublishError, match=r"'maps'.*map\(int64"):
        published(tmp_path / "clf.onnx")
    assert not repository.exists()


@pytest.mark.usefixtures("here")
def test_a_model_in_training_mode_is_refused(published, repository: Path, tmp_path: Path) -> None:
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])]
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "training"),
    ]
    save(model(nodes, [output()], constants), tmp_path / "net.onnx")
    with pytest.raises(PublishError, match="two runs on the same rows differ"):
        published(tmp_path / "net.onnx")
    assert not repository.exists()
    done = published(tmp_path / "net.onnx", force="a sampler")
    told = json.loads((done.place / ".inferd/provenance.json").read_text())
    assert told["forced"] == "a sampler"
    assert any("published although two runs" in note for note in done.notes)


@pytest.mark.usefixtures("here")
def test_a_file_that_is_no_model_is_refused(published, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(PublishError, match="is a web page"):
        published(tmp_path / "net.onnx")
    assert not repository.exists()


@pytest.mark.usefixtures("here")
def test_rows_of_a_sample_must_fit_and_be_answered(published, repository: Path, tmp_path: Path, onnx: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    np.savez(tmp_path / "s.npz", anything=rows, expected=np.argmax(rows, axis=1))
    done = published(onnx, source=SourceOptions(sample=tmp_path / "s.npz"))
    told = json.loads((done.place / ".inferd/provenance.json").read_text())
    assert (done.report.rows, done.report.rows_from) == (100, "sample")
    assert told["sample"]["rows"] == 100
    assert told["metrics"] == {"accuracy": 1.0}
    for name, arrays, reason in (
        ("shape", {"x": rows[:, :3]}, r"input 'x': expected shape \[-1, 4\], got \[100, 3\]"),
        ("names", {"x": rows, "z": rows}, "it holds 'x', 'z', the model has 'x'"),
        ("texts", {"x": rows.astype(str)}, "input 'x': expected FP32"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(PublishError, match=reason):
            published(onnx, source=SourceOptions(sample=tmp_path / f"{name}.npz"))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(PublishError, match="holds Python objects"):
        published(onnx, source=SourceOptions(sample=tmp_path / "pickle.npy"))
    assert tree(repository) == {"m", "m/1", "m/1/model.onnx"}


@pytest.mark.usefixtures("here")
def test_the_settings_of_a_model_count(published, repository: Path, onnx: Path) -> None:
    published(onnx)
    (repository / "m" / "model.yaml").write_text("signatures: [{inputs: [{name: z, dtype: FP32, shape: [-1, 4]}]}]\n")
    with pytest.raises(PublishError, match="declared input 'z' is not in the model"):
        published(onnx)
    assert tree(repository) == {"m", "m/1", "m/1/model.onnx", "m/model.yaml"}


def test_a_step_that_takes_too_long_is_ended(published, repository: Path, onnx: Path) -> None:
    with pytest.raises(PublishError, match=r"did not end in 0\.05 s"):
        published(onnx, probe=ProbeSettings(limits=TaskLimits(0.05)))
    assert not repository.exists()


@pytest.mark.usefixtures("here")
def test_a_copy_of_a_published_version_keeps_its_origin(published, onnx: Path) -> None:
    first = published(onnx)
    file = first.place / ".inferd/provenance.json"
    told = json.loads(file.read_text())
    told["source"] = {"kind": "mlflow", "uri": "models:/m@best", "run_id": "r1"}
    file.write_text(json.dumps(told))
    second = published(first.place, model="other")
    copied = json.loads((second.place / ".inferd/provenance.json").read_text())
    assert copied["source"] == told["source"]
    assert copied["copied_from"] == str(first.place)


def test_without_a_check_the_provenance_says_so(published, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"weights")
    done = published(tmp_path / "net.onnx", check=False)
    assert json.loads((done.place / ".inferd/provenance.json").read_text())["checked"] is False
