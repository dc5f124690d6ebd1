"""The reader of ONNX files: it agrees with the onnx package, detects every truncation, and survives any bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.real_models import package_file

from inferd.backends.api import IncompleteArtefact, LoadError, OpenRequest, Placement
from inferd.backends.onnx import messages
from inferd.backends.onnx.backend import OnnxBackend
from inferd.backends.onnx.files import ModelHeader, read_header
from inferd.backends.onnx.messages import FileSource, Malformed, MemorySource, Truncated

onnx = pytest.importorskip("onnx")
T = onnx.TensorProto
node = onnx.helper.make_node
LIGHT = package_file("onnx", "backend", "test", "data", "light")


def header_of(path: Path) -> ModelHeader:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_header(FileSource(descriptor))
    finally:
        os.close(descriptor)


def linear(directory: Path, write_onnx: Any, location: str | None = "w.bin") -> Path:
    """Writes a model x [N, 64] @ w [64, 64] + b [64]. w and b are in the file `location`; None: in the model."""
    path = directory / "model.onnx"
    write_onnx(
        path,
        [node("Gemm", ["x", "w", "b"], ["y"])],
        [("x", T.FLOAT, ["N", 64])],
        [("y", T.FLOAT, ["N", 64])],
        {"w": np.eye(64, dtype=np.float32), "b": np.ones(64, np.float32)},
        external=location,
    )
    return path


def open_it(directory: Path) -> None:
    OnnxBackend().open(OpenRequest("m", 1, directory, directory / "model.onnx")).close()


def refer(path: Path, name: str, **entries: str | None) -> None:
    """Changes external-data entries of an initializer. None removes an entry."""
    model = onnx.load(str(path), load_external_data=False)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    known = {e.key: e.value for e in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


# ---- agrees with the onnx package


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda p: p.stem)
def test_the_header_agrees_with_the_onnx_package(path: Path) -> None:
    graph = onnx.load(str(path)).graph
    found = header_of(path)
    assert found == read_header(MemorySource(path.read_bytes()))
    assert found.initializers == {t.name for t in graph.initializer}
    for ours, theirs in ((found.inputs, graph.input), (found.outputs, graph.output)):
        assert [v.name for v in ours] == [v.name for v in theirs]
        for value, proto in zip(ours, theirs, strict=True):
            assert value.element == proto.type.tensor_type.elem_type
            dims = proto.type.tensor_type.shape.dim
            assert value.shape == tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
    assert OnnxBackend().complete(path) is None


def test_a_file_larger_than_the_window_is_read_in_pieces(version: Path, write_onnx: Any) -> None:
    path = version / "model.onnx"
    big = np.zeros(1 << 20, np.float32)
    write_onnx(
        path,
        [node("Add", ["x", "w"], ["t"]), node("Add", ["t", "v"], ["y"])],
        [("x", T.FLOAT, [1 << 20])],
        [("y", T.FLOAT, [1 << 20])],
        {"w": big, "v": big},
    )
    assert header_of(path) == read_header(MemorySource(path.read_bytes()))
    assert OnnxBackend().complete(path) is None


# ---- truncated


def test_every_truncation_is_detected(version: Path, write_onnx: Any) -> None:
    path = linear(version, write_onnx, None)
    whole = path.read_bytes()
    backend = OnnxBackend()
    assert backend.complete(path) is None
    for size in [*range(300), *range(300, len(whole), 97), *range(len(whole) - 200, len(whole))]:
        path.write_bytes(whole[:size])
        assert backend.complete(path), f"cut to {size} of {len(whole)} bytes"
        with pytest.raises(IncompleteArtefact):
            open_it(version)


def test_zeros_at_the_end_count_as_truncated(version: Path, write_onnx: Any) -> None:
    path = linear(version, write_onnx, None)
    whole = path.read_bytes()
    path.write_bytes(b"\0" * len(whole))
    assert "zeros" in str(OnnxBackend().complete(path))


def test_other_bytes_are_malformed_not_truncated(version: Path) -> None:
    path = version / "model.onnx"
    path.write_bytes(b"\x80\x04\x95 this is a pickle, say")
    with pytest.raises(LoadError):
        open_it(version)


@given(data=st.data())
def test_any_change_of_bytes_is_read_or_refused(data: st.DataObject) -> None:
    """Only the two documented errors are raised. An endless loop would fail by the time limit of the test run."""
    whole = bytearray((LIGHT / "light_bvlc_alexnet.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_header(MemorySource(bytes(whole)))
    except (Truncated, Malformed):
        pass


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_header(MemorySource(data))
    except (Truncated, Malformed):
        pass


# ---- external data


def test_external_data_is_found_and_measured(version: Path, write_onnx: Any) -> None:
    path = linear(version, write_onnx)
    backend = OnnxBackend()
    assert backend.files(path) == (version / "w.bin",)
    assert backend.complete(path) is None
    size = (version / "w.bin").stat().st_size
    with (version / "w.bin").open("r+b") as f:
        f.truncate(size - 1)
    assert str(size) in str(backend.complete(path))
    with pytest.raises(IncompleteArtefact, match=rf"'w\.bin' is cut short: {size - 1} bytes, the model needs {size}"):
        open_it(version)
    (version / "w.bin").unlink()
    missing = "external data 'w.bin' is missing: the weights are in a file of their own, expected at "
    assert backend.complete(path) == f"{missing}{path.parent.name}/w.bin"
    with pytest.raises(IncompleteArtefact, match="missing"):
        open_it(version)


def test_a_missing_length_is_computed_from_the_shape(version: Path, write_onnx: Any) -> None:
    path = linear(version, write_onnx)
    refer(path, "w", length=None)
    refer(path, "b", length=None)
    assert OnnxBackend().complete(path) is None
    with (version / "w.bin").open("r+b") as f:
        f.truncate(64 * 64 * 4 - 1)
    assert "cut short" in str(OnnxBackend().complete(path))


def test_external_data_in_a_folder_beside_the_model(version: Path, write_onnx: Any) -> None:
    (version / "weights").mkdir()
    linear(version, write_onnx, "weights/w.bin")
    assert OnnxBackend().files(version / "model.onnx") == (version / "weights" / "w.bin",)
    open_it(version)


@pytest.mark.parametrize("location", ["/etc/passwd", "../other.bin", "a/../../b.bin", ""])
def test_external_data_outside_the_directory_is_refused(version: Path, write_onnx: Any, location: str) -> None:
    path = linear(version, write_onnx)
    refer(path, "w", location=location)
    (version.parent / "other.bin").write_bytes(b"\0" * 99999)
    with pytest.raises(LoadError, match="outside the model's directory"):
        open_it(version)
    assert OnnxBackend().files(path) == ()


@pytest.mark.parametrize("wrong", [{"offset": "x"}, {"length": "many"}, {"offset": "-4"}, {"length": "-1"}])
def test_an_offset_that_is_not_a_number_is_refused(version: Path, write_onnx: Any, wrong: dict[str, str]) -> None:
    refer(linear(version, write_onnx), "w", **wrong)
    with pytest.raises(LoadError, match="'w'"):
        open_it(version)


def test_external_data_of_nodes_and_subgraphs_is_found(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants of branches and of nodes can be in other files too."""

    def outside(name: str, location: str) -> Any:
        tensor = onnx.helper.make_tensor(name, T.FLOAT, [4], np.ones(4, np.float32).tobytes(), raw=True)
        tensor.ClearField("raw_data")
        tensor.data_location = T.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return tensor

    value = onnx.helper.make_tensor_value_info
    branch = onnx.helper.make_graph(
        [node("Identity", ["inner"], ["r"])], "b", [], [value("r", T.FLOAT, [4])], [outside("inner", "branch.bin")]
    )
    graph = onnx.helper.make_graph(
        [
            node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
            node("Constant", [], ["k"], value=outside("k", "node.bin")),
        ],
        "g",
        [value("c", T.BOOL, [])],
        [value("y", T.FLOAT, [4]), value("k", T.FLOAT, [4])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path = version / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert header_of(path).locations() == {"branch.bin": 16, "node.bin": 16}
    monkeypatch.chdir(version.parent)  # the directory in which ONNX Runtime would look
    for name, value in (("branch.bin", 3), ("node.bin", 4)):
        (version / name).write_bytes(np.full(4, value, np.float32).tobytes())
        (version.parent / name).write_bytes(np.full(4, 99, np.float32).tobytes())
    opened = OnnxBackend().open(OpenRequest("m", 1, version, path))
    instance = opened.instance(Placement())
    for name in ("branch.bin", "node.bin"):
        (version / name).write_bytes(b"")
    got = instance.run("serving_default", {"c": np.array(True)})
    assert got["y"].tolist() == [3, 3, 3, 3]
    assert got["k"].tolist() == [4, 4, 4, 4]
    instance.close()
    opened.close()


# ---- the directory form


def test_a_directory_without_its_model_is_incomplete(version: Path, write_onnx: Any) -> None:
    (version / "model.onnx").mkdir()
    backend = OnnxBackend()
    artefact = backend.find(version)
    assert artefact == version / "model.onnx"
    assert backend.complete(artefact) == "model.onnx/model.onnx is missing"
    with pytest.raises(IncompleteArtefact, match="is missing"):
        open_it(version)
    linear(artefact, write_onnx)
    assert backend.complete(artefact) is None
    assert backend.files(artefact) == ()
    open_it(version)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _model(*initializers: bytes) -> MemorySource:
    graph = b"".join(_field(5, tensor) for tensor in initializers)
    return MemorySource(b"\x08\x08" + _field(7, graph) + _field(8, b""))


def test_dimensions_are_not_multiplied_without_end() -> None:
    largest = _varint((1 << 63) - 1)
    with pytest.raises(Malformed, match="more dimensions"):
        read_header(_model(_field(1, largest * 100_000)))
    # One by one they are not counted, but their product is cut off: this took minutes.
    assert read_header(_model((b"\x08" + largest) * 100_000)).initializers == {""}


def test_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_FIELDS", 100)
    assert read_header(_model(*[b""] * 50)).initializers == {""}
    with pytest.raises(Malformed, match="more than 100 fields"):
        read_header(_model(*[b""] * 200))


def test_an_offset_of_5000_digits_is_refused() -> None:
    entry = _field(13, _field(1, b"offset") + _field(2, b"9" * 5000))
    with pytest.raises(Malformed, match="no number of bytes"):
        read_header(_model(entry + b"\x70\x01"))
