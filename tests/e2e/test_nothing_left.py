"""Whatever is killed, nothing that it had on disk outlives the next start."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from support.marked import prepare_model, publish, write_version
from support.server import FAST, INFERD, Served
from support.waiting import eventually

from inferd.client import Client

pytestmark = pytest.mark.timeout(180)
ONE = {"x": np.zeros((1, 4), np.float32)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "m"), 1, marker=1)
    return root


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def settings(work: Path, *more: str) -> tuple[str, ...]:
    return (*FAST, f"server.work_dir={work}", *more)


def files(work: Path) -> list[str]:
    """The files, but for the note where a running server listens."""
    found = [path for path in work.rglob("*") if path.is_file() and path.name != "addresses.json"]
    return sorted(str(path.relative_to(work)) for path in found)


def directories(work: Path, start: str) -> list[Path]:
    return [path for path in work.rglob(f"{start}*") if path.is_dir()]


def kill(server: Served) -> None:
    assert server.process is not None
    children = psutil.Process(server.pid).children(recursive=True)
    server.signal(signal.SIGKILL)
    server.wait()
    psutil.wait_procs(children, timeout=60)


def test_uploads_of_a_killed_server_are_gone_after_the_next_start(models: Path, work: Path, tmp_path: Path) -> None:
    write_version("onnx", tmp_path / "made", 5.0)
    content = (tmp_path / "made" / "model.onnx").read_bytes()
    with Served(models, sets=settings(work, "admin.allow_upload=true")) as server:
        with triton.InferenceServerClient(server.address) as client:
            client.load_model("sent", config="{}", files={"file:1/model.onnx": content})
        assert [name for name in files(work) if name.endswith("model.onnx")]
        kill(server)
    assert [name for name in files(work) if name.endswith("model.onnx")], "nobody could remove it"
    with Served(models, sets=settings(work)):
        assert files(work) == []
    assert list(work.iterdir()) == []


def test_a_killed_worker_of_a_model_leaves_nothing(models: Path, work: Path) -> None:
    with Served(models, sets=settings(work, "isolation=process")) as server:
        (before,) = directories(work, "inferd-model-")
        (before / "copy").write_bytes(b"weights")
        for process in psutil.Process(server.pid).children():
            os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: not before.exists(), "the worker's files to go")
        with Client(server.address) as client:
            eventually(lambda: client.ready("m"), "the model to come back")
            assert client.predict("m", ONE)["y"][0, 0] == 1
        (after,) = directories(work, "inferd-model-")
        assert after != before
    assert list(work.iterdir()) == []


def test_a_killed_serving_process_leaves_nothing(models: Path, work: Path) -> None:
    with Served(models, sets=settings(work, "server.workers=2")) as server:
        before = directories(work, "inferd-worker-")
        assert len(before) == 2
        for directory in before:
            (directory / "copy").write_bytes(b"weights")
        victim = psutil.Process(server.pid).children()[0]
        victim.kill()
        eventually(lambda: sum(directory.exists() for directory in before) == 1, "the worker's files to go")
    assert list(work.iterdir()) == []


@pytest.mark.heavy
def test_copies_of_saved_models_are_gone_after_the_next_start(models: Path, work: Path) -> None:
    publish("tensorflow", prepare_model("tensorflow", models, "tf"), 1, marker=3)
    with Served(models, sets=settings(work)) as server:
        assert [name for name in files(work) if name.endswith("saved_model.pb")]
        kill(server)
    with Served(models, sets=settings(work, "repository.mode=explicit")):
        assert files(work) == []


def test_check_leaves_nothing(models: Path, work: Path) -> None:
    command = [str(INFERD), "check", "--model-repository", str(models), "--set", f"server.work_dir={work}"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_a_place_for_temporary_files_it_says_so_before_ready(models: Path, command: str) -> None:
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    done = subprocess.run(
        [str(INFERD), command, "--model-repository", str(models), *ports, "--set", "server.work_dir=/proc/none"],
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "ready" not in done.stdout
    assert "inferd: the directory for temporary files, /proc/none, cannot be used" in done.stderr
    assert "set server.work_dir to a writable directory" in done.stderr
    assert "Traceback" not in done.stderr
