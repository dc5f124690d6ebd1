"""`inferd publish`: a version is published completely or not at all, under the right number."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.client import Script

from inferd.server.cli import publish as command


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
    return {str(file.relative_to(path)) for file in path.rglob("*")}


def test_versions_are_numbered_from_one(cli, repository: Path, version: Path):
    for number in ("1", "2"):
        done = cli("publish", "m", str(version), "-r", str(repository))
        assert (done.code, done.out) == (0, f"m:{number} is at {repository}/m/{number}\n")
    (repository / "m" / "0010").mkdir()
    (repository / "m" / "notes").mkdir()
    (repository / "m" / "٣٠").mkdir()  # digits, but no version to a server
    found = cli("publish", "m", str(version), "-r", str(repository), "--json").json
    assert found == {"model": "m", "version": 11, "path": f"{repository}/m/11", "state": "published"}
    assert tree(repository / "m" / "11") == {"saved_model.pb", "variables", "variables/variables.index"}
    assert not [name for name in os.listdir(repository / "m") if name.startswith(".")]


@pytest.mark.parametrize(
    ("file", "name"), [("digits-v2.onnx", "model.onnx"), ("a.pt", "model.pt"), ("b.pt2", "model.pt2")]
)
def test_a_single_file_gets_the_artefacts_usual_name(cli, repository: Path, tmp_path: Path, file, name):
    (tmp_path / file).write_bytes(b"weights")
    assert cli("publish", "m", str(tmp_path / file), "-r", str(repository), "--version", "7").code == 0
    assert (repository / "m" / "7" / name).read_bytes() == b"weights"


def test_an_existing_version_is_not_published_again(cli, repository: Path, version: Path):
    (repository / "m" / "007").mkdir(parents=True)
    done = cli("publish", "m", str(version), "-r", str(repository), "--version", "7")
    assert done.code == 1
    assert "m:7 is there already" in done.err
    assert tree(repository) == {"m", "m/007"}


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("m", "nope", "repository"), (1, "does not exist")),
        (("m", "empty", "repository"), (1, "is empty")),
        (("m", "a.txt", "repository"), (2, "ends in .onnx, .pt, .pt2")),
        (("m", "source", "elsewhere"), (1, "no directory")),
        (("../m", "source", "repository"), (2, "no name for a model")),
        ((".m", "source", "repository"), (2, "no name for a model")),
        (("", "source", "repository"), (2, "no name for a model")),
    ],
)
def test_a_refused_publication_leaves_no_files(cli, repository: Path, version: Path, arguments, refusal):
    model, source, root = arguments
    place = repository.parent
    (place / "empty").mkdir()
    (place / "a.txt").write_text("")
    done = cli("publish", model, str(place / source), "-r", str(place / root))
    assert done.code == refusal[0]
    assert refusal[1] in done.err
    assert tree(repository) == set()


def test_a_full_disk_leaves_no_files(cli, repository: Path, version: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command, "_sync", full)
    done = cli("publish", "m", str(version), "-r", str(repository))
    assert done.code == 1
    assert "No space left on device" in done.err
    assert tree(repository) == set()


def test_a_number_taken_meanwhile_is_not_overwritten(cli, repository: Path, version: Path, monkeypatch):
    real = Path.rename
    rivals = iter([repository / "m" / "1"])

    def rename(self: Path, target: Path) -> Path:
        for rival in rivals:
            rival.mkdir()
            (rival / "model.onnx").write_bytes(b"the rival's")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert cli("publish", "m", str(version), "-r", str(repository), "--json").json["version"] == 2
    assert (repository / "m" / "1" / "model.onnx").read_bytes() == b"the rival's"


def test_the_target_of_a_link_is_copied(cli, repository: Path, version: Path, tmp_path: Path):
    (tmp_path / "blob").write_bytes(b"graph")
    (version / "saved_model.pb").unlink()
    (version / "saved_model.pb").symlink_to(tmp_path / "blob")
    assert cli("publish", "m", str(version), "-r", str(repository)).code == 0
    assert not (repository / "m" / "1" / "saved_model.pb").is_symlink()


def test_waiting_ends_when_the_server_serves_it_or_says_why_not(
    inferd, repository: Path, version: Path, script: Script
):
    arguments = ("publish", "m", str(version), "-r", str(repository), "--wait", "--timeout", "1")
    served = inferd(*arguments, "--version", "3")
    # The fake server's model is called "a" unless a request names one model.
    assert served.code == 1
    assert "the server has not seen it" in served.err
    done = inferd("publish", "a", *arguments[2:], "--version", "3", "--json")
    assert (done.code, done.json["state"]) == (0, "available")
    failed = inferd("publish", "a", *arguments[2:], "--version", "2")
    assert failed.code == 1
    assert "a:2 failed to load: truncated file" in failed.err
    late = inferd("publish", "a", *arguments[2:], "--version", "4")
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
    done = cli("publish", model, str(repository.parent / source), "-r", str(repository), *more)
    assert (done.code, done.out) == (refusal[0], "")
    assert refusal[1] in done.err
    assert tree(repository) == set()


def test_no_version_above_the_highest_number_is_published(cli, repository: Path, version: Path):
    (repository / "m" / str(2**63 - 1)).mkdir(parents=True)
    done = cli("publish", "m", str(version), "-r", str(repository))
    assert done.code == 1
    assert "the highest there can be" in done.err
