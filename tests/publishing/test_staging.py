"""A version is published whole or not at all, wherever its publisher is killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from publishing.conftest import tree

from inferd.server.publishing import staging as staging_module
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.staging import Staging

# Publishes a file in a process of its own, which kills itself at the step whose number it is given.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from inferd.server.publishing.staging import Staging

root = Path(sys.argv[1])
os.fsync = lambda descriptor: None  # a killed process loses nothing that it has written
CHANGES = ("os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "shutil.rmtree")
stop = {"at": 0, "count": 0}

def step(event, arguments):
    if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY):
        stop["count"] += 1
        if stop["count"] == stop["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

def killed_at(repository, number):
    child = os.fork()
    if not child:
        stop["at"] = number
        sys.addaudithook(step)
        with Staging(repository, "m") as staging:
            (staging.version / "model.onnx").write_bytes(b"new")
            staging.publish()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def visible(path):
    found = (file.relative_to(path) for file in path.rglob("*"))
    return sorted(str(file) for file in found if not any(part.startswith(".") for part in file.parts))

for there in ("nothing", "an empty repository", "a version"):
    for number in range(1, 100):
        repository = root / there / str(number)
        if there != "nothing":
            repository.mkdir(parents=True)
        if there == "a version":
            (repository / "m" / "1").mkdir(parents=True)
            (repository / "m" / "model.yaml").write_text("backend: onnx")
        before = visible(repository)
        code = killed_at(repository, number)
        after = visible(repository)
        with Staging(repository, "m", 9) as staging:  # the next publisher removes what is left
            (staging.version / "model.onnx").write_bytes(b"9")
            staging.publish()
        left = sorted(set(os.listdir(repository)) - {"m"})
        print(json.dumps([there, code, before, after, left]))
        if not code:
            break
"""


def test_a_publisher_killed_at_any_step_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=True, timeout=100
    )
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tried) > 20
    assert [code for _, code, *_ in tried].count(0) == 3  # each case has come to its end
    for there, code, before, after, left in tried:
        new = "m/2" if there == "a version" else "m/1"
        whole = sorted({*before, "m", new, f"{new}/model.onnx"})
        assert code in (0, -signal.SIGKILL)
        assert after == whole if code == 0 else after in (before, whole)
        assert left == []


def test_a_living_publisher_is_left_alone(tmp_path: Path) -> None:
    with Staging(tmp_path, "m") as first:
        (first.version / "model.onnx").write_bytes(b"1")
        with Staging(tmp_path, "m") as second:
            (second.version / "model.onnx").write_bytes(b"2")
            assert second.publish() == tmp_path / "m" / "1"
        assert first.publish() == tmp_path / "m" / "2"
    assert (tmp_path / "m" / "2" / "model.onnx").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["m"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging_module, "sync", full)
    with pytest.raises(PublishError, match="No space left on device"), Staging(tmp_path / "new", "m") as staging:
        staging.publish()
    assert tree(tmp_path) == set()


def test_a_number_taken_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename
    rivals = iter([tmp_path / "m" / "1"])

    def rename(self: Path, target: Path) -> Path:
        for rival in rivals:
            rival.mkdir(parents=True)
            (rival / "model.onnx").write_bytes(b"the rival's")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with Staging(tmp_path, "m") as staging:
        (staging.version / "model.onnx").write_bytes(b"own")
        assert staging.publish() == tmp_path / "m" / "2"
    assert (tmp_path / "m" / "1" / "model.onnx").read_bytes() == b"the rival's"


def test_the_files_beside_the_versions_are_there_for_the_check(tmp_path: Path) -> None:
    (tmp_path / "m" / "7").mkdir(parents=True)
    (tmp_path / "m" / "model.yaml").write_text("backend: onnx\n")
    (tmp_path / "m" / "labels.txt").write_text("a\n")
    with Staging(tmp_path, "m") as staging:
        assert {p.name for p in (staging.root / "m").iterdir()} == {"8", "model.yaml", "labels.txt"}
        staging.publish()
    assert tree(tmp_path / "m") == {"7", "8", "model.yaml", "labels.txt"}
