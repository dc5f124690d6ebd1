"""What the files are that people put in the place of a model, in words."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from inferd.backends.api import LoadError
from inferd.backends.foreign_formats import HEAD, by_content, by_name
from inferd.backends.registry import Registry

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.onnx", "x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.onnx", POINTER, ("is a Git LFS pointer of a file of 12345 bytes", "git lfs pull")),
        ("model.onnx.data", POINTER, ("Git LFS pointer",)),
        ("variables/variables.data-00000-of-00001", POINTER, ("Git LFS pointer",)),
        ("labels.txt", POINTER, ("labels.txt is a Git LFS pointer",)),
        ("model.onnx", b"", ("model.onnx is empty (0 bytes), no ONNX model",)),
        ("model.pt", b"", ("is empty", "no torch archive")),
        ("saved_model.pb", b"<!DOCTYPE html>\n<html><title>Sign in</title>", ("web page", "Sign in", "no SavedModel")),
        ("model.onnx", b"\xef\xbb\xbf \n<HTML><body>404 not found</body></HTML>", ("web page", "404 not found")),
        (
            "model.onnx",
            b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
            ("XML text ('AccessDenied')", "object stores"),
        ),
        ("model.pt2", b'{"error": "Repository not found"}', ("JSON text", "Repository not found")),
        ("model.onnx", b"Not Found\n", ("is text ('Not Found'), no ONNX model",)),
        ("model.onnx", "grün ".encode() * 200, ("is text ('grün grün",)),
        ("model.onnx", b"\x1f\x8b\x08\x00rest", ("gzip archive: unpack it",)),
        ("model.onnx", b"\x89HDF\r\n\x1a\nrest", ("HDF5", "Keras")),
        ("saved_model.pb", b"\x89HDF\r\n\x1a\nrest", ("HDF5", "model.export")),
        ("model.onnx", b"\x80\x04\x95rest", ("pickled Python object, which is never loaded",)),
        ("model.pt2", b"\x93NUMPY\x01\x00", ("numpy array, no torch archive",)),
        ("model.onnx", zipped(), ("zip archive, no ONNX model",)),
        ("model.onnx", b"\x1c\x00\x00\x00TFL3" + bytes(20), ("LiteRT (TensorFlow Lite) model", "name it model.tflite")),
        ("model.pt", bytes(257) + b"ustar\x0000", ("tar archive: unpack it",)),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name: str, content: bytes, words: tuple[str, ...]) -> None:
    text = by_content(name, content[:HEAD], len(content))
    assert text.startswith(f"{name} is ")
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(200)),
        ("saved_model.pb", b"\x08\x01\x12\xad\x01" + bytes(200)),
        ("model.pt", zipped()),
        ("model.pt", b"\x80\x02\x8a\nl\xfc"),  # the backend says it better
        ("model.keras", zipped()),
        ("labels.txt", b"cat\ndog\n"),
        ("model.twice", b"fine"),  # a plug-in's format may be text
        ("variables/variables.index", b""),
        ("model.onnx", b"\x00\x01 text \xff\xfe"),
    ],
)
def test_nothing_is_said_of_other_files(name: str, content: bytes) -> None:
    assert by_content(name, content[:HEAD], len(content)) == ""


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.joblib"], ("model.joblib is a pickled Python object", "skl2onnx")),
        (["pipeline.pkl", "README.md"], ("pipeline.pkl is a pickled", "never loaded")),
        (["weights.pth"], ("torch checkpoint", "torch.jit.save")),
        (["classifier.keras"], ("a Keras model", "model.export('1')")),
        (["classifier.h5"], ("model.export('1')",)),
        (["mobilenet.tflite"], ("mobilenet.tflite: expected the name model.tflite: rename it",)),
        (["model.safetensors", "config.json"], ("model.safetensors is a file of weights",)),
        (["model.plan"], ("TensorRT engine",)),
        (["model.xml", "model.bin"], ("weights",)),
        (["model.py"], ("Python code", "the backend python")),
        (["resnet50.onnx"], ("resnet50.onnx: expected the name model.onnx: rename it",)),
        (["net.torchscript"], ("expected the name model.pt",)),
        (["frozen_graph.pb"], ("expected the name saved_model.pb",)),
        (["MODEL.ONNX"], ("expected the name model.onnx",)),
        (["notes.joblib", "net.onnx"], ("net.onnx: expected the name",)),
    ],
)
def test_names_tell_formats_that_no_backend_serves(names: list[str], words: tuple[str, ...]) -> None:
    text = by_name(names)
    assert [word for word in words if word not in text] == [], text


def test_other_names_tell_nothing() -> None:
    assert by_name(["labels.txt", "README.md", "model.onnx", "vocab.json"]) == ""


@pytest.mark.parametrize("wanted", [None, "onnx"])
def test_a_file_one_directory_too_deep_is_named(tmp_path: Path, wanted: str | None) -> None:
    (tmp_path / "1/resnet").mkdir(parents=True)
    (tmp_path / "1/resnet/model.onnx").write_bytes(b"x")
    with pytest.raises(LoadError, match=r"^resnet/model\.onnx lies one directory too deep: expected 1/model\.onnx; "):
        Registry().detect(tmp_path / "1", wanted)
