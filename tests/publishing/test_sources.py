"""What people name as a source: directories of MLflow and Hugging Face, archives, files of DVC. None can do harm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from publishing.conftest import tree

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.sources.material import SourceOptions

pytestmark = pytest.mark.usefixtures("here")


def told(place: Path) -> dict:
    return json.loads((place / ".inferd/provenance.json").read_text())


def test_a_relative_path_is_published(published, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(onnx.parents[1])
    assert tree(published("trained").place) == {"model.onnx"}
    assert tree(published("trained/model.onnx").place) == {"model.onnx"}


def test_the_only_file_of_a_directory_gets_its_name(published, onnx: Path) -> None:
    onnx.rename(onnx.with_name("net.onnx"))
    assert tree(published(onnx.parent).place) == {"model.onnx"}


# -- MLflow ------------------------------------------------------------------------------------------------------------


def mlmodel(directory: Path, flavors: dict, **more: object) -> Path:
    directory.mkdir(exist_ok=True)
    content = {"flavors": flavors, "run_id": "3b64", "model_id": "m-1", **more}
    (directory / "MLmodel").write_text(yaml.safe_dump(content))
    return directory


def test_a_directory_of_mlflow_is_published_by_its_flavour(published, onnx: Path, tmp_path: Path) -> None:
    example = {"artefact": 1, "saved_input_example_info": {"artifact_path": "input_example.json", "type": "ndarray"}}
    directory = mlmodel(tmp_path / "logged", {"python_function": {}, "onnx": {"data": "model.onnx"}}, **example)
    shutil.copy(onnx, directory / "model.onnx")
    (directory / "input_example.json").write_text(json.dumps({"inputs": np.eye(4).tolist()}))
    done = published(directory)
    assert (done.report.rows, done.report.rows_from) == (4, "sample")
    assert told(done.place)["source"] == {
        "kind": "mlflow", "uri": str(directory), "run_id": "3b64", "model_id": "m-1", "flavour": "onnx"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flavors", "reason"),
    [
        ({"onnx": {"data": "../outside.onnx"}}, "lies outside its directory"),
        ({"onnx": {"data": "/etc/passwd"}}, "lies outside its directory"),
        ({"onnx": {"data": "gone.onnx"}}, "which is not there"),
        ({"onnx": {}}, "does not say where its model lies"),
        ({"sklearn": {"pickled_model": "model.pkl"}}, "is a pickle.*--trust"),
        ({"python_function": {"python_model": "x"}}, "no flavour that can be served: it has python_function"),
        ({"spark": {}}, "it has spark; expected onnx, pytorch"),
    ],
)
def test_what_mlmodel_says_is_not_trusted(published, tmp_path: Path, repository: Path, flavors, reason: str) -> None:
    directory = mlmodel(tmp_path / "logged", flavors)
    (tmp_path / "outside.onnx").write_bytes(b"")
    (directory / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(PublishError, match=reason):
        published(directory)
    assert not repository.exists()
    assert not Path("owned").exists()


def test_an_mlmodel_file_that_expands_is_refused(published, tmp_path: Path) -> None:
    (tmp_path / "logged").mkdir()
    bombs = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" if i else "a0: &a0 [x]" for i in range(12))
    (tmp_path / "logged" / "MLmodel").write_text(bombs)
    with pytest.raises(PublishError, match="aliases"):
        published(tmp_path / "logged")


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def test_a_snapshot_gives_its_onnx_file_and_its_revision(published, onnx: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--org--tiny"
    snapshot = cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    (snapshot / "onnx").mkdir(parents=True)
    (cache / "blobs").mkdir()
    shutil.copy(onnx, cache / "blobs" / "abc")
    (snapshot / "onnx" / "model.onnx").symlink_to(cache / "blobs" / "abc")
    (snapshot / "config.json").write_text("{}")
    done = published(snapshot)
    assert tree(done.place) == {"model.onnx"}
    assert told(done.place)["source"] == {
        "kind": "huggingface", "uri": "org/tiny", "hf_revision": snapshot.name, "file": "onnx/model.onnx"
    }  # fmt: skip
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot / "onnx" / "model.onnx").unlink()
    with pytest.raises(PublishError, match=r"holds weights.*--module"):
        published(snapshot)
    with pytest.raises(PublishError, match="it is not in"):
        published(snapshot, source=SourceOptions(file="../../blobs/abc"))


# -- TorchServe --------------------------------------------------------------------------------------------------------


def mar(path: Path, members: dict[str, bytes], **model: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "net", **model}}))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_handler_is_left_out_only_when_asked_for(published, onnx: Path, tmp_path: Path, repository: Path) -> None:
    members = {"net.onnx": onnx.read_bytes(), "handler.py": b"raise SystemExit"}
    path = mar(tmp_path / "net.mar", members, serializedFile="net.onnx", handler="handler.py:handle")
    with pytest.raises(PublishError, match=r"handler of its own \(handler\.py\).*--model-only"):
        published(path)
    assert not repository.exists()
    done = published(path, source=SourceOptions(model_only=True))
    assert tree(done.place) == {"model.onnx"}
    hidden = done.place / ".inferd"
    assert (hidden / "handler.py").read_bytes() == b"raise SystemExit"
    assert "def before" in (hidden / "steps.template.py").read_text()
    assert told(done.place)["source"]["kind"] == "torchserve"


@pytest.mark.parametrize(
    ("members", "model", "reason"),
    [
        ({"../../owned": b"x"}, {"serializedFile": "owned"}, "would leave its directory"),
        ({"/tmp/owned": b"x"}, {"serializedFile": "owned"}, "would leave its directory"),
        ({"zeros": bytes(64 << 20)}, {"serializedFile": "zeros"}, "would unpack to"),
        ({"a": b""}, {"serializedFile": "../../a"}, "a: expected a directory"),
        ({"a": b""}, {"serializedFile": "gone.pt"}, "which is not in it"),
        ({"a": b""}, {}, "holds no model of its own"),
        ({"w.pth": b"\x80\x02", "net.py": b"x"}, {"serializedFile": "w.pth", "modelFile": "net.py"}, "--trust"),
    ],
    ids=["parent", "absolute", "bomb", "manifest leads out", "missing", "nothing", "code"],
)
def test_hostile_archives_are_refused(published, tmp_path: Path, repository: Path, members, model, reason) -> None:
    path = mar(tmp_path / "net.mar", members, **model)
    before = tree(tmp_path)
    with pytest.raises(PublishError, match=reason):
        published(path)
    assert tree(tmp_path) == before
    assert not Path("/tmp/owned").exists()


def test_a_link_in_an_archive_is_no_link(published, tmp_path: Path) -> None:
    path = tmp_path / "net.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"serializedFile": "model.onnx"}}))
        link = zipfile.ZipInfo("model.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PublishError, match=r"model\.onnx is text \('/etc/passwd'\)"):
        published(path)


# -- DVC ---------------------------------------------------------------------------------------------------------------


DVC = r"""#!/bin/sh
printf "%s " "$@" > "$ASKED"
[ "$7" = v1 ] || { printf "ERROR: no \033[2Jrevision" >&2; exit 1; }
cp "$2/net.onnx" "$5"
"""


@pytest.fixture
def tracked(tmp_path: Path, onnx: Path) -> Path:
    """A file that DVC tracks, as dvc add leaves it."""
    path = tmp_path / "project" / "net.onnx"
    path.parent.mkdir()
    shutil.copy(onnx, path)
    md5 = hashlib.md5(onnx.read_bytes(), usedforsecurity=False).hexdigest()
    path.with_name("net.onnx.dvc").write_text(f"outs:\n- md5: {md5}\n  size: 1\n  hash: md5\n  path: net.onnx\n")
    subprocess.run(["git", "init", "-q", path.parent], check=True, timeout=30)
    return path


def test_a_tracked_file_is_taken_if_it_is_what_dvc_knows(published, tracked: Path) -> None:
    source = told(published(tracked).place)["source"]
    assert (source["kind"], source["uri"], len(source["dvc_md5"])) == ("dvc", "net.onnx", 32)
    tracked.write_bytes(tracked.read_bytes() + b"\0")
    with pytest.raises(PublishError, match=r"is not what net\.onnx\.dvc tells"):
        published(tracked)


def test_another_revision_is_asked_of_the_command(
    published, tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The place of the real command, which is tried by `make test-converters`: what it is asked, and how it fails.
    program = tmp_path / "bin" / "dvc"
    program.parent.mkdir()
    program.write_text(DVC)
    program.chmod(0o755)
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done = published(tracked, source=SourceOptions(revision="v1"))
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["get", str(tracked.parent), "net.onnx"]
    assert asked[5:] == ["--rev", "v1"]
    assert told(done.place)["source"]["uri"] == "net.onnx at v1"
    with pytest.raises(PublishError, match=r"dvc get fails: ERROR: no \\x1b\[2Jrevision"):
        published(tracked, source=SourceOptions(revision="v2"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PublishError, match="there is no dvc command: pip install dvc"):
        published(tracked, source=SourceOptions(revision="v1"))


# -- pickles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.joblib"])
def test_a_pickle_is_not_read_without_trust(published, tmp_path: Path, repository: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(PublishError, match=r"is a pickle.*--trust.*skops"):
        published(tmp_path / name)
    assert not repository.exists()
