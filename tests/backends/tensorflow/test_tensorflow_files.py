"""The files of SavedModels: incomplete copies, truncated shards, layouts and formats."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.saved_models import X, doubling, served

from inferd.backends.api import (
    IncompleteArtefact,
    LoadError,
    OpenRequest,
)
from inferd.backends.tensorflow import files as tensorflow_files
from inferd.backends.tensorflow.backend import TensorFlowBackend

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.heavy


def test_incomplete_copies_are_detected_by_the_missing_files(version: Path, tmp_path: Path) -> None:
    doubling(version)
    whole = tmp_path / "whole"
    shutil.copytree(version, whole)
    backend = TensorFlowBackend()
    pb = (whole / "saved_model.pb").read_bytes()

    def state(*gone: str, pb_bytes: bytes | None = None) -> str | None:
        shutil.rmtree(version)
        shutil.copytree(whole, version)
        for name in gone:
            path = version / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if pb_bytes is not None:
            (version / "saved_model.pb").write_bytes(pb_bytes)
        return tensorflow_files.missing(version)

    shard, index = "variables/variables.data-00000-of-00001", "variables/variables.index"
    assert state() is None
    assert state("fingerprint.pb", "assets") is None
    assert "variables.data-* is missing" in str(state(shard))
    assert "variables.index is missing beside" in str(state(index))
    assert "the graph has variables" in str(state("variables"))
    assert "saved_model.pb is missing" in str(state("saved_model.pb"))
    with pytest.raises(IncompleteArtefact, match="beside variables"):
        backend.find(version)
    for keep in (0, 1, 2, 3, 10, len(pb) // 2, len(pb) - 1):
        assert state(pb_bytes=pb[:keep]), keep
        with pytest.raises(IncompleteArtefact):
            backend.open(OpenRequest("m", 1, version, version))
    state()
    (version / index).write_bytes((whole / index).read_bytes()[:-1])
    assert "variables.index is cut short" in str(tensorflow_files.missing(version))
    state()
    (version / shard).rename(version / "variables/variables.data-00000-of-00002")
    assert "variables.data-00001-of-00002 is missing" in str(tensorflow_files.missing(version))


def test_a_truncated_shard_never_answers(version: Path) -> None:
    doubling(version)
    shard = version / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(LoadError) as refused, served(version):
        pass
    assert "Traceback" not in str(refused.value)


def test_layouts_are_distinguished_and_other_formats_refused(version: Path) -> None:
    doubling(version)
    backend = TensorFlowBackend()
    shutil.copytree(version, version / "model.savedmodel")
    with pytest.raises(LoadError, match="two SavedModels"):
        backend.find(version)
    for path in version.iterdir():
        if path.name != "model.savedmodel":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert backend.find(version) == version / "model.savedmodel"
    (version / "model.savedmodel" / "saved_model.pb").unlink()
    with pytest.raises(IncompleteArtefact, match=r"model\.savedmodel/saved_model\.pb is missing"):
        backend.find(version)
    shutil.rmtree(version / "model.savedmodel")
    for name in ("model.h5", "model.keras", "model.graphdef"):
        (version / name).write_bytes(b"x")
        with pytest.raises(LoadError, match=name):
            backend.find(version)
        (version / name).unlink()


def test_a_text_saved_model_is_served(version: Path) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    doubling(version)
    parsed = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    (version / "saved_model.pbtxt").write_text(text_format.MessageToString(parsed))
    (version / "saved_model.pb").unlink()
    with served(version) as (_, instance):
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], 2 * X)


def test_a_file_of_empty_parts_is_not_read_to_its_end(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"\x0a\x00" * 20_000)
    assert "more than 10000 parts" in str(tensorflow_files.missing(version))


def test_links_in_a_savedmodel_are_copied_by_the_rule_of_the_repository(version: Path, tmp_path: Path) -> None:
    doubling(version)
    shutil.move(version / "variables", version.parent / "weights")
    (version / "variables").symlink_to("../weights")
    with served(version) as (_, instance):
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], X * 2)
    (version / "variables").unlink()
    shutil.move(version.parent / "weights", tmp_path / "outside")
    (version / "variables").symlink_to(tmp_path / "outside")
    with pytest.raises(IncompleteArtefact, match="outside the repository"):
        TensorFlowBackend().open(OpenRequest("m", 1, version, version))
