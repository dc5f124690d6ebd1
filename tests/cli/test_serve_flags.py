"""`inferd serve` at its start: settings that it refuses, and the line that it prints when it is ready."""

from __future__ import annotations

import socket
import subprocess
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from support.server import INFERD

from inferd.backends.registry import Registry
from inferd.server.cli.errors import CommandError
from inferd.server.cli.main import build_parser
from inferd.server.cli.serve import configuration
from inferd.server.config.errors import ConfigError
from inferd.server.config.preload import check_preload
from inferd.server.config.schema import ServerConfig


def test_a_misspelt_backend_to_preload_is_refused() -> None:
    with pytest.raises(CommandError) as refused:
        configuration(build_parser().parse_args(["serve", "--set", "server.preload=[onnx, tensroflow]"]))
    assert refused.value.exit_code == 2
    assert str(refused.value) == (
        f"settings: server.preload[1]: expected one of {', '.join(sorted(Registry().names()))}, got 'tensroflow'; "
        "did you mean tensorflow?"
    )


def test_plug_ins_may_be_preloaded_too() -> None:
    known = Registry([EntryPoint("mine", "nowhere:Backend", "inferd.backends")]).names()
    check_preload(ServerConfig.model_validate({"server": {"preload": ["mine"]}}), known)
    with pytest.raises(ConfigError, match="expected one of mine, got 'onnx'"):
        check_preload(ServerConfig.model_validate({"server": {"preload": ["onnx"]}}), known)


def test_workers_have_a_flag() -> None:
    parse = build_parser().parse_args
    assert configuration(parse(["serve"])).server.workers == 1
    assert configuration(parse(["serve", "--workers", "3"])).server.workers == 3
    assert configuration(parse(["serve", "--workers", "3", "--set", "server.workers=2"])).server.workers == 3
    with pytest.raises(CommandError, match=r"server\.workers: expected .*, got 0") as refused:
        configuration(parse(["serve", "--workers", "0"]))
    assert refused.value.exit_code == 2


def serve(root: Path, state: Path) -> subprocess.Popen[str]:
    flags = ("--listen", "127.0.0.1:0", "--set", "server.http=[]")
    command = [str(INFERD), "serve", "--model-repository", str(root), "--state-dir", str(state), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_taken_port_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [str(INFERD), "serve", "--model-repository", str(tmp_path), "--listen", place]
        done = subprocess.run([*command, "--set", "server.http=[]"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"inferd: cannot listen on {place}: address already in use\n"


@pytest.mark.timeout(120)
def test_a_second_server_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    root, state = tmp_path / "models", tmp_path / "state"
    root.mkdir()
    with serve(root, state) as first:
        assert first.stdout is not None
        assert "; http off; 0 models" in first.stdout.readline()
        with serve(root, state) as second:
            out, err = second.communicate(timeout=60)
        assert (second.returncode, out) == (1, "")
        assert f"server.state_dir: {state} is in use by another server (process {first.pid}): each needs its own" in err
        first.kill()
    with serve(root, state) as third:
        assert third.stdout is not None
        assert "ready" in third.stdout.readline()
        third.terminate()
