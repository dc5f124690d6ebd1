"""`inferd publish`: a version is published completely or not at all, under the right number.

What is looked at before that: tests/publishing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.client import Script
from support.marked import write_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "variables.index").write_bytes(b"index")
    return source


def tree(path: Path) -> set[str]:
    found = (file.relative_to(path) for file in path.rglob("*"))
    return {str(file) for file in found if ".inferd" not in file.parts}


def test_versions_are_numbered_from_one(cli, repository: Path, version: Path):
    for number in ("1", "2"):
        done = cli("publish", "--no-check", "m", str(version), "-r", str(repository))
        assert (done.code, done.out) == (0, f"m:{number} is at {repository}/m/{number}\n")
    (repository / "m" / "0010").mkdir()
    (repository / "m" / "notes").mkdir()
    (repository / "m" / "٣٠").mkdir()  # digits, but no version to a server
    found = cli("publish", "--no-check", "m", str(version), "-r", str(repository), "--json").json
    notes = found.pop("notes")
    assert found == {"model": "m", "version": 11, "path": f"{repository}/m/11", "state": "published"}
    assert notes == ["not checked (--no-check): nobody knows whether it can be served"]
    assert tree(repository / "m" / "11") == {"saved_model.pb", "variables", "variables/variables.index"}
    assert not [name for name in os.listdir(repository / "m") if name.startswith(".")]


@pytest.mark.parametrize(
    ("file", "name"),
    [("digits-v2.onnx", "model.onnx"), ("a.pt", "model.pt"), ("b.pt2", "model.pt2"), ("c.tflite", "model.tflite")],
)
def test_a_single_file_gets_the_artefacts_usual_name(cli, repository: Path, tmp_path: Path, file, name):
    (tmp_path / file).write_bytes(b"weights")
    assert cli("publish", "--no-check", "m", str(tmp_path / file), "-r", str(repository), "--version", "7").code == 0
    assert (repository / "m" / "7" / name).read_bytes() == b"weights"


def test_an_existing_version_is_not_published_again(cli, repository: Path, version: Path):
    (repository / "m" / "007").mkdir(parents=True)
    done = cli("publish", "--no-check", "m", str(version), "-r", str(repository), "--version", "7")
    assert done.code == 1
    assert "m:7 is there already" in done.err
    assert tree(repository) == {"m", "m/007"}


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("m", "nope", "repository"), (1, "does not exist")),
        (("m", "empty", "repository"), (1, "is empty")),
        (("m", "a.doc", "repository"), (2, "ends in .onnx, .pt, .pt2, .tflite")),
        (("m", "source", "a.doc"), (1, "no directory")),
        (("../m", "source", "repository"), (2, "no name for a model")),
        ((".m", "source", "repository"), (2, "no name for a model")),
        (("", "source", "repository"), (2, "no name for a model")),
    ],
)
def test_a_refused_publication_leaves_no_files(cli, repository: Path, version: Path, arguments, refusal):
    model, source, root = arguments
    place = repository.parent
    (place / "empty").mkdir()
    (place / "a.doc").write_text("")
    done = cli("publish", "--no-check", model, str(place / source), "-r", str(place / root))
    assert done.code == refusal[0]
    assert refusal[1] in done.err
    assert tree(repository) == set()


def test_the_target_of_a_link_is_copied(cli, repository: Path, version: Path, tmp_path: Path):
    (tmp_path / "blob").write_bytes(b"graph")
    (version / "saved_model.pb").unlink()
    (version / "saved_model.pb").symlink_to(tmp_path / "blob")
    assert cli("publish", "--no-check", "m", str(version), "-r", str(repository)).code == 0
    assert not (repository / "m" / "1" / "saved_model.pb").is_symlink()


def test_waiting_ends_when_the_server_serves_it_or_says_why_not(
    inferd, repository: Path, version: Path, script: Script
):
    arguments = ("publish", "--no-check", "m", str(version), "-r", str(repository), "--wait", "--timeout", "1")
    served = inferd(*arguments, "--version", "3")
    # The fake server's model is called "a" unless a request names one model.
    assert served.code == 1
    assert "the server has not seen it" in served.err
    done = inferd("publish", "--no-check", "a", *arguments[3:], "--version", "3", "--json")
    assert (done.code, done.json["state"]) == (0, "available")
    failed = inferd("publish", "--no-check", "a", *arguments[3:], "--version", "2")
    assert failed.code == 1
    assert "a:2 failed to load: truncated file" in failed.err
    late = inferd("publish", "--no-check", "a", *arguments[3:], "--version", "4")
    assert late.code == 1
    assert "it is LOADING" in late.err


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("m.tmp", "source"), (2, "does not end in .tmp .part .filepart ~")),
        (("m~", "source"), (2, "no name for a model")),
        (("m\udcff", "source"), (2, "no name for a model")),
        (("m", "source", "--version", str(2**63)), (2, "expected 0 to 9223372036854775807")),
        (("m", "half"), (1, "model.onnx.part is still being written")),
    ],
    ids=["tmp", "tilde", "not UTF-8", "version", "partial file"],
)
def test_a_version_that_no_server_would_serve_is_refused(cli, repository: Path, version: Path, arguments, refusal):
    half = repository.parent / "half"
    half.mkdir()
    (half / "model.onnx.part").write_bytes(b"weights")
    model, source, *more = arguments
    done = cli("publish", "--no-check", model, str(repository.parent / source), "-r", str(repository), *more)
    assert (done.code, done.out) == (refusal[0], "")
    assert refusal[1] in done.err
    assert tree(repository) == set()


def test_no_version_above_the_highest_number_is_published(cli, repository: Path, version: Path):
    (repository / "m" / str(2**63 - 1)).mkdir(parents=True)
    done = cli("publish", "--no-check", "m", str(version), "-r", str(repository))
    assert done.code == 1
    assert "the highest there can be" in done.err


def test_what_cannot_be_served_is_not_published(cli, tmp_path: Path):
    write_version("onnx", tmp_path / "trained", 1.0)
    model = tmp_path / "trained" / "model.onnx"
    done = cli("publish", "m", str(model), "-r", str(tmp_path / "new" / "repository"), "--json")
    assert done.code == 0, done.err
    assert done.json["checked"]["backend"] == "onnx"
    model.write_bytes(model.read_bytes()[:-20])
    done = cli("publish", "m", str(model), "-r", str(tmp_path / "other"))
    assert done.code == 1
    assert "model.onnx is cut short" in done.err
    assert not (tmp_path / "other").exists()
