"""Files that people really have in the place of a model: what `inferd check`, the log and the listing say of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as H
from onnx import numpy_helper

from inferd.backends.registry import Registry
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.inspection import inspect_repository

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 98765\n"
FILES: Mapping[str, tuple[bytes, str]] = {
    "lfs_onnx/1/model.onnx": (POINTER, "model.onnx is a Git LFS pointer of a file of 98765 bytes"),
    "lfs_torch/1/model.pt": (POINTER, "model.pt is a Git LFS pointer"),
    "lfs_export/1/model.pt2": (POINTER, "model.pt2 is a Git LFS pointer"),
    "lfs_tf/1/saved_model.pb": (POINTER, "saved_model.pb is a Git LFS pointer"),
    "lfs_triton/1/model.savedmodel/saved_model.pb": (POINTER, "model.savedmodel/saved_model.pb is a Git LFS pointer"),
    "page/1/model.onnx": (b"<html><title>404 not found</title></html>", "model.onnx is a web page (text: '404 not"),
    "page_torch/1/model.pt": (b"<html><title>Log in</title></html>", "model.pt is a web page (text: 'Log in')"),
    "page_tf/1/saved_model.pb": (b"<html>Log in</html>", "saved_model.pb is a web page"),
    "store/1/model.onnx": (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML text ('NoSuchKey')"),
    "empty/1/model.onnx": (b"", "model.onnx is empty (0 bytes)"),
    "empty_torch/1/model.pt": (b"", "model.pt is empty (0 bytes)"),
    "empty_tf/1/saved_model.pb": (b"", "saved_model.pb is empty (0 bytes)"),
    "packed/1/model.onnx": (b"\x1f\x8b\x08\x00" + bytes(50), "model.onnx is a gzip archive: unpack it"),
    "sklearn/1/model.joblib": (b"\x80\x04", "model.joblib is a pickled Python object, which is never loaded"),
    "pickle/1/model.pkl": (b"\x80\x04.", "never loaded"),
    "state_dict/1/weights.pth": (b"PK\x03\x04", "weights.pth is a torch checkpoint"),
    "keras/1/model.keras": (b"PK\x03\x04", "model.keras is a Keras model"),
    "hdf/1/model.h5": (b"\x89HDF\r\n\x1a\n", "model.h5 is a Keras model or its weights"),
    "lite/1/model.onnx": (b"\x1c\x00\x00\x00TFL3", "model.onnx is a LiteRT (TensorFlow Lite) model"),
    "cut_lite/1/model.tflite": (b"\x1c\x00\x00\x00TFL3", "model.tflite is cut short"),
    "named_lite/1/net.tflite": (b"\x1c\x00\x00\x00TFL3", "a LiteRT model must be called model.tflite"),
    "named/1/resnet.onnx": (b"\x08\x08", "resnet.onnx"),
    "renamed/1/model.onnx": (b"\x89HDF\r\n\x1a\n" + bytes(9), "model.onnx is an HDF5 file"),
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    for path, (content, _) in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    external(root / "lfs_weights/1")
    (root / "lfs_weights/1/weights.bin").write_bytes(POINTER)
    external(root / "no_weights/1")
    (root / "no_weights/1/weights.bin").unlink()
    external(root / "short_weights/1")
    os.truncate(root / "short_weights/1/weights.bin", 100)
    findings = inspect_repository(ServerConfig(repository={"roots": (str(root),)}), Registry())
    return {finding.model: finding.error for finding in findings if finding.error}


def external(directory: Path) -> None:
    """A model with its weights in weights.bin."""
    directory.mkdir(parents=True)
    weights = numpy_helper.from_array(np.ones(1000, np.float32), "w")
    graph = H.make_graph(
        [H.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [H.make_tensor_value_info("x", T.FLOAT, [1000])],
        [H.make_tensor_value_info("y", T.FLOAT, [1000])],
        [weights],
    )
    model = H.make_model(graph, opset_imports=[H.make_opsetid("", 17)], ir_version=8)
    onnx.convert_model_to_external_data(model, location="weights.bin", size_threshold=0, convert_attribute=False)
    onnx.save(model, directory / "model.onnx")


@pytest.mark.parametrize("path", FILES)
def test_the_file_is_named_for_what_it_is(errors: dict[str, str], path: str) -> None:
    words = FILES[path][1]
    found = errors[path.partition("/")[0]]
    assert words in found
    assert found.index(words) < 100


def test_weights_that_are_not_there(errors: dict[str, str]) -> None:
    assert errors["lfs_weights"].startswith("weights.bin is a Git LFS pointer")
    assert "external data 'weights.bin' is missing" in errors["no_weights"]
    assert "external data 'weights.bin' is cut short: 100 bytes, the model needs 4000" in errors["short_weights"]
