"""What lies in a repository where nobody serves it is told, and a root that is itself one model is served."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from support.disk import Disk, ready
from support.lifecycle import SteppedManager

from inferd.server.errors import Conflict
from inferd.server.observability.events import FIELDS


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("m/model.onnx", "{root}/m/model.onnx lies directly in the model's directory: expected a version between them, "
         "as {root}/m/1/model.onnx"),
        ("m/resnet50.onnx", "as {root}/m/1/model.onnx"),
        ("m/model.pt", "as {root}/m/1/model.pt"),
        ("m/saved_model.pb", "as {root}/m/1/saved_model.pb"),
        ("m/model.savedmodel/saved_model.pb", "as {root}/m/1/model.savedmodel"),
        ("m/model.joblib", "{root}/m/model.joblib lies directly"),
        ("m/v2/model.onnx", "{root}/m/v2 (with model.onnx) is no version: expected a directory named by an integer, "
         "such as 2"),
        ("m/1.0/model.onnx", "{root}/m/1.0 (with model.onnx) is no version: expected a directory named by an integer, "
         "such as 1"),
        ("m/version-12/saved_model.pb", "such as 12"),
        ("m/latest/model.pt2", "{root}/m/latest (with model.pt2) is no version"),
        ("m/-1/model.onnx", "{root}/m/-1 (with model.onnx) is no version"),
        ("m/１/model.onnx", "is no version: expected a directory named by an integer, such as 1"),
        ("m/9223372036854775808/model.onnx", "is a version above 9223372036854775807"),
        ("m/" + "9" * 100 + "/model.onnx", "is a version above 9223372036854775807"),
        ("m/.1/model.onnx", "{root}/m/.1 (with model.onnx) is hidden, and hidden directories are never versions"),
        ("m/inner/1/model.onnx", "{root}/m holds models (inner), not versions: move them up to {root}, or give "
         "{root}/m as one more --model-repository"),
    ],
)  # fmt: skip
def test_a_misplaced_model_is_listed_with_what_was_expected(disk: Disk, path: str, words: str) -> None:
    disk.write("good/1/model.onnx")
    disk.write(path)
    listing = disk.scan()
    assert list(listing.models) == ["good", "m"]
    found = listing.models["m"]
    assert (found.config, found.versions) == (None, ())
    assert words.format(root=disk.root) in found.problem
    assert listing.models["good"].problem == ""


@pytest.mark.parametrize(
    "path",
    ["m/notes.txt", "m/v1/notes.txt", "m/.git/model.onnx", "m/.publish-1a2b/model.onnx", "m/a/b/c/model.onnx",
     "m/model.onnx.part", "m/data/train.h5", ".hidden/1/model.onnx", "m/model.py"],
)  # fmt: skip
def test_other_directories_are_no_models(disk: Disk, path: str) -> None:
    disk.write("good/1/model.onnx")
    disk.write(path)
    assert list(disk.scan().models) == ["good"]


def test_an_empty_directory_is_no_model(disk: Disk) -> None:
    disk.write("good/1/model.onnx")
    (disk.root / "m/v1").mkdir(parents=True)
    assert list(disk.scan().models) == ["good"]


def test_a_model_that_serves_names_the_versions_beside_it_that_are_none(disk: Disk) -> None:
    disk.write("m/1/model.onnx")
    disk.write("m/v2/model.onnx")
    disk.write("m/1.1/model.onnx")
    disk.write("m/backup/model.onnx")  # nobody meant that as a version
    found = disk.model()
    assert ready(found) == [1]
    assert found.error == ""
    assert len(found.misplaced) == 2
    assert "m/1.1 (with model.onnx) is no version" in found.problem
    assert "m/v2 (with model.onnx) is no version" in found.problem


def test_settings_without_a_version_name_what_is_misplaced(disk: Disk) -> None:
    disk.write("m/config.pbtxt", 'backend: "onnxruntime"')
    disk.write("m/model.onnx")
    assert "m/model.onnx lies directly in the model's directory" in disk.model().problem


def test_python_code_beside_settings_is_meant_as_a_model(disk: Disk) -> None:
    disk.write("good/1/model.onnx")
    disk.write("m/model.py")
    disk.write("m/model.yaml", "stateful: false")
    assert "m/model.py lies directly in the model's directory" in disk.scan().models["m"].problem
    disk.write("good/model.py")
    disk.write("good/model.yaml", "stateful: false")
    assert disk.scan().models["good"].problem == "", "the source of a model that has versions"


def test_a_root_with_python_code_and_settings_is_one_model(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "upper")
    disk.write("model.py")
    assert not disk.scan().models
    disk.write("model.yaml", "stateful: false")
    (model,) = disk.scan().models.values()
    assert (model.name, [version.number for version in model.versions]) == ("upper", [1])


def test_leading_zeros_are_told_and_served(disk: Disk) -> None:
    disk.write("m/007/model.onnx")
    found = disk.model()
    assert ready(found) == [7]
    assert "the directory 007 is version 7" in found.notes


def test_a_file_beside_models_is_listed_under_its_name(disk: Disk) -> None:
    disk.write("good/1/model.onnx")
    disk.write("resnet.onnx")
    disk.write("README.md")
    listing = disk.scan()
    assert list(listing.models) == ["good", "resnet.onnx"]
    assert f"expected {disk.root}/resnet/1/model.onnx" in listing.models["resnet.onnx"].problem


def test_a_model_that_is_put_right_is_served(disk: Disk) -> None:
    disk.write("good/1/model.onnx")
    disk.write("m/v2/model.onnx")
    assert disk.model().problem
    (disk.root / "m/v2").rename(disk.root / "m/2")
    found = disk.settled().models["m"]
    assert (ready(found), found.problem) == ([2], "")


def test_a_misplaced_model_that_is_removed_is_forgotten(disk: Disk) -> None:
    disk.write("good/1/model.onnx")
    disk.write("m/v2/model.onnx")
    disk.scan()
    shutil.rmtree(disk.root / "m/v2")
    assert list(disk.settled().models) == ["good"]


def test_a_root_of_versions_is_one_model(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "half_plus_two")
    disk.write("1/saved_model.pb")
    disk.write("2/saved_model.pb")
    disk.write("model.yaml", "version_policy: {all: true}")
    listing = disk.scan()
    assert list(listing.models) == ["half_plus_two"]
    found = listing.models["half_plus_two"]
    assert (ready(found), found.problem, listing.errors) == ([2, 1], "", ())
    assert found.config is not None
    assert found.config.version_policy.all


def test_a_root_with_a_models_file_is_version_1_of_one_model(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "resnet")
    disk.write("model.onnx")
    disk.write("config.pbtxt", 'backend: "onnxruntime"')
    found = disk.scan().models["resnet"]
    assert (ready(found), found.problem) == ([1], "")
    [version] = found.versions
    assert version.path == disk.root
    assert version.model_directory == disk.root
    assert {file.path for file in version.tree.files} == {"config.pbtxt", "model.onnx"}
    disk.write("model.onnx", "changed")
    assert ready(disk.scan().models["resnet"]) == []
    assert ready(disk.scan(after=2.0).models["resnet"]) == [1]


def test_the_model_of_a_root_is_named_by_the_setting(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "x", model_name="classifier")
    disk.write("1/model.onnx")
    assert list(disk.scan().models) == ["classifier"]


def test_a_root_with_a_models_file_and_models_is_a_repository(disk: Disk) -> None:
    disk.write("model.onnx")
    assert list(disk.scan().models) == [disk.root.name]
    disk.write("m/1/model.onnx")
    listing = disk.settled()
    assert list(listing.models) == ["m", "model.onnx"]
    assert "expected" in listing.models["model.onnx"].problem


def test_a_root_whose_file_is_not_named_like_an_artefact_says_what_was_expected(disk: Disk) -> None:
    disk.write("resnet50.onnx")
    assert "resnet50/1/model.onnx" in disk.scan().models["resnet50.onnx"].problem


def test_an_empty_number_in_a_root_is_no_version(disk: Disk) -> None:
    (disk.root / "1").mkdir(parents=True)
    assert disk.scan().models == {}


def test_a_root_that_is_emptied_keeps_its_model_while_that_may_be_a_mount_point(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "resnet")
    disk.write("model.onnx")
    disk.scan()
    disk.root.rename(tmp_path / "unmounted")
    disk.root.mkdir()
    listing = disk.scan(after=10)
    assert list(listing.models) == ["resnet"]
    assert "is it mounted?" in listing.errors[0]


def test_the_manager_serves_it_names_it_and_logs_it_once(
    stepped: SteppedManager, caplog: pytest.LogCaptureFixture
) -> None:
    stepped.write("good/1/model")
    stepped.write("m/v2/model")
    stepped.see()
    stepped.see()
    assert stepped.manager.ready()
    assert stepped.serves("good") == {1: "good"}
    assert "m/v2 (with model) is no version" in stepped.status("m").error
    with pytest.raises(Conflict, match=r"model 'm' cannot be served: .*m/v2 \(with model\) is no version"):
        stepped.manager.acquire("m")
    with pytest.raises(Conflict, match=r"m/v2 \(with model\) is no version"):
        stepped.do(stepped.manager.load("m", by="me"))
    logged = [record.__dict__[FIELDS] for record in caplog.records if record.message == "repository problem"]
    assert [fields["model"] for fields in logged] == ["m"]
    assert all(record.levelno == logging.WARNING for record in caplog.records if record.message == "repository problem")


def test_a_root_that_is_a_model_is_loaded_and_reloaded(tmp_path: Path, stepped: SteppedManager) -> None:
    stepped.write("model", "one")
    stepped.see()
    name = stepped.root.name
    assert stepped.serves(name) == {1: "one"}
    stepped.write("model", "two")
    stepped.settle()
    stepped.settle()
    assert stepped.serves(name) == {1: "two"}
