"""Starting the compared servers, with real programs. Peers that need their own environment are not installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.models import write_mlp, write_pool
from benchmarks.peers import ALONE, drawn
from benchmarks.peers.catalogue import ECHO, catalogue
from benchmarks.peers.environments import NotInstalled, environment
from benchmarks.peers.in_process import InProcess, in_process
from benchmarks.peers.peer import NotStarted, Peer, answered, started
from benchmarks.peers.points import Work
from benchmarks.peers.programs.sessions import session


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_mlp(root / "tiny" / "1" / "model.onnx", 64, 1)
    write_pool(root / "image" / "1" / "model.onnx", (3, 8, 8))
    return root


def work(models: Path, name: str = "tiny", wrong: float = 0.0) -> Work:
    shape = (64,) if name == "tiny" else (3, 8, 8)
    x = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    y = session(models / name / "1" / "model.onnx").run(None, {"x": x})[0]
    return Work(name, name, x, y + np.float32(wrong))


@pytest.mark.parametrize("program", ["echo.py", "servicer.py"])
def test_a_peer_must_answer_rightly_before_it_is_measured(models: Path, tmp_path: Path, program: str) -> None:
    peer = Peer("it", program, echo=program == "echo.py")
    with peer.start(models, tmp_path) as running:
        for name in ("tiny", "image"):
            asked = work(models, name)
            answered(lambda asked=asked: asked.ask(peer, running))
            target = asked.target(peer, running, tmp_path)
            assert target.body.read_bytes()[5:] == asked.message
            assert target.answer == (len(asked.message) + 5 if peer.echo else asked.ask(peer, running))
        if not peer.echo:
            with pytest.raises(ValueError, match="expected"):
                work(models, wrong=1.0).ask(peer, running)
        pid = running.pid
    assert not psutil.pid_exists(pid)


def test_the_models_without_a_server_run_with_the_given_batch_size(models: Path, tmp_path: Path) -> None:
    with in_process(models, tmp_path) as process:
        runner = InProcess(process, "tiny")
        requests, first = runner.calibrate(8, 0.04)
        assert requests > 0
        assert runner.batch(8) in (1, 4, 8)
        assert runner.run(8, 1).requests % runner.batch(8) == 0
        assert first.rate > 0


def test_what_a_framework_prints_is_not_taken_for_the_address(tmp_path: Path) -> None:
    code = "print('W1123 no GPU'); print('serving 127.0.0.1:1', flush=True); import signal; signal.pause()"
    with started([sys.executable, "-c", code], dict(os.environ), tmp_path / "log") as (_, said):
        assert said == "127.0.0.1:1"


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    code = "import sys; print('hello'); sys.exit('no such library')"
    with (
        pytest.raises(NotStarted, match="no such library"),
        started([sys.executable, "-c", code], dict(os.environ), tmp_path / "log"),
    ):
        pass


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.peers import environments

    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("./not-there\n")
    with pytest.raises(NotInstalled, match="ERROR"):
        environment("absent", tmp_path / "requirements.txt")
    assert not (tmp_path / "absent" / ".stamp").exists()


def test_the_prototype_is_compared_only_when_it_is_given(tmp_path: Path) -> None:
    assert "prototype" not in [peer.name for peer in catalogue(None)]
    assert "prototype" in [peer.name for peer in catalogue(tmp_path / "it.py")]
    assert "Triton (C++)" in [peer.name for peer in catalogue(None, tmp_path / "start")]


def test_bars_much_longer_than_those_of_the_servers_are_left_out() -> None:
    heights = {"inferd": [10.0, None], ECHO: [19.0, 5.0], ALONE: [21.0, 1.0]}
    assert drawn(heights) == ["inferd", ECHO]
