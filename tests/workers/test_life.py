"""How a server with several workers starts and ends: signals while it starts, taken ports, a killed supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.group import GROUP, LONG, running, workers
from support.marked import prepare_model, publish
from support.server import INFERD, Served
from support.waiting import eventually

from inferd.server.config.schema import ServerConfig
from inferd.server.workers.supervisor import Supervisor

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish("onnx", prepare_model("onnx", tmp_path / "models", "m"), 1, marker=1)
    return tmp_path / "models"


def test_workers_die_with_their_supervisor(root: Path) -> None:
    server = Served(root, sets=GROUP, limit=LONG)
    server.__enter__()
    assert server.process is not None
    pids = workers(server)
    assert len(pids) == 2
    server.signal(signal.SIGKILL)
    server.process.wait()
    eventually(lambda: not any(map(running, pids)), "the workers are gone", limit=20)
    assert server.process.stdout is not None
    server.process.stdout.close()


def test_sigterm_while_workers_start(root: Path) -> None:
    server = Served(root, sets=GROUP)
    with (
        server.log.open("a") as log,
        subprocess.Popen(server.command, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        server.process = process  # type: ignore[assignment]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        found = eventually(lambda: children.read_text().split(), "a worker starts", server.tail)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, server.tail()
    assert not any(running(int(pid)) for pid in found)


def test_a_taken_port_is_reported_before_a_worker_starts(root: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        command = [
            str(INFERD), "serve", "--model-repository", str(root), "--listen", address, "--http", "127.0.0.1:0",
            "--set", "server.workers=2",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"inferd: cannot listen on {address}: address already in use\n"


def test_shared_memory_is_refused_with_several_workers() -> None:
    config = ServerConfig.model_validate({"server": {"workers": 2, "listen": "127.0.0.1:0", "shared_memory": "/"}})
    with pytest.raises(OSError, match=r"shared_memory: expected null while server\.workers is above 1"):
        Supervisor(config)


def test_sigterm_before_the_configuration_is_read(root: Path, tmp_path: Path) -> None:
    """The signal comes so early that the server does not know yet that it will have workers."""
    fifo = tmp_path / "config.yaml"
    os.mkfifo(fifo)
    server = Served(root, "--config", str(fifo), sets=GROUP)
    with (
        server.log.open("a") as log,
        subprocess.Popen(server.command, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):

        def reads() -> int | None:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return None

        try:
            with os.fdopen(eventually(reads, "the configuration is read", server.tail), "w") as config:
                process.send_signal(signal.SIGTERM)
                status = Path(f"/proc/{process.pid}/status")
                eventually(
                    lambda: "ShdPnd:\t0000000000000000" in status.read_text(), "the signal has come", server.tail
                )
                config.write("{}\n")
            assert process.wait(30) == 0, server.tail()
        finally:
            process.kill()
